//! Generators: the first token, the tokens after it, and what a JSON Schema costs.

use anyhow::Context;

use super::driver::{Ask, Driver};
use super::report::Rows;
use super::schemas;
use super::worker::{Generation, Route};
use crate::cli::bench::figures::median;

/// Tokens of the system text whose evaluation is measured, and kept.
const PREFIXES: [usize; 4] = [100, 200, 400, 800];
/// Tokens of a text whose speed is measured.
const TEXT_TOKENS: u32 = 128;
/// Tokens of an answer with and without a schema.
const SCHEMA_TOKENS: u32 = 64;
/// Enough for the five fields.
const EXTRACT_TOKENS: u32 = 200;
/// Enough for whatever the schemas of `--schemas` allow.
const VALID_TOKENS: u32 = 400;
/// Temperatures of the texts that are checked against their schemas.
const TEMPERATURES: [f32; 3] = [0.0, 0.7, 1.5];

const MESSAGE: &str =
    "Hello, I am Anna Berg (anna@example.org). Order AB-1234 of 2026-03-01 is broken, money back please!";

/// About so many tokens each.
const SENTENCES: [(&str, usize); 2] = [
    ("You sort messages of customers of a bicycle shop. ", 10),
    (
        "Read the message with care, find what the customer wants, and answer in one short sentence. Topics are orders, \
         repairs, refunds, parts and opening hours. Never promise a date that is not in the text. ",
        40,
    ),
];

pub(super) fn measure(driver: &mut Driver, rounds: usize, rows: &mut Rows) -> anyhow::Result<()> {
    // Not counted: what is touched first.
    driver.generate(Route::Plugin, ask("Hello.", 8))?;
    speed(driver, rounds, rows)?;
    first_token(driver, rounds, rows)?;
    schema_cost(driver, rounds, rows)?;
    extraction(driver, rounds, rows)
}

/// Greedy text after a short prompt that is kept.
fn speed(driver: &mut Driver, rounds: usize, rows: &mut Rows) -> anyhow::Result<()> {
    let routes = [Route::Service, Route::Plugin];
    let mut rates = [const { Vec::new() }; 2];
    for _ in 0..rounds {
        for (rates, route) in rates.iter_mut().zip(routes) {
            let run = driver.generate(route, ask("Tell me a long story about a lost bicycle.", TEXT_TOKENS))?;
            rates.push(run.rate());
        }
    }
    for (rates, route) in rates.into_iter().zip(routes) {
        rows.add(
            driver,
            Some(route),
            "text, after the first token",
            None,
            median(rates),
            "tokens/s",
        );
    }
    Ok(())
}

/// With nothing known of the prompt, and with its system text kept.
fn first_token(driver: &mut Driver, rounds: usize, rows: &mut Rows) -> anyhow::Result<()> {
    let mut number = 0;
    for tokens in PREFIXES {
        let (mut cold, mut kept, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            // Differs from its first token on, so that nothing is shared between rounds.
            number += 1;
            let system = system(number, tokens);
            let mut first = |prompt: &str| -> anyhow::Result<f64> {
                let request = Ask {
                    system: system.clone(),
                    ..ask(prompt, 2)
                };
                Ok(driver.generate(Route::Plugin, request)?.first_ms)
            };
            let (slow, fast) = (first("My chain broke.")?, first("Where is it?")?);
            cold.push(slow);
            kept.push(fast);
            ratios.push(slow / fast);
        }
        let route = Some(Route::Plugin);
        let mut add = |what: &str, values, unit| rows.add(driver, route, what, Some(tokens), median(values), unit);
        add("first token, cold", cold, "ms");
        add("first token, system text kept", kept, "ms");
        add("first token, cold / kept", ratios, "times");
    }
    Ok(())
}

fn system(number: usize, tokens: usize) -> String {
    let [(opening, opening_tokens), (sentence, sentence_tokens)] = SENTENCES;
    let sentences = tokens.saturating_sub(opening_tokens).div_ceil(sentence_tokens);
    format!("{number} {opening}{}", sentence.repeat(sentences))
}

/// Tokens a second on the same prompt, with and without a schema.
fn schema_cost(driver: &mut Driver, rounds: usize, rows: &mut Rows) -> anyhow::Result<()> {
    let prompt = format!("Write a JSON object about this message: {MESSAGE}");
    let (mut free, mut bound, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut rate = |schema: Option<&str>| -> anyhow::Result<f64> {
            let request = Ask {
                schema: schema.map(str::to_owned),
                ..ask(&prompt, SCHEMA_TOKENS)
            };
            Ok(driver.generate(Route::Plugin, request)?.rate())
        };
        let (without, with) = (rate(None)?, rate(Some(schemas::FIVE_FIELDS))?);
        free.push(without);
        bound.push(with);
        costs.push(100.0 * (1.0 - with / without));
    }
    let route = Some(Route::Plugin);
    rows.add(
        driver,
        route,
        "JSON about a message, no schema",
        None,
        median(free),
        "tokens/s",
    );
    rows.add(
        driver,
        route,
        "the same under a schema",
        None,
        median(bound),
        "tokens/s",
    );
    rows.add(driver, route, "what the schema costs", None, median(costs), "%");
    Ok(())
}

/// Five fields out of a message, the system text kept.
fn extraction(driver: &mut Driver, rounds: usize, rows: &mut Rows) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for round in 0..=rounds {
        let request = Ask {
            system: "You extract details from messages to a shop. Answer with JSON. ".to_owned() + SENTENCES[1].0,
            schema: Some(schemas::FIVE_FIELDS.to_owned()),
            ..ask(&format!("{MESSAGE} ({round})"), EXTRACT_TOKENS)
        };
        let run = driver.generate(Route::Plugin, request)?;
        // The first one evaluates the system text.
        if round > 0 {
            times.push(run.total_ms);
        }
    }
    let value = median(times) / 1e3;
    rows.add(
        driver,
        Some(Route::Plugin),
        "five fields of a message as JSON",
        None,
        value,
        "s",
    );
    Ok(())
}

/// Texts under many schemas, each parsed and validated. One that the limit of tokens cut says so, and is counted.
pub(super) fn validity(driver: &mut Driver, count: usize, rows: &mut Rows) -> anyhow::Result<()> {
    let schemas = schemas::all();
    let (mut valid, mut cut) = (0_u32, 0_u32);
    for index in 0..count {
        let schema = &schemas[index % schemas.len()];
        let request = Ask {
            temperature: TEMPERATURES[index / schemas.len() % TEMPERATURES.len()],
            seed: index as u64,
            schema: Some(schema.to_string()),
            ..ask(&format!("Fill in the form. {MESSAGE} ({index})"), VALID_TOKENS)
        };
        let Generation { text, cut: ended, .. } = driver.generate(Route::Service, request)?;
        if ended {
            cut += 1;
            continue;
        }
        let value = serde_json::from_str(&text).with_context(|| format!("not JSON under {schema}: {text}"))?;
        anyhow::ensure!(
            jsonschema::is_valid(schema, &value),
            "{value} is not valid for {schema}"
        );
        valid += 1;
    }
    let route = Some(Route::Service);
    rows.add(driver, route, "outputs asked for under schemas", None, count as f64, "");
    rows.add(driver, route, "parsed and valid", None, valid.into(), "");
    rows.add(
        driver,
        route,
        "cut by the limit of tokens, and said so",
        None,
        cut.into(),
        "",
    );
    Ok(())
}

fn ask(prompt: &str, max_tokens: u32) -> Ask {
    Ask {
        prompt: prompt.to_owned(),
        max_tokens,
        ..Ask::default()
    }
}
