//! Prometheus metrics and the readiness of `run`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use program::Clock;
use provisioner_core::document::OrderState;
use provisioner_core::last_order::WaldurRefusal;
use provisioner_core::plan::{Case, Hold, Plan, Step};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::pass::Answer;
use program::lock;

const PASSES: &str = "hpc_storage_provisioner_passes_total";
const PASS_SECONDS: &str = "hpc_storage_provisioner_pass_duration_seconds";
const LAST_PASS: &str = "hpc_storage_provisioner_last_pass_timestamp_seconds";
const RESOURCES: &str = "hpc_storage_provisioner_resources";
const HELD: &str = "hpc_storage_provisioner_held";
const OLDEST: &str = "hpc_storage_provisioner_oldest_pending_seconds";
const OLDEST_WAITING: &str = "hpc_storage_provisioner_oldest_waiting_order_seconds";
const STEPS: &str = "hpc_storage_provisioner_steps_total";
const TASKS: &str = "hpc_storage_provisioner_tasks_total";
const PENDING: &str = "hpc_storage_provisioner_pending";
const CALLBACKS: &str = "hpc_storage_provisioner_callbacks_total";
const REFUSED_BY_WALDUR: &str = "hpc_storage_provisioner_refused_by_waldur";

/// Reports to the proxy.
pub const REPORTS: &str = "hpc_storage_provisioner_reports_total";

/// Every metric: its name, labels and help text.
pub const METRICS: [(&str, &[&str], &str); 13] = [
    (
        PASSES,
        &["outcome"],
        "Passes: `whole` (complete), `kept_away` (another provisioner or a command held the lease), or `failed` (the document could not be read, or the state directory could not be used).",
    ),
    (PASS_SECONDS, &[], "Duration of passes."),
    (LAST_PASS, &[], "End of the last complete pass, in seconds since 1970; absent before the first."),
    (RESOURCES, &["system"], "Resources of a storage system."),
    (HELD, &["system", "hold"], "Held resources, by the reason; `system` is empty for items that could not be read."),
    (OLDEST, &[], "The longest time for which a resource has had work to do, or been held by a fault."),
    (
        OLDEST_WAITING,
        &[],
        "The longest time for which an order has been waiting for Waldur's worker, or for a GID or UID in the HPC User API; not for its customer, and not for the provisioner.",
    ),
    (
        PENDING,
        &["age"],
        "Resources that have work to do or are held by a fault, by how long the provisioner has seen them so: less than `5m`, `1h` or `1d`, or `more`.",
    ),
    (
        REFUSED_BY_WALDUR,
        &["system", "reason"],
        "Resources with an order for which Waldur refused a call and has not accepted it since; `reason`: `expired_project`, `blocked_organization`, `backend_id`, `missing_call` (this Waldur has no `set_state_ok`), `other`.",
    ),
    (STEPS, &["step"], "Planned steps."),
    (TASKS, &["outcome"], "Tasks: `ended` or `failed`."),
    (
        CALLBACKS,
        &["action", "outcome"],
        "Callbacks: `accepted`, `refused` (by Waldur, until something changes there), `unclear` (the order is in another state, or there was no answer), `denied` (the credentials do not allow it).",
    ),
    (
        REPORTS,
        &["outcome"],
        "Reports to the proxy: `accepted`, `rejected` (a role is missing, or the report is not valid), `failed` (no answer, or an error of the proxy), `unsupported` (an older proxy).",
    ),
];

/// Values of the label `age`, each with its upper bound in seconds.
const AGES: [(&str, u64); 4] = [("5m", 300), ("1h", 3600), ("1d", 86_400), ("more", u64::MAX)];

/// The loop is ready until this time, plus the interval, after the end of the last complete pass.
pub(crate) const MAX_PASS_DURATION: Duration = Duration::from_mins(15);

/// Counts a callback. Only `run` serves the metrics.
pub fn callback(action: &'static str, answer: &Answer) {
    let outcome = match answer {
        Answer::Accepted => "accepted",
        Answer::Unclear(_) | Answer::Missing(_) => "unclear",
        Answer::Refused(_) => "refused",
        Answer::Denied(_) => "denied",
    };
    counter!(CALLBACKS, "action" => action, "outcome" => outcome).increment(1);
}

/// The metrics of the process, and the state that gauges and readiness are computed from.
#[derive(Debug, Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    clock: Clock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Time from one pass to the next.
    interval: Duration,
    /// Start of the current pass.
    began: Option<Instant>,
    /// End of the last complete pass: to measure time, and for people.
    last: Option<(Instant, SystemTime)>,
    last_failed: bool,
    /// Systems that have had resources. Those without any now are reported as 0.
    systems: BTreeSet<String>,
    /// Since when each resource has had work to do, or been held by a fault.
    pending: BTreeMap<Uuid, Instant>,
    /// Since when each resource has had an order that waits for Waldur's worker, or for a GID or UID.
    waiting: BTreeMap<Uuid, Instant>,
    /// Resources in `pending` whose tasks have ended since the last plan. If the next plan has work for one of them, it stays
    /// pending since the same time.
    done: BTreeSet<Uuid>,
}

impl Metrics {
    /// Installs the recorder of the process. Only the first instance in a process records anything. `interval`: time between
    /// passes.
    pub fn new(clock: &Clock, interval: Duration) -> Self {
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
        for (name, _, text) in METRICS {
            match name {
                PASSES | STEPS | TASKS | CALLBACKS | REPORTS => describe_counter!(name, text),
                PASS_SECONDS => describe_histogram!(name, text),
                _ => describe_gauge!(name, text),
            }
        }
        // Counters start at 0, so that the first event shows as an increase.
        for outcome in ["whole", "failed", "kept_away"] {
            counter!(PASSES, "outcome" => outcome).absolute(0);
        }
        for outcome in ["ended", "failed"] {
            counter!(TASKS, "outcome" => outcome).absolute(0);
        }
        for outcome in ["accepted", "rejected", "failed", "unsupported"] {
            counter!(REPORTS, "outcome" => outcome).absolute(0);
        }
        for action in Step::CALLS {
            counter!(CALLBACKS, "action" => action, "outcome" => "refused").absolute(0);
            for outcome in ["accepted", "denied"] {
                counter!(CALLBACKS, "action" => action, "outcome" => outcome).absolute(0);
            }
        }
        let state = Arc::new(Mutex::new(State { interval, ..State::default() }));
        Self { handle, clock: clock.clone(), state }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub fn set_interval(&self, interval: Duration) {
        self.state().interval = interval;
    }

    /// Records the start of a pass.
    pub fn began(&self) {
        self.state().began = Some(self.clock.instant());
    }

    /// Records the plan of a pass, and the cases that it was made from.
    pub fn planned(&self, plan: &Plan, cases: &[Case]) {
        let mut state = self.state();
        state.systems.extend(cases.iter().map(|case| case.resource.system.clone()));
        let mut resources: BTreeMap<_, u32> = state.systems.iter().map(|system| (system.clone(), 0)).collect();
        for case in cases {
            *resources.entry(case.resource.system.clone()).or_default() += 1;
        }
        let mut held = BTreeMap::<_, u32>::new();
        // Without a system: items that could not be read.
        for system in resources.keys().map(String::as_str).chain([""]) {
            for &hold in Hold::ALL {
                held.insert((system.to_owned(), hold), 0);
            }
        }
        for it in &plan.held {
            *held.entry((it.system.clone(), it.hold)).or_default() += 1;
        }
        let mut refused: BTreeMap<_, u32> =
            resources.keys().flat_map(|system| WaldurRefusal::KINDS.map(|kind| ((system.clone(), kind), 0))).collect();
        for case in cases {
            if let Some(refusal) = case.refused() {
                *refused.entry((case.resource.system.clone(), refusal.kind())).or_default() += 1;
            }
        }
        for ((system, kind), count) in refused {
            gauge!(REFUSED_BY_WALDUR, "system" => system, "reason" => kind).set(count);
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
        let held_by =
            |hold| plan.held.iter().filter(move |held| held.hold == hold).filter_map(|held| held.id).collect();
        let faults: BTreeSet<_> = held_by(Hold::Fault);
        // In any other state an order waits for its customer, or for the project to start.
        let is_placed = |case: &&Case| case.resource.order.as_ref().is_some_and(|it| it.state != OrderState::Other);
        let placed: BTreeSet<_> = cases.iter().filter(is_placed).map(|case| case.resource.id).collect();
        let waiting: BTreeSet<_> = held_by(Hold::Waiting);
        let now = self.clock.instant();
        state.done.clear();
        keep_since(&mut state.pending, &tasks.chain(faults).collect(), now);
        keep_since(&mut state.waiting, &(&waiting & &placed), now);
    }

    /// Records the end of a complete pass. `done`: resources whose tasks ended; `failed`: number of tasks that did not.
    pub fn ended(&self, done: &[Uuid], failed: usize, took: Duration) {
        let (instant, now) = (self.clock.instant(), self.clock.now());
        counter!(PASSES, "outcome" => "whole").increment(1);
        histogram!(PASS_SECONDS).record(took);
        counter!(TASKS, "outcome" => "ended").increment(done.len() as u64);
        counter!(TASKS, "outcome" => "failed").increment(failed as u64);
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        gauge!(LAST_PASS).set(since.as_secs_f64());
        let mut state = self.state();
        state.done.extend(done);
        let left = state.pending.iter().filter(|(id, _)| !state.done.contains(id));
        let ages: Vec<_> = left.map(|(_, since)| instant.saturating_duration_since(*since)).collect();
        gauge!(OLDEST).set(ages.iter().max().copied().unwrap_or_default().as_secs_f64());
        let waiting = state.waiting.values().min().map(|since| instant.saturating_duration_since(*since));
        gauge!(OLDEST_WAITING).set(waiting.unwrap_or_default().as_secs_f64());
        let mut from = 0;
        for (name, to) in AGES {
            let count = ages.iter().filter(|age| (from..to).contains(&age.as_secs())).count();
            gauge!(PENDING, "age" => name).set(u32::try_from(count).unwrap_or(u32::MAX));
            from = to;
        }
        state.last = Some((instant, now));
        (state.began, state.last_failed) = (None, false);
    }

    /// Records that a pass has not begun, and is tried again soon.
    pub fn waiting(&self) {
        self.state().began = None;
    }

    /// Records that another provisioner, or a command, held the lease.
    pub fn kept_away(&self) {
        counter!(PASSES, "outcome" => "kept_away").increment(1);
        self.waiting();
    }

    /// Records a failed pass.
    pub fn failed(&self, took: Duration) {
        counter!(PASSES, "outcome" => "failed").increment(1);
        histogram!(PASS_SECONDS).record(took);
        let mut state = self.state();
        (state.began, state.last_failed) = (None, true);
    }

    /// All metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Whether the last pass was complete and recent enough, and the JSON body of `/health/ready`.
    pub fn ready(&self) -> (bool, Value) {
        let now = self.clock.instant();
        let state = self.state();
        let since = |time| now.saturating_duration_since(time);
        let ready =
            !state.last_failed && state.last.is_some_and(|(last, _)| since(last) < state.interval + MAX_PASS_DURATION);
        let last = state.last.and_then(|(_, last)| last.duration_since(SystemTime::UNIX_EPOCH).ok());
        (
            ready,
            json!({
                "ready": ready, "last_pass": last.map(|last| last.as_secs()), "last_failed": state.last_failed,
                "under_way_seconds": state.began.map(|began| since(began).as_secs()), "pending": state.pending.keys().filter(|id| !state.done.contains(id)).count(),
            }),
        )
    }
}

/// Keeps the times of the resources `ids` alone, and enters `now` for new ones.
fn keep_since(since: &mut BTreeMap<Uuid, Instant>, ids: &BTreeSet<Uuid>, now: Instant) {
    since.retain(|id, _| ids.contains(id));
    for id in ids {
        since.entry(*id).or_insert(now);
    }
}

#[cfg(test)]
mod tests;
