//! Defence in depth: removes from a text whatever looks like a credential.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Regex, RegexSet};

/// Patterns of credentials, each with its replacement.
const PATTERNS: [(&str, &str); 5] = [
    // An `Authorization` scheme with its credential. Words in a sentence about tokens are shorter.
    (r"(?i)\b(bearer|token|basic)(\s+)[a-z0-9._~+/=-]{16,}", "$1$2[redacted]"),
    // A JSON Web Token.
    (r"\beyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)*", "[redacted]"),
    // A token of Waldur.
    (r"\b[0-9a-fA-F]{40}\b", "[redacted]"),
    // `client_secret=…`, `"access_token": "…"`.
    (r#"(?i)((?:token|secret|password)(?:=|["']\s?:\s?["']))[^\s"'&;,]+"#, "$1[redacted]"),
    // Credentials in a URL.
    (r"://[^/\s@]+@", "://[redacted]@"),
];

/// All patterns together, to find in one pass whether any matches, and each with its replacement.
struct Compiled {
    any: RegexSet,
    each: [(Regex, &'static str); PATTERNS.len()],
}

#[expect(clippy::expect_used, reason = "the patterns are constants, and tests use each one")]
static COMPILED: LazyLock<Compiled> = LazyLock::new(|| Compiled {
    any: RegexSet::new(PATTERNS.map(|(pattern, _)| pattern)).expect("valid patterns"),
    each: PATTERNS.map(|(pattern, with)| (Regex::new(pattern).expect("a valid pattern"), with)),
});

/// The text without anything that looks like a credential.
pub(crate) fn scrub(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    if !COMPILED.any.is_match(&text) {
        return text;
    }
    for (pattern, with) in &COMPILED.each {
        if let Cow::Owned(scrubbed) = pattern.replace_all(&text, *with) {
            text = Cow::Owned(scrubbed);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_removed() {
        let waldur = "0123456789abcdef0123456789abcdef01234567";
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl-_x";
        for (text, expected) in [
            (format!("Authorization: Token {waldur}"), "Authorization: Token [redacted]"),
            (format!("saw {waldur}, twice"), "saw [redacted], twice"),
            (format!("/api/x?access_token={jwt}&page=2"), "/api/x?access_token=[redacted]&page=2"),
            (format!("bad token {jwt}."), "bad token [redacted]"),
            (format!("({jwt})"), "([redacted])"),
            (String::from("Bearer b3BhcXVl+dG9r/ZW4=="), "Bearer [redacted]"),
            (String::from(r#"{"client_secret": "x", "b": 1}"#), r#"{"client_secret": "[redacted]", "b": 1}"#),
            (String::from("https://user:pass@host/x"), "https://[redacted]@host/x"),
        ] {
            assert_eq!(scrub(&text), expected);
        }
    }

    #[test]
    fn sentences_and_addresses_are_kept() {
        for text in [
            "Waldur refuses the token (401 Unauthorized); check WALDUR_API_TOKEN",
            "the token: the realm cannot be asked",
            "Waldur returned no usable answer to GET https://waldur.example.org/api/marketplace-provider-resources/",
            "/api/storage-resources/0f8fad5bd9cb469fa16570867728950e/?storage_system=capstor",
            "Bearer tokens only",
        ] {
            assert_eq!(scrub(text), text);
        }
    }
}
