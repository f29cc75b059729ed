//! Values found in texts, through the real plugin and the real instruct model.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod with_models;

use std::sync::Arc;

use formwork_engine::Plugin;
use formwork_tests::test_data;
use serde_json::{Value, json};
use with_models::{Shared, check_spans, extract, generator, output, refusal, value, work};

async fn plugin() -> Arc<Plugin> {
    static SHARED: Shared = Shared::new();
    SHARED.plugin("extract", || vec![generator()]).await
}

fn one(kind: &str) -> Value {
    json!({ "fields": ["/m"], "entities": { "it": { "type": kind } } })
}

#[tokio::test]
async fn each_rule_finds_what_is_right_and_nothing_else() {
    let plugin = plugin().await;
    let eur = |amount: &str| json!({ "amount": amount, "currency": "EUR" });
    let cases: Vec<(&str, &str, Value)> = vec![
        (
            "email",
            "Write to Anna.Berg+shop@Mail.Example.org, please",
            json!("Anna.Berg+shop@mail.example.org"),
        ),
        ("email", "mail me (joe@example.com).", json!("joe@example.com")),
        ("email", "joe@example or joe@@example.com", Value::Null),
        ("email", "price is 5 @ 3.00", Value::Null),
        ("phone", "Call +44 (0)20 7946 0958 after six", json!("+442079460958")),
        ("phone", "My number is 0171-555 98 76.", json!("01715559876")),
        ("phone", "ring me: (212) 555-0142", json!("2125550142")),
        ("phone", "order 4711 0815 99 of 2026-03-14", Value::Null),
        ("phone", "my card is 4111 1111 1111 1111", Value::Null),
        ("phone", "from 192.168.10.20", Value::Null),
        ("date", "It happened on the 3rd of March 2025.", json!("2025-03-03")),
        ("date", "on 2025/12/24, in the evening", json!("2025-12-24")),
        ("date", "Dec 24, 2025", json!("2025-12-24")),
        ("date", "am 24.12.2025 um 18 Uhr", json!("2025-12-24")),
        ("date", "24.12.99", json!("1999-12-24")),
        ("date", "31/02/2025 or 2025-00-10", Value::Null),
        ("date", "yesterday, next Friday, in March", Value::Null),
        ("date", "version 3.12.20255 build 1.2.3.4", Value::Null),
        ("time", "at half past, say 19:45", json!("19:45")),
        ("time", "around 7 p.m. on Friday", json!("19:00")),
        ("time", "25:10 or 7.45", Value::Null),
        ("money", "they took 1.299,00 € from me", eur("1299.00")),
        ("money", "I paid EUR 1,299.5", eur("1299.50")),
        ("money", "12 euros", eur("12.00")),
        ("money", "twelve euros, or 12 apples", Value::Null),
        ("money", "€ and 5k€", Value::Null),
        (
            "iban",
            "IBAN: GB29 NWBK 6016 1331 9268 19.",
            json!("GB29NWBK60161331926819"),
        ),
        ("iban", "nl91abna0417164300", json!("NL91ABNA0417164300")),
        ("iban", "GB29 NWBK 6016 1331 9268 18", Value::Null),
        ("iban", "GB29NWBK6016133192681", Value::Null),
        ("card", "card 5555-5555-5555-4444 exp 12/27", json!("5555555555554444")),
        ("card", "3782 822463 10005", json!("378282246310005")),
        ("card", "5555 5555 5555 4445", Value::Null),
        ("card", "tracking 94001111899223334444555555554444", Value::Null),
        (
            "url",
            "See http://Example.com/Path?q=1.",
            json!("http://example.com/Path?q=1"),
        ),
        ("url", "example.com or www. nothing", Value::Null),
        ("ip", "blocked 203.0.113.7, why?", json!("203.0.113.7")),
        ("ip", "2001:db8:0:0::1", json!("2001:db8::1")),
        ("ip", "300.1.1.1 or 1.2.3", Value::Null),
        ("number", "about 1,250.75 kilos", json!(1250.75)),
        ("number", "A-1042", Value::Null),
        ("integer", "We are 14.", json!(14)),
        ("integer", "It weighs 2.5 kg", Value::Null),
        ("percentage", "only 12,5 % were refunded", json!(12.5)),
        ("percentage", "12 out of 100", Value::Null),
        ("postcode", "London NW1 6XE", json!("NW1 6XE")),
        ("postcode", "postcode 50667", json!("50667")),
        ("postcode", "about 50667 people", Value::Null),
    ];
    for (kind, message, expected) in &cases {
        let output = extract(&plugin, &one(kind), message).await;
        assert_eq!(value(&output, "it"), *expected, "{kind} in {message:?}: {output}");
        assert_eq!(
            output["missing"],
            if expected.is_null() { json!(["it"]) } else { json!([]) }
        );
    }
}

#[tokio::test]
async fn places_are_in_code_points_of_the_right_field() {
    let plugin = plugin().await;
    let settings =
        json!({ "fields": ["/subject", "/lines"], "entities": { "to": { "type": "email", "multiple": true } } });
    let data = json!({ "subject": "Größe 🙂 an é@ü.example", "lines": ["none", "x@y.example und x@y.example"] });
    let output = output(&plugin, &settings, &data).await;
    check_spans(&output, &data);
    let places: Vec<(&str, u64)> = output["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| {
            (
                field["spans"][0]["pointer"].as_str().unwrap(),
                field["spans"][0]["offset"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(places, [("/subject", 11), ("/lines/1", 0), ("/lines/1", 16)]);
}

#[tokio::test]
async fn cue_words_tell_values_of_one_type_apart() {
    let plugin = plugin().await;
    let settings = json!({ "fields": ["/m"], "entities": {
        "incident_date": { "type": "date" },
        "purchase_date": { "type": "date", "description": "when the customer bought it" },
        "refund": { "type": "money", "description": "the money they want back" },
        "price": { "type": "money", "description": "what it cost" },
        "guests": { "type": "integer", "description": "how many people" } } });
    let message = "We bought the tent on 2 May 2026, it cost 189 EUR. The accident happened on 14/06/2026. There were 4 people in it and 2 dogs. I \
                   want 150.00 EUR back.";
    let output = extract(&plugin, &settings, message).await;
    assert_eq!(value(&output, "purchase_date"), "2026-05-02", "{output}");
    assert_eq!(value(&output, "incident_date"), "2026-06-14");
    assert_eq!(
        value(&output, "price"),
        json!({ "amount": "189.00", "currency": "EUR" })
    );
    assert_eq!(
        value(&output, "refund"),
        json!({ "amount": "150.00", "currency": "EUR" })
    );
    assert_eq!(value(&output, "guests"), 4);
}

#[tokio::test]
async fn settings_change_how_ambiguous_values_are_read() {
    let plugin = plugin().await;
    let message = "Paid $20 on 03/04/2026, phone 030 901820";
    let entities = json!({ "day": { "type": "date" }, "sum": { "type": "money" }, "phone": { "type": "phone" } });
    let plain = extract(&plugin, &json!({ "entities": entities }), message).await;
    assert_eq!(value(&plain, "day"), "2026-04-03");
    let confidence = |output: &Value| output["fields"][0]["confidence"].as_f64().unwrap();
    assert!(confidence(&plain) < 0.7, "nobody said which order holds: {plain}");
    let entities = json!({ "day": { "type": "date" }, "sum": { "type": "money", "currency": "CAD" }, "phone": { "type": "phone" } });
    let told = extract(
        &plugin,
        &json!({ "entities": entities, "date_order": "mdy", "country": "DE" }),
        message,
    )
    .await;
    assert_eq!(value(&told, "day"), "2026-03-04");
    assert!(confidence(&told) > 0.8);
    assert_eq!(value(&told, "sum"), json!({ "amount": "20.00", "currency": "CAD" }));
    assert_eq!(value(&told, "phone"), "+4930901820");
    let strict = extract(
        &plugin,
        &json!({ "entities": { "day": { "type": "date" } }, "min_confidence": 0.9 }),
        message,
    )
    .await;
    assert_eq!(strict["missing"], json!(["day"]));
}

#[tokio::test]
async fn patterns_lists_and_codes_are_found_without_the_model() {
    let plugin = plugin().await;
    let settings = json!({ "fields": ["/m"], "entities": {
        "ticket": { "type": "string", "pattern": "TCK-([0-9]{4})" },
        "plan": { "type": "string", "enum": ["Basic", "Premium Plus"] },
        "order_number": { "type": "string", "description": "the order's number" },
        "serial": { "type": "string", "description": "the device's serial number", "examples": ["SN99-A"] } } });
    let message =
        "Ticket TCK-4711: my premium  plus plan. Order no. 88-1203 has serial SN42-X, bought in 2024 for 300 EUR";
    let report = work(&plugin, &settings, &json!({ "m": message })).await;
    let output = report.result.unwrap().json;
    assert_eq!(value(&output, "ticket"), "4711", "{output}");
    assert_eq!(value(&output, "plan"), "Premium Plus");
    assert_eq!(value(&output, "order_number"), "88-1203");
    assert_eq!(value(&output, "serial"), "SN42-X");
    assert!(report.models.is_empty(), "no model was needed");
    let none = extract(
        &plugin,
        &settings,
        "I called three times and nobody answered. TCK-47110",
    )
    .await;
    assert_eq!(
        none["missing"],
        json!(["ticket", "plan", "order_number", "serial"]),
        "{none}"
    );
}

#[tokio::test]
async fn empty_and_odd_texts_are_answered() {
    let plugin = plugin().await;
    let settings = json!({ "entities": { "who": { "type": "string", "description": "the person's name" }, "day": { "type": "date" }, "sum": { "type": "money" },
        "phone": { "type": "phone" }, "card": { "type": "card" }, "n": { "type": "number", "multiple": true }, "ip": { "type": "ip" }, "time": { "type": "time" } } });
    let long = "1 2 3-4.5,6 ".repeat(3_000);
    for text in [
        "",
        "  \n",
        "🙂🙂",
        "\u{0}",
        "€",
        "@@@",
        "-",
        "+",
        ".",
        "1",
        "é1é",
        "١٢٣",
        "a\u{301}1",
        "((((",
        "::::",
        long.as_str(),
        "€€5€€",
        "T1:2",
        "1'",
        "−5−",
    ] {
        let data = json!({ "m": text });
        let output = output(&plugin, &settings, &data).await;
        check_spans(&output, &data);
    }
    let empty = output(&plugin, &settings, &json!({})).await;
    assert_eq!(empty["missing"].as_array().map(Vec::len), Some(8));
    assert_eq!(empty["fields"], json!([]));
}

#[tokio::test]
async fn the_longest_text_stays_within_the_cpu_limit() {
    let plugin = plugin().await;
    let entities: serde_json::Map<String, Value> = [
        "email",
        "phone",
        "date",
        "time",
        "money",
        "iban",
        "card",
        "url",
        "ip",
        "number",
        "percentage",
        "postcode",
    ]
    .into_iter()
    .map(|kind| (kind.to_owned(), json!({ "type": kind, "multiple": true })))
    .collect();
    let settings = json!({ "entities": entities });
    let sentence =
        "On 14 March 2026 I paid €1,249.50 with 4111 1111 1111 1111, call +44 20 7946 0958 or a@b.example at 15:30. ";
    for repetitions in [1, 1_000] {
        let report = work(&plugin, &settings, &json!({ "m": sentence.repeat(repetitions) })).await;
        let output = report.result.unwrap().json;
        println!(
            "{} characters: {:?}",
            sentence.chars().count() * repetitions,
            report.usage
        );
        assert!(output["fields"].as_array().unwrap().len() >= 6);
    }
}

#[tokio::test]
async fn wrong_settings_are_refused_with_the_place() {
    let plugin = plugin().await;
    for (settings, pointer) in [
        (json!({}), ""),
        (json!({ "entities": {} }), "/entities"),
        (json!({ "entities": { "a": { "type": "colour" } } }), "/entities/a/type"),
        (
            json!({ "entities": { "a": { "type": "string", "pattern": "(" } } }),
            "/entities/a/pattern",
        ),
        (
            json!({ "entities": { "a": { "type": "string", "pattern": "(?<=x)y" } } }),
            "/entities/a/pattern",
        ),
        (
            json!({ "entities": { "a": { "type": "email", "enum": ["x"] } } }),
            "/entities/a/enum",
        ),
        (
            json!({ "entities": { "a": { "type": "date" } }, "fields": ["m"] }),
            "/fields/0",
        ),
        (
            json!({ "entities": { "a": { "type": "date" } }, "country": "Narnia" }),
            "/country",
        ),
        (
            json!({ "entities": { "a": { "type": "date", "order": "dmy" } } }),
            "/entities/a/order",
        ),
    ] {
        let error = refusal(&plugin, &settings).await;
        assert_eq!(
            (error.case, error.problems[0].pointer.as_str()),
            ("invalid-settings", pointer),
            "{settings}"
        );
    }
}

/// The rules on synthetic sentences with marked personal data. A rule must refuse what fails its check, so recall is counted
/// twice: over all marks, and precision over what was answered.
#[tokio::test]
async fn rules_are_precise_on_marked_texts() {
    let Some(folder) = test_data("pii") else { return };
    let plugin = plugin().await;
    let records: Value = serde_json::from_slice(&std::fs::read(folder.join("synth_dataset_v2.json")).unwrap()).unwrap();
    let kinds = [
        ("email", "EMAIL_ADDRESS", (0.99, 0.97)),
        ("phone", "PHONE_NUMBER", (0.95, 0.85)),
        ("card", "CREDIT_CARD", (0.99, 0.97)),
        ("iban", "IBAN_CODE", (0.99, 0.9)),
        ("date", "DATE_TIME", (0.95, 0.95)),
        ("ip", "IP_ADDRESS", (0.99, 0.9)),
        ("url", "DOMAIN_NAME", (0.9, 0.9)),
    ];
    let entities: serde_json::Map<String, Value> = kinds
        .iter()
        .map(|(kind, ..)| ((*kind).to_owned(), json!({ "type": kind, "multiple": true })))
        .collect();
    let settings = json!({ "fields": ["/m"], "entities": entities });
    let mut tallies = [(0, 0, 0); 7];
    for record in records.as_array().unwrap() {
        let text = record["full_text"].as_str().unwrap();
        let output = extract(&plugin, &settings, text).await;
        for (index, (kind, mark, _)) in kinds.iter().enumerate() {
            let mut marks: Vec<(u64, u64)> = record["spans"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|span| span["entity_type"] == *mark)
                // Years and weekdays are marked too; they are no days.
                .filter(|span| {
                    *kind != "date"
                        || span["entity_value"].as_str().unwrap().len() >= 8
                            && span["entity_value"]
                                .as_str()
                                .unwrap()
                                .contains(|c: char| c.is_ascii_digit())
                })
                .map(|span| {
                    (
                        span["start_position"].as_u64().unwrap(),
                        span["end_position"].as_u64().unwrap(),
                    )
                })
                .collect();
            tallies[index].2 += marks.len();
            for field in output["fields"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|field| field["name"] == *kind)
            {
                let span = &field["spans"][0];
                let start = span["offset"].as_u64().unwrap();
                let end = start + span["length"].as_u64().unwrap();
                // A day inside a marked moment (`1985-11-18 22:50:23`) is found.
                if let Some(at) = marks.iter().position(|(from, to)| start < *to && *from < end) {
                    marks.remove(at);
                    tallies[index].0 += 1;
                } else {
                    println!("{kind} not marked: {} in {text:?}", field["content"]);
                    tallies[index].1 += 1;
                }
            }
            {
                for (from, to) in marks {
                    let lost: String = text.chars().skip(from as usize).take((to - from) as usize).collect();
                    println!("{kind} lost: {lost:?} in {text:?}");
                }
            }
        }
    }
    for ((kind, _, floors), (hit, wrong, marked)) in kinds.iter().zip(tallies) {
        let precision = f64::from(hit) / f64::from((hit + wrong).max(1));
        let recall = f64::from(hit) / marked.max(1) as f64;
        println!("{kind}: precision {precision:.3} ({hit} right, {wrong} not marked), recall {recall:.3} of {marked}");
        assert!(precision >= floors.0 && recall >= floors.1, "{kind}");
    }
}
