//! A value as the text of a CSV cell.

use serde_json::Value;

/// What a spreadsheet takes for the start of a formula, or skips before one (OWASP, "CSV injection"), with the
/// full-width forms some of them accept.
const FORMULA_STARTS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// The cell's text before quoting: texts as they are, nothing for `null`, compact JSON for lists and objects.
pub(crate) fn text(value: Value, formula_guard: bool) -> String {
    let text = match value {
        Value::Null => return String::new(),
        // Numbers cannot be formulas.
        Value::Number(number) => return number.to_string(),
        Value::String(text) => text,
        other => other.to_string(),
    };
    if formula_guard { guarded(text) } else { text }
}

/// Puts an apostrophe before what a spreadsheet would run.
pub(crate) fn guarded(text: String) -> String {
    if text.starts_with(FORMULA_STARTS) && !is_number(&text) {
        format!("'{text}")
    } else {
        text
    }
}

/// Digits with at most one sign in front and one decimal separator inside.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut parts = digits.splitn(2, ['.', ',']);
    let whole = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.next().is_some_and(whole) && parts.next().is_none_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_would_be_a_formula_is_guarded() {
        for formula in [
            "=1+1",
            "+A1",
            "-A1",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            "-1-1",
            "+49 170 1",
            "-",
            "＝1",
        ] {
            assert_eq!(text(json!(formula), true), format!("'{formula}"));
            assert_eq!(text(json!(formula), false), formula);
        }
    }

    #[test]
    fn numbers_and_plain_texts_stay() {
        for plain in ["-5", "+5", "-5.25", "-5,25", "a=b", "", "7"] {
            assert_eq!(text(json!(plain), true), plain);
        }
        assert_eq!(text(json!(-5.5), true), "-5.5");
        assert_eq!(text(serde_json::from_str("1.10").unwrap(), true), "1.10");
    }
}
