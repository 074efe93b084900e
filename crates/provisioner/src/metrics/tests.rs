use std::sync::atomic::{AtomicU64, Ordering};

use provisioner_core::Turn;
use provisioner_core::document::{Offering, OrderKind, OrderState, Resource, Status};
use provisioner_core::plan::{Held, Task, TaskAction};
use provisioner_core::preflight::{Obstacle, ObstacleKind};
use storage_driver::DriverError;

use super::*;
use crate::pass::model::resource;

/// The first time of [`clock`], in seconds since 1970.
const START: u64 = 1_000_000;
const SET_BACK: u64 = 86_400;

fn held(system: &str, hold: Hold) -> Held {
    let (system, path, reason) = (system.into(), String::new(), String::new());
    Held { id: Some(Uuid::from_u128(1)), system, path, hold, turn: Turn::Operator, reason, changes: Vec::new() }
}

fn task(resource: &Resource) -> Task {
    let (path, why) = (String::new(), String::new());
    let (action, changes, steps) = (TaskAction::Report, Vec::new(), vec![Step::Done]);
    Task { id: resource.id, system: resource.system.clone(), path, why, order: None, action, changes, steps }
}

/// The values after `act`, by series.
fn shown(act: impl FnOnce(&Metrics)) -> BTreeMap<String, String> {
    let recorder = PrometheusBuilder::new().set_buckets(&[1.0]).unwrap().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || act(&Metrics::new(&Clock::system(), Duration::from_mins(1))));
    let text = handle.render();
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    lines.map(|(series, value)| (series.to_owned(), value.to_owned())).collect()
}

/// Seconds that have passed, and a clock that shows them. It is set back by `SET_BACK` seconds when the first one has passed.
fn clock() -> (Arc<AtomicU64>, Clock) {
    let seconds = Arc::new(AtomicU64::new(0));
    let (wall, monotonic, start) = (Arc::clone(&seconds), Arc::clone(&seconds), Clock::system().instant());
    let wall = Clock::from_fn(move || {
        let passed = wall.load(Ordering::Relaxed);
        let back = if passed > 0 { SET_BACK } else { 0 };
        SystemTime::UNIX_EPOCH + Duration::from_secs(START + passed - back)
    });
    (seconds, wall.with_monotonic(move || start + Duration::from_secs(monotonic.load(Ordering::Relaxed))))
}

/// A case without a directory, whose desired state is unknown.
fn case(resource: Resource) -> Case {
    let obstacle = Obstacle { kind: ObstacleKind::Waiting, turn: Turn::Identity, reason: String::new() };
    Case {
        resource,
        desired: Err(obstacle),
        observed: Err(DriverError::temporary("").into()),
        unfinished: false,
        last_order: None,
    }
}

#[test]
fn each_metric_has_the_labels_in_the_table() {
    let resource = resource(1, Status::Active, None, 1.0);
    let task = task(&resource);
    let shown = shown(|metrics| {
        metrics.planned(&Plan { tasks: vec![task], held: vec![held("capstor", Hold::Asks)] }, &[case(resource)]);
        metrics.ended(&[], 0, Duration::from_secs(1));
        callback(Step::CALLS[0], &Answer::Accepted);
    });
    let mut found = BTreeMap::<_, BTreeSet<_>>::new();
    for series in shown.keys() {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',').filter_map(|label| Some(label.split_once('=')?.0));
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        found.entry(name).or_default().extend(labels.filter(|label| *label != "le"));
    }
    let table: BTreeMap<_, _> =
        METRICS.iter().map(|(name, labels, _)| (*name, labels.iter().copied().collect())).collect();
    assert_eq!(found, table);
}

#[test]
fn gauges_of_resources_that_are_gone_become_0() {
    let shown = shown(|metrics| {
        let held = vec![held("", Hold::Refused), held("capstor", Hold::Conflict)];
        metrics
            .planned(&Plan { tasks: Vec::new(), held }, &[1, 2].map(|n| case(resource(n, Status::Active, None, 1.0))));
        metrics.planned(&Plan::default(), &[]);
    });
    for series in [
        r#"hpc_storage_provisioner_held{system="",hold="refused"}"#,
        r#"hpc_storage_provisioner_held{system="capstor",hold="conflict"}"#,
        r#"hpc_storage_provisioner_resources{system="capstor"}"#,
    ] {
        assert_eq!(shown.get(series).map(String::as_str), Some("0"), "{series} {shown:#?}");
    }
}

#[test]
fn resources_held_by_a_fault_are_pending_and_those_waiting_for_a_person_are_not() {
    for (hold, pending) in [(Hold::Fault, 1), (Hold::Asks, 0), (Hold::Waiting, 0)] {
        let _ = shown(|metrics| {
            metrics.planned(&Plan { tasks: Vec::new(), held: vec![held("capstor", hold)] }, &[]);
            assert_eq!(metrics.ready().1["pending"], pending, "{hold:?}");
        });
    }
}

#[test]
fn orders_waiting_for_waldurs_worker_or_a_gid_have_an_age() {
    for (order, expected) in [
        // Approved, but Waldur's worker has not carried it out.
        (Some((OrderState::Executing, Offering::Basic)), 7200.0),
        // The project has no GID.
        (Some((OrderState::PendingProvider, Offering::SiteAgent)), 7200.0),
        // The customer has not approved it.
        (Some((OrderState::Other, Offering::SiteAgent)), 0.0),
        (None, 0.0),
    ] {
        let (seconds, clock) = clock();
        let order = order.map(|(state, offering)| (OrderKind::Create, state, offering));
        let case = case(resource(1, Status::Pending, order, 1.0));
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let metrics = Metrics::new(&clock, Duration::from_mins(1));
            for _ in 0..3 {
                let plan = Plan { tasks: Vec::new(), held: vec![held("capstor", Hold::Waiting)] };
                metrics.planned(&plan, std::slice::from_ref(&case));
                metrics.ended(&[], 0, Duration::from_secs(1));
                seconds.fetch_add(3600, Ordering::Relaxed);
            }
        });
        let text = handle.render();
        let line = text.lines().find(|line| line.starts_with(OLDEST_WAITING)).unwrap();
        let shown: f64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        assert_eq!(shown.to_bits(), f64::to_bits(expected), "{order:?}");
    }
}

#[test]
fn the_loop_is_not_ready_while_a_pass_takes_too_long() {
    let (seconds, clock) = clock();
    let metrics = Metrics::new(&clock, Duration::from_mins(1));
    assert!(!metrics.ready().0, "no pass has ended yet");
    metrics.began();
    metrics.ended(&[], 0, Duration::from_secs(1));
    metrics.began();
    seconds.fetch_add(15 * 60, Ordering::Relaxed);
    assert!(metrics.ready().0);
    seconds.fetch_add(60, Ordering::Relaxed);
    let (ready, body) = metrics.ready();
    assert_eq!((ready, &body["under_way_seconds"], &body["last_pass"]), (false, &json!(960), &json!(START)));
    metrics.ended(&[], 0, Duration::from_mins(16));
    assert!(metrics.ready().0);
    metrics.failed(Duration::from_secs(1));
    assert_eq!((metrics.ready().0, &metrics.ready().1["last_failed"]), (false, &json!(true)));
}

#[test]
fn a_resource_in_every_plan_stays_pending_although_its_task_ends_each_time() {
    let resource = resource(1, Status::Pending, None, 1.0);
    let task = task(&resource);
    let plan = Plan { tasks: vec![task], held: Vec::new() };
    let (seconds, clock) = clock();
    let metrics = Metrics::new(&clock, Duration::from_mins(1));
    for _ in 0..10 {
        metrics.planned(&plan, &[]);
        metrics.ended(&[resource.id], 0, Duration::from_secs(1));
        assert_eq!(metrics.ready().1["pending"], 0, "until the next plan");
        seconds.fetch_add(60, Ordering::Relaxed);
    }
    metrics.planned(&plan, &[]);
    metrics.ended(&[], 0, Duration::from_secs(1));
    assert_eq!(clock.instant() - metrics.state().pending[&resource.id], Duration::from_mins(10));
    assert_eq!(metrics.ready().1["pending"], 1);
}
