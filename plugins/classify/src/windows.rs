//! Cuts a submission's texts into windows.
//!
//! **Problem.** One vector of a long message says what the whole is about and hides the one sentence that matters.
//! **Promise.** Every sentence, every pair of neighbours and, where the encoder can read it, the whole. **Cost.** About
//! twice as many encoder runs as sentences. **Rejected.** Windows of a fixed number of words: they cut the sentence that
//! decides.

use std::collections::HashSet;

use crate::limits;

/// The windows of the texts, without repetitions, the most complete ones last.
pub(crate) fn windows(texts: &[String]) -> Vec<String> {
    let mut sentences: Vec<String> = texts.iter().flat_map(|text| sentences(text)).collect();
    while sentences.len() > limits::MAX_SENTENCES {
        sentences = sentences.chunks(2).map(|pair| pair.join(" ")).collect();
    }
    let mut windows = sentences.clone();
    if sentences.len() > 2 {
        windows.extend(sentences.windows(2).map(|pair| pair.join(" ")));
    }
    let whole = sentences.join(" ");
    if sentences.len() > 1 && words(&whole) <= limits::MAX_WINDOW_WORDS {
        windows.push(whole);
    }
    let mut seen = HashSet::new();
    windows.retain(|window| seen.insert(window.clone()));
    windows
}

/// Sentences with their punctuation, blanks made plain; fragments are joined to a neighbour, endless ones are cut.
fn sentences(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut current: Vec<&str> = Vec::new();
    for line in text.lines() {
        for word in line.split_whitespace() {
            current.push(word);
            let bare = word.trim_end_matches(['"', '\'', ')', '”', '’', '»']);
            let ends = bare.ends_with(['.', '!', '?', '…', '。', '！', '？']);
            // `e.g.` and `Mr.` end in a dot too: too short to be the end of a sentence of their own.
            let abbreviated = bare.ends_with('.') && bare.trim_end_matches('.').chars().count() <= 2;
            if (ends && !abbreviated && current.len() >= limits::MIN_SENTENCE_WORDS)
                || current.len() >= limits::MAX_WINDOW_WORDS
            {
                found.push(current.join(" "));
                current.clear();
            }
        }
        if current.len() >= limits::MIN_SENTENCE_WORDS {
            found.push(current.join(" "));
            current.clear();
        }
    }
    if !current.is_empty() {
        match found.last_mut() {
            Some(last) if current.len() < limits::MIN_SENTENCE_WORDS && words(last) < limits::MAX_WINDOW_WORDS => {
                last.push(' ');
                last.push_str(&current.join(" "));
            }
            _ => found.push(current.join(" ")),
        }
    }
    found
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        windows(&[text.to_owned()])
    }

    #[test]
    fn a_single_sentence_is_one_window() {
        assert_eq!(of("  Where is\tmy parcel?  "), ["Where is my parcel?"]);
        assert_eq!(of("login"), ["login"]);
        assert!(of("   \n ").is_empty());
    }

    #[test]
    fn sentences_pairs_and_the_whole_are_windows() {
        let windows = of("I waited an hour. The clerk was rude!\nNobody said sorry. Bye");
        assert_eq!(
            windows,
            [
                "I waited an hour.",
                "The clerk was rude!",
                "Nobody said sorry. Bye",
                "I waited an hour. The clerk was rude!",
                "The clerk was rude! Nobody said sorry. Bye",
                "I waited an hour. The clerk was rude! Nobody said sorry. Bye",
            ]
        );
    }

    #[test]
    fn abbreviations_do_not_end_a_sentence() {
        assert_eq!(of("I met Mr. Wendt in the branch today").len(), 1);
    }

    #[test]
    fn a_long_text_stays_within_the_limits() {
        let windows = of(&"This is a sentence of seven words. ".repeat(3_000));
        assert!(windows.len() <= 2 * limits::MAX_SENTENCES);
        let windows = of(&"word ".repeat(10_000));
        assert!(windows.len() <= 2 * limits::MAX_SENTENCES + 1);
    }
}
