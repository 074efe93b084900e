//! Metrics of the process, for Prometheus. The module `table` is the one list of them.
//!
//! Events are counted where they happen, by the functions here; gauges, such as ages and sizes, are sampled at scrape time by
//! `standing`. Label values are few: routes are templates, and names come from the settings.

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

/// Upper bounds of the buckets, in seconds: from a cached page to a reading that just ends in time.
const BUCKETS: [f64; 17] =
    [0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// How often observations are sorted into buckets; until then each takes its place in memory.
const UPKEEP: Duration = Duration::from_secs(5);

pub(crate) fn recorder() -> Result<PrometheusRecorder, BuildError> {
    Ok(PrometheusBuilder::new().set_buckets(&BUCKETS)?.build_recorder())
}

/// Begins to count, once for the process; later calls change nothing.
pub fn start() {
    let _ = numbers();
}

/// The numbers counted so far; `None` where something else in the process counts.
pub(crate) fn numbers() -> Option<&'static PrometheusHandle> {
    static NUMBERS: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let begin = || {
        let recorder = recorder().ok()?;
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            warn!("something else in this process counts already: /metrics stays empty");
            return None;
        }
        describe();
        Some(handle)
    };
    NUMBERS.get_or_init(begin).as_ref()
}

/// Keeps what is counted small, for as long as it is polled.
pub async fn keep_small() {
    let Some(numbers) = numbers() else { return };
    loop {
        tokio::time::sleep(UPKEEP).await;
        numbers.run_upkeep();
    }
}

/// Describes all metrics, and starts those counters at 0 whose first increase an alert has to see.
fn describe() {
    describe_table();
    gids(0, 0);
    for outcome in ["success", "failure"] {
        counter!(table::TOKENS, "outcome" => outcome).absolute(0);
        counter!(table::KEYS, "outcome" => outcome).absolute(0);
    }
}

/// Describes all metrics to the current recorder.
pub(crate) fn describe_table() {
    for Metric { name, kind, help, .. } in TABLE {
        match kind {
            Kind::Counter => describe_counter!(*name, *help),
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Histogram => describe_histogram!(*name, *help),
        }
    }
}

/// A request has ended, with this status or because the caller went away.
pub(crate) fn request(route: &str, status: Option<StatusCode>, took: Duration) {
    // Both spellings of an address are one route.
    let route = route.trim_end_matches('/').to_owned();
    let status = status.map_or_else(|| String::from("gone"), |status| status.as_str().to_owned());
    histogram!(table::REQUESTS, "route" => route, "status" => status).record(took);
}

/// A reading of all upstreams has ended.
pub(crate) fn refresh(succeeded: bool, took: Duration) {
    histogram!(table::REFRESHES, "outcome" => outcome(succeeded)).record(took);
}

/// A part of a reading has ended: `read`, `build` or `render`.
pub(crate) fn phase(phase: &'static str, took: Duration) {
    histogram!(table::PHASES, "phase" => phase).record(took);
}

/// GIDs were needed: so many were in the cache, and so many were asked for.
pub(crate) fn gids(hits: usize, misses: usize) {
    counter!(table::GID_HITS).increment(hits as u64);
    counter!(table::GID_MISSES).increment(misses as u64);
}

/// A machine token was asked for.
pub(crate) fn token_renewal(succeeded: bool) {
    counter!(table::TOKENS, "outcome" => outcome(succeeded)).increment(1);
}

/// The realm's keys were asked for.
pub(crate) fn key_renewal(succeeded: bool) {
    counter!(table::KEYS, "outcome" => outcome(succeeded)).increment(1);
}

/// An exchange with an upstream has ended.
pub(crate) fn exchange(upstream: &'static str, outcome: &'static str, took: Duration) {
    histogram!(table::EXCHANGES, "upstream" => upstream, "outcome" => outcome).record(took);
}

/// A request is sent to an upstream again.
pub(crate) fn repeat(upstream: &'static str) {
    counter!(table::REPEATS, "upstream" => upstream).increment(1);
}

/// An exchange with the cache of the replicas has ended: `success`, `failed`, `timed_out` or `left_alone`.
pub(crate) fn shared_exchange(outcome: &'static str) {
    counter!(table::SHARED_EXCHANGES, "outcome" => outcome).increment(1);
}

/// Another replica's reading is taken.
pub(crate) fn taken() {
    counter!(table::TAKEN).increment(1);
}

fn outcome(succeeded: bool) -> &'static str {
    if succeeded { "success" } else { "failure" }
}

#[cfg(test)]
mod tests;
