//! The realm's signing keys: which of a JWKS document are of use, which fits a token, and whether it signed it. Pure.
//!
//! The key says which algorithms it serves, the token's header only chooses among them: an RSA key with `alg` serves that
//! one; without, RS256, RS384, RS512, PS256, PS384 and PS512. P-256 serves ES256, P-384 ES384, Ed25519 EdDSA.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::refusal::Refusal;
use super::token::{Token, accepted};

const RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// The sizes of RSA moduli that are accepted, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The usable keys of one JWKS document.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    skipped: usize,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// Never empty.
    algorithms: Vec<Algorithm>,
    public: DecodingKey,
}

/// A usable key, as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySummary {
    /// `kid`.
    pub id: Option<String>,
    /// Names of the algorithms it serves, as in `alg`.
    pub algorithms: Vec<String>,
}

impl fmt::Display for KeySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id.as_deref().unwrap_or("without an id"), self.algorithms.join(" "))
    }
}

/// Why no key of a set vouches for a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// A newer set may have the key.
    UnknownKey,
    /// A newer set changes nothing.
    Refused(Refusal),
}

/// The members of a JWK that matter (RFC 7517, 7518, 8037).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a JWKS document; `None` when it has no list `keys`. Keys that are of no use are counted, not complained about.
    pub(super) fn read(document: &Value) -> Option<Self> {
        let all = document.get("keys")?.as_array()?;
        let keys: Vec<Key> = all.iter().filter_map(|jwk| Key::read(Jwk::deserialize(jwk).ok()?)).collect();
        Some(Self { skipped: all.len() - keys.len(), keys })
    }

    /// Whether one of the keys signed the token.
    pub(super) fn verify(&self, token: &Token<'_>) -> Result<(), Unfit> {
        let named: Vec<&Key> = match &token.key_id {
            Some(id) => self.keys.iter().filter(|key| key.id.as_ref() == Some(id)).collect(),
            None => self.keys.iter().filter(|key| key.algorithms.contains(&token.algorithm)).collect(),
        };
        if named.is_empty() {
            return Err(Unfit::UnknownKey);
        }
        if token.key_id.is_none() && named.len() > 1 {
            return Err(Unfit::Refused(Refusal::AmbiguousKey));
        }
        let mut fitting = named.into_iter().filter(|key| key.algorithms.contains(&token.algorithm)).peekable();
        if fitting.peek().is_none() {
            return Err(Unfit::Refused(Refusal::KeyAlgorithm));
        }
        let signed = fitting.any(|key| {
            let message = token.signed.as_bytes();
            // An error is a signature that is not base64url.
            jsonwebtoken::crypto::verify(token.signature, message, &key.public, token.algorithm).unwrap_or(false)
        });
        if signed { Ok(()) } else { Err(Unfit::Refused(Refusal::Signature)) }
    }

    pub(super) fn summary(&self) -> Vec<KeySummary> {
        let summary = |key: &Key| KeySummary {
            id: key.id.clone(),
            algorithms: key.algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect(),
        };
        self.keys.iter().map(summary).collect()
    }

    pub(super) fn skipped(&self) -> usize {
        self.skipped
    }
}

impl Key {
    fn read(jwk: Jwk) -> Option<Self> {
        let signs = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
            && jwk.key_ops.is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
        if !signs {
            return None;
        }
        let bytes = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
        let (served, public) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (bytes(jwk.n)?, bytes(jwk.e)?);
                let (n, e) = (without_zeros(&n), without_zeros(&e));
                // An exponent of 1 would make every text its own signature.
                if !RSA_BITS.contains(&bits(n)) || e.is_empty() || e == [1] {
                    return None;
                }
                (RSA.to_vec(), DecodingKey::from_rsa_raw_components(n, e))
            }
            ("EC", Some(curve)) => {
                let (algorithm, length) = match curve {
                    "P-256" => (Algorithm::ES256, 32),
                    "P-384" => (Algorithm::ES384, 48),
                    _ => return None,
                };
                let (x, y) = (bytes(jwk.x)?, bytes(jwk.y)?);
                if x.len() != length || y.len() != length {
                    return None;
                }
                // An uncompressed point (SEC 1, 2.3.3).
                (vec![algorithm], DecodingKey::from_ec_der(&[&[4], x.as_slice(), y.as_slice()].concat()))
            }
            ("OKP", Some("Ed25519")) => {
                let x = bytes(jwk.x)?;
                if x.len() != 32 {
                    return None;
                }
                (vec![Algorithm::EdDSA], DecodingKey::from_ed_der(&x))
            }
            _ => return None,
        };
        let algorithms = match jwk.alg {
            None => served,
            Some(name) => vec![accepted(&name).filter(|algorithm| served.contains(algorithm))?],
        };
        Some(Self { id: jwk.kid, algorithms, public })
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Length of a number without leading zeros.
fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rsa(bits: usize) -> Value {
        let mut n = vec![0xff; bits.div_ceil(8)];
        n[0] = 0xff >> (n.len() * 8 - bits);
        json!({"kty": "RSA", "kid": "a", "n": URL_SAFE_NO_PAD.encode(n), "e": "AQAB"})
    }

    fn with(mut key: Value, name: &str, value: impl Into<Value>) -> Value {
        key[name] = value.into();
        key
    }

    fn served(key: &Value) -> Vec<String> {
        let set = KeySet::read(&json!({"keys": [key]})).unwrap();
        assert_eq!(set.keys.len() + set.skipped, 1);
        set.summary().into_iter().flat_map(|key| key.algorithms).collect()
    }

    #[test]
    fn a_key_says_which_algorithms_it_serves() {
        let all_rsa = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
        let p256 = json!({"kty": "EC", "crv": "P-256", "x": "A".repeat(43), "y": "A".repeat(43)});
        let p384 = json!({"kty": "EC", "crv": "P-384", "x": "A".repeat(64), "y": "A".repeat(64)});
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": "A".repeat(43)});
        let table: Vec<(Value, &[&str])> = vec![
            (rsa(2048), &all_rsa),
            (rsa(8192), &all_rsa),
            (with(rsa(2048), "use", "sig"), &all_rsa),
            (with(rsa(2048), "key_ops", json!(["sign", "verify"])), &all_rsa),
            (with(rsa(2048), "alg", "PS384"), &["PS384"]),
            (p256.clone(), &["ES256"]),
            (with(p256.clone(), "alg", "ES256"), &["ES256"]),
            (p384.clone(), &["ES384"]),
            (ed.clone(), &["EdDSA"]),
            // Of no use.
            (rsa(2047), &[]),
            (rsa(1024), &[]),
            (rsa(8193), &[]),
            (with(rsa(2048), "e", "AQ"), &[]),
            (with(rsa(2048), "e", "AAE"), &[]),
            (with(rsa(2048), "e", ""), &[]),
            (with(rsa(2048), "n", ""), &[]),
            (with(rsa(2048), "n", "not base64!"), &[]),
            (with(rsa(2048), "n", 5), &[]),
            (with(rsa(2048), "use", "enc"), &[]),
            (with(rsa(2048), "use", "tls"), &[]),
            (with(rsa(2048), "key_ops", json!(["encrypt"])), &[]),
            (with(rsa(2048), "alg", "RSA-OAEP"), &[]),
            (with(rsa(2048), "alg", "HS256"), &[]),
            (with(rsa(2048), "alg", "ES256"), &[]),
            (with(rsa(2048), "alg", "none"), &[]),
            (with(p256.clone(), "alg", "ES384"), &[]),
            (with(p256.clone(), "crv", "P-384"), &[]),
            (with(p256, "crv", "P-521"), &[]),
            (with(p384.clone(), "x", "AA"), &[]),
            (with(p384, "y", "AA"), &[]),
            (with(ed.clone(), "crv", "Ed448"), &[]),
            (with(ed, "x", "AA"), &[]),
            (json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}), &[]),
            (json!({"kty": "quantum"}), &[]),
            (json!({}), &[]),
            (json!("key"), &[]),
            (json!(null), &[]),
        ];
        for (key, expected) in table {
            assert_eq!(served(&key), expected, "{key}");
        }
    }

    #[test]
    fn only_a_list_of_keys_is_a_key_set() {
        for document in [json!(null), json!([]), json!({}), json!({"keys": {}}), json!({"keys": "x"}), json!("keys")] {
            assert!(KeySet::read(&document).is_none(), "{document}");
        }
        assert!(KeySet::read(&json!({"keys": []})).is_some());
    }
}
