//! Any sequence of host calls with any arguments, made by a real component on the real host functions.

use std::sync::Arc;

use formwork_engine::{CallContext, Plugin, SubmissionInput};
use serde_json::json;
use tokio::sync::OnceCell;

use super::check;
use super::interpreter::{OPERATIONS, guest};
use crate::{Arena, call, submission};

pub(super) async fn run(program: &[u8]) -> &'static str {
    static GUEST: OnceCell<Arc<Plugin>> = OnceCell::const_new();
    let plugin = GUEST
        .get_or_init(|| async { Arena::shared().await.plugin(&guest()).await })
        .await;
    let report = call(plugin, &carrying(program), CallContext::default()).await;
    check(&report, plugin.limits())
}

/// A submission whose id is these bytes in hexadecimal digits.
pub(super) fn carrying(bytes: &[u8]) -> SubmissionInput {
    SubmissionInput {
        id: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ..submission(&json!({ "text": "good ✓ words" }))
    }
}

/// A scratch address: its byte means address 4096.
const S: u8 = 128 + 64;

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new()];
    // Each operation with plain arguments, with an address for each, and with the largest numbers.
    for number in 0..OPERATIONS.len() {
        let number = u8::try_from(number).unwrap_or(0);
        seeds.push([&[number][..], &[1; 16]].concat());
        seeds.push([&[number][..], &[S; 16]].concat());
        seeds.push([&[number][..], &[0xff; 75]].concat());
    }
    // Conversations. Handles are numbered from 1, which is the sink's: log lines; standard output; a nap; a sleep;
    // handles without end; a storm; two writes to the sink; standard input; polling; much randomness.
    seeds.push([0, 2, 1, 4, 0, 0, 0, 2, 1, 4, S, 2].to_vec());
    seeds.push([17, 19, 2, S, 20, 2, 0, 8, S, 21, 2, 0, 8, S, 22, 2, 100, S].to_vec());
    seeds.push([13, 10, 14, 2, 16, 2, 13, 10, 14, 2].to_vec());
    seeds.push([13, 0xff, 0xff, 0xff, 0xff, 0x7f, 14, 2].to_vec());
    seeds.push([13, 1, 29, 0].to_vec());
    seeds.push([12, 1, 1, 2, 0, 0, 29, 1].to_vec());
    seeds.push([9, 0, 8, S, 9, 0, 8, S].to_vec());
    seeds.push([17, 18, 23, 2, 3, 100, S, 24, 3, 100, S].to_vec());
    seeds.push([13, 0, 27, 64, 2, 15, 64, 1, S].to_vec());
    seeds.push([11, 64, S, 11, 0xff, 0, 0, 1, 0, S].to_vec());
    seeds
}
