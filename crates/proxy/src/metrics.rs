//! Metrics for Prometheus. [`TABLE`] lists all of them.
//!
//! The functions here count events where they happen. `api/gauges` samples gauges, such as ages and sizes, at scrape time.
//! Label values are few: routes are templates, and names come from the settings.

mod reference;
pub(crate) mod table;

use std::sync::OnceLock;
use std::time::Duration;

use http::StatusCode;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, histogram};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tracing::warn;

pub use reference::reference;
pub use table::{Kind, Metric, TABLE, Unit};

/// Upper bounds of the buckets, in seconds: from a cached page to a refresh that barely meets its timeout.
const BUCKETS: [f64; 17] =
    [0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// How often observations are sorted into buckets; until then each one takes up memory.
const UPKEEP: Duration = Duration::from_secs(5);

pub(crate) fn new_recorder() -> Result<PrometheusRecorder, BuildError> {
    Ok(PrometheusBuilder::new().set_buckets(&BUCKETS)?.build_recorder())
}

/// Installs the global recorder; later calls do nothing.
pub fn start() {
    let _ = handle();
}

/// The handle of the global recorder; `None` if the process has another recorder.
pub(crate) fn handle() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let install = || {
        let recorder = new_recorder().ok()?;
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            warn!("another metrics recorder is installed in this process: /metrics stays empty");
            return None;
        }
        describe();
        Some(handle)
    };
    HANDLE.get_or_init(install).as_ref()
}

/// Sorts observations into buckets regularly, to limit memory. Never resolves.
pub async fn run_upkeep() {
    let Some(handle) = handle() else { return };
    loop {
        tokio::time::sleep(UPKEEP).await;
        handle.run_upkeep();
    }
}

/// Describes all metrics, and initializes to 0 those counters whose first increase must be visible to alerts.
fn describe() {
    describe_table();
    gids(0, 0);
    missed(0);
    for name in [table::PUSH_EVENTS, table::PUSH_RECONNECTS, table::PUSH_SILENCES] {
        counter!(name).absolute(0);
    }
    for outcome in ["success", "failure"] {
        counter!(table::TOKENS, "outcome" => outcome).absolute(0);
        counter!(table::KEYS, "outcome" => outcome).absolute(0);
    }
    for outcome in SignIn::ALL {
        counter!(table::SIGN_INS, "outcome" => outcome.as_str()).absolute(0);
    }
}

/// Registers the descriptions of all metrics with the current recorder.
pub(crate) fn describe_table() {
    for Metric { name, kind, help, .. } in TABLE {
        match kind {
            Kind::Counter => describe_counter!(*name, *help),
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Histogram => describe_histogram!(*name, *help),
        }
    }
}

/// Counts a request; `status` is `None` if the client cancelled it.
pub(crate) fn request(route: &str, status: Option<StatusCode>, took: Duration) {
    // With and without a trailing slash it is the same route.
    let route = route.trim_end_matches('/').to_owned();
    let status = status.map_or_else(|| String::from("gone"), |status| status.as_str().to_owned());
    histogram!(table::REQUESTS, "route" => route, "status" => status).record(took);
}

/// Counts a refresh.
pub(crate) fn refresh(succeeded: bool, took: Duration) {
    histogram!(table::REFRESHES, "outcome" => outcome(succeeded)).record(took);
}

/// Counts a phase of a refresh: `read`, `build` or `render`.
pub(crate) fn phase(phase: &'static str, took: Duration) {
    histogram!(table::PHASES, "phase" => phase).record(took);
}

/// Counts a reading of Waldur: `full`, `changes`, or `unchanged`, which is one of the others that found nothing new.
pub(crate) fn reading(kind: &'static str) {
    counter!(table::READINGS, "kind" => kind).increment(1);
}

/// Counts resources whose changes the refreshes between two full readings missed.
pub(crate) fn missed(resources: usize) {
    counter!(table::MISSED).increment(resources as u64);
}

/// Counts GIDs found in the cache, and those that were requested.
pub(crate) fn gids(hits: usize, misses: usize) {
    counter!(table::GID_HITS).increment(hits as u64);
    counter!(table::GID_MISSES).increment(misses as u64);
}

/// Counts a request for a machine token.
pub(crate) fn token_renewal(succeeded: bool) {
    counter!(table::TOKENS, "outcome" => outcome(succeeded)).increment(1);
}

/// Counts a request for the realm's keys.
pub(crate) fn key_renewal(succeeded: bool) {
    counter!(table::KEYS, "outcome" => outcome(succeeded)).increment(1);
}

/// Counts an exchange with an upstream.
pub(crate) fn exchange(upstream: &'static str, outcome: &'static str, took: Duration) {
    histogram!(table::EXCHANGES, "upstream" => upstream, "outcome" => outcome).record(took);
}

/// Counts a retry.
pub(crate) fn repeat(upstream: &'static str) {
    counter!(table::REPEATS, "upstream" => upstream).increment(1);
}

/// Counts an exchange with the shared cache: `success`, `failed`, `timed_out` or `left_alone`.
pub(crate) fn shared_exchange(outcome: &'static str) {
    counter!(table::SHARED_EXCHANGES, "outcome" => outcome).increment(1);
}

/// Counts a snapshot taken from another replica.
pub(crate) fn taken() {
    counter!(table::TAKEN).increment(1);
}

/// How a sign-in of an operator ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignIn {
    Success,
    /// Without the required roles.
    Forbidden,
    /// The person cancelled it, or the realm refused it.
    Declined,
    /// It does not belong to this browser, took too long, or was completed before.
    Invalid,
    /// The realm cannot be reached or has a problem.
    Unavailable,
    /// The realm refuses the client, or its tokens are not accepted.
    Misconfigured,
}

impl SignIn {
    const ALL: [Self; 6] =
        [Self::Success, Self::Forbidden, Self::Declined, Self::Invalid, Self::Unavailable, Self::Misconfigured];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Forbidden => "forbidden",
            Self::Declined => "declined",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
            Self::Misconfigured => "misconfigured",
        }
    }
}

/// Counts a sign-in of an operator.
pub(crate) fn sign_in(outcome: SignIn) {
    counter!(table::SIGN_INS, "outcome" => outcome.as_str()).increment(1);
}

/// Counts an event from Waldur.
pub(crate) fn push_event() {
    counter!(table::PUSH_EVENTS).increment(1);
}

/// Counts an attempt to receive events again.
pub(crate) fn push_reconnect() {
    counter!(table::PUSH_RECONNECTS).increment(1);
}

/// Counts a connection that was replaced because it brought no events.
pub(crate) fn push_silence() {
    counter!(table::PUSH_SILENCES).increment(1);
}

fn outcome(succeeded: bool) -> &'static str {
    if succeeded { "success" } else { "failure" }
}

#[cfg(test)]
mod tests;
