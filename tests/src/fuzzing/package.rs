//! Manifests and component files.
//!
//! The first byte says what the others are: a manifest's text, a file, a manifest to be put into a good component, or a
//! file to be installed.

use formwork_guests::{Guest, manifest};
use formwork_manifest::{Error, Manifest};
use serde_json::json;

use super::{EMPTY, OK, check};
use crate::{Arena, call, submission};

const TEXT: u8 = 0;
const FILE: u8 = 1;
const EMBEDDED: u8 = 2;
const INSTALLED: u8 = 3;
const WAYS: u8 = 4;

const REFUSED: &str = "refused";
const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

pub(super) async fn run(input: &[u8]) -> &'static str {
    let Some((way, bytes)) = input.split_first() else {
        return EMPTY;
    };
    match way % WAYS {
        TEXT => {
            let Ok(manifest) = Manifest::from_json(bytes) else {
                return REFUSED;
            };
            let again = Manifest::from_json(manifest.to_json().as_bytes());
            assert_eq!(again.expect("what was read can be written"), manifest);
            OK
        }
        FILE => {
            let Ok(manifest) = formwork_manifest::read(bytes) else {
                return REFUSED;
            };
            let twice = formwork_manifest::embed(bytes, &manifest);
            assert!(matches!(twice, Err(Error::Duplicate)), "{twice:?}");
            OK
        }
        EMBEDDED => {
            let Ok(manifest) = Manifest::from_json(bytes) else {
                return REFUSED;
            };
            let file = formwork_manifest::embed(EMPTY_COMPONENT, &manifest).expect("an empty component takes one");
            assert_eq!(formwork_manifest::read(&file).expect("it is there"), manifest);
            OK
        }
        _ => match Arena::shared().await.install(bytes.to_vec()).await {
            Ok(plugin) => check(
                &call(&plugin, &submission(&json!({})), Default::default()).await,
                plugin.limits(),
            ),
            Err(error) => error.code(),
        },
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let full = json!({
        "grants": { "embeddings": "a", "generation": "b", "tensors": "c", "sink": "d" },
        "limits": { "cpu_ms": 1, "wall_ms": 2, "memory_mib": 3, "output_kib": 4, "host_calls": 5, "host_call_kib": 6 },
        "settings_schema": { "type": "object" },
        "self_tests": [{ "name": "t", "form": { "schema": {}, "schemas": { "http://x": {} } }, "settings": null,
            "data": {}, "expect": { "error": { "case": "internal", "pointer": "/a" } } }]
    });
    let texts = [manifest(&json!({})).to_string(), manifest(&full).to_string()];
    let mut seeds = Vec::new();
    for text in texts {
        seeds.push([&[TEXT], text.as_bytes()].concat());
        seeds.push([&[EMBEDDED], text.as_bytes()].concat());
    }
    for guest in [Guest::validator(), Guest::exporter()] {
        seeds.push([&[FILE], guest.file().as_slice()].concat());
        seeds.push([&[INSTALLED], guest.file().as_slice()].concat());
    }
    let nested = "(component (core module) (component (core module)) (type (tuple u8 string)))";
    let nested = wat::parse_str(nested).expect("it is a component");
    seeds.push([&[FILE], nested.as_slice()].concat());
    seeds
}
