//! TLS on connections from clients.

use std::path::Path;
use std::time::Duration;

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InconsistentKeys, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tracing::debug;

use super::connection::Phase;
use super::frontend::Frontend;
use super::listeners::Stream;
use crate::config::{Loaded, Problem};
use crate::transport::install_tls_provider;
use settings::files;

/// No certificate with all those above it is larger.
const LARGEST: u64 = 1 << 20;
const CERTIFICATE: &str = "server.tls_certificate";
const KEY: &str = "server.tls_key";

/// A certificate and its key that belong together.
#[derive(Debug)]
pub struct TlsIdentity(ServerConfig);

impl TlsIdentity {
    /// Reads the pair that the settings name, if they name one.
    ///
    /// # Errors
    ///
    /// The fault of the setting whose file does not do.
    pub fn read(loaded: &Loaded) -> Result<Option<Self>, Problem> {
        let server = &loaded.settings.server;
        let (Some(certificate), Some(key)) = (&server.tls_certificate, &server.tls_key) else { return Ok(None) };
        install_tls_provider();
        let of = |setting, path: &Path, what: &str, remedy: &str| Problem {
            key: String::from(setting),
            source: loaded.provenance.iter().find(|row| row.key == setting).map(|row| row.source.clone()),
            what: format!("{} {what}", path.display()),
            remedy: String::from(remedy),
        };
        let bytes = |setting, path: &Path| {
            files::read(path, LARGEST)
                .map_err(|error| of(setting, path, &files::why(&error), "correct the path, or make it readable"))
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(CERTIFICATE, certificate)?).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| {
            let remedy = "write the certificate into it as PEM, then those between it and the root";
            of(CERTIFICATE, certificate, "holds no certificate in PEM", remedy)
        })?;
        // The error may show what the file holds.
        let secret = PrivateKeyDer::from_pem_slice(&bytes(KEY, key)?).map_err(|error| match error {
            PemError::NoItemsFound => {
                of(KEY, key, "holds no private key in PEM", "write the key into it as PEM, without a passphrase")
            }
            _ => of(KEY, key, "is not valid PEM", "write the key into it anew"),
        })?;
        let made = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, secret);
        let mut config = made.map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let what = format!("is not the key of the certificate in {}", certificate.display());
                of(KEY, key, &what, "give the two that were made together")
            }
            rustls::Error::InvalidCertificate(_) => {
                of(CERTIFICATE, certificate, "holds a certificate that is not valid", "write it anew")
            }
            _ => of(KEY, key, "holds a key that cannot be used", "give an RSA, ECDSA or Ed25519 key"),
        })?;
        config.alpn_protocols = [&b"h2"[..], b"http/1.1"].map(Vec::from).into();
        Ok(Some(Self(config)))
    }

    pub(super) fn config(self) -> ServerConfig {
        self.0
    }
}

/// The stream of a connection after its handshake, if it is to have one. `None`: it ended before it began.
pub(super) async fn met(
    stream: Stream,
    front: &Frontend,
    patience: Duration,
    phase: &mut watch::Receiver<Phase>,
) -> Option<Either<Stream, TlsStream<TcpStream>>> {
    let (stream, config) = match (stream, front.tls()) {
        (Either::Left(stream), Some(config)) => (stream, config),
        (stream, _) => return Some(Either::Left(stream)),
    };
    let handshake = timeout(patience, TlsAcceptor::from(config).accept(stream));
    tokio::select! {
        biased;
        // No request can be lost yet. An error says that the server has ended.
        _ = phase.wait_for(|phase| *phase == Phase::Stopping) => None,
        outcome = handshake => match outcome {
            Ok(Ok(stream)) => Some(Either::Right(stream)),
            Ok(Err(error)) => {
                debug!(%error, "a handshake failed");
                None
            }
            Err(_) => {
                debug!("a client is too slow with its handshake");
                None
            }
        },
    }
}
