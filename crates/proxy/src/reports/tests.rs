use std::time::SystemTime;

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::*;

const START: u64 = 1_800_000_000;
const RESOURCE: &str = "11111111-1111-4111-8111-111111111111";

/// Reports with a clock that the test sets.
pub(super) struct World {
    pub(super) reports: Reports,
    now: Arc<Mutex<u64>>,
}

impl World {
    pub(super) fn new() -> Self {
        let now = Arc::new(Mutex::new(START));
        let shared = Arc::clone(&now);
        let clock = Clock::from_fn(move || SystemTime::UNIX_EPOCH + Duration::from_secs(*lock(&shared)));
        Self { reports: Reports::new(clock), now }
    }

    pub(super) fn pass(&self, seconds: u64) {
        *lock(&self.now) += seconds;
    }

    /// A report from this many seconds ago.
    pub(super) fn report(&self, ago: i64) -> Value {
        let at = i64::try_from(*lock(&self.now)).unwrap() - ago;
        let at = OffsetDateTime::from_unix_timestamp(at).unwrap().format(&Rfc3339).unwrap();
        json!({
            "program": "test 1", "reportedAt": at, "nextWithinSeconds": 600,
            "pass": {"endedAt": at, "durationSeconds": 1},
            "systems": [],
            "resources": [{
                "id": RESOURCE, "system": "capstor", "path": "/capstor/a", "observed": "present",
                "usage": {"bytes": *lock(&self.now), "inodes": 1},
            }],
        })
    }

    pub(super) fn take(&self, name: &str, report: &Value) -> Result<(), Rejected> {
        self.reports.take(name, report.to_string().as_bytes())
    }

    fn names(&self) -> Vec<String> {
        self.reports.all().iter().map(|received| received.name.clone()).collect()
    }
}

#[test]
fn an_older_report_is_rejected_and_the_same_one_accepted_again() {
    let world = World::new();
    let report = world.report(10);
    world.take("a", &report).unwrap();
    world.take("a", &report).unwrap();
    let error = world.take("a", &world.report(11)).unwrap_err();
    assert!(error.to_string().contains("a name of its own"), "{error}");
    world.take("b", &world.report(11)).unwrap();
    assert_eq!(world.names(), ["a", "b"]);
    let kept = &world.reports.all()[0];
    assert_eq!(kept.report.reported_at.unix_timestamp().unsigned_abs(), START - 10);
    assert_eq!(kept.received_at.unix_timestamp().unsigned_abs(), START);
}

#[test]
fn a_report_from_the_future_does_not_block_later_ones() {
    let world = World::new();
    assert!(matches!(world.take("a", &world.report(-301)), Err(Rejected::Future { .. })));
    assert_eq!(world.names(), [""; 0]);
    world.take("a", &world.report(-300)).unwrap();
}

#[test]
fn a_provisioner_is_silent_after_the_time_that_it_gave() {
    let world = World::new();
    world.take("a", &world.report(0)).unwrap();
    let received = &world.reports.all()[0];
    let later = |seconds| received.received_at + time::Duration::seconds(seconds);
    assert!(!received.is_silent(later(600)));
    assert!(received.is_silent(later(601)));
}

#[test]
fn samples_are_an_hour_apart_and_limited() {
    let world = World::new();
    for _ in 0..60 {
        world.take("a", &world.report(0)).unwrap();
        world.pass(1800);
    }
    let received = &world.reports.all()[0];
    assert_eq!(received.samples.len(), MAX_SAMPLES);
    for pair in received.samples.windows(2) {
        assert_eq!(pair[1].at - pair[0].at, time::Duration::hours(1));
    }
    let id = RESOURCE.parse().unwrap();
    let last = &received.samples[MAX_SAMPLES - 1];
    assert_eq!(last.usage[&id].bytes, last.at.unix_timestamp().unsigned_abs());

    // A failed pass observed nothing.
    world.pass(3600);
    let mut failed = world.report(0);
    failed["pass"]["error"] = json!("the proxy is unreachable");
    world.take("a", &failed).unwrap();
    let after = &world.reports.all()[0];
    assert_eq!(after.samples[MAX_SAMPLES - 1].at, last.at);
}

#[test]
fn a_new_provisioner_replaces_only_one_that_is_silent_for_a_day() {
    let world = World::new();
    for number in 0..MAX_PROVISIONERS {
        world.take(&format!("p{number:02}"), &world.report(0)).unwrap();
        world.pass(1);
    }
    assert!(matches!(world.take("new", &world.report(0)), Err(Rejected::TooMany)));
    world.take("p00", &world.report(0)).unwrap();
    world.pass(REPLACEABLE_AFTER.as_secs());
    world.take("new", &world.report(0)).unwrap();
    let names = world.names();
    assert_eq!(names.len(), MAX_PROVISIONERS);
    assert!(names.contains(&"p00".to_owned()) && !names.contains(&"p01".to_owned()), "{names:?}");
}

#[test]
fn a_provisioner_is_forgotten_after_a_week() {
    let world = World::new();
    world.take("a", &world.report(0)).unwrap();
    world.pass(FORGOTTEN_AFTER.as_secs());
    assert_eq!(world.names(), ["a"]);
    world.pass(1);
    assert_eq!(world.names(), [""; 0]);
}

#[test]
fn all_reports_together_are_limited() {
    let world = World::new();
    let mut kept = Kept::new();
    let mut keep = |name: &str, bytes| {
        let report = Report::parse(world.report(0).to_string().as_bytes()).unwrap();
        let received_at = world.reports.now();
        let received = Arc::new(Received { name: name.to_owned(), received_at, report, samples: Vec::new() });
        keep(&mut kept, Entry { received, packed: Arc::default(), bytes }, received_at).map(drop)
    };
    for name in ["a", "b", "c", "d", "a"] {
        keep(name, MAX_BYTES).unwrap();
    }
    assert!(matches!(keep("e", 1), Err(Rejected::TooLarge)));
    keep("a", MAX_BYTES - 1).unwrap();
    keep("e", 1).unwrap();
}
