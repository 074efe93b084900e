//! Extracts the reason from an error answer of Waldur.
//!
//! Error bodies have one of three forms: `{"detail": "…"}`, a list `["…"]`, or a map of fields `{"backend_id": ["…"]}`, whose
//! values may be nested lists and maps.

use serde_json::Value;

/// Maximum length of a reason in characters.
const MAX_LENGTH: usize = 300;
/// Maximum depth of nested lists and maps.
const MAX_DEPTH: usize = 6;

/// The reason in an error body as one line of text; `None` if there is none, for example in an HTML page.
///
/// A reason of more than 300 characters is cut after a whole word and ends with `…`. Control characters and characters that
/// change the text direction are escaped.
pub fn reason(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let detail = body.get("detail").filter(|detail| !detail.is_null()).unwrap_or(&body);
    let mut text = String::new();
    flatten(detail, MAX_DEPTH, &mut text);
    let text = cut(&text);
    (!text.is_empty()).then_some(text)
}

fn flatten(value: &Value, depth: usize, text: &mut String) {
    let Some(depth) = depth.checked_sub(1) else { return };
    match value {
        Value::String(string) => text.push_str(string),
        Value::Number(number) => text.push_str(&number.to_string()),
        Value::Array(list) => join(text, " ", list.iter().map(|one| (None, one)), depth),
        Value::Object(map) => join(text, "; ", map.iter().map(|(field, one)| (Some(field), one)), depth),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Appends values, each preceded by the name of its field, if it has one.
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

/// Collapses spaces, escapes unsafe characters, and cuts the text after a whole word.
fn cut(text: &str) -> String {
    let (mut line, mut length) = (String::new(), 0);
    // Line breaks are escaped instead, so that text after one does not look like a separate message.
    for word in text.split([' ', '\t']).filter(|word| !word.is_empty()) {
        let word: String = word.chars().map(escape).collect();
        let longer = length + usize::from(length > 0) + word.chars().count();
        if longer > MAX_LENGTH - 2 {
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

/// Escapes a character that could control a terminal.
fn escape(c: char) -> String {
    let is_unsafe =
        c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if is_unsafe { c.escape_default().to_string() } else { c.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_in_all_three_forms() {
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
    fn a_reason_is_one_escaped_line() {
        let body = serde_json::json!(["a\n\n0 to do, 0 held\u{1b}[2J\u{202e}"]).to_string();
        assert_eq!(reason(body.as_bytes()).unwrap(), r"a\n\n0 to do, 0 held\u{1b}[2J\u{202e}");
    }

    #[test]
    fn a_long_reason_is_cut_after_a_whole_word() {
        let body = serde_json::json!({"detail": "whole words only ".repeat(100)}).to_string();
        let text = reason(body.as_bytes()).unwrap();
        assert!((280..=MAX_LENGTH).contains(&text.chars().count()), "{text}");
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
