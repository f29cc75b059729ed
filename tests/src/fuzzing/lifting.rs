//! Any bytes as the answer of a work function, for all four kinds.
//!
//! The first byte says the kind, the second the answer's address in steps of four; the others are the guest's memory from
//! address 0 on. Behind them stand zeros.

use std::sync::Arc;

use formwork_engine::{CallContext, Kind, Output, Plugin};
use formwork_guests::{Guest, words};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::host_calls::carrying;
use super::interpreter::DECODE;
use super::{EMPTY, check};
use crate::{Arena, call};

const KINDS: [Kind; 4] = [Kind::Validator, Kind::Classifier, Kind::Extractor, Kind::Exporter];

pub(super) async fn run(input: &[u8]) -> &'static str {
    static GUESTS: OnceCell<Vec<Arc<Plugin>>> = OnceCell::const_new();
    let [kind, rest @ ..] = input else { return EMPTY };
    if rest.is_empty() {
        return EMPTY;
    }
    let guests = GUESTS
        .get_or_init(|| async {
            let mut guests = Vec::new();
            for kind in KINDS {
                guests.push(Arena::shared().await.plugin(&guest(kind)).await);
            }
            guests
        })
        .await;
    let plugin = &guests[usize::from(*kind) % KINDS.len()];
    let submission = carrying(rest);
    let report = call(plugin, &submission, CallContext::default()).await;
    let end = check(&report, plugin.limits());
    if let Ok(output) = report.result {
        check_output(plugin.manifest().kind, &output, &submission.data);
    }
    end
}

/// What the contract promises of an answer that was accepted.
fn check_output(kind: Kind, output: &Output, data: &str) {
    let empty = Vec::new();
    let list = |name: &str| output.json[name].as_array().unwrap_or(&empty);
    match kind {
        Kind::Validator => {
            let errors = list("findings").iter().any(|finding| finding["severity"] == "error");
            assert_eq!(
                (output.rejected, &output.json["valid"]),
                (errors, &Value::from(!errors))
            );
        }
        Kind::Classifier => {
            for label in list("labels").iter().chain(list("scores")) {
                let score = label["score"].as_f64().expect("a score is a number");
                assert!((0.0..=1.0).contains(&score), "{score}");
            }
        }
        Kind::Extractor => {
            let data: Value = serde_json::from_str(data).expect("the submission is JSON");
            for field in list("fields") {
                let spans = field["spans"].as_array().expect("a field has spans");
                assert!(!spans.is_empty(), "{field}");
                for span in spans {
                    let text = data
                        .pointer(span["pointer"].as_str().unwrap_or("-"))
                        .and_then(Value::as_str);
                    let number = |name: &str| usize::try_from(span[name].as_u64().unwrap_or(0)).unwrap_or(0);
                    let letters = text.unwrap_or_default().chars();
                    let found: String = letters.skip(number("offset")).take(number("length")).collect();
                    assert_eq!(field["content"], found, "{span}");
                }
            }
        }
        Kind::Exporter => assert!(output.export.is_some()),
    }
}

fn guest(kind: Kind) -> Guest {
    let (id, length) = if kind == Kind::Exporter {
        ("(i32.load (local.get 0))", "(i32.load offset=4 (local.get 0))")
    } else {
        ("(local.get 0)", "(local.get 1)")
    };
    let (import, drop) = if kind == Kind::Exporter {
        (formwork_guests::imports::SINK, "(call $drop_sink (local.get 2))")
    } else {
        ("", "")
    };
    // The first byte is the address, so what is laid at 0 lies one further: all alignments are met.
    let work = format!(
        "(call $decode {id} {length}) {drop}
         (local.set 0 (i32.mul (i32.load8_u (i32.const 0)) (i32.const 4)))
         (memory.copy (i32.const 0) (i32.const 1) (i32.const 60000))
         (local.get 0)"
    );
    let grants = if kind == Kind::Exporter {
        json!({ "sink": "x" })
    } else {
        json!({})
    };
    Guest::new(kind)
        .import(import)
        .manifest(&json!({ "grants": grants }))
        .limits(&json!({ "output_kib": 64, "host_call_kib": 64, "cpu_ms": 500 }))
        .pages("3")
        .heap(128 << 10)
        .with(DECODE)
        .work(&work)
}

/// An input: kind, address, memory.
fn input(kind: u8, answer: &[u32], rest: &[u8]) -> Vec<u8> {
    [&[kind, 0][..], &words(answer), rest].concat()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let score = 0.5_f32.to_bits();
    let mut seeds = Vec::new();
    for kind in 0..4 {
        seeds.push(input(kind, &[0; 8], b""));
        // Errors: problems, a message.
        seeds.push(input(kind, &[1, 2, 16, 1, 40, 2, 42, 2, 44, 2], b"/acode"));
        seeds.push(input(kind, &[1, 4, 16, 4], b"text"));
        seeds.push(input(kind, &[0, 0, u32::MAX, u32::MAX, 8, 0x1000_0000, 4, 4], b"text"));
    }
    // A finding with a detail.
    seeds.push(input(
        0,
        &[0, 12, 1, 56, 2, 58, 2, 60, 2, 1, 48, 1, 62, 1, 63, 1],
        b"/ttecodmd1",
    ));
    // A label, a score, a detail.
    seeds.push(input(
        1,
        &[0, 28, 1, 28, 1, 40, 1, 56, 4, score, 56, 4, 60, 1],
        b"name1",
    ));
    // A field whose content stands in the text.
    let field = [96, 4, 100, 1, 101, 4, score, 80, 1, 96, 4, 0, 0];
    let spans = [105, 5, 0, 4];
    seeds.push(input(
        2,
        &[&[0, 28, 1, 0, 0, 0, 0][..], &field, &spans].concat(),
        b"name1good/text",
    ));
    seeds
}
