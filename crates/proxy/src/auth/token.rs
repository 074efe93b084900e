//! Parses the token in a request's headers, without validating it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jsonwebtoken::Algorithm;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::refusal::{Quoted, Refusal};

/// Size limit of the header `Authorization`, in bytes. A Keycloak token with hundreds of roles is smaller.
pub(super) const MAX_HEADER: usize = 16 * 1024;

/// The token of a request with exactly one header, the scheme `Bearer` in any case, and one token (RFC 6750 section 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let header = all.next().ok_or(Refusal::NoCredentials)?;
    if all.next().is_some() {
        return Err(Refusal::SeveralCredentials);
    }
    if header.len() > MAX_HEADER {
        return Err(Refusal::TooLong(MAX_HEADER));
    }
    let text = header.to_str().map_err(|_| Refusal::NotBearer)?;
    let (scheme, token) = text.split_once(' ').ok_or(Refusal::NotBearer)?;
    let token = token.trim_matches(' ');
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    if scheme.eq_ignore_ascii_case("Bearer") && is_token { Ok(token) } else { Err(Refusal::NotBearer) }
}

/// A parsed token.
#[derive(Debug)]
pub(super) struct Token<'a> {
    /// The whole token.
    pub(super) text: &'a str,
    /// The signed part: header and claims as sent.
    pub(super) signed: &'a str,
    /// The signature in base64url, not decoded.
    pub(super) signature: &'a str,
    /// `alg` of the header; one of [`ACCEPTED`].
    pub(super) algorithm: Algorithm,
    /// `kid` of the header.
    pub(super) key_id: Option<String>,
    /// The claims, not validated.
    pub(super) claims: Map<String, Value>,
}

impl<'a> Token<'a> {
    /// Parses a token. Ignores `typ`, `jku`, `jwk` and the like in its header: keys only come from the realm.
    pub(super) fn parse(text: &'a str) -> Result<Self, Refusal> {
        let parts = "it does not have three parts";
        let (signed, signature) = text.rsplit_once('.').ok_or(Refusal::NotAToken(parts))?;
        let (header, claims) = signed.split_once('.').ok_or(Refusal::NotAToken(parts))?;
        if claims.contains('.') {
            return Err(Refusal::NotAToken(parts));
        }
        let header = object(header, "its header is not a JSON object in base64url")?;
        if header.contains_key("crit") {
            return Err(Refusal::Critical);
        }
        let algorithm = match header.get("alg") {
            Some(Value::String(name)) => accepted(name).ok_or_else(|| Refusal::Algorithm(Quoted::new(name)))?,
            _ => return Err(Refusal::NotAToken("its header names no algorithm (`alg`)")),
        };
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(Refusal::NotAToken("its header's `kid` is not a string")),
        };
        let claims = object(claims, "its claims are not a JSON object in base64url")?;
        Ok(Self { text, signed, signature, algorithm, key_id, claims })
    }
}

/// Algorithms with public keys that the realm may use.
const ACCEPTED: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

fn accepted(name: &str) -> Option<Algorithm> {
    name.parse().ok().filter(|algorithm| ACCEPTED.contains(algorithm))
}

fn object(part: &str, complaint: &'static str) -> Result<Map<String, Value>, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::NotAToken(complaint))?;
    match serde_json::from_slice(&bytes) {
        Ok(Strict(Value::Object(object))) => Ok(object),
        _ => Err(Refusal::NotAToken(complaint)),
    }
}

/// JSON without duplicate member names, on whose meaning parsers disagree (RFC 7519 section 4).
pub(super) struct Strict(pub(super) Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(Value::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(Value::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(Value::from(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict(Value::from(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict(Value::from(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Strict, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(value)) = access.next_element()? {
            list.push(value);
        }
        Ok(Strict(Value::from(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Strict, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = access.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate member name"));
            }
        }
        Ok(Strict(Value::Object(object)))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn exactly_one_bearer_token_is_accepted() {
        let good: [&[u8]; 4] = [b"Bearer a.b.c", b"bearer a.b.c", b"BEARER a.b.c", b"Bearer   a.b.c "];
        for value in good {
            assert_eq!(bearer(&headers(&[value])), Ok("a.b.c"));
        }
        let bad: [&[u8]; 11] = [
            b"",
            b"Bearer",
            b"Bearer ",
            b"a.b.c",
            b"Token a.b.c",
            b"Basic YTpi",
            b"Bearer a.b.c d",
            b"Bearer a.b.c,Bearer d",
            b"Bearer\ta.b.c",
            b"Bearer a\xff",
            "Bearer ä.b.c".as_bytes(),
        ];
        for value in bad {
            assert_eq!(bearer(&headers(&[value])), Err(Refusal::NotBearer), "{}", value.escape_ascii());
        }
        assert_eq!(bearer(&HeaderMap::new()), Err(Refusal::NoCredentials));
        assert_eq!(bearer(&headers(&[b"Bearer a", b"Bearer a"])), Err(Refusal::SeveralCredentials));
    }

    #[test]
    fn the_size_limit_is_exact() {
        let text = format!("Bearer {}", "a".repeat(MAX_HEADER - 7));
        assert!(bearer(&headers(&[text.as_bytes()])).is_ok());
        assert_eq!(bearer(&headers(&[format!("{text}a").as_bytes()])), Err(Refusal::TooLong(MAX_HEADER)));
    }

    fn token(header: &str, claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn duplicate_members_are_refused_at_any_depth() {
        let header = r#"{"alg":"RS256"}"#;
        assert!(Token::parse(&token(header, r#"{"a":{"b":1},"c":{"b":1}}"#)).is_ok());
        for claims in
            [r#"{"exp":1,"exp":2}"#, r#"{"a":{"b":1,"b":1}}"#, r#"{"a":[{"b":1,"b":1}]}"#, r#"{"a":1,"\u0061":2}"#]
        {
            assert!(matches!(Token::parse(&token(header, claims)), Err(Refusal::NotAToken(_))), "{claims}");
        }
        assert!(Token::parse(&token(r#"{"alg":"none","alg":"RS256"}"#, "{}")).is_err());
    }

    #[test]
    fn other_algorithms_are_refused() {
        for name in ["none", "None", "", "HS256", "HS384", "HS512", "ES512", "ES256K", "rs256", "RSA-OAEP"] {
            let parsed = Token::parse(&token(&format!(r#"{{"alg":"{name}"}}"#), "{}")).unwrap_err();
            assert_eq!(parsed, Refusal::Algorithm(Quoted::new(name)));
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.append(AUTHORIZATION, value);
                let _ = bearer(&headers).map(Token::parse);
            }
        }

        #[test]
        fn no_text_panics(text in "[A-Za-z0-9_.=-]{0,200}") {
            prop_assert!(Token::parse(&text).is_err());
        }

        #[test]
        fn no_json_panics(header in r#"\{("alg":"[A-Z0-9]{4,5}"|"kid":[a-z0-9"]{1,5}|,|\{|\}){0,4}\}"#, claims in any::<Vec<u8>>()) {
            let text = format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
            let _ = Token::parse(&text);
        }
    }
}
