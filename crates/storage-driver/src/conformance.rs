//! The suite that every driver must pass (feature `conformance`, for tests and for the provisioner's `check-driver`).
//!
//! ```no_run
//! # use storage_driver::{conformance::{Bench, assert_conforms}, memory::Memory};
//! let driver = Memory::default(); // your driver, on an empty system
//! let make_unmarked = |place: &_| driver.put_unmarked(place);
//! assert_conforms(&Bench { driver: &driver, ids: (0, 30_500), make_unmarked: &make_unmarked });
//! ```

use std::fmt::{self, Debug};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use uuid::Uuid;

use crate::limits::{Bytes, Inodes, QuotaLimits, Terabyte};
use crate::place::Place;
use crate::{Desired, Driver, DriverError, Guard, Marked, Mode, Observed, Trashed, error_chain};

/// A driver under test.
pub struct Bench<'a> {
    /// The driver, on an empty system whose root is published as `/sys`.
    pub driver: &'a dyn Driver,
    /// User ID and group ID that the test is allowed to assign.
    pub ids: (u32, u32),
    /// Creates an unmarked directory at this place, with its parents, as a user would.
    pub make_unmarked: &'a dyn Fn(&Place),
}

/// A check that a driver failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Name of the check.
    pub check: &'static str,
    /// What the check did last.
    pub step: String,
    /// What should have happened.
    pub expected: String,
    /// What happened.
    pub observed: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, step, expected, observed } = self;
        write!(f, "check `{check}`, {step}: expected {expected}, observed {observed}")
    }
}

/// The name of a check, the behaviour that it requires, and its code.
type Check = (&'static str, &'static str, fn(&Steps<'_>) -> Result<(), Failure>);

/// All checks, in the order in which they run.
const CHECKS: [Check; 19] = [
    ("ready", "`ready` succeeds on a configured system", ready),
    ("create", "`ensure` creates an absent directory in the desired state", create),
    ("repeat", "`ensure` succeeds and changes nothing if the directory is as desired", repeat),
    ("change", "`ensure` changes limits and mode of an existing directory", change),
    ("usage", "`usage` reports the usage of a directory, and `None` if there is none", usage),
    ("marks", "`marked` lists each marked directory outside the trash with its path", marks),
    ("retire", "`retire` moves a directory into the trash, once", retire),
    ("restore", "`restore` moves a directory back from the trash, once", restore),
    (
        "trash-usage",
        "`trash_usage` reports the usage of a directory in the trash, and `None` if there is none",
        trash_usage,
    ),
    ("claim", "`claim` reserves a directory in the trash for a purge; `restore` refuses it", claim),
    ("purge", "`purge` deletes a directory in the trash, once", purge),
    (
        "purge-only",
        "`claim` and `purge` change only the directory with the UUID and the time they are given",
        purge_only,
    ),
    ("project-ids", "a project ID is in use from `ensure` until `purge`", project_ids),
    ("record", "the record contains everything that was appended to it, in order, if the driver keeps one", record),
    ("unmarked", "`ensure` and `retire` do not change an unmarked directory; `adopt` marks it", unmarked),
    ("foreign", "nothing changes a directory with the mark of another resource", foreign),
    ("nested", "no directory is created inside the directory of another resource", nested),
    ("guard", "every operation calls the guard before its first side effect, and returns its error", guard),
    ("stopped", "an operation that is stopped before any of its side effects completes when it is repeated", stopped),
];

/// Runs all checks; returns the failed ones. Each check uses its own resources, so that one failure does not cause others
/// if the driver permits that.
pub fn failures(bench: &Bench<'_>) -> Vec<Failure> {
    let mut failures = Vec::new();
    each_check(bench, &mut |_, _, failure| failures.extend(failure));
    failures
}

/// Runs all checks, and calls `report` after each with its name, the behaviour that it requires, and its failure.
pub fn each_check(bench: &Bench<'_>, report: &mut dyn FnMut(&'static str, &'static str, Option<Failure>)) {
    for (name, promise, check) in CHECKS {
        report(name, promise, check(&Steps { bench, driver: bench.driver, check: name }).err());
    }
}

/// Whether the suite uses this UUID. Waldur's are random, so none of them is among these.
pub fn is_of_suite(id: Uuid) -> bool {
    id.as_u128() < 1 << 32
}

/// Panics with all failed checks, if there are any.
pub fn assert_conforms(bench: &Bench<'_>) {
    let failures = failures(bench);
    let lines: Vec<_> = failures.iter().map(|failure| format!("- {failure}")).collect();
    let (failed, all) = (failures.len(), CHECKS.len());
    assert!(failures.is_empty(), "the driver fails {failed} of {all} checks:\n{}", lines.join("\n"));
}

/// The resources at whose places there are unmarked directories.
const UNMARKED: [u32; 2] = [14, 19];

const TB: u64 = Terabyte::Decimal.bytes();

#[expect(clippy::unnecessary_wraps, reason = "the signature of a guard")]
fn allow(_: &str) -> Result<(), DriverError> {
    Ok(())
}

/// Helpers for tests that go beyond the suite.
impl Bench<'_> {
    /// The desired state of resource number `n`.
    pub fn desired(&self, n: u32) -> Desired {
        let place = Place::parse(&format!("/sys/store/cscs/customer/project-{n}"), "/sys").unwrap();
        let limits =
            QuotaLimits::new([Bytes(10 * TB), Bytes(11 * TB)], [Inodes(1_000_000), Inodes(1_500_000)]).unwrap();
        Desired {
            id: Uuid::from_u128(0x1000 + u128::from(n)),
            place,
            parents: vec![Mode(0o755), Mode(0o775), Mode(0o775)],
            uid: self.ids.0,
            gid: self.ids.1,
            mode: Mode(0o2770),
            limits: self.driver.stored_limits(limits),
            project: Some(5000 + n),
        }
    }

    /// The numbers of the resources at whose places the suite creates unmarked directories.
    pub fn unmarked(&self) -> [u32; 2] {
        UNMARKED
    }

    /// The observed state of one directory.
    pub fn observed(&self, desired: &Desired) -> Observed {
        self.driver.observe(&[desired]).pop().unwrap().unwrap()
    }

    /// Whether the directory exists without differences to the desired state.
    pub fn is_as_desired(&self, desired: &Desired) -> bool {
        matches!(self.observed(desired), Observed::Ours(present) if present.differences(desired).is_empty())
    }
}

/// One running check.
struct Steps<'a> {
    bench: &'a Bench<'a>,
    driver: &'a dyn Driver,
    check: &'static str,
}

type Outcome = Result<(), Failure>;

impl Steps<'_> {
    fn failed<T>(&self, step: &str, expected: impl Into<String>, observed: impl Into<String>) -> Result<T, Failure> {
        let (step, expected, observed) = (step.to_owned(), expected.into(), observed.into());
        Err(Failure { check: self.check, step, expected, observed })
    }

    fn succeeds<T>(&self, step: &str, result: Result<T, DriverError>) -> Result<T, Failure> {
        result.or_else(|error| self.failed(step, "success", format!("the error: {}", error_chain(&error))))
    }

    fn conflicts(&self, step: &str, result: Result<(), DriverError>) -> Outcome {
        match result {
            Err(DriverError::Conflict(_)) => Ok(()),
            other => self.failed(step, "DriverError::Conflict", format!("{other:?}")),
        }
    }

    fn equal<T: Debug + PartialEq>(&self, step: &str, expected: &T, observed: &T) -> Outcome {
        if expected == observed { Ok(()) } else { self.failed(step, format!("{expected:?}"), format!("{observed:?}")) }
    }

    fn observed(&self, step: &str, desired: &Desired) -> Result<Observed, Failure> {
        let mut all = self.driver.observe(&[desired]);
        match all.pop().filter(|_| all.is_empty()) {
            Some(observed) => self.succeeds(&format!("observe {step}"), observed),
            None => {
                self.failed(&format!("observe {step}"), "one result for one directory", "another number of results")
            }
        }
    }

    /// Compares the state without the usage, which some systems update later.
    fn is(&self, step: &str, desired: &Desired, expected: &Observed) -> Outcome {
        self.equal(step, &expected.clone().without_usage(), &self.observed(step, desired)?.without_usage())
    }

    fn is_as_desired(&self, step: &str, desired: &Desired) -> Outcome {
        match self.observed(step, desired)? {
            Observed::Ours(present) if present.differences(desired).is_empty() => Ok(()),
            Observed::Ours(present) => {
                let differences = present.differences(desired);
                self.failed(step, "the desired state", format!("these differences: {differences:?}"))
            }
            other => self.failed(step, "the directory in the desired state", format!("{other:?}")),
        }
    }

    /// Creates the directory of resource number `n`.
    fn created(&self, n: u32) -> Result<Desired, Failure> {
        let desired = self.bench.desired(n);
        self.succeeds("ensure", self.driver.ensure(&desired, &allow))?;
        self.is_as_desired("after ensure", &desired)?;
        Ok(desired)
    }

    /// Creates the directory of resource number `n` and moves it into the trash.
    fn trashed(&self, n: u32, since: u64) -> Result<(Desired, Trashed), Failure> {
        let desired = self.created(n)?;
        self.succeeds("retire", self.driver.retire(&desired, since, &allow))?;
        let trashed = Trashed { id: desired.id, since };
        self.is("after retire", &desired, &Observed::Trashed { since })?;
        Ok((desired, trashed))
    }

    /// Deletes a directory of the check: what follows starts with an empty trash.
    fn clean_up(&self, desired: &Desired, since: u64) -> Outcome {
        self.succeeds("retire to clean up", self.driver.retire(desired, since, &allow))?;
        let trashed = Trashed { id: desired.id, since };
        self.succeeds("purge to clean up", self.driver.purge(&trashed, desired.project, &allow))
    }

    fn trash_is(&self, step: &str, trash: &[Trashed], claimed: &[Trashed]) -> Outcome {
        self.equal(&format!("trash {step}"), &trash.to_vec(), &self.succeeds("trash", self.driver.trash())?)?;
        self.equal(&format!("claimed {step}"), &claimed.to_vec(), &self.succeeds("claimed", self.driver.claimed())?)
    }
}

fn ready(steps: &Steps<'_>) -> Outcome {
    steps.succeeds("ready", steps.driver.ready())
}

fn create(steps: &Steps<'_>) -> Outcome {
    steps.is("before ensure", &steps.bench.desired(1), &Observed::Absent)?;
    steps.created(1).map(drop)
}

fn repeat(steps: &Steps<'_>) -> Outcome {
    let desired = steps.created(2)?;
    let observed = steps.observed("before", &desired)?;
    steps.succeeds("ensure again", steps.driver.ensure(&desired, &allow))?;
    steps.is("after ensure again", &desired, &observed)
}

fn change(steps: &Steps<'_>) -> Outcome {
    let mut desired = steps.created(3)?;
    desired.limits = steps.driver.stored_limits(QuotaLimits::new([Bytes(TB); 2], [Inodes(7), Inodes(9)]).unwrap());
    desired.mode = Mode(0o750);
    match steps.observed("before the change", &desired)? {
        Observed::Ours(present) if present.differences(&desired).len() >= 2 => {}
        other => steps.failed("before the change", "a directory with other limits and mode", format!("{other:?}"))?,
    }
    steps.succeeds("ensure", steps.driver.ensure(&desired, &allow))?;
    steps.is_as_desired("after ensure", &desired)
}

fn usage(steps: &Steps<'_>) -> Outcome {
    let (desired, absent) = (steps.created(4)?, steps.bench.desired(5));
    match &steps.driver.usage(&[&desired, &absent])[..] {
        [Ok(Some(_)), Ok(None)] => Ok(()),
        other => {
            steps.failed("usage of a directory and of an absent one", "[Ok(Some(_)), Ok(None)]", format!("{other:?}"))
        }
    }
}

fn marks(steps: &Steps<'_>) -> Outcome {
    let marked = || steps.succeeds("marked", steps.driver.marked(6));
    let before = marked()?;
    let desired = steps.created(6)?;
    let mark = Marked { id: desired.id, path: desired.place.to_string() };
    let mut all = [&before[..], &[mark]].concat();
    all.sort();
    let mut observed = marked()?;
    observed.sort();
    steps.equal("marked after ensure", &all, &observed)?;
    steps.succeeds("retire", steps.driver.retire(&desired, 1000, &allow))?;
    steps.equal("marked after retire", &before, &marked()?)?;
    steps.clean_up(&desired, 1000)
}

fn retire(steps: &Steps<'_>) -> Outcome {
    let (desired, trashed) = steps.trashed(7, 1000)?;
    steps.trash_is("after retire", std::slice::from_ref(&trashed), &[])?;
    steps.succeeds("retire again", steps.driver.retire(&desired, 2000, &allow))?;
    steps.is("after retire again", &desired, &Observed::Trashed { since: 1000 })?;
    steps.clean_up(&desired, 1000)
}

fn restore(steps: &Steps<'_>) -> Outcome {
    let (desired, _) = steps.trashed(8, 1000)?;
    for step in ["restore", "restore again"] {
        steps.succeeds(step, steps.driver.restore(&desired, &allow))?;
        steps.is_as_desired(&format!("after {step}"), &desired)?;
    }
    steps.trash_is("after restore", &[], &[])
}

fn trash_usage(steps: &Steps<'_>) -> Outcome {
    let (desired, trashed) = steps.trashed(9, 1000)?;
    let absent = Trashed { id: Uuid::from_u128(9), since: 1000 };
    match &steps.driver.trash_usage(&[(trashed, desired.project), (absent, None)])[..] {
        [Ok(Some(_)), Ok(None)] => steps.clean_up(&desired, 1000),
        other => steps.failed(
            "trash_usage of a directory and of an absent one",
            "[Ok(Some(_)), Ok(None)]",
            format!("{other:?}"),
        ),
    }
}

fn claim(steps: &Steps<'_>) -> Outcome {
    let (desired, trashed) = steps.trashed(10, 2000)?;
    for step in ["claim", "claim again"] {
        steps.succeeds(step, steps.driver.claim(&trashed, desired.project, &allow))?;
        steps.is(&format!("after {step}"), &desired, &Observed::Purging { since: 2000 })?;
        steps.trash_is(&format!("after {step}"), &[], std::slice::from_ref(&trashed))?;
        steps.conflicts("restore after claim", steps.driver.restore(&desired, &allow))?;
    }
    steps.succeeds("purge", steps.driver.purge(&trashed, desired.project, &allow))
}

fn purge(steps: &Steps<'_>) -> Outcome {
    let (desired, trashed) = steps.trashed(11, 2000)?;
    for step in ["purge", "purge again"] {
        steps.succeeds(step, steps.driver.purge(&trashed, desired.project, &allow))?;
        steps.is(&format!("after {step}"), &desired, &Observed::Absent)?;
        steps.trash_is(&format!("after {step}"), &[], &[])?;
    }
    Ok(())
}

fn purge_only(steps: &Steps<'_>) -> Outcome {
    let (desired, trashed) = steps.trashed(12, 2000)?;
    let others = [
        ("of another UUID", Trashed { id: Uuid::from_u128(9), ..trashed.clone() }),
        ("of another time", Trashed { since: 1000, ..trashed.clone() }),
    ];
    for (which, other) in others {
        // Whether this is an error is up to the driver.
        let _ = steps.driver.claim(&other, None, &allow);
        steps.is(&format!("after claim {which}"), &desired, &Observed::Trashed { since: 2000 })?;
        let _ = steps.driver.purge(&other, None, &allow);
        steps.is(&format!("after purge {which}"), &desired, &Observed::Trashed { since: 2000 })?;
    }
    steps.clean_up(&desired, 2000)
}

fn project_ids(steps: &Steps<'_>) -> Outcome {
    let free = |step: &str, desired: &Desired| {
        let project = desired.project.unwrap_or_default();
        steps.succeeds(&format!("is_free {step}"), steps.driver.is_free(project))
    };
    steps.equal("is_free before ensure", &true, &free("before ensure", &steps.bench.desired(13))?)?;
    let desired = steps.created(13)?;
    let Observed::Ours(present) = steps.observed("after ensure", &desired)? else { return Ok(()) };
    let has_ids = present.project.is_some();
    steps.equal("is_free after ensure", &!has_ids, &free("after ensure", &desired)?)?;
    steps.succeeds("retire", steps.driver.retire(&desired, 1000, &allow))?;
    steps.equal("is_free after retire", &!has_ids, &free("after retire", &desired)?)?;
    steps.clean_up(&desired, 1000)?;
    // XFS counts deleted files for a while.
    for _ in 0..1000 {
        if free("after purge", &desired)? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    steps.failed("is_free after purge", "true within 10 s", "false")
}

fn record(steps: &Steps<'_>) -> Outcome {
    let read = || steps.succeeds("read_record", steps.driver.read_record());
    let Some(mut expected) = read()? else { return Ok(()) };
    for text in ["first\n", "second\n", "half of the third"] {
        steps.succeeds("append_to_record", steps.driver.append_to_record(text.as_bytes()))?;
        expected.extend_from_slice(text.as_bytes());
        let found = read()?.unwrap_or_default();
        let shown = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        steps.equal("read_record", &shown(&expected), &shown(&found))?;
    }
    Ok(())
}

fn unmarked(steps: &Steps<'_>) -> Outcome {
    let (driver, desired) = (steps.driver, steps.bench.desired(UNMARKED[0]));
    (steps.bench.make_unmarked)(&desired.place);
    let observed = steps.observed("of an unmarked directory", &desired)?;
    if !matches!(observed, Observed::Unmarked(_)) {
        return steps.failed("observe an unmarked directory", "Observed::Unmarked", format!("{observed:?}"));
    }
    steps.conflicts("ensure on an unmarked directory", driver.ensure(&desired, &allow))?;
    steps.is("after ensure", &desired, &observed)?;
    steps.conflicts("retire of an unmarked directory", driver.retire(&desired, 1000, &allow))?;
    steps.is("after retire", &desired, &observed)?;
    steps.succeeds("adopt", driver.adopt(&desired, &allow))?;
    steps.succeeds("ensure after adopt", driver.ensure(&desired, &allow))?;
    steps.is_as_desired("after adopt and ensure", &desired)
}

fn foreign(steps: &Steps<'_>) -> Outcome {
    let (driver, owner) = (steps.driver, steps.created(15)?);
    let other = Desired { id: Uuid::from_u128(77), ..owner.clone() };
    match steps.observed("of another resource's directory", &other)? {
        Observed::Obstructed(_) => {}
        observed => steps.failed("observe another's directory", "Observed::Obstructed", format!("{observed:?}"))?,
    }
    steps.conflicts("ensure on another's directory", driver.ensure(&other, &allow))?;
    steps.conflicts("retire of another's directory", driver.retire(&other, 1000, &allow))?;
    steps.conflicts("adopt of another's directory", driver.adopt(&other, &allow))?;
    steps.is_as_desired("of the owner, after the attempts", &owner)
}

fn nested(steps: &Steps<'_>) -> Outcome {
    let (driver, outer) = (steps.driver, steps.created(16)?);
    let inner = Desired {
        place: Place::parse(&format!("/sys/{}/sub", outer.place), "/sys").unwrap(),
        parents: [&outer.parents[..], &[Mode(0o775)]].concat(),
        ..steps.bench.desired(17)
    };
    let named = format!("a text with the UUID {}", outer.id);
    match steps.observed("inside another's directory", &inner)? {
        Observed::Obstructed(why) if why.contains(&outer.id.to_string()) => {}
        other => steps.failed(
            "observe a place inside another's directory",
            format!("Obstructed, {named}"),
            format!("{other:?}"),
        )?,
    }
    match driver.ensure(&inner, &allow) {
        Err(DriverError::Conflict(why)) if why.contains(&outer.id.to_string()) => {}
        other => {
            let expected = format!("Conflict, {named}");
            steps.failed("ensure inside another's directory", expected, format!("{other:?}"))?;
        }
    }
    steps.is_as_desired("of the outer directory", &outer)?;
    steps.clean_up(&outer, 7000)
}

fn guard(steps: &Steps<'_>) -> Outcome {
    let driver = steps.driver;
    let refuse = |what: &str| Err(DriverError::Stopped(what.into()));
    let refused = |operation: &str, result: Result<(), DriverError>| match result {
        Err(DriverError::Stopped(_)) => Ok(()),
        other => steps.failed(
            &format!("{operation} with a guard that refuses"),
            "DriverError::Stopped",
            format!("{other:?}"),
        ),
    };
    let desired = steps.bench.desired(18);
    refused("ensure", driver.ensure(&desired, &refuse))?;
    steps.is("after the refused ensure", &desired, &Observed::Absent)?;
    let desired = steps.created(18)?;
    let changed = Desired { mode: Mode(0o750), ..desired.clone() };
    refused("ensure of another mode", driver.ensure(&changed, &refuse))?;
    refused("retire", driver.retire(&desired, 1000, &refuse))?;
    steps.is_as_desired("after the refused operations", &desired)?;
    let (desired, trashed) = steps.trashed(18, 1000)?;
    refused("restore", driver.restore(&desired, &refuse))?;
    refused("claim", driver.claim(&trashed, desired.project, &refuse))?;
    refused("purge", driver.purge(&trashed, desired.project, &refuse))?;
    steps.is("after the refused operations", &desired, &Observed::Trashed { since: 1000 })?;
    steps.clean_up(&desired, 1000)?;
    let desired = steps.bench.desired(UNMARKED[1]);
    (steps.bench.make_unmarked)(&desired.place);
    refused("adopt", driver.adopt(&desired, &refuse))?;
    match steps.observed("after the refused adopt", &desired)? {
        Observed::Unmarked(_) => Ok(()),
        other => steps.failed("after the refused adopt", "Observed::Unmarked", format!("{other:?}")),
    }
}

/// Stops each operation before its side effect number 0, 1, 2, …, and repeats it.
fn stopped(steps: &Steps<'_>) -> Outcome {
    let driver = steps.driver;
    for at in 0.. {
        let desired = steps.bench.desired(100 + at);
        let step = |operation: &str| format!("{operation} again after it was stopped before side effect {at}");
        let mut is_complete = stopped_at(steps, "ensure", at, &|guard| driver.ensure(&desired, guard))?;
        steps.succeeds(&step("ensure"), driver.ensure(&desired, &allow))?;
        steps.is_as_desired(&step("ensure"), &desired)?;
        is_complete &= stopped_at(steps, "retire", at, &|guard| driver.retire(&desired, 3000, guard))?;
        steps.succeeds(&step("retire"), driver.retire(&desired, 3001, &allow))?;
        let since = match steps.observed(&step("retire"), &desired)? {
            Observed::Trashed { since } => since,
            other => return steps.failed(&step("retire"), "Observed::Trashed", format!("{other:?}")),
        };
        steps.trash_is(&step("retire"), &[Trashed { id: desired.id, since }], &[])?;
        is_complete &= stopped_at(steps, "restore", at, &|guard| driver.restore(&desired, guard))?;
        steps.succeeds(&step("restore"), driver.restore(&desired, &allow))?;
        steps.is_as_desired(&step("restore"), &desired)?;
        steps.succeeds("retire", driver.retire(&desired, 4000, &allow))?;
        let trashed = Trashed { id: desired.id, since: 4000 };
        is_complete &= stopped_at(steps, "purge", at, &|guard| driver.purge(&trashed, desired.project, guard))?;
        steps.succeeds(&step("purge"), driver.purge(&trashed, desired.project, &allow))?;
        steps.is(&step("purge"), &desired, &Observed::Absent)?;
        steps.trash_is(&step("purge"), &[], &[])?;
        if is_complete {
            break;
        }
    }
    Ok(())
}

/// Stops an operation before its side effect number `at`. Returns whether it completed before that.
fn stopped_at(
    steps: &Steps<'_>,
    operation: &str,
    at: u32,
    run: &dyn Fn(Guard<'_>) -> Result<(), DriverError>,
) -> Result<bool, Failure> {
    let effects = AtomicUsize::new(0);
    let guard = |what: &str| {
        if effects.fetch_add(1, Ordering::Relaxed) < at as usize {
            Ok(())
        } else {
            Err(DriverError::Stopped(what.into()))
        }
    };
    match run(&guard) {
        Ok(()) => Ok(true),
        Err(DriverError::Stopped(_)) => Ok(false),
        Err(error) => steps.failed(
            &format!("{operation}, stopped before side effect {at}"),
            "success or DriverError::Stopped",
            format!("{error:?}"),
        ),
    }
}

/// Lists everything below a directory with mode and owner, to compare before and after.
pub fn directories(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, it) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(root).unwrap().display();
            found.push(format!("{name}: {:o} {}:{}", it.mode(), it.uid(), it.gid()));
            if it.is_dir() {
                left.push(path);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
