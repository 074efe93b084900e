//! Signing keys, made when the realm starts: nothing secret is kept in a file.

use std::sync::OnceLock;

use anyhow::{Context, anyhow};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair,
};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use uuid::Uuid;

/// A key of a realm.
#[derive(Clone)]
pub(super) struct SigningKey {
    pub(super) kid: String,
    pub(super) algorithm: Algorithm,
    pub(super) private: EncodingKey,
    pub(super) jwk: Value,
}

impl SigningKey {
    /// A new key for this algorithm; a symmetric algorithm gets a random secret and no public part.
    pub(super) fn generate(algorithm: Algorithm) -> anyhow::Result<Self> {
        Self::with(algorithm, private_key(algorithm)?)
    }

    /// The key that realms of this process start with. Making RSA keys is slow, and nobody starts two realms to find
    /// that their keys differ.
    pub(super) fn first() -> anyhow::Result<Self> {
        static FIRST: OnceLock<EncodingKey> = OnceLock::new();
        Self::with(Algorithm::RS256, shared(&FIRST)?)
    }

    /// A key for encryption, which must never verify a signature.
    pub(super) fn encryption() -> anyhow::Result<Self> {
        static ENCRYPTION: OnceLock<EncodingKey> = OnceLock::new();
        let mut key = Self::with(Algorithm::RS256, shared(&ENCRYPTION)?)?;
        key.jwk["use"] = "enc".into();
        key.jwk["alg"] = "RSA-OAEP".into();
        Ok(key)
    }

    fn with(algorithm: Algorithm, private: EncodingKey) -> anyhow::Result<Self> {
        let kid = Uuid::new_v4().simple().to_string();
        let jwk = Jwk::from_encoding_key(&private, algorithm).context("the public part of a key")?;
        let mut jwk = serde_json::to_value(jwk)?;
        jwk["kid"] = kid.as_str().into();
        jwk["use"] = "sig".into();
        Ok(Self { kid, algorithm, private, jwk })
    }
}

/// A key of a kind that today's libraries do not know.
pub(super) fn unknown_jwk() -> Value {
    json!({ "kty": "AKP", "kid": "unknown-kind", "alg": "ML-DSA-65", "use": "sig", "pub": "c2ltdWxhdG9y" })
}

fn shared(place: &'static OnceLock<EncodingKey>) -> anyhow::Result<EncodingKey> {
    if let Some(key) = place.get() {
        return Ok(key.clone());
    }
    let key = private_key(Algorithm::RS256)?;
    Ok(place.get_or_init(|| key).clone())
}

fn private_key(algorithm: Algorithm) -> anyhow::Result<EncodingKey> {
    let ecdsa = |curve| -> anyhow::Result<EncodingKey> {
        let pair = EcdsaKeyPair::generate(curve).map_err(|_| anyhow!("no elliptic curve key could be made"))?;
        let der = pair.to_pkcs8v1().map_err(|_| anyhow!("an elliptic curve key could not be written"))?;
        Ok(EncodingKey::from_ec_der(der.as_ref()))
    };
    match algorithm {
        Algorithm::ES256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::ES384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
        Algorithm::EdDSA => {
            let pair = Ed25519KeyPair::generate().map_err(|_| anyhow!("no Ed25519 key could be made"))?;
            let der = pair.to_pkcs8v1().map_err(|_| anyhow!("an Ed25519 key could not be written"))?;
            Ok(EncodingKey::from_ed_der(der.as_ref()))
        }
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            Ok(EncodingKey::from_secret(Uuid::new_v4().as_bytes().repeat(4).as_slice()))
        }
        _ => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow!("no RSA key could be made"))?;
            let der = pair.as_der().map_err(|_| anyhow!("an RSA key could not be written"))?;
            // PKCS#8 wraps the RSAPrivateKey that is wanted here into 26 bytes: version, algorithm, octet string.
            let inner = der.as_ref().get(26..).context("an RSA key is longer than its wrapping")?;
            Ok(EncodingKey::from_rsa_der(inner))
        }
    }
}
