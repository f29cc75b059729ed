//! Files that are not what they seem, and compiled code that somebody touched.

use std::path::Path;

use formwork_engine::EngineOptions;
use formwork_guests::{Guest, package};
use formwork_tests::{Arena, echo};
use serde_json::json;

use crate::harness::refused;

#[tokio::test]
async fn what_is_no_component_is_refused() {
    let module = wat::parse_str("(module)").unwrap();
    let cases: [(&[u8], &str); 6] = [
        (b"", "not a WebAssembly component"),
        (b"hello", "not a WebAssembly component"),
        (b"\x7fELF\x02\x01\x01\0", "not a WebAssembly component"),
        (b"PK\x03\x04 a zip", "not a WebAssembly component"),
        (b"\0asm\x0d\0\x01", "not a WebAssembly component"),
        (&module, "core module"),
    ];
    for (bytes, expected) in cases {
        let error = refused(bytes.to_vec()).await;
        assert_eq!(error.code(), "plugin-manifest", "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// Machine code that an author brings would run without any sandbox.
#[tokio::test]
async fn precompiled_code_is_refused() {
    let component = Guest::validator().file();
    let compiler = wasmtime::Engine::default();
    let compiled = compiler.precompile_component(&component).unwrap();
    for bytes in [
        compiled.clone(),
        compiled[..compiled.len() / 2].to_vec(),
        compiler
            .precompile_module(&wat::parse_str("(module)").unwrap())
            .unwrap(),
    ] {
        let error = refused(bytes).await;
        assert_eq!(error.code(), "plugin-manifest", "{error}");
    }
    // A manifest behind it does not make it a component, and neither does a section inside one.
    let mut disguised = compiled.clone();
    disguised.extend(&component[8..]);
    assert_eq!(refused(disguised).await.code(), "plugin-manifest");
}

#[tokio::test]
async fn a_damaged_component_never_harms_the_host() {
    let arena = Arena::shared().await;
    let good = Guest::validator().file();
    for at in (8..good.len()).step_by(89) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        // Some bytes do not matter (names); none may crash the host.
        if let Ok(plugin) = arena.install(bytes).await {
            let _any_end =
                formwork_tests::call(&plugin, &formwork_tests::submission(&json!({})), Default::default()).await;
        }
    }
    for length in (0..good.len()).step_by(97) {
        refused(good[..length].to_vec()).await;
    }
    arena.serves().await;
}

/// What happened to a file.
type Damage = fn(&mut Vec<u8>);

fn overwrite(folder: &Path, damage: Damage) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += overwrite(&path, damage);
        } else {
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            files += 1;
        }
    }
    files
}

/// The folder belongs to the server alone; a full disk or a power cut can still leave half a file in it.
#[tokio::test]
async fn a_compile_cache_that_was_cut_or_emptied_is_compiled_again() {
    let folder = std::env::temp_dir().join(format!("formwork-hostile-cache-{}", std::process::id()));
    let options = || EngineOptions {
        slots: 4,
        cache_folder: Some(folder.clone()),
        ..EngineOptions::default()
    };
    Arena::new(options()).await.serves().await;
    let damages: [Damage; 4] = [
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.clear(),
        |bytes| bytes.fill(0x5a),
        |bytes| bytes.extend([0; 100]),
    ];
    for damage in damages {
        assert!(overwrite(&folder, damage) > 0, "nothing was cached");
        Arena::new(options()).await.serves().await;
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// What one engine compiled does not fit another configuration.
#[tokio::test]
async fn code_of_another_configuration_is_compiled_again() {
    let folder = std::env::temp_dir().join(format!("formwork-hostile-config-{}", std::process::id()));
    let mut options = EngineOptions {
        slots: 4,
        cache_folder: Some(folder.clone()),
        ..EngineOptions::default()
    };
    Arena::new(options.clone()).await.serves().await;
    options.caps.memory_bytes = 32 << 20;
    options.keep_resident_bytes = 0;
    Arena::new(options).await.serves().await;
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn the_same_file_is_the_same_plugin() {
    let arena = Arena::shared().await;
    let file = package(&echo().component(), &json!({ "name": "twice" }));
    let first = arena.install(file.clone()).await.unwrap();
    let second = arena.install(file).await.unwrap();
    assert_eq!(first.digest(), second.digest());
    arena.serves().await;
}
