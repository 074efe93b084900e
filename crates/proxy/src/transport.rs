//! How HTTP clients for other services are built.

use std::time::Duration;

use thiserror::Error;
use tracing::warn;
use url::Url;

/// The proxy's own `User-Agent`.
pub const USER_AGENT: &str = concat!("hpc-storage-proxy/", env!("CARGO_PKG_VERSION"));

/// Settings of an HTTP client.
#[derive(Debug, Clone)]
pub struct Transport {
    /// Whether to verify certificates.
    pub verify_tls: bool,
    /// `socks5`, `socks5h`, `http` or `https` proxy. `socks5` resolves names at the proxy, as `socks5h` does.
    pub proxy: Option<Url>,
    /// `User-Agent` header.
    pub user_agent: String,
    /// Deadline of one exchange with all its attempts, from connecting to the last byte of the body.
    pub timeout: Duration,
}

/// An HTTP client could not be built.
#[derive(Debug, Error)]
pub enum TransportError {
    /// Unsupported proxy scheme. The HTTP library would ignore it and connect directly.
    #[error("the proxy scheme `{0}` is not supported: use socks5, socks5h, http or https")]
    ProxyScheme(String),
    /// The HTTP library failed.
    #[error(
        "cannot build the HTTP client; check that the system's CA certificates are installed and that SSL_CERT_FILE, if \
         set, names a file with certificates"
    )]
    Client(#[source] reqwest::Error),
}

/// Selects the TLS implementation for the process. Later calls have no effect.
pub fn install_tls_provider() {
    // Fails only if a provider is already installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

impl Transport {
    /// A transport with the proxy's own `User-Agent`.
    pub fn new(verify_tls: bool, proxy: Option<Url>, timeout: Duration) -> Self {
        Self { verify_tls, proxy, user_agent: USER_AGENT.to_owned(), timeout }
    }

    /// Builds the client for the upstream `name`. It follows no redirects and ignores proxy settings of the environment.
    pub(crate) fn client(&self, name: &str) -> Result<reqwest::Client, TransportError> {
        self.builder(name)?.build().map_err(TransportError::Client)
    }

    /// Like [`client`](Self::client), for connections that become WebSockets.
    pub(crate) fn websocket_client(&self, name: &str) -> Result<reqwest::Client, TransportError> {
        self.builder(name)?.http1_only().build().map_err(TransportError::Client)
    }

    fn builder(&self, name: &str) -> Result<reqwest::ClientBuilder, TransportError> {
        install_tls_provider();
        let mut builder = reqwest::Client::builder()
            .user_agent(&self.user_agent)
            .timeout(self.timeout)
            .connect_timeout(self.timeout.min(Duration::from_secs(10)))
            .redirect(reqwest::redirect::Policy::none())
            .tls_danger_accept_invalid_certs(!self.verify_tls)
            .no_proxy();
        if !self.verify_tls {
            warn!(
                upstream = name,
                "the certificate is not verified: an attacker on the network can read and change all traffic"
            );
        }
        if let Some(proxy) = &self.proxy {
            builder = builder.proxy(http_proxy(proxy)?);
        }
        Ok(builder)
    }
}

fn http_proxy(proxy: &Url) -> Result<reqwest::Proxy, TransportError> {
    let mut address = proxy.to_string();
    match proxy.scheme() {
        // The Python proxy's HTTP library resolves names at the SOCKS server for both schemes.
        "socks5" => address.replace_range(.."socks5".len(), "socks5h"),
        "socks5h" | "http" | "https" => {}
        other => return Err(TransportError::ProxyScheme(other.to_owned())),
    }
    reqwest::Proxy::all(address).map_err(TransportError::Client)
}
