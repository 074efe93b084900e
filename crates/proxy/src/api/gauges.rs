//! Gauges, sampled at each scrape.
//!
//! Every scrape has its own recorder, so a series disappears together with what it describes: a storage system, an upstream
//! or a shared cache that was removed from the settings. A permanent recorder would repeat the last value forever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::Instant;

use super::{Service, VERSION};
use crate::metrics::{describe_table, handle, new_recorder, table};
use crate::telemetry;
use crate::upstream::BreakerState;
use program::lock;

/// All metrics in the text format of Prometheus.
pub(super) fn render(service: &Service) -> String {
    let Some(counted) = handle() else { return String::new() };
    let Ok(recorder) = new_recorder() else { return counted.render() };
    let sampled = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        describe_table();
        sample(service);
    });
    counted.render() + &sampled.render()
}

/// The times from which ages are counted. Changed settings may discard a snapshot or keys; their age then keeps growing, so
/// that alerts on ages still fire.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ages(Arc<Mutex<BTreeMap<(&'static str, &'static str), Instant>>>);

impl Ages {
    /// The age since `at`, or if that is `None` since the last known time.
    fn age(&self, metric: &'static str, label: &'static str, at: Option<Instant>) -> Option<Duration> {
        let mut known = lock(&self.0);
        if let Some(at) = at {
            known.insert((metric, label), at);
        }
        known.get(&(metric, label)).map(Instant::elapsed)
    }
}

#[expect(clippy::cast_precision_loss, reason = "no value is near 2^53")]
fn sample(service: &Service) {
    let of = |number: usize| number as f64;
    gauge!(table::BUILD, "version" => VERSION).set(1.0);
    counter!(table::LOST_LINES).absolute(telemetry::lost_lines() as u64);
    gauge!(table::RUNNING).set(of(service.limits.running()));
    gauge!(table::WAITING).set(of(service.waiting.clients()));
    gauge!(table::READY).set(if service.is_ready() { 1.0 } else { 0.0 });
    gauge!(table::GIDS).set(of(service.store.source().cached_gids()));
    let newest = service.store.newest();
    if let Some(age) = service.ages.age(table::AGE, "", newest.as_ref().map(|reading| reading.began())) {
        gauge!(table::AGE).set(age.as_secs_f64());
    }
    if let Some(reading) = newest {
        let snapshot = &reading.snapshot;
        gauge!(table::BYTES).set(of(snapshot.bytes()));
        for catalog::Count { system, target_type, status, items } in snapshot.counts() {
            let labels = [
                ("storage_system", system.clone()),
                ("target_type", target_type.as_str().to_owned()),
                ("status", status.as_str().to_owned()),
            ];
            gauge!(table::ITEMS, &labels).set(of(items));
        }
        for code in catalog::QuotaProblemCode::ALL {
            gauge!(table::QUOTA_PROBLEMS, "code" => code.as_str()).set(of(snapshot.quota_problems(code)));
        }
        for reason in catalog::Skipped::REASONS {
            let count = snapshot.skipped().filter(|skipped| skipped.error == reason).count();
            gauge!(table::SKIPPED, "reason" => reason).set(of(count));
        }
    }
    if let Some(keys) = service.verifier.keys() {
        let fetched = keys.age.and_then(|age| Instant::now().checked_sub(age));
        if let Some(age) = service.ages.age(table::KEYS_AGE, "", fetched) {
            gauge!(table::KEYS_AGE).set(age.as_secs_f64());
        }
    }
    if let Some(works) = service.store.shared_cache_works() {
        gauge!(table::SHARED_UP).set(if works { 1.0 } else { 0.0 });
    }
    if service.push.is_some() {
        gauge!(table::PUSH_CONNECTED).set(if service.store.waldur_announces() { 1.0 } else { 0.0 });
    }
    let now = service.reports.now();
    for received in service.reports.all() {
        let age = (now - received.received_at).as_seconds_f64();
        gauge!(table::REPORT_AGE, "provisioner" => received.name.clone()).set(age);
        let silent = if received.is_silent(now) { 1.0 } else { 0.0 };
        gauge!(table::SILENT, "provisioner" => received.name.clone()).set(silent);
    }
    for upstream in service.upstreams() {
        let name = upstream.name();
        if let Some(age) = service.ages.age(table::SUCCESS_AGE, name, upstream.last().success) {
            gauge!(table::SUCCESS_AGE, "upstream" => name).set(age.as_secs_f64());
        }
        let now = upstream.breaker();
        for state in BreakerState::ALL {
            gauge!(table::BREAKER, "upstream" => name, "state" => state.as_str()).set(if state == now {
                1.0
            } else {
                0.0
            });
        }
    }
    // The standard metrics of a process.
    metrics_process::Collector::default().collect();
}
