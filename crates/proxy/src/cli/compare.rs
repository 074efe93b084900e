//! `compare`: compares this proxy's catalogue, or that of another instance, with the listing of another proxy.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use catalog::Filter;
use clap::{Args, ValueHint};
use url::Url;

use super::access::{Access, base_url, token};
use super::terminal::{self, Terminal};
use super::{
    EXIT_FAILURE, EXIT_SETTINGS, EXIT_UNREADABLE, EXIT_USAGE, Failure, access, block_on, catalogue, log, report_error,
};
use crate::compare::{Context, compare};
use crate::config::{Environment, Loaded, Problems};
use crate::peer::{Credential, Document, Peer};
use crate::upstream::public_part;
use program::error_chain;
use report::Sides;

/// Maximum number of times both are read until nothing changes in between.
const READINGS: usize = 3;
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// Base URL of the other proxy
    #[arg(value_hint = ValueHint::Url)]
    url: String,
    /// Compare with the proxy at this URL instead of the upstreams; settings are used if present
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    with: Option<String>,
    #[command(flatten)]
    access: Access,
    /// File with an access token for the proxy of --with [default: $COMPARE_WITH_TOKEN]
    #[arg(long, value_name = "FILE", requires = "with", value_hint = ValueHint::FilePath)]
    with_token_file: Option<PathBuf>,
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
        let there = access::read(theirs, true, terminal).await.map_err(|error| access::failure(&error))?;
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
            Self::Peer(peer) => {
                return access::read(peer, true, terminal).await.map_err(|error| access::failure(&error));
            }
            Self::Upstreams(loaded) => loaded,
        };
        let reading = catalogue::read(loaded, terminal).await?;
        let catalogue = reading.catalogue();
        let (items, skipped) = reading.select(&catalogue, &Filter::default());
        Ok(Document { items: catalogue::values(&items)?, skipped: catalogue::values(&skipped)?, tag: None })
    }
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
    Ok((url, arguments.access.credential(environment)?, with.transpose()?))
}
