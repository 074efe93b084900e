//! Encrypts and authenticates shared values with a key derived from Waldur's token, so that others with access to the server
//! can neither read nor forge a catalogue. Values are authenticated before they are parsed.

use std::io::{self, Read};

use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::error::Unspecified;
use secrecy::ExposeSecret;

use crate::config::Settings;
use crate::seal::{self, Secret};
use crate::snapshot::FORMAT;
use crate::source;

/// Size limit of a value, in bytes, uncompressed.
const MAX_VALUE: u64 = 1 << 30;
/// Compression level of zstd. Higher levels take longer than the network needs for what they save.
const LEVEL: i32 = 3;

pub(super) struct Seal {
    key: seal::Seal,
    /// Equal for two replicas exactly if they build the same catalogue from the same answers: same version, token and relevant
    /// settings. Reveals nothing about them.
    pub(super) namespace: String,
}

impl Seal {
    /// # Errors
    ///
    /// None in practice.
    pub(super) fn new(settings: &Settings) -> Result<Self, Unspecified> {
        let hpc = &settings.hpc_user_api;
        let asked = (&hpc.api_url, &hpc.client_id, &hpc.user_path, &hpc.user_uid_field, &hpc.user_email_field);
        let (version, waldur) = (env!("CARGO_PKG_VERSION"), &settings.waldur_api.api_url);
        // By its `Debug` text, so that new fields of the policy are included.
        let matters = format!("{FORMAT} {version} {waldur} {asked:?} {:?}", source::policy(settings));
        let (key, namespace) = derive(settings, &matters)?;
        Ok(Self { key, namespace })
    }

    /// Compresses and seals a value of this kind.
    pub(super) fn close(&self, kind: &str, value: &[u8]) -> Option<Vec<u8>> {
        self.key.close(kind, pack(value).ok()?)
    }

    /// The value, if it was sealed as this kind, with the same token and settings.
    pub(super) fn open(&self, kind: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        unpack(&self.key.open(kind, sealed)?, MAX_VALUE).ok()
    }
}

/// A key derived from Waldur's token for this context, and a namespace that reveals nothing about either.
///
/// # Errors
///
/// None in practice.
pub(crate) fn derive(settings: &Settings, context: &str) -> Result<(seal::Seal, String), Unspecified> {
    let token = Secret::new(settings.waldur_api.access_token.expose_secret());
    let namespace: [u8; 16] = token.derive("namespace", context)?;
    Ok((token.seal("seal", context)?, format!("{:032x}", u128::from_be_bytes(namespace))))
}

/// Compresses a value.
pub(crate) fn pack(value: &[u8]) -> io::Result<Vec<u8>> {
    zstd::encode_all(value, LEVEL)
}

/// The value that was packed; of a longer one, only this many bytes.
pub(crate) fn unpack(packed: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    zstd::Decoder::new(packed)?.take(limit).read_to_end(&mut value)?;
    Ok(value)
}

pub(super) fn digest(sealed: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&SHA256, sealed).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::config::{Environment, Overrides, load};

    const TOKEN: &str = "0123456789abcdef0123456789abcdef01234567";

    fn seal(more: &[(&str, &str)]) -> Seal {
        let settings = [
            ("WALDUR_API_URL", "https://waldur.example.org"),
            ("WALDUR_API_TOKEN", TOKEN),
            ("STORAGE_SYSTEMS", r#"{"capstor": "capstor"}"#),
            ("HPC_USER_DEVELOPMENT_MODE", "true"),
        ];
        // The later of two values wins.
        let variables: HashMap<_, _> = settings.iter().chain(more).copied().collect();
        let directory = tempfile::TempDir::new().unwrap();
        let loaded = load(&Environment::new(directory.path(), variables), &Overrides::default()).unwrap();
        Seal::new(&loaded.settings).unwrap()
    }

    #[test]
    fn sealed_values_can_be_opened_only_as_their_own_kind() {
        let own = seal(&[]);
        let sealed = own.close("snapshot", b"a catalogue").unwrap();
        assert!(!sealed.windows(9).any(|bytes| bytes == b"catalogue"));
        assert_eq!(seal(&[]).open("snapshot", &sealed).unwrap(), b"a catalogue");
        assert_eq!(own.open("head", &sealed), None);
        for at in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 1;
            assert_eq!(own.open("snapshot", &forged), None, "byte {at}");
            assert_eq!(own.open("snapshot", &sealed[..at]), None, "the first {at} bytes");
        }
    }

    #[test]
    fn only_replicas_with_the_same_catalogue_share() {
        let own =
            seal(&[("CACHE_MAX_AGE", "7"), ("CACHE_SHARED_URL", "redis://localhost"), ("SERVER_LISTEN", "[::]:1")]);
        assert_eq!(own.namespace, seal(&[]).namespace, "settings that do not affect the catalogue");
        assert_eq!(own.namespace.len(), 32);
        let sealed = own.close("head", b"x").unwrap();
        for (key, value) in [
            ("WALDUR_API_TOKEN", "1123456789abcdef0123456789abcdef01234567"),
            ("WALDUR_API_URL", "https://another.example.org"),
            ("STORAGE_SYSTEMS", r#"{"capstor": "capstor", "vast": "vast"}"#),
            ("STORAGE_FILE_SYSTEM", "gpfs"),
            ("INODE_BASE_MULTIPLIER", "7"),
            ("HPC_USER_API_URL", "https://users.example.org"),
            ("HPC_USER_CLIENT_ID", "another"),
            ("HPC_USER_USER_PATH", "/users/{username}"),
            ("USE_MOCK_TARGET_ITEMS", "true"),
        ] {
            let other = seal(&[(key, value)]);
            assert_ne!(other.namespace, own.namespace, "{key}");
            assert_eq!(other.open("head", &sealed), None, "{key}");
        }
    }
}
