//! Encoders: a text alone, and many together.

use super::driver::Driver;
use super::report::Rows;
use super::worker::Route;
use crate::cli::bench::figures::median;

/// Tokens of the text that is embedded alone.
const SINGLE_TOKENS: usize = 16;
/// Texts of one call.
const BATCHES: [usize; 4] = [1, 8, 32, 128];
/// Tokens of their texts.
const LENGTHS: [usize; 3] = [16, 64, 256];
/// Tokens of one call at the most: more is only longer.
const MOST_TOKENS: usize = 4_096;
/// Single texts of a round.
const SINGLES: usize = 100;
/// What BERT-like tokenizers put around a text.
const MARKS: usize = 2;

/// Words that are one token each in BERT's vocabulary.
const WORDS: [&str; 32] = [
    "order", "parcel", "number", "address", "broken", "money", "return", "please", "answer", "letter", "phone",
    "water", "house", "street", "doctor", "school", "garden", "window", "summer", "winter", "monday", "friday",
    "paper", "table", "friend", "family", "office", "market", "bridge", "river", "music", "train",
];

pub(super) fn measure(driver: &mut Driver, rounds: usize, rows: &mut Rows) -> anyhow::Result<()> {
    let mut texts = Texts::default();
    let routes = [Route::Service, Route::Plugin];
    // Not counted: caches are warm, as they are between calls of a busy server.
    for route in routes {
        driver.embed(route, texts.calls(20, 1, SINGLE_TOKENS))?;
    }
    let mut singles = [const { Vec::new() }; 2];
    for _ in 0..rounds {
        for (times, route) in singles.iter_mut().zip(routes) {
            times.extend(driver.embed(route, texts.calls(SINGLES, 1, SINGLE_TOKENS))?);
        }
    }
    for (mut times, route) in singles.into_iter().zip(routes) {
        times.sort_by(f64::total_cmp);
        for (what, percent) in [("one text, p50", 50), ("one text, p95", 95)] {
            let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
            let value = times.get(at).copied().unwrap_or(f64::NAN);
            rows.add(driver, Some(route), what, Some(SINGLE_TOKENS), value, "ms");
        }
    }
    for length in LENGTHS {
        for batch in BATCHES.into_iter().filter(|batch| batch * length <= MOST_TOKENS) {
            let mut rates = [const { Vec::new() }; 2];
            for _ in 0..rounds {
                for (rates, route) in rates.iter_mut().zip(routes) {
                    let calls = (MOST_TOKENS / 2 / (batch * length)).max(1);
                    let times = driver.embed(route, texts.calls(calls, batch, length))?;
                    rates.push((calls * batch) as f64 * 1e3 / times.iter().sum::<f64>());
                }
            }
            for (rates, route) in rates.into_iter().zip(routes) {
                let what = format!("texts of {length} tokens, so many a call");
                rows.add(driver, Some(route), &what, Some(batch), median(rates), "texts/s");
            }
        }
    }
    Ok(())
}

/// Texts of so many tokens, no two alike: the cache of results must not answer.
#[derive(Default)]
struct Texts(u64);

impl Texts {
    fn calls(&mut self, calls: usize, texts: usize, tokens: usize) -> Vec<Vec<String>> {
        (0..calls)
            .map(|_| (0..texts).map(|_| self.next(tokens)).collect())
            .collect()
    }

    fn next(&mut self, tokens: usize) -> String {
        // Written in words, a number makes each text another one; the rest follows from it.
        self.0 += 1;
        let mut left = self.0;
        let words = (0..tokens.saturating_sub(MARKS)).map(|index| {
            let word = (left as usize + index) % WORDS.len();
            left /= WORDS.len() as u64;
            WORDS[word]
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Texts;

    #[test]
    fn no_text_comes_twice() {
        let mut texts = Texts::default();
        let all: HashSet<String> = texts.calls(100, 100, 16).into_iter().flatten().collect();
        assert_eq!(all.len(), 10_000);
        assert!(all.iter().all(|text| text.split(' ').count() == 14));
    }
}
