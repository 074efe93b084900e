//! The realm's signing keys: selects the usable keys of a JWKS document and verifies signatures with them. Pure.
//!
//! The key determines the accepted algorithms; the token's header only chooses among them. An RSA key with `alg` accepts that
//! one; without, RS256, RS384, RS512, PS256, PS384 and PS512. P-256 accepts ES256, P-384 ES384, Ed25519 EdDSA.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, EllipticCurveKeyParameters, Jwk, KeyOperations, OctetKeyPairParameters,
    PublicKeyUse, RSAKeyParameters,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::refusal::Refusal;
use super::token::Token;

const RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// Accepted sizes of RSA moduli, in bits.
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

/// Description of a usable key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySummary {
    /// `kid`.
    pub id: Option<String>,
    /// Names of the accepted algorithms, as in `alg`.
    pub algorithms: Vec<String>,
}

impl fmt::Display for KeySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id.as_deref().unwrap_or("without an id"), self.algorithms.join(" "))
    }
}

/// Why no key of a set verifies a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// A newer set may contain the key.
    UnknownKey,
    /// A newer set would not change the result.
    Refused(Refusal),
}

impl KeySet {
    /// Reads a JWKS document; `None` without a list `keys`. Unusable keys are counted as skipped.
    pub(super) fn read(document: &Value) -> Option<Self> {
        let all = document.get("keys")?.as_array()?;
        let keys: Vec<Key> = all.iter().filter_map(Key::read).collect();
        Some(Self { skipped: all.len() - keys.len(), keys })
    }

    /// Verifies that one of the keys signed the token.
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
            // An error means that the signature is not base64url.
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
    /// `None` for a key that cannot verify signatures or is not accepted.
    fn read(jwk: &Value) -> Option<Self> {
        let mut members = jwk.as_object()?.clone();
        // Certificates are not used, so invalid ones do not matter.
        members.retain(|name, _| !name.starts_with("x5"));
        let Jwk { common, algorithm } = serde_json::from_value(Value::Object(members)).ok()?;
        let signs = common.public_key_use.is_none_or(|usage| usage == PublicKeyUse::Signature)
            && common.key_operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        if !signs {
            return None;
        }
        let bytes = |text: String| URL_SAFE_NO_PAD.decode(text).ok();
        let (served, public) = match algorithm {
            AlgorithmParameters::RSA(RSAKeyParameters { n, e, .. }) => {
                let (n, e) = (bytes(n)?, bytes(e)?);
                let (n, e) = (without_zeros(&n), without_zeros(&e));
                // With an exponent of 1, every text is its own signature.
                if !RSA_BITS.contains(&bits(n)) || e.is_empty() || e == [1] {
                    return None;
                }
                (RSA.to_vec(), DecodingKey::from_rsa_raw_components(n, e))
            }
            AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters { curve, x, y, .. }) => {
                let (algorithm, length) = match curve {
                    EllipticCurve::P256 => (Algorithm::ES256, 32),
                    EllipticCurve::P384 => (Algorithm::ES384, 48),
                    _ => return None,
                };
                let (x, y) = (bytes(x)?, bytes(y)?);
                if x.len() != length || y.len() != length {
                    return None;
                }
                // An uncompressed point (SEC 1, 2.3.3).
                (vec![algorithm], DecodingKey::from_ec_der(&[&[4], x.as_slice(), y.as_slice()].concat()))
            }
            AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters { curve: EllipticCurve::Ed25519, x, .. }) => {
                let x = bytes(x)?;
                if x.len() != 32 {
                    return None;
                }
                (vec![Algorithm::EdDSA], DecodingKey::from_ed_der(&x))
            }
            _ => return None,
        };
        let algorithms = match common.key_algorithm {
            None => served,
            Some(name) => vec![Algorithm::try_from(name).ok().filter(|algorithm| served.contains(algorithm))?],
        };
        Some(Self { id: common.key_id, algorithms, public })
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Length in bits of a number without leading zeros.
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
    fn keys_determine_the_accepted_algorithms() {
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
            (with(rsa(2048), "x5c", "not a list"), &all_rsa),
            (with(rsa(2048), "kid", Value::Null), &all_rsa),
            (p256.clone(), &["ES256"]),
            (with(p256.clone(), "alg", "ES256"), &["ES256"]),
            (p384.clone(), &["ES384"]),
            (ed.clone(), &["EdDSA"]),
            // Unusable.
            (rsa(2047), &[]),
            (rsa(1024), &[]),
            (rsa(8193), &[]),
            (with(rsa(2048), "e", "AQ"), &[]),
            (with(rsa(2048), "e", "AAE"), &[]),
            (with(rsa(2048), "e", ""), &[]),
            (with(rsa(2048), "n", ""), &[]),
            (with(rsa(2048), "n", "not base64!"), &[]),
            (with(rsa(2048), "n", 5), &[]),
            (with(rsa(2048), "kid", 5), &[]),
            (with(rsa(2048), "use", 5), &[]),
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
    fn a_key_set_needs_a_list_of_keys() {
        for document in [json!(null), json!([]), json!({}), json!({"keys": {}}), json!({"keys": "x"}), json!("keys")] {
            assert!(KeySet::read(&document).is_none(), "{document}");
        }
        assert!(KeySet::read(&json!({"keys": []})).is_some());
    }
}
