//! The reason that Waldur gives when it refuses a request.
//!
//! Error bodies come in three forms, and all of them hold the reason: `{"detail": "…"}`, a bare list `["…"]`, and a map
//! of fields `{"backend_id": ["…"]}`, whose values may be lists and maps again.

use serde_json::Value;

/// The longest reason, in characters.
const LONGEST: usize = 300;
/// How deep lists and maps are read.
const DEEPEST: usize = 6;

/// The reason in an error body as one line of text; `None` where the body gives none, an HTML page for example.
///
/// At most 300 characters: a longer reason ends after a whole word, with `…`. Control characters and characters that turn the
/// reading direction are escaped.
pub fn reason(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let told = body.get("detail").filter(|detail| !detail.is_null()).unwrap_or(&body);
    let mut text = String::new();
    flatten(told, DEEPEST, &mut text);
    let text = cut(&text);
    (!text.is_empty()).then_some(text)
}

fn flatten(value: &Value, depth: usize, text: &mut String) {
    let Some(depth) = depth.checked_sub(1) else { return };
    match value {
        Value::String(told) => text.push_str(told),
        Value::Number(told) => text.push_str(&told.to_string()),
        Value::Array(list) => join(text, " ", list.iter().map(|one| (None, one)), depth),
        Value::Object(map) => join(text, "; ", map.iter().map(|(field, told)| (Some(field), told)), depth),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Adds values, each after the name of its field, if it is one.
fn join<'a>(
    text: &mut String,
    between: &str,
    values: impl Iterator<Item = (Option<&'a String>, &'a Value)>,
    depth: usize,
) {
    let mut first = true;
    for (field, value) in values {
        let mut one = String::new();
        flatten(value, depth, &mut one);
        if one.trim().is_empty() {
            continue;
        }
        if !first {
            text.push_str(between);
        }
        first = false;
        if let Some(field) = field.filter(|field| *field != "non_field_errors") {
            text.push_str(field);
            text.push_str(": ");
        }
        text.push_str(&one);
    }
}

/// The text with single spaces and harmless characters, cut after a whole word.
fn cut(text: &str) -> String {
    let (mut line, mut length) = (String::new(), 0);
    // Line breaks are no spaces here: what stands on a line of its own must not look like one.
    for word in text.split([' ', '\t']).filter(|word| !word.is_empty()) {
        let word: String = word.chars().map(harmless).collect();
        let longer = length + usize::from(length > 0) + word.chars().count();
        if longer > LONGEST - 2 {
            line.push_str(if line.is_empty() { "…" } else { " …" });
            return line;
        }
        if length > 0 {
            line.push(' ');
        }
        line.push_str(&word);
        length = longer;
    }
    line
}

/// A character, escaped where it would steer a terminal.
fn harmless(c: char) -> String {
    let steers =
        c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if steers { c.escape_default().to_string() } else { c.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_hold_the_reason() {
        for (body, text) in [
            (r#"{"detail": "Valid states for operation: executing."}"#, Some("Valid states for operation: executing.")),
            (r#"["Project 'x' is expired."]"#, Some("Project 'x' is expired.")),
            (r#"{"backend_id": ["This ID is not unique."]}"#, Some("backend_id: This ID is not unique.")),
            (r#"{"usages": [{}, {"amount": ["Too long.", "Too odd."]}]}"#, Some("usages: amount: Too long. Too odd.")),
            (r#"{"a": ["b"], "non_field_errors": ["c"]}"#, Some("a: b; c")),
            (r#"{"detail": ["a", "b"]}"#, Some("a b")),
            (r#"{"detail": null, "error": "a"}"#, Some("error: a")),
            (r#""a""#, Some("a")),
            (r#"{"detail": ""}"#, None),
            ("[]", None),
            ("{}", None),
            ("", None),
            ("<html>maintenance</html>", None),
        ] {
            assert_eq!(reason(body.as_bytes()).as_deref(), text, "{body}");
        }
    }

    #[test]
    fn a_reason_is_one_harmless_line() {
        let body = serde_json::json!(["a\n\n0 to do, 0 held\u{1b}[2J\u{202e}"]).to_string();
        assert_eq!(reason(body.as_bytes()).unwrap(), r"a\n\n0 to do, 0 held\u{1b}[2J\u{202e}");
    }

    #[test]
    fn a_long_reason_ends_after_a_whole_word() {
        let body = serde_json::json!({"detail": "whole words only ".repeat(100)}).to_string();
        let text = reason(body.as_bytes()).unwrap();
        assert!((280..=LONGEST).contains(&text.chars().count()), "{text}");
        let words = text.strip_suffix(" …").unwrap();
        assert!(words.split(' ').all(|word| ["whole", "words", "only"].contains(&word)), "{text}");
        assert_eq!(reason(serde_json::json!(["x".repeat(5000)]).to_string().as_bytes()).unwrap(), "…");
    }

    #[test]
    fn depth_is_bounded() {
        let body = format!("{}\"deep\"{}", "[".repeat(100), "]".repeat(100));
        assert_eq!(reason(body.as_bytes()), None);
    }
}
