//! What the loop shows of itself: numbers for Prometheus, and whether it is well.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::pass::{Report, Survey};
use crate::plan::{Hold, Plan};

const PASSES: &str = "hpc_storage_provisioner_passes_total";
const PASS_SECONDS: &str = "hpc_storage_provisioner_pass_duration_seconds";
const LAST_PASS: &str = "hpc_storage_provisioner_last_pass_timestamp_seconds";
const RESOURCES: &str = "hpc_storage_provisioner_resources";
const HELD: &str = "hpc_storage_provisioner_held";
const OLDEST: &str = "hpc_storage_provisioner_oldest_pending_seconds";
const STEPS: &str = "hpc_storage_provisioner_steps_total";
const TASKS: &str = "hpc_storage_provisioner_tasks_total";

/// Every metric with what it says.
pub const METRICS: [(&str, &str); 8] = [
    (PASSES, "Passes by outcome: whole, or failed where the document could not be had."),
    (PASS_SECONDS, "Duration of passes."),
    (LAST_PASS, "When the last whole pass ended, in seconds since 1970."),
    (RESOURCES, "Resources by storage system."),
    (HELD, "Resources for which nothing is done now, by system and by what holds them."),
    (OLDEST, "For how long the resource has been waiting that is neither settled nor a person's, the longest of all."),
    (STEPS, "Steps that were planned, by kind."),
    (TASKS, "Tasks by outcome: ended or failed."),
];

/// The numbers, shared with whoever serves them.
#[derive(Debug, Clone)]
pub struct Seen {
    handle: PrometheusHandle,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<SystemTime>,
    last_failed: bool,
    /// Since when each resource has work or waits.
    pending: BTreeMap<Uuid, SystemTime>,
}

impl Seen {
    /// Numbers from now on. Once for the process; a second one shows nothing.
    pub fn new() -> Self {
        let builder = PrometheusBuilder::new();
        let buckets = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];
        // Cannot fail: the list is not empty.
        let builder = match builder.set_buckets(&buckets) {
            Ok(builder) => builder,
            Err(_) => PrometheusBuilder::new(),
        };
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let _ = metrics::set_global_recorder(recorder);
        for (name, text) in METRICS {
            match name {
                PASSES | STEPS | TASKS => describe_counter!(name, text),
                PASS_SECONDS => describe_histogram!(name, text),
                _ => describe_gauge!(name, text),
            }
        }
        Self { handle, state: Arc::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pass has looked and planned.
    pub fn planned(&self, plan: &Plan, survey: &Survey, now: SystemTime) {
        let mut resources = BTreeMap::<_, u32>::new();
        for case in &survey.cases {
            *resources.entry(case.resource.system.clone()).or_default() += 1;
        }
        let mut held = BTreeMap::<_, u32>::new();
        for system in resources.keys() {
            for hold in [Hold::Waiting, Hold::Fault, Hold::Drift, Hold::Conflict, Hold::Refused, Hold::Asks] {
                held.insert((system.clone(), hold), 0);
            }
        }
        for it in &plan.held {
            *held.entry((it.system.clone(), it.hold)).or_default() += 1;
        }
        for (system, count) in resources {
            gauge!(RESOURCES, "system" => system).set(count);
        }
        for ((system, hold), count) in held {
            gauge!(HELD, "system" => system, "hold" => format!("{hold:?}").to_lowercase()).set(count);
        }
        for step in plan.tasks.iter().flat_map(|task| &task.steps) {
            counter!(STEPS, "step" => step.name()).increment(1);
        }
        let tasks = plan.tasks.iter().map(|task| task.id);
        let moving = |hold| matches!(hold, Hold::Fault | Hold::Asks);
        let waiting = plan.held.iter().filter(|held| moving(held.hold)).filter_map(|held| held.id);
        let pending: std::collections::BTreeSet<_> = tasks.chain(waiting).collect();
        let mut state = self.state();
        state.pending.retain(|id, _| pending.contains(id));
        for id in pending {
            state.pending.entry(id).or_insert(now);
        }
    }

    /// A pass came to its end.
    pub fn ended(&self, report: &Report, took: Duration, now: SystemTime) {
        counter!(PASSES, "outcome" => "whole").increment(1);
        histogram!(PASS_SECONDS).record(took);
        counter!(TASKS, "outcome" => "ended").increment(report.ended.len() as u64);
        counter!(TASKS, "outcome" => "failed").increment(report.failed.len() as u64);
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        gauge!(LAST_PASS).set(since.as_secs_f64());
        let mut state = self.state();
        for id in &report.ended {
            state.pending.remove(id);
        }
        let oldest = state.pending.values().filter_map(|since| now.duration_since(*since).ok()).max();
        gauge!(OLDEST).set(oldest.unwrap_or_default().as_secs_f64());
        state.last = Some(now);
        state.last_failed = false;
    }

    /// There was no pass.
    pub fn failed(&self, took: Duration) {
        counter!(PASSES, "outcome" => "failed").increment(1);
        histogram!(PASS_SECONDS).record(took);
        self.state().last_failed = true;
    }

    /// The numbers as Prometheus reads them.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Whether the last pass was whole, with when it was.
    pub fn ready(&self) -> (bool, Value) {
        let state = self.state();
        let last = state.last.and_then(|last| last.duration_since(SystemTime::UNIX_EPOCH).ok());
        let ready = last.is_some() && !state.last_failed;
        (ready, json!({"ready": ready, "last_pass": last.map(|last| last.as_secs()), "pending": state.pending.len()}))
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self::new()
    }
}
