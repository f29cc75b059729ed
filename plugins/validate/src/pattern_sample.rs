//! A text that a regular expression matches.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Longest sample, bytes: a pattern may ask for a million repetitions.
const MAX_BYTES: usize = 256;

/// Repetitions written at most: each writes a byte, or nothing.
const MAX_REPETITIONS: u32 = MAX_BYTES as u32 + 1;

/// How much longer than it must be a sample is made.
const MORE_REPETITIONS: u32 = 16;

/// A text that `pattern` matches, as far as that can be told without searching; `None` for patterns with look-around or
/// back references, and for long samples.
pub(crate) fn matching(pattern: &str) -> Option<String> {
    let parsed = regex_syntax::Parser::new().parse(pattern).ok()?;
    let mut text = String::new();
    write(&parsed, &mut text)?;
    Some(text)
}

fn write(part: &Hir, text: &mut String) -> Option<()> {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.push_str(std::str::from_utf8(&literal.0).ok()?),
        HirKind::Class(Class::Unicode(class)) => text.push(class.ranges().first()?.start()),
        HirKind::Class(Class::Bytes(class)) => text.push(char::from(class.ranges().first()?.start())),
        HirKind::Repetition(repetition) => {
            // More often than it must be there, where it may: the states of longer answers are then known too.
            let times = repetition.min.saturating_add(MORE_REPETITIONS);
            for _ in 0..times.min(repetition.max.unwrap_or(times)).min(MAX_REPETITIONS) {
                write(&repetition.sub, text)?;
            }
        }
        HirKind::Capture(capture) => write(&capture.sub, text)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| write(part, text))?,
        HirKind::Alternation(parts) => write(parts.first()?, text)?,
    }
    (text.len() <= MAX_BYTES).then_some(())
}

#[cfg(test)]
mod tests {
    use super::matching;

    #[test]
    fn a_sample_fits_its_pattern() {
        assert_eq!(matching("^[0-9]{4}-[0-9]{3}$").as_deref(), Some("0000-000"));
        assert_eq!(matching("^(a|b)?c{2,4}$").as_deref(), Some("acccc"));
        assert_eq!(matching("^(?=x)"), None);
        assert_eq!(matching("a{1000000}"), None);
    }
}
