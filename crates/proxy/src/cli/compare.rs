//! `compare`: compares this proxy's catalogue, or that of another instance, with the listing of another proxy.

mod report;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use catalog::Filter;
use clap::{Args, ValueHint};
use http::HeaderValue;
use secrecy::SecretString;
use serde_json::Value;
use url::Url;

use super::terminal::{self, Terminal, escaped};
use super::{
    EXIT_FAILURE, EXIT_SETTINGS, EXIT_UNREADABLE, EXIT_USAGE, Failure, block_on, catalogue, log, progress, report_error,
};
use crate::compare::{Context, Credential, Document, Peer, compare};
use crate::config::{Environment, Loaded, Problems};
use crate::oauth::MachineToken;
use crate::transport::Transport;
use crate::upstream::{Upstream, public_part};
use program::error_chain;
use report::Sides;

/// Maximum number of times both are read until nothing changes in between.
const READINGS: usize = 3;
/// Maximum size of a file with a token or secret, in bytes.
const MAX_SECRET: u64 = 64 * 1024;
/// Timeout of the token endpoint.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// Base URL of the other proxy
    #[arg(value_hint = ValueHint::Url)]
    url: String,
    /// Compare with the proxy at this URL instead of the upstreams; settings are used if present
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    with: Option<String>,
    /// File with an access token for the other proxy [default: $COMPARE_TOKEN]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// File with an access token for the proxy of --with [default: $COMPARE_WITH_TOKEN]
    #[arg(long, value_name = "FILE", requires = "with", value_hint = ValueHint::FilePath)]
    with_token_file: Option<PathBuf>,
    /// Client ID to fetch a token for the other proxy
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
    /// Timeout for one page, in seconds; the Python proxy may take minutes for the first page
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Treat known differences and a different order as differences
    #[arg(long)]
    strict: bool,
    /// Print JSON for scripts, with all differences including known ones
    #[arg(long)]
    json: bool,
}

// URLs are validated here and not by clap, whose error message would show a password in an invalid URL.

/// A URL to which paths are added.
fn base_url(text: &str) -> Result<Url, String> {
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

/// The source of our side.
enum Ours {
    Upstreams(Box<Loaded>),
    Peer(Box<Peer>),
}

/// Compares; returns the exit code.
pub(super) fn run(
    arguments: &CompareArgs,
    environment: &Environment,
    terminal: Terminal,
    load: impl FnOnce() -> Result<Loaded, Problems>,
) -> Result<u8, Failure> {
    let timeout = Duration::from_secs(arguments.timeout);
    let loaded = match load() {
        Err(faults) if arguments.with.is_none() => return Ok(report_error(&faults, EXIT_SETTINGS)),
        loaded => loaded.ok(),
    };
    log::to_stderr(loaded.as_ref().is_some_and(|loaded| loaded.settings.debug), terminal);
    let (url, credential, with) = match places(arguments, environment) {
        Ok(places) => places,
        Err(misuse) => return Ok(report_error(&misuse, EXIT_USAGE)),
    };
    let peer = |url, credential| Peer::new(url, credential, timeout).map_err(|error| error_chain(&error));
    let theirs = peer(url, credential)?;
    let systems = loaded.as_ref().map(|loaded| loaded.settings.storage_systems.clone()).unwrap_or_default();
    let development = loaded.as_ref().is_some_and(|loaded| loaded.settings.hpc_user_api.development_mode);
    if arguments.with.is_some() && loaded.is_none() {
        terminal::note("There are no valid settings: storage systems are matched by name only.");
    }
    let ours = match (with, loaded) {
        (Some((url, credential)), _) => Ours::Peer(Box::new(peer(url, credential)?)),
        (None, Some(loaded)) => Ours::Upstreams(Box::new(loaded)),
        // Unreachable: an error of `load` was returned above.
        (None, None) => return Ok(EXIT_SETTINGS),
    };
    let (here, there, steady) = match block_on(both(&ours, &theirs, terminal))? {
        Ok(read) => read,
        Err(failure) => return Ok(report_error(&failure, EXIT_UNREADABLE)),
    };
    let context = Context::new(&systems, development, &here, &there);
    let report = compare(&here, &there, &context);
    let sides = Sides { here: ours.name(), there: theirs.url(), steady };
    let counts = report.unexplained().next().is_some()
        || arguments.strict && (!report.differences.is_empty() || report.order.out_of_place > 0);
    if arguments.json {
        terminal::print_json(&report::json(&report, &sides, (&here, &there), !counts))?;
    } else {
        terminal::print(&report::text(&report, &sides, (&here, &there), terminal))?;
    }
    Ok(if counts { EXIT_FAILURE } else { 0 })
}

/// Reads both until ours is the same before and after reading theirs. Returns both, and whether ours was stable.
async fn both(ours: &Ours, theirs: &Peer, terminal: Terminal) -> Result<(Document, Document, bool), Failure> {
    let mut before = ours.read(terminal).await?;
    let mut reading = 1;
    loop {
        let there = read(theirs, terminal).await?;
        let after = ours.read(terminal).await?;
        let steady = before == after;
        if steady || reading == READINGS {
            return Ok((after, there, steady));
        }
        reading += 1;
        before = after;
    }
}

impl Ours {
    fn name(&self) -> String {
        match self {
            Self::Upstreams(loaded) => format!("Waldur at {}", public_part(&loaded.settings.waldur_api.api_url)),
            Self::Peer(peer) => peer.url(),
        }
    }

    async fn read(&self, terminal: Terminal) -> Result<Document, Failure> {
        let loaded = match self {
            Self::Peer(peer) => return read(peer, terminal).await,
            Self::Upstreams(loaded) => loaded,
        };
        let reading = catalogue::read(loaded, terminal).await?;
        let (items, skipped) = reading.select(&reading.catalogue(), &Filter::default());
        let unreadable = |error: serde_json::Error| format!("cannot render the catalogue: {error}");
        let items = items.iter().map(serde_json::to_value).collect::<Result<Vec<Value>, _>>().map_err(unreadable)?;
        let skipped = skipped.iter().map(serde_json::to_value).collect::<Result<Vec<Value>, _>>();
        Ok(Document { items, skipped: skipped.map_err(unreadable)? })
    }
}

async fn read(peer: &Peer, terminal: Terminal) -> Result<Document, Failure> {
    let (url, progress) = (peer.url(), Mutex::new(String::new()));
    let report = |read: usize, all: usize| {
        if let Ok(mut progress) = progress.lock() {
            *progress = format!(", {read} of {all} items");
        }
    };
    let what = || format!("reading {url}{}", progress.lock().map(|progress| progress.clone()).unwrap_or_default());
    let reading = progress::wait_with(terminal, what, peer.read(&report));
    reading.await.map_err(|error| escaped(&error_chain(&error)))
}

/// URL and credential of the other proxy, and of the proxy of `--with`.
#[expect(clippy::type_complexity, reason = "the caller destructures it")]
fn places(
    arguments: &CompareArgs,
    environment: &Environment,
) -> Result<(Url, Credential, Option<(Url, Credential)>), String> {
    let url = base_url(&arguments.url)?;
    let with = arguments.with.as_deref().map(|url| {
        let file = arguments.with_token_file.as_deref().map(|file| ("--with-token-file", file));
        let token = token(file, "COMPARE_WITH_TOKEN", environment)?;
        Ok::<_, String>((base_url(url)?, token))
    });
    Ok((url, other(arguments, environment)?, with.transpose()?))
}

/// The credential for the other proxy.
fn other(arguments: &CompareArgs, environment: &Environment) -> Result<Credential, String> {
    let (Some(id), Some(file), Some(url)) = (&arguments.client_id, &arguments.client_secret_file, &arguments.token_url)
    else {
        let file = arguments.token_file.as_deref().map(|file| ("--token-file", file));
        return token(file, "COMPARE_TOKEN", environment);
    };
    let secret = SecretString::from(secret("--client-secret-file", file)?);
    let transport = Transport::new(true, None, TOKEN_TIMEOUT);
    let upstream = Upstream::new("The token endpoint", &transport).map_err(|error| error_chain(&error))?;
    let token = MachineToken::new(upstream, endpoint(url)?, id.clone(), secret, arguments.scope.clone());
    Ok(Credential::Client(Box::new(token)))
}

/// The token in a file, given by an option, or in an environment variable.
fn token(file: Option<(&str, &Path)>, variable: &str, environment: &Environment) -> Result<Credential, String> {
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
