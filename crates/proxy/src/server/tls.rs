//! TLS for connections from clients.

use std::path::Path;
use std::pin::pin;

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
use super::limits::ConnectionLimits;
use super::listeners::Stream;
use crate::config::{Loaded, Problem};
use crate::transport::install_tls_provider;
use settings::files;

/// Maximum size of the files, in bytes.
const LARGEST: u64 = 1 << 20;
const CERTIFICATE: &str = "server.tls_certificate";
const KEY: &str = "server.tls_key";

/// A certificate chain with its private key.
#[derive(Debug)]
pub struct TlsIdentity(ServerConfig);

impl TlsIdentity {
    /// Reads the certificate and key named in the settings; `None` if there are none.
    ///
    /// # Errors
    ///
    /// The problem of the setting whose file cannot be used.
    pub fn read(loaded: &Loaded) -> Result<Option<Self>, Problem> {
        let server = &loaded.settings.server;
        let (Some(certificate), Some(key)) = (&server.tls_certificate, &server.tls_key) else { return Ok(None) };
        install_tls_provider();
        let problem = |setting, path: &Path, what: &str, remedy: &str| Problem {
            key: String::from(setting),
            source: loaded.provenance.iter().find(|row| row.key == setting).map(|row| row.source.clone()),
            what: format!("{} {what}", path.display()),
            remedy: String::from(remedy),
        };
        let bytes = |setting, path: &Path| {
            files::read(path, LARGEST)
                .map_err(|error| problem(setting, path, &files::why(&error), "correct the path, or make it readable"))
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(CERTIFICATE, certificate)?).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| {
            let remedy = "write the PEM certificate into the file, followed by the intermediate certificates";
            problem(CERTIFICATE, certificate, "contains no PEM certificate", remedy)
        })?;
        // The error is not shown: it may contain parts of the file.
        let secret = PrivateKeyDer::from_pem_slice(&bytes(KEY, key)?).map_err(|error| match error {
            PemError::NoItemsFound => problem(
                KEY,
                key,
                "contains no PEM private key",
                "write the key into the file as PEM, without a passphrase",
            ),
            _ => problem(KEY, key, "is not valid PEM", "write the key into the file again"),
        })?;
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, secret);
        let mut config = config.map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let what = format!("is not the key of the certificate in {}", certificate.display());
                problem(KEY, key, &what, "use the key that belongs to the certificate")
            }
            rustls::Error::InvalidCertificate(_) => {
                problem(CERTIFICATE, certificate, "contains an invalid certificate", "replace it with a valid one")
            }
            _ => problem(KEY, key, "contains an unsupported key", "use an RSA, ECDSA or Ed25519 key"),
        })?;
        config.alpn_protocols = [&b"h2"[..], b"http/1.1"].map(Vec::from).into();
        Ok(Some(Self(config)))
    }

    pub(super) fn config(self) -> ServerConfig {
        self.0
    }
}

/// Performs the TLS handshake, if the connection uses TLS. `None`: the connection ends.
pub(super) async fn handshake(
    stream: Stream,
    front: &Frontend,
    limits: &ConnectionLimits,
    phase: &mut watch::Receiver<Phase>,
) -> Option<Either<Stream, TlsStream<TcpStream>>> {
    let (stream, config) = match (stream, front.tls()) {
        (Either::Left(stream), Some(config)) => (stream, config),
        (stream, _) => return Some(Either::Left(stream)),
    };
    let mut handshake = pin!(timeout(limits.head, TlsAcceptor::from(config).accept(stream)));
    let outcome = tokio::select! {
        biased;
        stopped = phase.wait_for(|phase| *phase == Phase::Stopping) => {
            // An error means that the server has ended.
            if stopped.is_err() {
                return None;
            }
            None
        }
        outcome = handshake.as_mut() => Some(outcome),
    };
    let outcome = match outcome {
        Some(outcome) => outcome,
        // The client has connected before the stop, so its request is still answered.
        None => timeout(limits.farewell, handshake).await.and_then(|outcome| outcome),
    };
    match outcome {
        Ok(Ok(stream)) => Some(Either::Right(stream)),
        Ok(Err(error)) => {
            debug!(%error, "TLS handshake failed");
            None
        }
        Err(_) => {
            debug!("TLS handshake timed out");
            None
        }
    }
}
