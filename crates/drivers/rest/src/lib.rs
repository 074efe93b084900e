//! One way to a storage system's management interface over HTTP: a deadline, a bounded answer, no redirect followed, the
//! credential to the configured address alone and in no error.
//!
//! What is only asked for is asked again when it fails; what changes something is sent again only when the system said
//! that it did not take it (429). Everything else is for the caller, who looks at what is there.

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

/// The largest answer that is read, in bytes: far more than a list of 100,000 quotas takes.
const MOST: u64 = 256 << 20;
/// Attempts to ask something of a system that does not answer.
const ATTEMPTS: usize = 3;

/// Where a management interface is, and how long it is waited for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Address, such as `https://gui.example.org`. Plain `http` is refused, but on the loopback; so are credentials in it.
    pub url: Url,
    /// PEM file with certificates of authorities that are trusted beside the system's own.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Deadline of one exchange, in seconds, from connecting to the last byte.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u64,
    /// How long a busy system is waited for, in seconds: until it takes a request, and until it has carried it out.
    #[serde(default = "patience_seconds")]
    pub patience_seconds: u64,
}

const fn timeout_seconds() -> u64 {
    60
}

const fn patience_seconds() -> u64 {
    300
}

/// Settings that cannot be used.
#[derive(Debug, Error)]
pub enum NotSetUp {
    /// The address.
    #[error(
        "`api.url` ({0}) must be an https address without user, password, query and fragment; http only on the loopback"
    )]
    Url(String),
    /// The authorities' certificates.
    #[error("`api.ca_file` ({path}) cannot be used: give a readable file of PEM certificates")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A credential.
    #[error("`{0}` holds characters that no header can carry")]
    Credential(&'static str),
    /// Any other setting.
    #[error("{0}")]
    Setting(String),
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built; are the system's CA certificates installed?")]
    Client(#[source] reqwest::Error),
}

/// The length of pauses, and of patience.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The first pause between two attempts or two looks; the next ones are longer.
    pub first: Duration,
    /// The longest pause.
    pub most: Duration,
    /// How long to go on.
    pub patience: Duration,
}

impl Pace {
    /// As the settings say, with pauses that a management server does not feel.
    pub fn of(api: &Api) -> Self {
        let patience = Duration::from_secs(api.patience_seconds);
        Self { first: Duration::from_millis(500), most: Duration::from_secs(15), patience }
    }

    /// Pauses without end, each longer than the one before up to the longest, with some chance in them.
    pub fn pauses(&self) -> impl Iterator<Item = Duration> + use<> {
        let pauses = ExponentialBuilder::default().with_min_delay(self.first).with_max_delay(self.most);
        pauses.with_jitter().without_max_times().build()
    }
}

/// A client of one management interface.
#[derive(Debug)]
pub struct Rest {
    http: Client,
    base: Url,
    pub pace: Pace,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    pub method: Method,
    /// Names below the base, encoded one by one; an empty one at the end gives a slash.
    pub path: &'a [&'a str],
    pub query: &'a [(&'a str, &'a str)],
    pub body: Option<&'a Value>,
    pub authorization: Option<&'a HeaderValue>,
}

/// What came back: any status but a redirect, 429 and those of 500 and above.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    body: Vec<u8>,
}

impl Answer {
    /// The body as JSON. Errors do not quote it.
    pub fn json<T: DeserializeOwned>(&self, what: &str) -> Result<T, DriverError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            DriverError::unclear(format!("{what}: the answer is not what is expected (line {line}, column {column})"))
        })
    }
}

impl Rest {
    /// Sets up a client. Nothing is sent yet.
    pub fn new(api: &Api, pace: Pace) -> Result<Self, NotSetUp> {
        // An error says that a provider is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let url = &api.url;
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
            None => false,
        };
        let bare = url.username().is_empty() && url.password().is_none();
        let plain = bare && url.query().is_none() && url.fragment().is_none();
        if !plain || !(url.scheme() == "https" || url.scheme() == "http" && loopback) {
            return Err(NotSetUp::Url(shown(url)));
        }
        let timeout = Duration::from_secs(api.timeout_seconds);
        let mut client = Client::builder()
            .user_agent(concat!("hpc-storage-provisioner/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(10)))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(path) = &api.ca_file {
            let unusable = |source| NotSetUp::Authorities { path: path.clone(), source };
            let pem = std::fs::read(path).map_err(|error| unusable(error.into()))?;
            let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.into()))?;
            if authorities.is_empty() {
                return Err(unusable("no certificate in it".into()));
            }
            client = client.tls_certs_merge(authorities);
        } else if url.scheme() == "http" {
            // The machine's authorities are many, and nobody asks for them here.
            client = client.tls_certs_only([]);
        }
        Ok(Self { http: client.build().map_err(NotSetUp::Client)?, base: api.url.clone(), pace })
    }

    /// Sends a request and reads the whole answer. `what` is what is wanted, for the fault.
    pub fn ask(&self, what: &str, ask: &Ask<'_>) -> Result<Answer, DriverError> {
        let began = Instant::now();
        let mut attempts = 0;
        for pause in self.pace.pauses() {
            attempts += 1;
            let outcome = self.once(ask);
            let (rest, fault) = match outcome {
                Ok((StatusCode::TOO_MANY_REQUESTS, headers, _)) => {
                    (retry_after(&headers), DriverError::unclear(format!("{what}: {} is too busy (429)", self.base)))
                }
                Ok((status, headers, _)) if status.is_server_error() => {
                    let fault = DriverError::unclear(format!("{what}: {} answered {status}", self.base));
                    if ask.method != Method::GET || attempts >= ATTEMPTS {
                        return Err(fault);
                    }
                    (retry_after(&headers), fault)
                }
                Ok((status, ..)) if status.is_redirection() => {
                    return Err(DriverError::unclear(format!(
                        "{what}: {} answered {status}, a redirect, which is not followed; correct `api.url`",
                        self.base
                    )));
                }
                Ok((status, _, body)) => return Ok(Answer { status, body }),
                Err(source) => {
                    let fault = DriverError::passing(format!("{what}: no usable answer of {}", self.base), source);
                    if ask.method != Method::GET || attempts >= ATTEMPTS {
                        return Err(fault);
                    }
                    (None, fault)
                }
            };
            let pause = pause.max(rest.unwrap_or_default());
            if began.elapsed() + pause > self.pace.patience {
                return Err(fault);
            }
            std::thread::sleep(pause);
        }
        Err(DriverError::unclear(format!("{what}: not sent")))
    }

    fn once(
        &self,
        ask: &Ask<'_>,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), Box<dyn std::error::Error + Send + Sync>> {
        let mut url = self.base.clone();
        // Only addresses without a host have no path to add to; those are refused at the start.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(ask.path);
        }
        if !ask.query.is_empty() {
            url.query_pairs_mut().extend_pairs(ask.query);
        }
        let mut request = self.http.request(ask.method.clone(), url);
        if let Some(authorization) = ask.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(body) = ask.body {
            request = request.json(body);
        }
        let response = request.send().map_err(reqwest::Error::without_url)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        response.take(MOST + 1).read_to_end(&mut body)?;
        if body.len() as u64 > MOST {
            return Err(format!("the answer is larger than {MOST} bytes").into());
        }
        Ok((status, headers, body))
    }
}

/// The time that a busy system asks for, where it gives it in seconds. Dates are not understood: they need a clock that
/// agrees with the system's.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// A whole number as management systems send it: a number, one with a fraction of zero, or digits in a text.
pub fn whole(value: &Value) -> Option<i128> {
    /// 2^64: what is above fits into none of their counters.
    const MOST: f64 = 18_446_744_073_709_551_616.0;
    match value {
        Value::Number(number) => {
            let exact = number.as_u64().map(i128::from).or_else(|| number.as_i64().map(i128::from));
            #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and is below 2^64")]
            let rounded = || number.as_f64().filter(|it| it.fract() == 0.0 && it.abs() < MOST).map(|it| it as i128);
            exact.or_else(rounded)
        }
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

/// The header of HTTP's basic scheme.
pub fn basic(user: &str, password: &SecretString) -> Result<HeaderValue, NotSetUp> {
    let text = BASE64_STANDARD.encode(format!("{user}:{}", password.expose_secret()));
    secret("Basic", &text.into(), "password")
}

/// A header with a credential; `key` is the setting that it comes from.
pub fn secret(scheme: &str, credential: &SecretString, key: &'static str) -> Result<HeaderValue, NotSetUp> {
    let mut header = HeaderValue::try_from(format!("{scheme} {}", credential.expose_secret()))
        .map_err(|_| NotSetUp::Credential(key))?;
    header.set_sensitive(true);
    Ok(header)
}

/// What a management server says of itself, made fit for a line of the log: one line, not long.
pub fn quoted(text: &str) -> String {
    let words: Vec<_> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(300).collect()
}

/// An address without credentials and query.
fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}
