//! A fixed text with places for the submission's values.

use serde_json::Value;

/// Puts values in the place of `{/pointer}`; what is not there leaves nothing. Other braces stay as they are.
pub(crate) fn fill(text: &str, data: &Value) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("{/") {
        let Some(length) = rest[start..].find('}') else {
            break;
        };
        filled.push_str(&rest[..start]);
        match data.pointer(&rest[start + 1..start + length]) {
            Some(Value::String(value)) => filled.push_str(value),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => filled.push_str(&value.to_string()),
            _ => {}
        }
        rest = &rest[start + length + 1..];
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_take_the_place_of_their_pointers_once() {
        let data = json!({ "a": "{/b}", "b": "secret", "list": [1, true, null] });
        assert_eq!(
            fill("{/a} {/list/0} {/list/1} {/list/2}{/list}.", &data),
            "{/b} 1 true ."
        );
        assert_eq!(fill("{ {/open", &data), "{ {/open");
    }
}
