//! Compiles ggml's CPU backend once for each of [`VARIANTS`], from the files and with the flags that the binding's build of
//! llama.cpp used, into one static library each, and writes the list that `src/lib.rs` includes.
//!
//! Of each library only one function is visible, under a name of its own. Everything else is made local: a linker keeps one
//! copy of an inline function that two objects share, and must not keep the one with AVX-512 for the whole program. Both
//! that and the absence of code that runs before `main` are checked here, for whoever brings another version of llama.cpp.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

struct Variant {
    name: &'static str,
    flags: &'static str,
    /// What the flags let the compiler use, as `is_x86_feature_detected!` calls it.
    features: &'static [&'static [&'static str]],
}

const V3: &[&str] = &[
    "sse3",
    "ssse3",
    "sse4.1",
    "sse4.2",
    "cmpxchg16b",
    "popcnt",
    "avx",
    "avx2",
    "bmi1",
    "bmi2",
    "f16c",
    "fma",
    "lzcnt",
    "movbe",
];
const V4: &[&str] = &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"];

/// The best first: the first one that the CPU can run is taken. Names and features are upstream's (ggml/src/CMakeLists.txt).
/// Of its fourteen, those are left out that no line of ggml tells apart from one of these (VBMI), that are rare (AVX-512
/// without VNNI), and AMX, which cannot be tried here.
const VARIANTS: &[Variant] = &[
    Variant {
        name: "zen4",
        flags: "-march=x86-64-v4 -mavx512vbmi -mavx512vnni -mavx512bf16",
        features: &[V3, V4, &["avx512vbmi", "avx512vnni", "avx512bf16"]],
    },
    Variant {
        name: "cascadelake",
        flags: "-march=x86-64-v4 -mavx512vnni",
        features: &[V3, V4, &["avx512vnni"]],
    },
    Variant {
        name: "alderlake",
        flags: "-march=x86-64-v3 -mavxvnni",
        features: &[V3, &["avxvnni"]],
    },
    Variant {
        name: "haswell",
        flags: "-march=x86-64-v3",
        features: &[V3],
    },
];

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    for tool in ["LD", "OBJCOPY", "OBJDUMP", "NM", "AR"] {
        println!("cargo:rerun-if-env-changed={tool}");
    }
    let out = PathBuf::from(environment("OUT_DIR")?);
    let variants = if wanted()? { VARIANTS } else { &[] };
    // clippy has build scripts of its own, and links nothing.
    let linked = !std::env::var("RUSTC_WORKSPACE_WRAPPER").is_ok_and(|wrapper| wrapper.contains("clippy"));
    if linked && !variants.is_empty() {
        let commands = compile_commands()?;
        compile(variants, &commands, &out)?;
        for variant in variants {
            link(variant, commands.len(), &out)?;
            println!("cargo:rustc-link-lib=static=formwork_ggml_{}", variant.name);
        }
        println!("cargo:rustc-link-search=native={}", out.display());
    }
    std::fs::write(out.join("variants.rs"), list(variants)?)?;
    Ok(())
}

/// Whether this target has variants. A program for the CPU at hand has the best one built in.
fn wanted() -> Result<bool> {
    let is = |key: &str, value: &str| environment(&format!("CARGO_CFG_TARGET_{key}")).map(|is| is == value);
    let native = std::env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("target-cpu=native"));
    Ok(is("ARCH", "x86_64")? && is("OS", "linux")? && is("ENV", "gnu")? && !native)
}

/// The shell commands with which CMake compiled the binding's CPU backend.
fn compile_commands() -> Result<Vec<String>> {
    let file = Path::new(&environment("DEP_LLAMA_ROOT")?).join("build/compile_commands.json");
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    // CMake writes each member on a line of its own; a JSON parser would have to be compiled first.
    let commands: Vec<String> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix(r#""command": ""#)?.strip_suffix(r#"","#))
        .filter(|command| command.contains("ggml-cpu.dir"))
        .map(|command| command.replace(r#"\\"#, "\\").replace(r#"\""#, "\""))
        .collect();
    if commands.is_empty() {
        return Err(format!("{} compiles no CPU backend", file.display()).into());
    }
    Ok(commands)
}

/// As many compilers at a time as cargo allows jobs.
fn compile(variants: &[Variant], commands: &[String], out: &Path) -> Result<()> {
    let mut work = Vec::new();
    for variant in variants {
        std::fs::create_dir_all(out.join(variant.name))?;
        for (index, command) in commands.iter().enumerate() {
            work.push((format!("{command} {}", variant.flags), object(variant, index, out)));
        }
    }
    let work = Mutex::new(work.into_iter());
    let next = || work.lock().ok().and_then(|mut work| work.next());
    let compiler = || -> Result<()> {
        while let Some((command, object)) = next() {
            // A new row must not compile the others again: the sources of a released crate do not change.
            let done = object.with_extension("command");
            if std::fs::read_to_string(&done).is_ok_and(|made_by| made_by == command) {
                continue;
            }
            // The last of several `-march` and `-o` counts.
            let mut shell = Command::new("sh");
            shell
                .arg("-c")
                .arg(format!("{command} -o \"$OBJECT\""))
                .env("OBJECT", object);
            run(shell.current_dir(out))?;
            std::fs::write(done, command)?;
        }
        Ok(())
    };
    let jobs: usize = environment("NUM_JOBS")?.parse()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(compiler)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a compiler's thread panicked")?)
    })
}

/// One object of all a variant's objects, with one name that others see, as a library.
fn link(variant: &Variant, objects: usize, out: &Path) -> Result<()> {
    let joined = out.join(format!("{}-joined.o", variant.name));
    let closed = out.join(format!("formwork_ggml_{}.o", variant.name));
    let objects = (0..objects).map(|index| object(variant, index, out));
    run(tool("LD", "ld")
        .args(["-r", "--force-group-allocation", "-o"])
        .arg(&joined)
        .args(objects))?;
    // GNU's unique symbols (constants of inline functions) can be made local only after they were made weak.
    let unique = run(nm(&joined).arg("--defined-only"))?;
    let unique = unique.lines().filter(|line| line.contains(" u "));
    let weaken = unique
        .filter_map(|line| line.split(' ').next())
        .map(|name| format!("--weaken-symbol={name}"));
    run(tool("OBJCOPY", "objcopy").args(weaken).arg(&joined))?;
    let symbol = symbol(variant);
    run(tool("OBJCOPY", "objcopy")
        .arg(format!("--redefine-sym=ggml_backend_cpu_reg={symbol}"))
        .arg(format!("--keep-global-symbol={symbol}"))
        .args([&joined, &closed]))?;

    let symbols = run(nm(&closed).args(["--extern-only", "--defined-only"]))?;
    let visible: Vec<&str> = symbols.lines().filter_map(|line| line.split(' ').next()).collect();
    if visible != [symbol.as_str()] {
        return Err(format!("{} shows {visible:?}, not only {symbol}", variant.name).into());
    }
    let sections = run(tool("OBJDUMP", "objdump").arg("--section-headers").arg(&closed))?;
    if sections.contains(".init_array") || sections.contains(".ctors") {
        return Err(format!("{} has code that runs before main, on whatever CPU", variant.name).into());
    }
    let library = out.join(format!("libformwork_ggml_{}.a", variant.name));
    if library.exists() {
        std::fs::remove_file(&library)?;
    }
    run(tool("AR", "ar").arg("crs").args([&library, &closed]))?;
    Ok(())
}

/// The Rust text of the variants: a declaration and a row for each.
fn list(variants: &[Variant]) -> Result<String> {
    let mut text = String::new();
    if !variants.is_empty() {
        text.push_str("unsafe extern \"C\" {\n");
        for variant in variants {
            writeln!(
                text,
                "    fn {}() -> llama_cpp_sys_2::ggml_backend_reg_t;",
                symbol(variant)
            )?;
        }
        text.push_str("}\n");
    }
    text.push_str("static VARIANTS: &[Variant] = &[\n");
    for variant in variants {
        writeln!(
            text,
            "Variant {{ name: {:?}, backend: {}, features: || vec![",
            variant.name,
            symbol(variant)
        )?;
        for feature in variant.features.iter().copied().flatten() {
            writeln!(text, "({feature:?}, std::arch::is_x86_feature_detected!({feature:?})),")?;
        }
        text.push_str("] },\n");
    }
    text.push_str("];\n");
    Ok(text)
}

fn symbol(variant: &Variant) -> String {
    format!("formwork_ggml_{}_reg", variant.name)
}

fn object(variant: &Variant, index: usize, out: &Path) -> PathBuf {
    out.join(variant.name).join(format!("{index}.o"))
}

fn tool(variable: &str, name: &str) -> Command {
    Command::new(std::env::var_os(variable).unwrap_or_else(|| name.into()))
}

fn nm(object: &Path) -> Command {
    let mut nm = tool("NM", "nm");
    nm.arg("--format=posix").arg(object);
    nm
}

fn environment(name: &str) -> Result<String> {
    std::env::var(name).map_err(|error| format!("{name}: {error}").into())
}

/// What a command prints.
fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error} (Debian: binutils, g++)"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?} ended with {}: {said}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
