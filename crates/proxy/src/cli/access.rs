//! Access to a running proxy: its address and a credential for it.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use clap::{Args, ValueHint};
use http::HeaderValue;
use program::error_chain;
use secrecy::SecretString;
use url::Url;

use super::terminal::{Terminal, escaped};
use super::{Failure, progress};
use crate::config::Environment;
use crate::oauth::MachineToken;
use crate::peer::{Credential, Document, Peer, PeerError};
use crate::transport::Transport;
use crate::upstream::Upstream;

/// Maximum size of a file with a token or secret, in bytes.
const MAX_SECRET: u64 = 64 * 1024;
/// Timeout for a page of the listing that is watched.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of the token endpoint.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct Access {
    /// File with an access token for that proxy [default: $COMPARE_TOKEN]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// Client ID to fetch a token for that proxy
    #[arg(long, value_name = "ID", requires_all = ["client_secret_file", "token_url"], conflicts_with = "token_file")]
    client_id: Option<String>,
    /// File with the secret of that client
    #[arg(long, value_name = "FILE", requires = "client_id", value_hint = ValueHint::FilePath)]
    client_secret_file: Option<PathBuf>,
    /// Token endpoint for that client
    #[arg(long, value_name = "URL", requires = "client_id", value_hint = ValueHint::Url)]
    token_url: Option<String>,
    /// Scope of the fetched token
    #[arg(long, default_value = "openid", requires = "client_id")]
    scope: String,
}

impl Access {
    /// The proxy at this base URL.
    pub(super) fn peer(&self, url: &str, environment: &Environment) -> Result<Peer, String> {
        let credential = self.credential(environment)?;
        Peer::new(base_url(url)?, credential, PAGE_TIMEOUT).map_err(|error| error_chain(&error))
    }

    /// The credential for the proxy.
    pub(super) fn credential(&self, environment: &Environment) -> Result<Credential, String> {
        let (Some(id), Some(file), Some(url)) = (&self.client_id, &self.client_secret_file, &self.token_url) else {
            let file = self.token_file.as_deref().map(|file| ("--token-file", file));
            return token(file, "COMPARE_TOKEN", environment);
        };
        let secret = SecretString::from(secret("--client-secret-file", file)?);
        let transport = Transport::new(true, None, TOKEN_TIMEOUT);
        let upstream = Upstream::new("The token endpoint", &transport).map_err(|error| error_chain(&error))?;
        let token = MachineToken::new(upstream, endpoint(url)?, id.clone(), secret, self.scope.clone());
        Ok(Credential::Client(Box::new(token)))
    }
}

/// Reads the listing of a proxy, with progress.
pub(super) async fn read(peer: &Peer, fresh: bool, terminal: Terminal) -> Result<Document, PeerError> {
    let (url, progress) = (peer.url(), Mutex::new(String::new()));
    let report = |read: usize, all: usize| {
        if let Ok(mut progress) = progress.lock() {
            *progress = format!(", {read} of {all} items");
        }
    };
    let what = || format!("reading {url}{}", progress.lock().map(|progress| progress.clone()).unwrap_or_default());
    progress::wait_with(terminal, what, peer.read(fresh, &report)).await
}

/// The error for people.
pub(super) fn failure(error: &PeerError) -> Failure {
    escaped(&error_chain(error))
}

// URLs are validated here and not by clap, whose error message would show a password in an invalid URL.

/// A URL to which paths are added.
pub(super) fn base_url(text: &str) -> Result<Url, String> {
    let url = endpoint(text)?;
    if url.query().is_some() { Err(String::from("a URL has a query: use the base URL only")) } else { Ok(url) }
}

/// A URL that is requested unchanged.
fn endpoint(text: &str) -> Result<Url, String> {
    const EXAMPLE: &str = "use one such as https://storage-proxy.example.org or http://127.0.0.1:8000";
    let url = Url::parse(text).map_err(|error| format!("invalid URL ({error}); {EXAMPLE}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        Err(format!("a URL has a scheme that is neither http nor https; {EXAMPLE}"))
    } else if !url.username().is_empty() || url.password().is_some() {
        Err(String::from("a URL contains credentials: put the token into a file"))
    } else if url.fragment().is_some() {
        Err(String::from("a URL has a fragment: remove what follows the `#`"))
    } else {
        Ok(url)
    }
}

/// The token in a file, given by an option, or in an environment variable.
pub(super) fn token(
    file: Option<(&str, &Path)>,
    variable: &str,
    environment: &Environment,
) -> Result<Credential, String> {
    let (token, place) = match (file, environment.exact(variable).filter(|token| !token.trim().is_empty())) {
        (Some((option, file)), _) => (secret(option, file)?, format!("{option} {}", file.display())),
        (None, Some(token)) => (token.trim().to_owned(), variable.to_owned()),
        (None, None) => return Ok(Credential::None),
    };
    let header = HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| !token.contains(char::is_whitespace));
    let mut header = header.ok_or_else(|| format!("{}: it does not contain a token", escaped(&place)))?;
    header.set_sensitive(true);
    Ok(Credential::Token(header))
}

/// The trimmed text of a file with a secret, given by `option`.
fn secret(option: &str, file: &Path) -> Result<String, String> {
    use std::io::Read;

    let error = |what: &str| format!("{option} {}: {what}", escaped(&file.display().to_string()));
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(MAX_SECRET + 1).read_to_string(&mut text));
    read.map_err(|cause| error(&format!("it cannot be read ({})", cause.kind())))?;
    match text.trim() {
        "" => Err(error("it is empty")),
        _ if text.len() as u64 > MAX_SECRET => Err(error("it is too large for a secret")),
        text => Ok(text.to_owned()),
    }
}
