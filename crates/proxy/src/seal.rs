//! Encrypts and authenticates values that leave this process, with keys derived from a secret that all replicas have.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

/// A secret from which keys are derived.
pub(crate) struct Secret(Prk);

struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

impl Secret {
    pub(crate) fn new(secret: &str) -> Self {
        Self(Salt::new(HKDF_SHA256, b"hpc-storage-proxy").extract(secret.as_bytes()))
    }

    /// Bytes for this purpose and context, from which the secret cannot be computed.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub(crate) fn derive<const LENGTH: usize>(
        &self,
        purpose: &str,
        context: &str,
    ) -> Result<[u8; LENGTH], Unspecified> {
        let mut bytes = [0; LENGTH];
        self.0.expand(&[purpose.as_bytes(), b" ", context.as_bytes()], Bytes(LENGTH))?.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// The key for this purpose and context.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub(crate) fn seal(&self, purpose: &str, context: &str) -> Result<Seal, Unspecified> {
        let key: [u8; 32] = self.derive(purpose, context)?;
        Ok(Seal(RandomizedNonceKey::new(&AES_256_GCM, &key)?))
    }
}

/// A key that encrypts and authenticates values.
pub(crate) struct Seal(RandomizedNonceKey);

impl Seal {
    /// Seals a value of this kind. `None` only if there is no randomness.
    pub(crate) fn close(&self, kind: &str, mut value: Vec<u8>) -> Option<Vec<u8>> {
        let nonce = self.0.seal_in_place_append_tag(Aad::from(kind), &mut value).ok()?;
        value.splice(..0, *nonce.as_ref());
        Some(value)
    }

    /// The value, if it was sealed as this kind with the same key.
    pub(crate) fn open(&self, kind: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let length = self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(kind), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}
