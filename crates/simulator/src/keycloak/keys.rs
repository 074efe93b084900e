//! Signing keys, generated at start, so that no file contains a secret.

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

#[derive(Clone)]
pub(super) struct SigningKey {
    pub(super) kid: String,
    pub(super) algorithm: Algorithm,
    pub(super) private: EncodingKey,
    pub(super) jwk: Value,
}

impl SigningKey {
    /// Generates a key for this algorithm. A symmetric algorithm gets a random secret and no public part.
    pub(super) fn generate(algorithm: Algorithm) -> anyhow::Result<Self> {
        Self::with(algorithm, private_key(algorithm)?)
    }

    /// The first key of every realm in this process. It is generated once, because generating RSA keys is slow and no test
    /// needs different keys.
    pub(super) fn first() -> anyhow::Result<Self> {
        static FIRST: OnceLock<EncodingKey> = OnceLock::new();
        Self::with(Algorithm::RS256, shared(&FIRST)?)
    }

    /// A key for encryption, which must never be used to verify a signature.
    pub(super) fn encryption() -> anyhow::Result<Self> {
        static ENCRYPTION: OnceLock<EncodingKey> = OnceLock::new();
        let mut key = Self::with(Algorithm::RS256, shared(&ENCRYPTION)?)?;
        key.jwk["use"] = "enc".into();
        key.jwk["alg"] = "RSA-OAEP".into();
        Ok(key)
    }

    fn with(algorithm: Algorithm, private: EncodingKey) -> anyhow::Result<Self> {
        let kid = Uuid::new_v4().simple().to_string();
        let jwk = Jwk::from_encoding_key(&private, algorithm).context("cannot derive the public key")?;
        let mut jwk = serde_json::to_value(jwk)?;
        jwk["kid"] = kid.as_str().into();
        jwk["use"] = "sig".into();
        Ok(Self { kid, algorithm, private, jwk })
    }
}

/// A key of an unknown kind, which libraries must skip.
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
        let pair = EcdsaKeyPair::generate(curve).map_err(|_| anyhow!("cannot generate an elliptic curve key"))?;
        let der = pair.to_pkcs8v1().map_err(|_| anyhow!("cannot encode an elliptic curve key"))?;
        Ok(EncodingKey::from_ec_der(der.as_ref()))
    };
    match algorithm {
        Algorithm::ES256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::ES384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
        Algorithm::EdDSA => {
            let pair = Ed25519KeyPair::generate().map_err(|_| anyhow!("cannot generate an Ed25519 key"))?;
            let der = pair.to_pkcs8v1().map_err(|_| anyhow!("cannot encode an Ed25519 key"))?;
            Ok(EncodingKey::from_ed_der(der.as_ref()))
        }
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            Ok(EncodingKey::from_secret(Uuid::new_v4().as_bytes().repeat(4).as_slice()))
        }
        _ => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow!("cannot generate an RSA key"))?;
            let der = pair.as_der().map_err(|_| anyhow!("cannot encode an RSA key"))?;
            // PKCS#8 wraps the RSAPrivateKey, which is needed here, in 26 bytes: version, algorithm, octet string.
            let inner = der.as_ref().get(26..).context("the encoded RSA key is too short")?;
            Ok(EncodingKey::from_rsa_der(inner))
        }
    }
}
