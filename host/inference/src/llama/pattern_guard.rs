//! Decides which `pattern`s may become part of a grammar.
//!
//! Problem: llama.cpp turns a regular expression into grammar text; `.` and negated classes let
//! quotes through and break the JSON, unknown escapes silently allow any string, groups can nest
//! repetitions. Promise: an anchored sequence of characters and classes with counted repetitions,
//! rewritten so that every atom is a class of explicit code points. Cost: no groups, no alternatives
//! (`anyOf` does that). Rejected: a full regex engine, for the three or four shapes that forms use.

use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

use crate::limits;

/// The rewritten pattern, and how many grammar rules it may cost.
pub(crate) fn admit(pattern: &str) -> Result<(String, u64), String> {
    if pattern.len() > limits::MAX_SCHEMA_PATTERN {
        return Err(format!("at most {} bytes are allowed", limits::MAX_SCHEMA_PATTERN));
    }
    let body = pattern
        .strip_prefix('^')
        .and_then(|rest| rest.strip_suffix('$'))
        .filter(|body| !body.ends_with('\\'))
        .ok_or("must start with ^ and end with $")?;
    let mut chars = body.chars().peekable();
    let mut rewritten = String::from("^");
    let mut cost = 0_u64;
    while let Some(first) = chars.next() {
        match first {
            '[' => class(&mut chars, &mut rewritten)?,
            '\\' => {
                let escaped = chars.next().ok_or("ends with a backslash")?;
                rewritten.push('[');
                if let Some(ranges) = shorthand(escaped) {
                    rewritten.push_str(ranges);
                } else {
                    code_point(literal(escaped, true)?, &mut rewritten);
                }
                rewritten.push(']');
            }
            plain => {
                rewritten.push('[');
                code_point(literal(plain, false)?, &mut rewritten);
                rewritten.push(']');
            }
        }
        cost += repetition(&mut chars, &mut rewritten)?;
    }
    if rewritten == "^" {
        return Err("must not be empty".to_owned());
    }
    rewritten.push('$');
    Ok((rewritten, cost))
}

fn class(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    if chars.peek() == Some(&'^') {
        return Err("negated classes are not supported".to_owned());
    }
    out.push('[');
    let mut members = 0;
    loop {
        let first = chars.next().ok_or("a class is not closed")?;
        if first == ']' {
            break;
        }
        members += 1;
        let low = match first {
            '\\' => {
                let escaped = chars.next().ok_or("ends with a backslash")?;
                if let Some(ranges) = shorthand(escaped) {
                    out.push_str(ranges);
                    continue;
                }
                member(escaped)?
            }
            plain => member(plain)?,
        };
        code_point(low, out);
        if chars.peek() != Some(&'-') {
            continue;
        }
        let mut ahead = chars.clone();
        ahead.next();
        match ahead.next() {
            None | Some(']') => {}
            Some('\\') => return Err("a range must not end with an escape".to_owned()),
            Some(high) => {
                let high = member(high)?;
                if high < low || (low..=high).any(|c| c == '"' || c == '\\') {
                    return Err(format!("the range {low}-{high} is empty or holds a quote or backslash"));
                }
                out.push('-');
                code_point(high, out);
                chars.next();
                chars.next();
            }
        }
    }
    if members == 0 {
        return Err("a class is empty".to_owned());
    }
    out.push(']');
    Ok(())
}

fn repetition(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<u64, String> {
    match chars.peek() {
        Some('?' | '*' | '+') => {
            out.extend(chars.next());
            if matches!(chars.peek(), Some('?' | '*' | '+' | '{')) {
                return Err("a repetition cannot be repeated".to_owned());
            }
            Ok(1)
        }
        Some('{') => {
            chars.next();
            let counts: String = chars.by_ref().take_while(|c| *c != '}').collect();
            let (low, high) = counts.split_once(',').unwrap_or((&counts, &counts));
            let number = |text: &str| -> Result<u64, String> {
                text.parse::<u64>()
                    .ok()
                    .filter(|count| *count <= limits::MAX_SCHEMA_REPETITION)
                    .ok_or_else(|| format!("{{{counts}}} must count 0 to {}", limits::MAX_SCHEMA_REPETITION))
            };
            let low = number(low)?;
            let high = if high.is_empty() { None } else { Some(number(high)?) };
            if high.is_some_and(|high| high < low || high == 0) {
                return Err(format!("{{{counts}}} repeats nothing"));
            }
            if matches!(chars.peek(), Some('?' | '*' | '+' | '{')) {
                return Err("a repetition cannot be repeated".to_owned());
            }
            match high {
                Some(high) => write!(out, "{{{low},{high}}}"),
                None => write!(out, "{{{low},}}"),
            }
            .map_err(|error| error.to_string())?;
            Ok(high.unwrap_or(low).max(1))
        }
        _ => Ok(1),
    }
}

fn shorthand(escaped: char) -> Option<&'static str> {
    match escaped {
        'd' => Some("0-9"),
        'w' => Some("0-9A-Za-z_"),
        _ => None,
    }
}

/// A character outside a class.
fn literal(c: char, escaped: bool) -> Result<char, String> {
    if escaped && (c.is_ascii_alphanumeric() || c == '"' || c == '\\') {
        return Err(format!("the escape \\{c} is not supported"));
    }
    if !escaped && "|.()]{}*+?^$".contains(c) {
        return Err(format!("{c} is not supported here (escape it, or use anyOf)"));
    }
    member(c)
}

/// A character that may stand unescaped in a JSON string.
fn member(c: char) -> Result<char, String> {
    if c == '"' || c == '\\' || c.is_control() {
        return Err(format!("{c:?} would have to be escaped in JSON"));
    }
    Ok(c)
}

fn code_point(c: char, out: &mut String) {
    if c.is_ascii_alphanumeric() {
        out.push(c);
    } else {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\U{:08X}", u32::from(c));
    }
}

#[cfg(test)]
mod tests {
    use super::admit;

    #[test]
    fn simple_patterns_are_rewritten_to_classes() {
        assert_eq!(
            admit(r"^\d{4}-\d{2}$").unwrap().0,
            r"^[0-9]{4,4}[\U0000002D][0-9]{2,2}$"
        );
        assert_eq!(admit("^[A-Z_]+x?$").unwrap().0, r"^[A-Z\U0000005F]+[x]?$");
    }

    #[test]
    fn what_could_break_the_json_or_explode_is_refused() {
        for pattern in [
            "abc",
            "^.*$",
            "^[^a]$",
            "^(a|b)$",
            "^(a+)+$",
            "^[ -~]$",
            "^a{1,100000}$",
            "^a**$",
            r"^\s$",
            "^\"$",
            "^$",
            "^[a$",
            r"^\\$",
            "^a{x}$",
            r"^a\$",
            "^[]$",
            "^a{0,0}$",
        ] {
            assert!(admit(pattern).is_err(), "{pattern}");
        }
    }
}
