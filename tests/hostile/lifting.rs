//! Answers that lie: about their size, their place, their type, or the submission.

use std::time::{Duration, Instant};

use formwork_engine::{CallContext, CallError, Limit};
use formwork_guests::{Guest, text, words};
use serde_json::{Value, json};

use crate::harness::{Ended, attack, attack_with};

/// What a test guest may answer.
const OUTPUT_BYTES: u64 = 4 << 20;

/// Where the answers of this file stand.
const ANSWER: u32 = 16 << 10;
/// Where what they point to stands.
const PARTS: u32 = 20 << 10;
/// Where their texts stand.
const TEXTS: u32 = 24 << 10;

/// A guest whose work function answers what stands at [`ANSWER`].
fn answers(guest: Guest, answer: &[u32]) -> Guest {
    guest
        .heap(64 << 10)
        .pages("2")
        .data(ANSWER, &words(answer))
        .work(&format!("(i32.const {ANSWER})"))
}

/// A guest with 64 MiB, to make large answers of.
fn large(guest: Guest, answer: &[u32]) -> Guest {
    answers(guest, answer)
        .pages("1000")
        .heap(1000 * (64 << 10))
        .limits(&json!({ "memory_mib": 64, "cpu_ms": 2_000 }))
}

#[tokio::test]
async fn a_list_longer_than_the_memory_is_a_trap() {
    for (address, length) in [(0, 1 << 28), (0, u32::MAX), (0xffff_fff0, 2), (131_000, 100)] {
        let guest = answers(Guest::validator(), &[0, address, length]);
        assert!(
            matches!(attack(&guest).await.error(), CallError::Trap(_)),
            "{address} {length}"
        );
    }
}

#[tokio::test]
async fn a_giant_list_ends_at_the_output_limit() {
    let guest = large(Guest::validator(), &[0, 0, 1_500_000]);
    attack(&guest).await.limit(Limit::OutputBytes, OUTPUT_BYTES);
}

#[tokio::test]
async fn one_megabyte_read_a_thousand_times_over_ends_at_the_output_limit() {
    let strings: Vec<u32> = [2 << 20, 1 << 20].repeat(1_000);
    let guest = large(Guest::extractor(), &[0, 0, 0, PARTS, 1_000, 0, 0]).data(PARTS, &words(&strings));
    attack(&guest).await.limit(Limit::OutputBytes, OUTPUT_BYTES);
}

#[tokio::test]
async fn a_list_of_empty_strings_ends_at_the_output_limit() {
    // Eight bytes each in the guest, 24 in the host.
    let guest = large(Guest::extractor(), &[0, 0, 0, 1 << 20, 7_000_000, 0, 0]);
    attack(&guest).await.limit(Limit::OutputBytes, OUTPUT_BYTES);
}

#[tokio::test]
async fn a_result_outside_the_memory_is_a_trap() {
    for address in ["0x7fffff00", "-4", "131068"] {
        let guest = Guest::validator().pages("2").work(&format!("(i32.const {address})"));
        attack(&guest).await.traps("out of bounds");
    }
}

#[tokio::test]
async fn a_misaligned_result_or_list_is_a_trap() {
    attack(&Guest::validator().work("(i32.const 1025)"))
        .await
        .traps("not aligned");
    attack(&answers(Guest::validator(), &[0, 1025, 1]))
        .await
        .traps("not aligned");
}

#[tokio::test]
async fn texts_that_are_not_utf8_are_a_trap() {
    let bad: [&[u8]; 4] = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"];
    for bytes in bad {
        let length = u32::try_from(bytes.len()).unwrap();
        let missing = answers(Guest::extractor(), &[0, 0, 0, PARTS, 1, 0, 0])
            .data(PARTS, &words(&[TEXTS, length]))
            .data(TEXTS, bytes);
        attack(&missing).await.traps("utf-8");
        let error = answers(Guest::validator(), &[1, 4, TEXTS, length]).data(TEXTS, bytes);
        attack(&error).await.traps("utf-8");
    }
}

#[tokio::test]
async fn cases_that_do_not_exist_are_a_trap() {
    for answer in [[2, 0, 0, 0], [255, 0, 0, 0], [1, 5, 0, 0], [1, 255, 0, 0]] {
        attack(&answers(Guest::validator(), &answer))
            .await
            .traps("discriminant");
    }
    let severity = answers(Guest::validator(), &[0, PARTS, 1]).data(PARTS, &words(&[0, 0, 0, 0, 0, 0, 3, 0, 0]));
    attack(&severity).await.traps("discriminant");
}

#[tokio::test]
async fn a_huge_error_is_cut_to_what_can_be_recorded() {
    let length = 8 << 20;
    let fill = format!("(memory.fill (i32.const 1048576) (i32.const 120) (i32.const {length})) (i32.const {ANSWER})");
    let message = large(Guest::validator(), &[1, 4, 1 << 20, length]).work(&fill);
    let CallError::Plugin(error) = attack(&message).await.error() else {
        panic!("not the plugin's error");
    };
    assert_eq!(error.case, "internal");
    assert!(
        error.message.starts_with("xxx") && error.message.len() < 8 << 10,
        "{}",
        error.message.len()
    );

    // A hundred thousand problems.
    let problems = large(Guest::validator(), &[1, 2, 1 << 20, 100_000]);
    let CallError::Plugin(error) = attack(&problems).await.error() else {
        panic!("not the plugin's error");
    };
    assert_eq!(error.case, "invalid-input");
    assert!((1..=1_000).contains(&error.problems.len()), "{}", error.problems.len());
}

#[tokio::test]
async fn scores_that_are_no_probabilities_are_refused() {
    for score in [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        -0.1,
        1.1,
        f32::from_bits(0x7fa0_0001),
    ] {
        let label = words(&[0, 0, score.to_bits()]);
        for answer in [[0, PARTS, 1, 0, 0, 0, 0], [0, 0, 0, PARTS, 1, 0, 0]] {
            let guest = answers(Guest::classifier(), &answer).data(PARTS, &label);
            attack(&guest).await.bad_answer("no probability");
        }
        extracts(field(&[span("/text", 0, 4)], "good", score))
            .await
            .bad_answer("no probability");
    }
}

/// A span as (pointer, offset, length).
type Span<'a> = (&'a str, u32, u32);

fn span(pointer: &str, offset: u32, length: u32) -> Span<'_> {
    (pointer, offset, length)
}

/// An extractor that answers one field with these spans.
fn field(spans: &[Span<'_>], content: &str, confidence: f32) -> Guest {
    let spans_at = PARTS + 64;
    let content_at = TEXTS + 1024;
    let mut guest = Guest::extractor();
    let mut at = TEXTS;
    let mut records = Vec::new();
    for &(pointer, offset, length) in spans {
        records.extend(text(at, pointer));
        records.extend([offset, length]);
        guest = guest.data(at, pointer.as_bytes());
        at += u32::try_from(pointer.len()).unwrap();
    }
    let value = text(content_at + 512, "1");
    let content_words = text(content_at, content);
    let count = u32::try_from(spans.len()).unwrap();
    let field = [
        [0, 0],
        value,
        content_words,
        [confidence.to_bits(), spans_at],
        [count, 0],
        [0, 0],
        [0, 0],
    ]
    .concat();
    answers(guest, &[0, PARTS, 1, 0, 0, 0, 0])
        .data(PARTS, &words(&field[..13]))
        .data(spans_at, &words(&records))
        .data(content_at, content.as_bytes())
        .data(content_at + 512, b"1")
}

async fn extracts(guest: Guest) -> Ended<formwork_engine::Output> {
    let data = json!({ "text": "good ✓ words", "number": 4, "list": ["good"] });
    attack_with(&guest, &data, CallContext::default()).await
}

#[tokio::test]
async fn what_does_not_stand_in_the_submission_was_not_extracted() {
    for (spans, content, expected) in [
        (vec![], "good", "no span"),
        (vec![span("/text", 1, 4)], "good", "does not stand"),
        (vec![span("/text", 0, 3)], "good", "does not stand"),
        (vec![span("/text", 0, 0)], "", "does not stand"),
        (vec![span("/text", 12, 1)], "", "does not stand"),
        (vec![span("/text", u32::MAX, u32::MAX)], "good", "does not stand"),
        (vec![span("/text", 0, u32::MAX)], "good", "does not stand"),
        (vec![span("/number", 0, 1)], "4", "no string"),
        (vec![span("", 0, 4)], "good", "no string"),
        (vec![span("/list/00", 0, 4)], "good", "no string"),
        (vec![span("/nowhere", 0, 4)], "good", "no string"),
        (vec![span("/text", 0, 4), span("/text", 5, 4)], "good", "does not stand"),
    ] {
        extracts(field(&spans, content, 0.5)).await.bad_answer(expected);
    }
    let honest = [span("/text", 0, 4), span("/list/0", 0, 4)];
    extracts(field(&honest, "good", 0.5)).await.answer();
    // Offsets count code points, not bytes.
    extracts(field(&[span("/text", 5, 3)], "✓ w", 0.5)).await.answer();
}

/// Looking up each span from the text's beginning would take the host hours, on a thread that nothing can interrupt.
#[tokio::test]
async fn a_hundred_thousand_spans_in_a_megabyte_take_no_time() {
    const SPANS: u32 = 100_000;
    let record = words(&[TEXTS, 5, 999_999, 1]);
    let fill = format!(
        "(local $at i32)
         (loop $again
           (memory.copy (i32.add (i32.const 1048576) (local.get $at)) (i32.const {PARTS}) (i32.const 16))
           (local.set $at (i32.add (local.get $at) (i32.const 16)))
           (br_if $again (i32.lt_u (local.get $at) (i32.const {}))))
         (i32.const {ANSWER})",
        SPANS * 16
    );
    let field = [0, 0, TEXTS + 8, 1, TEXTS + 9, 1, 0, 1 << 20, SPANS, 0, 0, 0, 0];
    for letter in ["x", "é"] {
        let guest = large(Guest::extractor(), &[0, PARTS + 64, 1, 0, 0, 0, 0])
            .data(PARTS, &record)
            .data(PARTS + 64, &words(&field))
            .data(TEXTS, b"/text   1x")
            .work(&fill);
        let data = json!({ "text": letter.repeat(1_000_000) });
        let began = Instant::now();
        let ended = attack_with(&guest, &data, CallContext::default()).await;
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        let ended = ended.within(Duration::from_secs(10));
        match ended.error() {
            CallError::BadAnswer(_) | CallError::Limit(_) => {}
            other => panic!("{letter}: {other:?}"),
        }
    }
}

/// Each copy of the content is compared with the text: 100,000 times half a megabyte would be minutes.
#[tokio::test]
async fn long_contents_with_many_spans_are_refused() {
    const SPANS: u32 = 50_000;
    let fill = format!(
        "(local $n i32)
         (memory.fill (i32.const 8388608) (i32.const 120) (i32.const 500000))
         (loop $again
           (memory.copy (i32.add (i32.const 1048576) (i32.mul (local.get $n) (i32.const 16))) (i32.const {PARTS}) (i32.const 16))
           (i32.store (i32.add (i32.const 1048584) (i32.mul (local.get $n) (i32.const 16))) (local.get $n))
           (local.set $n (i32.add (local.get $n) (i32.const 1)))
           (br_if $again (i32.lt_u (local.get $n) (i32.const {SPANS}))))
         (i32.const {ANSWER})"
    );
    let field = [0, 0, TEXTS + 8, 1, 8 << 20, 500_000, 0, 1 << 20, SPANS, 0, 0, 0, 0];
    let guest = large(Guest::extractor(), &[0, PARTS + 64, 1, 0, 0, 0, 0])
        .data(PARTS, &words(&[TEXTS, 5, 0, 500_000]))
        .data(PARTS + 64, &words(&field))
        .data(TEXTS, b"/text   1")
        .work(&fill);
    let data = json!({ "text": "x".repeat(1_000_000) });
    attack_with(&guest, &data, CallContext::default())
        .await
        .within(Duration::from_secs(2))
        .bad_answer("spans");
}

/// A JSON text of small values takes the host up to forty times its size.
#[tokio::test]
async fn json_that_unfolds_into_memory_is_refused() {
    let before = peak_bytes();
    let fill = format!(
        "(local $at i32)
         (loop $again
           (i32.store16 (i32.add (i32.const 1048577) (local.get $at)) (i32.const 0x2c30))
           (local.set $at (i32.add (local.get $at) (i32.const 2)))
           (br_if $again (i32.lt_u (local.get $at) (i32.const 12000000))))
         (i32.store8 (i32.const 1048576) (i32.const 91))
         (i32.store16 (i32.const 13048577) (i32.const 0x5d30))
         (i32.const {ANSWER})"
    );
    // details: [("", "[0,0,0 … 0]")]
    let guest = large(Guest::classifier(), &[0, 0, 0, 0, 0, PARTS, 1])
        .data(PARTS, &words(&[0, 0, 1 << 20, 12_000_003]))
        .work(&fill);
    let error = attack(&guest).await.error();
    assert!(
        matches!(error, CallError::BadAnswer(_) | CallError::Limit(_)),
        "{error:?}"
    );
    let grown = peak_bytes().saturating_sub(before);
    assert!(grown < 200 << 20, "the host took {} MiB", grown >> 20);
}

/// The most memory this process has had.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn values_that_are_not_json_are_refused() {
    let deep = "[".repeat(100_000);
    for (bytes, expected) in [
        ("", "JSON"),
        ("{", "JSON"),
        ("1 2", "JSON"),
        ("NaN", "JSON"),
        (deep.as_str(), "JSON"),
    ] {
        let guest = large(Guest::classifier(), &[0, 0, 0, 0, 0, PARTS, 1])
            .data(PARTS, &words(&[TEXTS, 4]))
            .data(PARTS + 8, &words(&text(1 << 20, bytes)))
            .data(TEXTS, b"fact")
            .data(1 << 20, bytes.as_bytes());
        attack(&guest).await.bad_answer(expected);
    }
}

#[tokio::test]
async fn details_cannot_replace_what_the_contract_says() {
    let guest = answers(Guest::classifier(), &[0, 0, 0, 0, 0, PARTS, 1])
        .data(
            PARTS,
            &words(&[text(TEXTS, "label"), text(TEXTS + 16, "\"refund\"")].concat()),
        )
        .data(TEXTS, b"label")
        .data(TEXTS + 16, b"\"refund\"");
    let output = attack(&guest).await.answer();
    assert_eq!(output.json["label"], Value::from("none"));
}
