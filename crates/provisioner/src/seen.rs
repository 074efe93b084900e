//! What the loop shows of itself: numbers for Prometheus, and whether it is well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use program::Clock;
use provisioner_core::document::OrderState;
use provisioner_core::last_order::WaldurRefusal;
use provisioner_core::plan::{Case, Hold, Plan, Step};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::pass::{Answer, Report, Survey};

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

/// Every metric with its labels and what it says.
pub const METRICS: [(&str, &[&str], &str); 12] = [
    (
        PASSES,
        &["outcome"],
        "Passes: `whole`, `kept_away` by another provisioner or somebody's command, or `failed`: no document, or no use of the state directory.",
    ),
    (PASS_SECONDS, &[], "Duration of passes."),
    (LAST_PASS, &[], "When the last whole pass ended, in seconds since 1970; absent before the first."),
    (RESOURCES, &["system"], "Resources of a storage system."),
    (
        HELD,
        &["system", "hold"],
        "Resources for which nothing is done now, by what holds them; `system` is empty where the item could not be read.",
    ),
    (
        OLDEST,
        &[],
        "For how long the resource has been waiting that has work to be done or is held by a fault, the longest of all.",
    ),
    (
        OLDEST_WAITING,
        &[],
        "For how long an order has been waiting for neither its customer nor this program, the longest of all: for Waldur's worker, or for a GID or UID of the HPC User API.",
    ),
    (
        PENDING,
        &["age"],
        "Resources with work to be done, or held by a fault, by how long they have been waiting since this program began to look: `5m`, `1h`, `1d` for less than that, `more`.",
    ),
    (
        REFUSED_BY_WALDUR,
        &["system", "reason"],
        "Resources with an order for which Waldur refused a call and has not accepted it since; `reason`: `expired_project`, `blocked_organization`, `backend_id`, `missing_call` (this Waldur has no `set_state_ok`), `other`.",
    ),
    (STEPS, &["step"], "Steps that were planned."),
    (TASKS, &["outcome"], "Tasks: `ended`, or `failed`."),
    (
        CALLBACKS,
        &["action", "outcome"],
        "Callbacks: `accepted`, `refused` (by Waldur, until something changes there), `unclear` (the order is in another state, or no answer came), `denied` (the credentials do not allow it).",
    ),
];

/// Ages of what is pending: each less than so many seconds.
const AGES: [(&str, u64); 4] = [("5m", 300), ("1h", 3600), ("1d", 86_400), ("more", u64::MAX)];

/// For how long after the end of the last whole pass, and the interval, the loop is still well: a pass has time for that.
const PATIENCE: Duration = Duration::from_mins(15);

/// Counts a callback. Only the loop shows the numbers.
pub fn callback(action: &'static str, answer: &Answer) {
    let outcome = match answer {
        Answer::Accepted => "accepted",
        Answer::Unclear(_) | Answer::Missing(_) => "unclear",
        Answer::Refused(_) => "refused",
        Answer::Denied(_) => "denied",
    };
    counter!(CALLBACKS, "action" => action, "outcome" => outcome).increment(1);
}

/// The numbers, shared with whoever serves them.
#[derive(Debug, Clone)]
pub struct Seen {
    handle: PrometheusHandle,
    clock: Clock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Time from one pass to the next.
    interval: Duration,
    /// Since when a pass is under way.
    began: Option<SystemTime>,
    last: Option<SystemTime>,
    last_failed: bool,
    /// Systems that numbers were told of. What has nothing any more is told as 0.
    systems: BTreeSet<String>,
    /// Since when each resource has work or waits.
    pending: BTreeMap<Uuid, SystemTime>,
    /// Since when each resource has an order that waits for Waldur's worker, or for a GID or UID.
    waiting: BTreeMap<Uuid, SystemTime>,
    /// Those of them whose work came to its end. One that the next plan has again was not done by that.
    done: BTreeSet<Uuid>,
}

impl Seen {
    /// Numbers from now on, of passes that come after each `interval`. Once for the process; a second one shows nothing.
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
                PASSES | STEPS | TASKS | CALLBACKS => describe_counter!(name, text),
                PASS_SECONDS => describe_histogram!(name, text),
                _ => describe_gauge!(name, text),
            }
        }
        // What has not happened yet is 0, so that its first time shows as a change.
        for outcome in ["whole", "failed", "kept_away"] {
            counter!(PASSES, "outcome" => outcome).absolute(0);
        }
        for outcome in ["ended", "failed"] {
            counter!(TASKS, "outcome" => outcome).absolute(0);
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes come after each `interval` from now on.
    pub fn set_interval(&self, interval: Duration) {
        self.state().interval = interval;
    }

    /// A pass begins.
    pub fn began(&self) {
        self.state().began = Some(self.clock.now());
    }

    /// A pass has looked and planned.
    pub fn planned(&self, plan: &Plan, survey: &Survey) {
        let mut state = self.state();
        state.systems.extend(survey.cases.iter().map(|case| case.resource.system.clone()));
        let mut resources: BTreeMap<_, u32> = state.systems.iter().map(|system| (system.clone(), 0)).collect();
        for case in &survey.cases {
            *resources.entry(case.resource.system.clone()).or_default() += 1;
        }
        let mut held = BTreeMap::<_, u32>::new();
        // Without a system: what could not be read.
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
        for case in &survey.cases {
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
        // An order in any other state waits for its customer, or for the project to start.
        let is_placed = |case: &&Case| case.resource.order.as_ref().is_some_and(|it| it.state != OrderState::Other);
        let placed: BTreeSet<_> = survey.cases.iter().filter(is_placed).map(|case| case.resource.id).collect();
        let waiting: BTreeSet<_> = held_by(Hold::Waiting);
        let now = self.clock.now();
        state.done.clear();
        keep_since(&mut state.pending, &tasks.chain(faults).collect(), now);
        keep_since(&mut state.waiting, &(&waiting & &placed), now);
    }

    /// A pass came to its end.
    pub fn ended(&self, report: &Report, took: Duration) {
        let now = self.clock.now();
        counter!(PASSES, "outcome" => "whole").increment(1);
        histogram!(PASS_SECONDS).record(took);
        counter!(TASKS, "outcome" => "ended").increment(report.ended.len() as u64);
        counter!(TASKS, "outcome" => "failed").increment(report.failed.len() as u64);
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        gauge!(LAST_PASS).set(since.as_secs_f64());
        let mut state = self.state();
        state.done.extend(&report.ended);
        // A clock that was set back makes nobody wait less than no time.
        let left = state.pending.iter().filter(|(id, _)| !state.done.contains(id));
        let ages: Vec<_> = left.map(|(_, since)| now.duration_since(*since).unwrap_or_default()).collect();
        gauge!(OLDEST).set(ages.iter().max().copied().unwrap_or_default().as_secs_f64());
        let waiting = state.waiting.values().min().map(|since| now.duration_since(*since).unwrap_or_default());
        gauge!(OLDEST_WAITING).set(waiting.unwrap_or_default().as_secs_f64());
        let mut from = 0;
        for (name, to) in AGES {
            let count = ages.iter().filter(|age| (from..to).contains(&age.as_secs())).count();
            gauge!(PENDING, "age" => name).set(u32::try_from(count).unwrap_or(u32::MAX));
            from = to;
        }
        state.last = Some(now);
        (state.began, state.last_failed) = (None, false);
    }

    /// There was no pass, because another one has the systems.
    pub fn kept_away(&self) {
        counter!(PASSES, "outcome" => "kept_away").increment(1);
        self.state().began = None;
    }

    /// There was no pass.
    pub fn failed(&self, took: Duration) {
        counter!(PASSES, "outcome" => "failed").increment(1);
        histogram!(PASS_SECONDS).record(took);
        let mut state = self.state();
        (state.began, state.last_failed) = (None, true);
    }

    /// The numbers as Prometheus reads them.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Whether the last pass was whole and not too long ago, with when it was.
    pub fn ready(&self) -> (bool, Value) {
        let now = self.clock.now();
        let state = self.state();
        let since = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        let ready = !state.last_failed && state.last.is_some_and(|last| since(last) < state.interval + PATIENCE);
        let last = state.last.and_then(|last| last.duration_since(SystemTime::UNIX_EPOCH).ok());
        (
            ready,
            json!({
                "ready": ready, "last_pass": last.map(|last| last.as_secs()), "last_failed": state.last_failed,
                "under_way_seconds": state.began.map(|began| since(began).as_secs()), "pending": state.pending.keys().filter(|id| !state.done.contains(id)).count(),
            }),
        )
    }
}

/// Keeps the times of the resources `ids`, and enters `now` for the new ones, and for those whose time is yet to come: the clock was
/// set back, and they would not seem to wait until then.
fn keep_since(since: &mut BTreeMap<Uuid, SystemTime>, ids: &BTreeSet<Uuid>, now: SystemTime) {
    since.retain(|id, _| ids.contains(id));
    for id in ids {
        let since = since.entry(*id).or_insert(now);
        *since = now.min(*since);
    }
}

#[cfg(test)]
mod tests;
