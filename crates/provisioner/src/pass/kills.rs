//! Killed at each line of the journal in turn, and started again: the same end of Waldur and of the storage, nothing
//! doubled, left over or lost.

use provisioner_core::document::Status;

use super::bench::{Bench, all_kinds, furnish, system};
use super::model::Model;
use super::*;
use crate::driver::Trashed;
use crate::journal::Journal;

#[cfg(all(feature = "posix", feature = "scale", feature = "vast"))]
mod drivers;

/// A storage system that is new, for one round.
struct Fresh {
    driver: Box<dyn Driver>,
    /// The first project ID that is given on it.
    projects: u32,
    /// Everything that is there, looked at past the driver. It also holds what the system needs to live.
    census: Box<dyn Fn() -> Vec<String>>,
}

/// Where everything ends.
#[derive(Debug, PartialEq)]
struct End {
    waldur: Vec<(Uuid, Status, Option<String>)>,
    accepted: Vec<(Uuid, &'static str)>,
    observed: BTreeMap<Uuid, Observed>,
    trash: Vec<Trashed>,
    census: Vec<String>,
}

/// Rounds at one time: those of drivers by REST wait more than they work.
const AT_ONCE: usize = 4;

/// All kinds of resources in one world.
fn same_end_wherever_it_is_killed(fresh: impl Fn() -> Fresh + Sync) {
    let lines = same_end(&all_kinds(), &fresh);
    assert!(lines > 30, "only {lines} lines");
}

/// Each kind of resource in a world of its own, for systems that are slow to ask: there are as many lines in all, and
/// fewer resources are looked at for each.
fn same_end_wherever_it_is_killed_one_by_one(fresh: impl Fn() -> Fresh + Sync) {
    let lines: u64 = all_kinds().into_iter().map(|resource| same_end(&[resource], &fresh)).sum();
    assert!(lines > 30, "only {lines} lines");
}

/// The number of lines at which it was killed.
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

/// What of the end can be said without looking at another one.
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

/// Where it ends when the journal closes after so many lines, and the lines of the first pass.
fn carried_out(resources: &[Resource], fresh: Fresh, killed_at: Option<u64>) -> (End, u64) {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::new(resources.iter().cloned());
    let systems = system(fresh.driver, fresh.projects);
    let ledger = || Ledger::open(&folder.path().join("ledger")).unwrap();
    furnish(&systems, &model, &mut ledger());
    let policy = Policy { refuse: true, ..Policy::default() };
    let bench = Bench { model: &model, systems: &systems, folder: folder.path(), policy };
    let first = bench.pass(killed_at);
    assert!(killed_at.is_none() || first.is_err(), "its last line ends the last task");
    let (_, lines) = Journal::check(&folder.path().join("journal")).unwrap();
    let mut passes = 0;
    loop {
        let report = bench.pass(None).unwrap();
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
            // Rounds on one file system have different ones.
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
fn killed_at_every_line_of_the_journal_memory_comes_to_the_same_end() {
    same_end_wherever_it_is_killed(|| {
        let driver = Box::new(crate::driver::memory::Memory::default());
        Fresh { driver, projects: 100, census: Box::new(Vec::new) }
    });
}
