//! `Authorization` headers, one per line, for a realm whose private keys no longer exist: only tokens that it signed are
//! accepted, with any headers around them.

use std::sync::LazyLock;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use proxy::auth::fuzzing::{Admitted, Keys, authenticate};

const ISSUER: &str = "https://idp.example.org/auth/realms/cscs";
/// A time at which all of the realm's tokens are valid.
const NOW: i64 = 1_800_000_000;

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let keys = Keys::read(&crate::json(include_bytes!("realm.json"))).expect("a JWKS document");
    assert_eq!(keys.count(), 3);
    keys
});

/// Tokens signed by the realm, each with a key of a different type.
pub static TOKENS: [&str; 3] = [
    include_str!("../corpus/token/eddsa"),
    include_str!("../corpus/token/rs256"),
    include_str!("../corpus/token/es256"),
];

/// Authorizes a request with these headers.
pub fn check(data: &[u8]) {
    if let Some(admitted) = admitted(data) {
        assert_eq!(admitted.username, "jdoe");
        assert!(TOKENS.iter().any(|token| token.contains(&format!(" {}.", admitted.signed))), "{admitted:?}");
    }
}

/// The caller that these headers authenticate.
pub fn admitted(data: &[u8]) -> Option<Admitted> {
    let values = data.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    let headers: HeaderMap = values.map(|value| (AUTHORIZATION, value)).collect();
    authenticate(&headers, &KEYS, ISSUER, NOW)
}
