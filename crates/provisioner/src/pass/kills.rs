//! Kills a pass at each line of the journal in turn, and restarts it: Waldur and the storage must always end in the
//! same state, with nothing duplicated, left over or lost.

use provisioner_core::document::Status;
use storage_driver::Trashed;

use super::harness::{Harness, all_kinds, populate, system};
use super::model::Model;
use super::*;
use crate::journal::Journal;

#[cfg(all(feature = "posix", feature = "scale", feature = "vast"))]
mod drivers;

/// A new storage system for one round.
struct Fresh {
    driver: Box<dyn Driver>,
    /// The first project ID that is assigned on it.
    projects: u32,
    /// Everything that is on it, read without the driver. The closure also owns what the system needs to exist.
    census: Box<dyn Fn() -> Vec<String>>,
}

#[derive(Debug, PartialEq)]
struct End {
    waldur: Vec<(Uuid, Status, Option<String>)>,
    accepted: Vec<(Uuid, &'static str)>,
    observed: BTreeMap<Uuid, Observed>,
    trash: Vec<Trashed>,
    census: Vec<String>,
}

/// Rounds at the same time: those of REST drivers mostly wait.
const AT_ONCE: usize = 4;

/// With resources of all kinds in one world.
fn kill_at_every_line(fresh: impl Fn() -> Fresh + Sync) {
    let lines = same_end(&all_kinds(), &fresh);
    assert!(lines > 30, "only {lines} lines");
}

/// With each kind of resource in its own world, for slow systems: the total number of lines is the same, and fewer
/// resources are observed for each.
fn kill_at_every_line_one_by_one(fresh: impl Fn() -> Fresh + Sync) {
    let lines: u64 = all_kinds().into_iter().map(|resource| same_end(&[resource], &fresh)).sum();
    assert!(lines > 30, "only {lines} lines");
}

/// Returns the number of lines.
fn same_end(resources: &[Resource], fresh: &(impl Fn() -> Fresh + Sync)) -> u64 {
    let (end, lines) = carried_out(resources, fresh(), None);
    is_right(&end);
    parallel_map(&(0..lines).collect::<Vec<_>>(), AT_ONCE, |at| {
        let (end_then, lines_then) = carried_out(resources, fresh(), Some(*at));
        assert_eq!(lines_then, *at);
        assert_eq!(end_then, end, "killed at line {at} of {lines}");
    });
    lines
}

/// Checks what does not depend on other rounds.
fn is_right(end: &End) {
    for (id, status, backend_id) in &end.waldur {
        let n = id.as_u128();
        let (expected, there) = match n {
            1..=5 | 8 | 10 => (Status::Active, matches!(end.observed[id], Observed::Ours(_))),
            6 | 7 => (Status::Removed, matches!(end.observed[id], Observed::Trashed { .. })),
            _ => (Status::Removed, end.observed[id] == Observed::Absent),
        };
        assert!(*status == expected && there, "{n}: {end:#?}");
        let path = (1..=5).contains(&n).then(|| format!("/capstor/store/cscs/customer-{}/project-{n}", n % 3));
        assert_eq!(*backend_id, path, "{n}");
    }
    let trashed = |observed: &Observed| matches!(observed, Observed::Trashed { .. });
    assert_eq!(end.trash.len(), end.observed.values().filter(|observed| trashed(observed)).count(), "{end:#?}");
    assert!(!end.census.iter().any(|it| it.contains(".new-")), "{end:#?}");
}

/// The end after a kill at this number of lines, and the number of lines of the first pass.
fn carried_out(resources: &[Resource], fresh: Fresh, killed_at: Option<u64>) -> (End, u64) {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::new(resources.iter().cloned());
    let systems = system(fresh.driver, fresh.projects);
    let ledger = || Ledger::open(&folder.path().join("ledger")).unwrap();
    populate(&systems, &model, &mut ledger());
    let policy = Policy { refuse: true, ..Policy::default() };
    let harness = Harness { model: &model, systems: &systems, folder: folder.path(), policy };
    let first = harness.pass(killed_at);
    assert!(killed_at.is_none() || first.is_err(), "the last line ends the last task");
    let (_, lines) = Journal::check(&folder.path().join("journal")).unwrap();
    let mut passes = 0;
    loop {
        let report = harness.pass(None).unwrap();
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        if report.plan.tasks.is_empty() {
            break;
        }
        passes += 1;
        assert!(passes < 3, "{:?}", report.plan);
    }
    let survey = survey(&systems, &|| Ok(model.document()), &Past::default(), &mut ledger()).unwrap();
    let observed = survey.cases.into_iter().map(|case| {
        let mut observed = case.observed.unwrap();
        if let Observed::Ours(present) = &mut observed {
            assert_eq!(present.differences(&case.desired.unwrap()), [], "{present:?}");
            // Rounds on one file system have different project IDs.
            present.project = present.project.map(|project| project - fresh.projects);
        }
        (case.resource.id, observed)
    });
    let mut end = End {
        observed: observed.collect(),
        waldur: model.ends(),
        accepted: model.accepted.lock().unwrap().clone(),
        trash: systems[0].driver.trash().unwrap(),
        census: (fresh.census)(),
    };
    end.accepted.sort_unstable();
    end.trash.sort_by_key(|trashed| (trashed.id, trashed.since));
    end.census.sort();
    (end, lines)
}

#[test]
fn memory_ends_in_the_same_state_if_killed_at_any_line() {
    kill_at_every_line(|| {
        let driver = Box::new(storage_driver::memory::Memory::default());
        Fresh { driver, projects: 100, census: Box::new(Vec::new) }
    });
}
