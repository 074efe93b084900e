use std::sync::atomic::{AtomicU64, Ordering};

use provisioner_core::document::{Document, Offering, OrderKind, OrderState, Status};
use provisioner_core::plan::{Held, Recent, Task, TaskAction};
use storage_driver::DriverError;

use super::*;
use crate::pass::model::resource;

fn survey(cases: &[Case]) -> Survey {
    Survey { document: Document::default(), cases: cases.to_vec(), held: Vec::new(), lately: Recent::new() }
}

fn held(system: &str, hold: Hold) -> Held {
    let (system, path, reason) = (system.into(), String::new(), String::new());
    Held { id: Some(Uuid::from_u128(1)), system, path, hold, reason, changes: Vec::new() }
}

fn task(resource: &provisioner_core::document::Resource) -> Task {
    let (path, why) = (String::new(), String::new());
    let (action, changes, steps) = (TaskAction::Report, Vec::new(), vec![Step::Done]);
    Task { id: resource.id, system: resource.system.clone(), path, why, order: None, action, changes, steps }
}

/// What is shown after `act`, by series.
fn shown(act: impl FnOnce(&Seen)) -> BTreeMap<String, String> {
    let recorder = PrometheusBuilder::new().set_buckets(&[1.0]).unwrap().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || act(&Seen::new(&Clock::system(), Duration::from_mins(1))));
    let text = handle.render();
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    lines.map(|(series, value)| (series.to_owned(), value.to_owned())).collect()
}

#[test]
fn every_number_has_the_labels_of_the_table() {
    let resource = resource(1, Status::Active, None, 1.0);
    let task = task(&resource);
    let case = Case {
        resource,
        desired: Err(obstacle()),
        observed: Err(DriverError::unclear("").into()),
        unfinished: false,
        last_order: None,
    };
    let shown = shown(|seen| {
        seen.planned(&Plan { tasks: vec![task], held: vec![held("capstor", Hold::Asks)] }, &survey(&[case]));
        seen.ended(&Report::default(), Duration::from_secs(1));
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

fn obstacle() -> provisioner_core::preflight::Obstacle {
    provisioner_core::preflight::Obstacle {
        kind: provisioner_core::preflight::ObstacleKind::Waiting,
        reason: String::new(),
    }
}

#[test]
fn what_has_gone_is_told_as_none() {
    let case = |n| {
        let resource = resource(n, Status::Active, None, 1.0);
        Case {
            resource,
            desired: Err(obstacle()),
            observed: Err(DriverError::unclear("").into()),
            unfinished: false,
            last_order: None,
        }
    };
    let shown = shown(|seen| {
        let held = vec![held("", Hold::Refused), held("capstor", Hold::Conflict)];
        seen.planned(&Plan { tasks: Vec::new(), held }, &survey(&[case(1), case(2)]));
        seen.planned(&Plan::default(), &survey(&[]));
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
fn what_asks_waits_for_a_person_and_a_fault_for_nobody() {
    for (hold, pending) in [(Hold::Fault, 1), (Hold::Asks, 0), (Hold::Waiting, 0)] {
        let _ = shown(|seen| {
            seen.planned(&Plan { tasks: Vec::new(), held: vec![held("capstor", hold)] }, &survey(&[]));
            assert_eq!(seen.ready().1["pending"], pending, "{hold:?}");
        });
    }
}

#[test]
fn an_order_that_waits_for_waldurs_worker_or_a_gid_shows_its_age() {
    for (order, expected) in [
        // Approved, and Waldur's worker does not carry it out.
        (Some((OrderState::Executing, Offering::Basic)), 7200.0),
        // The project has no GID.
        (Some((OrderState::PendingProvider, Offering::SiteAgent)), 7200.0),
        // The customer has not approved it.
        (Some((OrderState::Other, Offering::SiteAgent)), 0.0),
        (None, 0.0),
    ] {
        let seconds = Arc::new(AtomicU64::new(1_000_000));
        let read = Arc::clone(&seconds);
        let clock = Clock::from_fn(move || SystemTime::UNIX_EPOCH + Duration::from_secs(read.load(Ordering::Relaxed)));
        let order = order.map(|(state, offering)| (OrderKind::Create, state, offering));
        let resource = resource(1, Status::Pending, order, 1.0);
        let case = Case {
            resource,
            desired: Err(obstacle()),
            observed: Err(DriverError::unclear("").into()),
            unfinished: false,
            last_order: None,
        };
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let seen = Seen::new(&clock, Duration::from_mins(1));
            for _ in 0..3 {
                let plan = Plan { tasks: Vec::new(), held: vec![held("capstor", Hold::Waiting)] };
                seen.planned(&plan, &survey(std::slice::from_ref(&case)));
                seen.ended(&Report::default(), Duration::from_secs(1));
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
fn a_clock_that_was_set_back_hides_nothing_that_waits() {
    let (id, at) = (Uuid::from_u128(1), |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let mut since = BTreeMap::new();
    for (now, expected) in [(9_000_000, 9_000_000), (1_000, 1_000), (2_000, 1_000)] {
        keep_since(&mut since, &[id].into(), at(now));
        assert_eq!(since[&id], at(expected));
    }
}

#[test]
fn a_pass_that_does_not_end_makes_the_loop_unready() {
    let seconds = Arc::new(AtomicU64::new(1_000_000));
    let read = Arc::clone(&seconds);
    let clock = Clock::from_fn(move || SystemTime::UNIX_EPOCH + Duration::from_secs(read.load(Ordering::Relaxed)));
    let seen = Seen::new(&clock, Duration::from_mins(1));
    assert!(!seen.ready().0, "nothing has been looked at yet");
    seen.began();
    seen.ended(&Report::default(), Duration::from_secs(1));
    seen.began();
    seconds.fetch_add(15 * 60, Ordering::Relaxed);
    assert!(seen.ready().0);
    seconds.fetch_add(60, Ordering::Relaxed);
    let (ready, told) = seen.ready();
    assert_eq!((ready, &told["under_way_seconds"], &told["last_pass"]), (false, &json!(960), &json!(1_000_000)));
    seen.ended(&Report::default(), Duration::from_mins(16));
    assert!(seen.ready().0);
    seen.failed(Duration::from_secs(1));
    assert_eq!((seen.ready().0, &seen.ready().1["last_failed"]), (false, &json!(true)));
}

#[test]
fn what_is_in_each_plan_again_is_pending_however_often_it_is_said_to_be_done() {
    let resource = resource(1, Status::Pending, None, 1.0);
    let task = task(&resource);
    let plan = Plan { tasks: vec![task], held: Vec::new() };
    let seconds = Arc::new(AtomicU64::new(1_000_000));
    let read = Arc::clone(&seconds);
    let clock = Clock::from_fn(move || SystemTime::UNIX_EPOCH + Duration::from_secs(read.load(Ordering::Relaxed)));
    let seen = Seen::new(&clock, Duration::from_mins(1));
    let report = Report { ended: vec![resource.id], ..Report::default() };
    for _ in 0..10 {
        seen.planned(&plan, &survey(&[]));
        seen.ended(&report, Duration::from_secs(1));
        assert_eq!(seen.ready().1["pending"], 0, "until the next plan");
        seconds.fetch_add(60, Ordering::Relaxed);
    }
    seen.planned(&plan, &survey(&[]));
    seen.ended(&Report::default(), Duration::from_secs(1));
    let pending = seen.state().pending.clone();
    assert_eq!(pending[&resource.id], SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
    assert_eq!(seen.ready().1["pending"], 1);
}
