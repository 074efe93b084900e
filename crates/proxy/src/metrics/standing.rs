//! How things stand, looked at when somebody asks for the numbers.

use metrics::{counter, gauge};

use super::{numbers, table};
use crate::api::{Service, VERSION};
use crate::telemetry;
use crate::upstream::BreakerState;

/// All numbers in the text format of Prometheus.
pub(crate) fn text(service: &Service) -> String {
    set(service);
    numbers().map(metrics_exporter_prometheus::PrometheusHandle::render).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "nothing here comes near 2^53")]
fn set(service: &Service) {
    let of = |number: usize| number as f64;
    gauge!(table::BUILD, "version" => VERSION).set(1.0);
    counter!(table::LOST_LINES).absolute(telemetry::lost_lines() as u64);
    gauge!(table::RUNNING).set(of(service.limits.running()));
    gauge!(table::READY).set(if service.is_ready() { 1.0 } else { 0.0 });
    gauge!(table::GIDS).set(of(service.store.source().cached_gids()));
    if let Some(reading) = service.store.newest() {
        let snapshot = &reading.snapshot;
        gauge!(table::AGE).set(reading.age().as_secs_f64());
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
    if let Some(age) = service.verifier.keys().and_then(|keys| keys.age) {
        gauge!(table::KEYS_AGE).set(age.as_secs_f64());
    }
    if let Some(works) = service.store.shared_cache_works() {
        gauge!(table::SHARED_UP).set(if works { 1.0 } else { 0.0 });
    }
    for upstream in service.upstreams() {
        let name = upstream.name();
        if let Some(age) = upstream.last().success {
            gauge!(table::SUCCESS_AGE, "upstream" => name).set(age.elapsed().as_secs_f64());
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
    // Under the names that every process has.
    metrics_process::Collector::default().collect();
}
