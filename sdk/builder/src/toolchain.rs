//! The two routes from Rust to WebAssembly.
//!
//! 1. The compiler in use has the standard library for `wasm32-wasip1` (`rustup target add wasm32-wasip1`).
//! 2. Where rustup cannot add a target: Debian's `rustc-web` with `rust-web-src`, `lld-22` and `wasi-libc`; cargo builds
//!    the standard library along.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// The target every guest is compiled for.
pub(crate) const TARGET: &str = "wasm32-wasip1";

/// Names an own compiler for route 2.
const COMPILER_VARIABLE: &str = "FORMWORK_GUEST_RUSTC";

const DEBIAN_COMPILER: &str = "/usr/bin/rustc";
const DEBIAN_LINKERS: [&str; 3] = ["wasm-ld-22", "wasm-ld-23", "wasm-ld"];
const DEBIAN_LIBC: [&str; 2] = ["/usr/lib/wasm32-wasi", "/usr/lib/wasm32-wasip1"];

/// How guests are compiled on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Toolchain {
    /// The compiler in use knows the target.
    Target,
    /// Another compiler builds the standard library from source.
    BuildStd {
        /// That compiler.
        compiler: PathBuf,
        /// A linker for WebAssembly.
        linker: PathBuf,
        /// The folder of the C library for WASI.
        libc: PathBuf,
    },
}

impl Toolchain {
    /// The route this machine offers.
    ///
    /// # Errors
    /// [`Error::NoToolchain`] saying what each route needs.
    pub fn detect() -> Result<Self, Error> {
        if sysroot(Path::new("rustc")).is_some_and(|root| root.join("lib/rustlib").join(TARGET).join("lib").is_dir()) {
            return Ok(Self::Target);
        }
        let mut missing = Vec::new();
        let compiler = std::env::var_os(COMPILER_VARIABLE).map_or_else(|| DEBIAN_COMPILER.into(), PathBuf::from);
        if !sysroot(&compiler).is_some_and(|root| root.join("lib/rustlib/src/rust/library/std").is_dir()) {
            missing.push("rustc-web with rust-web-src");
        }
        let linker = DEBIAN_LINKERS.iter().find_map(|name| in_path(name));
        if linker.is_none() {
            missing.push("lld-22");
        }
        let libc = DEBIAN_LIBC
            .iter()
            .map(PathBuf::from)
            .find(|folder| folder.join("crt1-reactor.o").is_file());
        if libc.is_none() {
            missing.push("wasi-libc");
        }
        match (linker, libc) {
            (Some(linker), Some(libc)) if missing.is_empty() => Ok(Self::BuildStd { compiler, linker, libc }),
            _ => Err(Error::NoToolchain {
                missing: missing.join(", "),
            }),
        }
    }

    /// Sets `cargo build` up for this route.
    pub(crate) fn configure(&self, cargo: &mut Command) {
        cargo.args(["--target", TARGET]);
        // Flags meant for the host's build must not reach the guest.
        cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        if let Self::BuildStd { compiler, linker, libc } = self {
            let flags = format!(
                "-C link-self-contained=no -C linker-flavor=wasm-ld -L native={libc} \
                 -C link-arg={libc}/crt1-reactor.o -C link-arg=--entry=_initialize",
                libc = libc.display()
            );
            cargo
                .args(["-Z", "build-std=std,panic_abort"])
                .env("RUSTC", compiler)
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_WASIP1_LINKER", linker)
                .env("CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS", flags);
        }
    }
}

fn sysroot(compiler: &Path) -> Option<PathBuf> {
    let output = Command::new(compiler).args(["--print", "sysroot"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
