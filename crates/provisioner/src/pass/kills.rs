//! Kills a pass at each write to the journal or a record in turn, before and after the side effect that follows, and continues: on the same
//! host, on another one whose state directory is empty, or on both in turn. Waldur and the storage must always end in the same state, with
//! nothing duplicated, left over or lost, and no project ID assigned twice.

use proptest::prelude::*;
use provisioner_core::document::{Offering, OrderState};
use storage_driver::Trashed;
use storage_driver::memory::Memory;

use super::harness::{CANCELLED, Harness, all_kinds, populate, system};
use super::model::{Model, resource};
use super::tests::{any_order, any_status};
use super::*;
use crate::killed::Kill;
use crate::record::Entry;

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
    /// Resources whose directory differs from the document.
    differ: BTreeSet<Uuid>,
    trash: Vec<Trashed>,
    census: Vec<String>,
}

/// Rounds at the same time: those of REST drivers mostly wait.
const AT_ONCE: usize = 4;

/// Which hosts continue after the first one was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Same,
    /// A host with an empty state directory.
    Empty,
    /// A host with an empty state directory, which is killed too; then the first one and another empty one in turn.
    InTurn,
}

/// With resources of all kinds in one world, in all ways.
fn kill_everywhere(fresh: impl Fn() -> Fresh + Sync) {
    let ways = [true, false].map(|with| [Next::Same, Next::Empty, Next::InTurn].map(|next| (with, next)));
    let writes = same_end(&all_kinds(), &fresh, ways.as_flattened());
    assert!(writes > 30, "only {writes} writes");
}

/// With resources of all kinds in one world, for systems that are slow.
fn kill_after_every_write(fresh: impl Fn() -> Fresh + Sync) {
    let writes = same_end(&all_kinds(), &fresh, SLOW);
    assert!(writes > 30, "only {writes} writes");
}

/// With each kind of resource in its own world, for slow systems: the total number of writes is the same, and fewer
/// resources are observed for each.
fn kill_after_every_write_one_by_one(fresh: impl Fn() -> Fresh + Sync) {
    let writes: u64 = all_kinds().into_iter().map(|resource| same_end(&[resource], &fresh, SLOW)).sum();
    assert!(writes > 30, "only {writes} writes");
}

/// Whether the kill is with a write instead of after it, and who continues.
const SLOW: &[(bool, Next)] = &[(false, Next::Same), (false, Next::Empty)];

/// Returns the number of writes.
fn same_end(resources: &[Resource], fresh: &(impl Fn() -> Fresh + Sync), ways: &[(bool, Next)]) -> u64 {
    let (end, writes) = carried_out(resources, fresh(), None);
    is_right(&end);
    let rounds: Vec<_> = (0..writes).flat_map(|at| ways.iter().map(move |way| (at, *way))).collect();
    parallel_map(&rounds, AT_ONCE, |(at, (with, next))| {
        let kill = if *with { Kill::With(at + 1) } else { Kill::After(*at) };
        let (end_then, writes_then) = carried_out(resources, fresh(), Some((kill, *next)));
        assert_eq!(writes_then, at + u64::from(*with), "{kill:?} of {writes}, {next:?}");
        assert_eq!(end_then, end, "{kill:?} of {writes}, {next:?}");
    });
    writes
}

/// Checks what does not depend on other rounds.
fn is_right(end: &End) {
    for (id, status, backend_id) in &end.waldur {
        assert!(!end.differ.contains(id), "{id} differs from the document");
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

/// The end after a kill, and the number of writes of the first pass.
fn carried_out(resources: &[Resource], fresh: Fresh, killed: Option<(Kill, Next)>) -> (End, u64) {
    let site = Site::new(resources, fresh, false);
    let writes = site.host(0, |host| host.killed(killed.map(|(kill, _)| kill))).1;
    let rest: &[usize] = match killed.map_or(Next::Same, |(_, next)| next) {
        Next::Same => &[0],
        Next::Empty => &[EMPTY],
        Next::InTurn => {
            let _ = site.host(1, |host| host.killed(Some(Kill::After(writes / 2))));
            &[0, EMPTY]
        }
    };
    (site.end(rest), writes)
}

/// The number of a host whose state directory is always empty.
const EMPTY: usize = 2;

/// A storage system and a Waldur, with hosts 0 and 1, which keep their state directories, and [`EMPTY`].
struct Site {
    hosts: [tempfile::TempDir; EMPTY],
    model: Model,
    systems: [System; 1],
    projects: u32,
    census: Box<dyn Fn() -> Vec<String>>,
    confirmed: bool,
}

impl Site {
    fn new(resources: &[Resource], fresh: Fresh, confirmed: bool) -> Self {
        let model = Model::new(resources.iter().cloned());
        let systems = system(fresh.driver, fresh.projects);
        populate(&systems, &model);
        let hosts = [(); EMPTY].map(|()| tempfile::tempdir().unwrap());
        Self { hosts, model, systems, projects: fresh.projects, census: fresh.census, confirmed }
    }

    /// Runs the program on a host.
    fn host<T>(&self, n: usize, run: impl FnOnce(Harness<'_>) -> T) -> T {
        let (empty, Self { model, systems, confirmed, .. }) = (tempfile::tempdir().unwrap(), self);
        let folder = self.hosts.get(n).unwrap_or(&empty).path();
        let policy = Policy { refuse: true, ..Policy::default() };
        run(Harness { model, systems, folder, policy, confirmed: *confirmed })
    }

    /// The end after these hosts ran in turn until nothing is left to do for any of them.
    fn end(&self, rest: &[usize]) -> End {
        let mut quiet = 0;
        for n in rest.iter().cycle().take(10) {
            let report = self.host(*n, |host| host.pass()).unwrap();
            assert!(report.failed.is_empty(), "{:?}", report.failed);
            quiet = if report.plan.tasks.is_empty() { quiet + 1 } else { 0 };
            if quiet == rest.len() {
                break;
            }
        }
        assert_eq!(quiet, rest.len(), "work is left");
        let record = record::read(&*self.systems[0].driver).unwrap().unwrap();
        assert_eq!(record.begun().len(), self.held_and_begun(), "work is left in the record");
        self.census()
    }

    /// The number of resources that are held and have begun work in the record.
    fn held_and_begun(&self) -> usize {
        let record = record::read(&*self.systems[0].driver).unwrap().unwrap();
        let held = self.host(EMPTY, |host| host.pass()).unwrap().plan.held;
        held.iter().filter(|held| held.id.is_some_and(|id| record.begun().contains_key(&id))).count()
    }

    fn census(&self) -> End {
        let Self { systems, model, .. } = self;
        let projects = assigned_once(&systems[0]);
        let survey = survey(systems, &|| Ok(model.document()), &Past::default(), &mut Ledger::default()).unwrap();
        let mut differ = BTreeSet::new();
        let observed = survey.cases.into_iter().map(|case| {
            let mut observed = case.observed.unwrap();
            if let Observed::Ours(present) = &mut observed {
                if case.desired.is_ok_and(|desired| !present.differences(&desired).is_empty()) {
                    differ.insert(case.resource.id);
                }
                assert!(present.project.is_none_or(|project| projects[&case.resource.id] == project));
                // Rounds on one file system have different project IDs.
                present.project = present.project.map(|project| project - self.projects);
            }
            (case.resource.id, observed)
        });
        let observed = observed.collect();
        let mut end = End {
            observed,
            differ,
            waldur: model.ends(),
            accepted: model.accepted.lock().unwrap().clone(),
            trash: systems[0].driver.trash().unwrap(),
            census: (self.census)(),
        };
        end.accepted.sort_unstable();
        end.trash.sort_by_key(|trashed| (trashed.id, trashed.since));
        end.census.sort();
        end
    }
}

/// The project IDs in the record, which has each resource and each ID only once in its whole history.
fn assigned_once(system: &System) -> BTreeMap<Uuid, u32> {
    let text = String::from_utf8(system.driver.read_record().unwrap().unwrap()).unwrap();
    let (mut ids, mut all) = (BTreeMap::new(), BTreeSet::new());
    for line in text.lines().filter(|line| !line.ends_with('~')) {
        if let Entry::Project { resource, id } = serde_json::from_str(line).unwrap() {
            assert!(ids.insert(resource, id.get()).is_none() && all.insert(id), "{resource} and {id} again in {text}");
        }
    }
    ids
}

fn memory() -> Fresh {
    let driver = Box::new(Memory::default());
    Fresh { driver, projects: 100, census: Box::new(Vec::new) }
}

#[test]
fn memory_ends_in_the_same_state_if_killed_at_any_write() {
    kill_everywhere(memory);
}

/// Mostly a kind of work that has steps.
fn any_kind() -> impl Strategy<Value = (Status, Option<(OrderKind, OrderState, Offering)>)> {
    let kinds: Vec<_> = all_kinds()
        .into_iter()
        .map(|it| (it.status, it.order.map(|order| (order.kind, order.state, order.offering))))
        .collect();
    prop_oneof![3 => prop::sample::select(kinds), 1 => (any_status(), any_order())]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]
    // The long run: `PROPTEST_CASES=100000 cargo test --release -p hpc-storage-provisioner random_hosts`.
    #[test]
    fn random_hosts_that_are_killed_at_random_end_in_the_same_state(
        seeds in prop::collection::vec((any_kind(), 1_u8..4), 1..12),
        kills in prop::collection::vec((0..=EMPTY, 0_u64..30, any::<bool>()), 1..6),
        last in 0..=EMPTY,
    ) {
        let of = |(((status, order), tb), n): (&((Status, Option<_>), u8), u128)| resource(n, *status, *order, f64::from(*tb));
        let resources: Vec<_> = seeds.iter().zip(1..).map(of).collect();
        #[cfg(feature = "posix")]
        let worlds: [fn() -> Fresh; 2] = [memory, drivers::posix_world];
        #[cfg(not(feature = "posix"))]
        let worlds: [fn() -> Fresh; 1] = [memory];
        for world in worlds {
            let calm = Site::new(&resources, world(), true).end(&[0]);
            let site = Site::new(&resources, world(), true);
            for (n, at, with) in &kills {
                let kill = if *with { Kill::With(at + 1) } else { Kill::After(*at) };
                let _ = site.host(*n, |host| host.killed(Some(kill)));
                assigned_once(&site.systems[0]);
            }
            let end = site.end(&[last]);
            prop_assert_eq!(&end, &calm);
        }
    }
}

/// A resource that is to be created.
fn creation(n: u128) -> Resource {
    resource(n, Status::Pending, Some((OrderKind::Create, OrderState::Executing, Offering::SiteAgent)), 2.0)
}

#[test]
fn an_id_that_was_assigned_but_not_used_is_not_assigned_by_another_host() {
    let site = Site::new(&[creation(1)], memory(), false);
    // Only the assignment and the begin of the work are written.
    assert!(site.host(0, |host| host.killed(Some(Kill::After(2)))).0.is_err());
    let other = Model::new([creation(2)]);
    assert!(site.host(1, |host| Harness { model: &other, ..host }.pass()).unwrap().failed.is_empty());
    site.end(&[0]);
    let ids = assigned_once(&site.systems[0]);
    assert_eq!([1, 2].map(|n| ids[&Uuid::from_u128(n)]), [100, 101]);
}

/// A resource in use, one that is restored from the trash, and two new ones.
fn in_use_and_new() -> Vec<Resource> {
    let [used, trashed] = [1, CANCELLED].map(|n| resource(n, Status::Active, None, 2.0));
    vec![used, trashed, creation(2), creation(3)]
}

/// Checks that each tree keeps its ID, and new ones get others.
fn is_completed(site: &Site, projects: u32) {
    let end = site.end(&[EMPTY]);
    let ids = assigned_once(&site.systems[0]);
    assert_eq!([1, CANCELLED, 2, 3].map(|n| ids[&Uuid::from_u128(n)] - projects), [0, 1, 2, 3]);
    assert!(end.differ.is_empty(), "{end:?}");
}

#[test]
fn a_lost_or_old_record_is_completed_with_the_ids_of_existing_trees_before_any_is_assigned() {
    // Each append has a line of its own before its entries.
    for kept in [0, 2] {
        let memory = Memory::default();
        let fresh = Fresh { driver: Box::new(memory.clone()), projects: 100, census: Box::new(Vec::new) };
        let site = Site::new(&in_use_and_new(), fresh, false);
        let text = memory.read_record().unwrap().unwrap();
        let lines: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').collect();
        assert!(lines.len() > 2);
        memory.replace_record(&lines[..kept].concat());
        is_completed(&site, 100);
    }
}

#[test]
fn a_damaged_record_stops_all_work_on_its_system() {
    let memory = Memory::default();
    let fresh = Fresh { driver: Box::new(memory.clone()), projects: 100, census: Box::new(Vec::new) };
    let site = Site::new(&all_kinds(), fresh, false);
    memory.append_to_record(b"damaged\n").unwrap();
    let before = memory.read_record().unwrap();
    let report = site.host(0, |host| host.pass()).unwrap();
    assert_eq!(memory.read_record().unwrap(), before, "nothing is assigned either");
    assert_eq!((report.plan.tasks.len(), report.plan.held.len()), (0, all_kinds().len()));
    let reason = &report.plan.held[0].reason;
    assert!(report.plan.held[0].hold == Hold::Fault && reason.contains("damaged at line"), "{reason}");
}

#[test]
fn if_the_record_cannot_be_written_nothing_is_created_and_removals_continue() {
    let memory = Memory::default();
    let leaving =
        resource(7, Status::Removing, Some((OrderKind::Terminate, OrderState::PendingProvider, Offering::Basic)), 2.0);
    let fresh = Fresh { driver: Box::new(memory.clone()), projects: 100, census: Box::new(Vec::new) };
    let site = Site::new(&[creation(1), leaving], fresh, false);
    memory.fill_up(true);
    let report = site.host(0, |host| host.pass()).unwrap();
    assert_eq!(report.ended, [Uuid::from_u128(7)]);
    let held = &report.plan.held[..];
    assert!(held.len() == 1 && held[0].hold == Hold::Fault && held[0].reason.contains("cannot be saved"), "{held:?}");
    memory.fill_up(false);
    site.end(&[0]);
}

#[test]
fn a_termination_that_was_cancelled_after_a_kill_is_undone_and_never_carried_out_later() {
    let leaving = resource(
        7,
        Status::Removing,
        Some((OrderKind::Terminate, OrderState::PendingProvider, Offering::SiteAgent)),
        2.0,
    );
    let frozen = (1..20).find_map(|at| {
        let site = Site::new(std::slice::from_ref(&leaving), memory(), false);
        let _ = site.host(0, |host| host.killed(Some(Kill::After(at))));
        let present = site.systems[0].driver.marked(6).unwrap();
        let is_frozen = !present.is_empty() && !site.census().differ.is_empty();
        is_frozen.then_some(site)
    });
    let site = frozen.unwrap();
    let with = |status| Model::new([Resource { order: None, ..resource(7, status, None, 2.0) }]);
    let cancelled = with(Status::Active);
    let report = site.host(EMPTY, |host| Harness { model: &cancelled, ..host }.pass()).unwrap();
    assert_eq!(report.ended.len(), 1, "{report:?}");
    let _ = site.host(EMPTY, |host| Harness { model: &cancelled, ..host }.pass()).unwrap();
    let ended = with(Status::Removed);
    let report = site.host(EMPTY, |host| Harness { model: &ended, ..host }.pass()).unwrap();
    assert!(report.plan.tasks.is_empty() && report.plan.held[0].hold == Hold::Conflict, "{report:?}");
}

#[test]
fn a_cancelled_termination_whose_resource_is_held_is_never_carried_out_later() {
    let order = Some((OrderKind::Terminate, OrderState::PendingProvider, Offering::Basic));
    let leaving = resource(7, Status::Removing, order, 2.0);
    let memory = Memory::default();
    let fresh = Fresh { driver: Box::new(memory.clone()), projects: 100, census: Box::new(Vec::new) };
    let site = Site::new(std::slice::from_ref(&leaving), fresh, false);
    let place = storage_driver::place::Place::parse(&leaving.path, "/capstor").unwrap();
    let space = storage_driver::limits::Bytes(1_500_000_000_000);
    memory.fill(&place, storage_driver::limits::Usage { space, inodes: storage_driver::limits::Inodes(1) });
    // The journal and the record show the begin, and the approval was not sent.
    let _ = site.host(0, |host| host.killed(Some(Kill::With(2))));
    let begun = || record::read(&memory).unwrap().unwrap().begun()[&leaving.id].approved.is_some();
    assert!(begun() && site.model.accepted.lock().unwrap().is_empty());
    // Its quotas would shrink below the usage.
    for (status, expected) in [(Status::Active, Hold::Drift), (Status::Removed, Hold::Conflict)] {
        let model = Model::new([resource(7, status, None, 1.0)]);
        let report = site.host(EMPTY, |host| Harness { model: &model, ..host }.pass()).unwrap();
        assert!(report.plan.tasks.is_empty() && report.plan.held[0].hold == expected, "{report:?}");
        assert!(!begun());
    }
}
