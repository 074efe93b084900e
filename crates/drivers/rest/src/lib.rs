//! An HTTP client for the management interfaces of storage systems. Every exchange has a timeout and a size limit, redirects
//! are not followed, and credentials are sent only to the configured address and never appear in errors.
//!
//! Failed reads are retried. A change is sent again only if the system responded that it did not accept it (429). In all
//! other cases the caller has to check the state of the system.

use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::blocking::Client;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use url::{Host, Url};

use storage_driver::DriverError;

#[cfg(any(test, feature = "simulated"))]
pub mod faults;
#[cfg(any(test, feature = "simulated"))]
#[expect(clippy::missing_panics_doc, clippy::unwrap_used, reason = "for tests")]
pub mod simulated;
#[cfg(test)]
mod tests;

/// The largest response that is read, in bytes: far more than a list of 100,000 quotas needs.
const MAX_RESPONSE_BYTES: u64 = 256 << 20;
/// Attempts to read from a system that does not respond.
const MAX_ATTEMPTS: usize = 3;

/// Settings of a management interface.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Address, such as `https://gui.example.org`. It must not contain credentials; plain `http` is accepted only for
    /// loopback addresses.
    pub url: Url,
    /// PEM file with CA certificates that are trusted in addition to the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Timeout of one exchange in seconds, from connecting to the last byte.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u64,
    /// How long to wait for a busy system, in seconds: until it accepts a request, and until it has completed it.
    #[serde(default = "patience_seconds")]
    pub patience_seconds: u64,
}

const fn timeout_seconds() -> u64 {
    60
}

const fn patience_seconds() -> u64 {
    300
}

#[derive(Debug, Error)]
pub enum InvalidSettings {
    #[error(
        "`api.url` ({0}) must be an https URL without user, password, query and fragment; http is accepted only for loopback \
         addresses"
    )]
    Url(String),
    #[error("cannot use `api.ca_file` ({path}): it must be a readable file with PEM certificates")]
    CaFile {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Holds the name of the setting.
    #[error("`{0}` contains characters that are not allowed in an HTTP header")]
    Credential(&'static str),
    #[error("{0}")]
    Setting(String),
    #[error("cannot create the HTTP client; are the system's CA certificates installed?")]
    Client(#[source] reqwest::Error),
}

/// Delays between attempts, and how long to continue.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub first: Duration,
    pub longest: Duration,
    pub patience: Duration,
}

impl Backoff {
    /// Patience from the settings, with delays that put no noticeable load on a management server.
    pub fn from_settings(api: &Api) -> Self {
        let patience = Duration::from_secs(api.patience_seconds);
        Self { first: Duration::from_millis(500), longest: Duration::from_secs(15), patience }
    }

    /// Calls `read` with increasing delays until it returns a value; `None` when the patience is exhausted.
    pub fn poll<T>(&self, mut read: impl FnMut() -> Result<Option<T>, DriverError>) -> Result<Option<T>, DriverError> {
        let started = Instant::now();
        for delay in self.delays() {
            let found = read()?;
            if found.is_some() || started.elapsed() + delay > self.patience {
                return Ok(found);
            }
            std::thread::sleep(delay);
        }
        Ok(None)
    }

    /// Endless delays with jitter, increasing up to the longest.
    fn delays(&self) -> impl Iterator<Item = Duration> + use<> {
        let delays = ExponentialBuilder::default().with_min_delay(self.first).with_max_delay(self.longest);
        delays.with_jitter().without_max_times().build()
    }
}

/// A client of one management interface.
#[derive(Debug)]
pub struct RestClient {
    http: Client,
    base: Url,
    pub backoff: Backoff,
}

#[derive(Debug, Clone)]
pub struct ApiRequest<'a> {
    pub method: Method,
    /// Path segments below the base URL, each of which is percent-encoded. An empty last segment adds a trailing slash.
    pub path: &'a [&'a str],
    pub query: &'a [(&'a str, &'a str)],
    pub body: Option<&'a Value>,
    pub authorization: Option<&'a HeaderValue>,
}

/// A response with any status other than a redirect, 429 or 5xx.
#[derive(Debug)]
pub struct ApiResponse {
    pub status: StatusCode,
    body: Vec<u8>,
}

impl ApiResponse {
    /// Parses the body as JSON. Errors do not quote it.
    pub fn json<T: DeserializeOwned>(&self, what: &str) -> Result<T, DriverError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            DriverError::temporary(format!(
                "cannot {what}: the response does not have the expected format (line {line}, column {column})"
            ))
        })
    }
}

impl RestClient {
    /// Creates a client without connecting.
    pub fn new(api: &Api, backoff: Backoff) -> Result<Self, InvalidSettings> {
        // Fails only if a provider is already installed, which can then be used.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let url = &api.url;
        let is_loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
            None => false,
        };
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        let is_plain = !has_credentials && url.query().is_none() && url.fragment().is_none();
        if !is_plain || !(url.scheme() == "https" || url.scheme() == "http" && is_loopback) {
            return Err(InvalidSettings::Url(redacted(url)));
        }
        let timeout = Duration::from_secs(api.timeout_seconds);
        let mut client = Client::builder()
            .user_agent(concat!("hpc-storage-provisioner/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(10)))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(path) = &api.ca_file {
            let unusable = |source| InvalidSettings::CaFile { path: path.clone(), source };
            let pem = std::fs::read(path).map_err(|error| unusable(error.into()))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.into()))?;
            if certificates.is_empty() {
                return Err(unusable("it contains no certificate".into()));
            }
            client = client.tls_certs_merge(certificates);
        } else if url.scheme() == "http" {
            // Plain HTTP does not use the system's CA certificates, and loading them takes time.
            client = client.tls_certs_only([]);
        }
        Ok(Self { http: client.build().map_err(InvalidSettings::Client)?, base: api.url.clone(), backoff })
    }

    /// Sends a request and reads the whole response. `what` is the operation as named in errors: "cannot `what`: …".
    pub fn send(&self, what: &str, request: &ApiRequest<'_>) -> Result<ApiResponse, DriverError> {
        let base = &self.base;
        let started = Instant::now();
        let mut delays = self.backoff.delays();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let may_retry = request.method == Method::GET && attempts < MAX_ATTEMPTS;
            let (retry, wait, error) = match self.send_once(request) {
                Ok((StatusCode::TOO_MANY_REQUESTS, headers, _)) => {
                    let error = DriverError::temporary(format!("cannot {what}: {base} is too busy (429)"));
                    (true, retry_after(&headers), error)
                }
                Ok((status, headers, _)) if status.is_server_error() => {
                    let error = DriverError::temporary(format!("cannot {what}: {base} responded with {status}"));
                    (may_retry, retry_after(&headers), error)
                }
                Ok((status, ..)) if status.is_redirection() => {
                    return Err(DriverError::temporary(format!(
                        "cannot {what}: {base} responded with {status}, a redirect, which is not followed; correct `api.url`"
                    )));
                }
                Ok((status, _, body)) => return Ok(ApiResponse { status, body }),
                Err(source) => {
                    let error =
                        DriverError::temporary_from(format!("cannot {what}: no valid response from {base}"), source);
                    (may_retry, None, error)
                }
            };
            let delay = delays.next().unwrap_or_default().max(wait.unwrap_or_default());
            if !retry || started.elapsed() + delay > self.backoff.patience {
                return Err(error);
            }
            std::thread::sleep(delay);
        }
    }

    fn send_once(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), Box<dyn std::error::Error + Send + Sync>> {
        let mut url = self.base.clone();
        // Fails only for URLs without a host, which `new` rejects.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(request.path);
        }
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(request.query);
        }
        let mut builder = self.http.request(request.method.clone(), url);
        if let Some(authorization) = request.authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        if let Some(body) = request.body {
            builder = builder.json(body);
        }
        let response = builder.send().map_err(reqwest::Error::without_url)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        response.take(MAX_RESPONSE_BYTES + 1).read_to_end(&mut body)?;
        if body.len() as u64 > MAX_RESPONSE_BYTES {
            return Err(format!("the response is larger than {MAX_RESPONSE_BYTES} bytes").into());
        }
        Ok((status, headers, body))
    }
}

/// `Retry-After` in seconds. Dates are ignored, because they require synchronized clocks.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// A whole number in the notations that management systems use: a number, a number with a fraction of zero, or a string of
/// digits.
pub fn whole_number(value: &Value) -> Option<i128> {
    /// 2^64, which no counter of these systems can reach.
    const MAX: f64 = 18_446_744_073_709_551_616.0;
    match value {
        Value::Number(number) => {
            let exact = number.as_u64().map(i128::from).or_else(|| number.as_i64().map(i128::from));
            #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and is below 2^64")]
            let rounded = || number.as_f64().filter(|it| it.fract() == 0.0 && it.abs() < MAX).map(|it| it as i128);
            exact.or_else(rounded)
        }
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

/// The header for HTTP basic authentication.
pub fn basic_authorization(user: &str, password: &SecretString) -> Result<HeaderValue, InvalidSettings> {
    let text = BASE64_STANDARD.encode(format!("{user}:{}", password.expose_secret()));
    authorization("Basic", &text.into(), "password")
}

/// A header with a credential; `key` is the setting that holds the credential.
pub fn authorization(
    scheme: &str,
    credential: &SecretString,
    key: &'static str,
) -> Result<HeaderValue, InvalidSettings> {
    let mut header = HeaderValue::try_from(format!("{scheme} {}", credential.expose_secret()))
        .map_err(|_| InvalidSettings::Credential(key))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Text from a management server as a single line of at most 300 characters, without control characters.
pub fn single_line(text: &str) -> String {
    let words: Vec<_> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(300).collect()
}

/// The setting `root` without its trailing slash; it must be absolute.
pub fn absolute_root(root: &str) -> Result<String, InvalidSettings> {
    if root.starts_with('/') {
        return Ok(root.trim_end_matches('/').to_owned());
    }
    Err(InvalidSettings::Setting("`root` must be an absolute path".into()))
}

/// Whether `path` is `directory` or below it.
pub fn is_within(path: &str, directory: &str) -> bool {
    let below = path.strip_prefix(directory.trim_end_matches('/'));
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

pub fn is_below(path: &str, directory: &str) -> bool {
    path != directory && is_within(path, directory)
}

/// The URL without credentials and query.
fn redacted(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}
