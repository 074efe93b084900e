use std::path::Path;
use std::sync::Mutex as StdMutex;
use std::time::Duration;

use proptest::prelude::*;

use super::model::{Model, resource};
use super::*;
use crate::document::Offering;
use crate::driver::memory::Memory;
use crate::driver::quotas::declared::Declared;
use crate::driver::tree::{Rules, Tree};
use crate::ledger::ProjectIds;
use crate::limits::Terabyte;

/// One whole pass.
fn pass(
    systems: &[System],
    outside: Outside<'_>,
    journal: &Journal,
    ledger: &mut Ledger,
    policy: Policy,
    clock: &Clock,
) -> Result<Report, PassError> {
    let survey = survey(systems, outside.read, &journal.past(), ledger)?;
    let plan = planned(&survey, policy, false);
    carry_out(plan, &survey.document, systems, outside, journal, ledger, clock)
}

fn clock() -> Clock {
    Clock::from_fn(|| SystemTime::UNIX_EPOCH + Duration::from_hours(500_000))
}

fn system(driver: Box<dyn Driver>) -> [System; 1] {
    let site = Site {
        published_root: "/capstor".into(),
        terabyte: Terabyte::Decimal,
        owner_uid: 0,
        lowest_id: 1000,
        projects: Some(ProjectIds::From(100)),
    };
    [System { key: "capstor".into(), site, driver, at_once: 1 }]
}

/// A site with its journal and ledger in a folder.
struct Bench<'a> {
    model: &'a Model,
    systems: &'a [System],
    folder: &'a Path,
    policy: Policy,
}

impl Bench<'_> {
    /// One pass of a program that starts anew, broken off after so many lines of the journal.
    fn pass(&self, lines: Option<u64>) -> Result<Report, PassError> {
        let journal = Journal::open(&self.folder.join("journal"), &clock())?;
        if let Some(lines) = lines {
            journal.closes_after(lines);
        }
        let mut ledger = Ledger::open(&self.folder.join("ledger")).unwrap();
        self.with(&journal, &mut ledger, &|call| self.model.call(call))
    }

    fn with(
        &self,
        journal: &Journal,
        ledger: &mut Ledger,
        call: &(dyn Fn(&Call) -> Answer + Sync),
    ) -> Result<Report, PassError> {
        let read = || Ok(self.model.document());
        let permitted = |_: &str| Ok(());
        let outside = Outside {
            read: &read,
            call,
            permitted: &permitted,
            tokens: &BTreeMap::new(),
            by: "test",
            confirmed: false,
        };
        pass(self.systems, outside, journal, ledger, self.policy, &clock())
    }
}

fn all_kinds() -> Vec<Resource> {
    use OrderKind::{Create, Terminate, Update};
    use OrderState::{Executing, PendingProvider};
    let of = |n, status, kind, state, offering| resource(n, status, Some((kind, state, offering)), 2.0);
    vec![
        of(1, Status::Pending, Create, PendingProvider, Offering::SiteAgent),
        of(2, Status::Pending, Create, Executing, Offering::SiteAgent),
        of(3, Status::Pending, Create, PendingProvider, Offering::Basic),
        of(4, Status::Updating, Update, PendingProvider, Offering::SiteAgent),
        of(5, Status::Updating, Update, PendingProvider, Offering::Basic),
        of(6, Status::Removing, Terminate, PendingProvider, Offering::SiteAgent),
        of(7, Status::Removing, Terminate, PendingProvider, Offering::Basic),
        resource(8, Status::Active, None, 2.0),
        resource(9, Status::Pending, Some((Create, PendingProvider, Offering::SiteAgent)), 0.0),
    ]
}

/// Makes what resources in use have on the storage already.
fn furnish(systems: &[System], model: &Model, ledger: &mut Ledger) {
    let document = model.document();
    let resources: Vec<_> = document.resources.iter().filter(|it| it.status != Status::Pending).collect();
    let before: Vec<_> =
        resources.iter().map(|it| Resource { order: None, new_quotas: None, ..(*it).clone() }).collect();
    let before: Vec<_> = before.iter().collect();
    let mut wanted = preflight::judge(&before, &document, "capstor", &systems[0].site);
    let cases = before.iter().zip(&mut wanted);
    preflight::number(cases.map(|(resource, wanted)| (*resource, wanted, &Ok(Seen::Absent))), &systems[0], ledger);
    for wanted in wanted.into_iter().flatten() {
        let wanted = Wanted { limits: systems[0].driver.held_as(wanted.limits), ..wanted };
        systems[0].driver.ensure(&wanted, &|_| Ok(())).unwrap();
    }
    ledger.save().unwrap();
}

type Ends = Vec<(Uuid, Status, Option<String>)>;

/// Where everything ends, what Waldur accepted, and whether the journal closed before the end.
fn carried_out(
    driver: impl Fn(&Path) -> Box<dyn Driver>,
    lines: Option<u64>,
) -> (Ends, Vec<(Uuid, &'static str)>, bool) {
    let (root, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = Model::new(all_kinds());
    let systems = system(driver(root.path()));
    furnish(&systems, &model, &mut Ledger::open(&folder.path().join("ledger")).unwrap());
    let bench = Bench { model: &model, systems: &systems, folder: folder.path(), policy: Policy::default() };
    let broken_off = match lines {
        Some(_) => match bench.pass(lines) {
            Ok(report) => !report.failed.is_empty(),
            Err(_) => true,
        },
        None => false,
    };
    let mut passes = 0;
    loop {
        let report = bench.pass(None).unwrap();
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        passes += 1;
        if report.plan.tasks.is_empty() {
            break;
        }
        assert!(passes < 3, "{:?}", report.plan);
    }
    let mut accepted = model.accepted.lock().unwrap().clone();
    accepted.sort_unstable();
    (model.ends(), accepted, broken_off)
}

fn same_end_wherever_it_is_killed(driver: impl Fn(&Path) -> Box<dyn Driver>) {
    let (ends, accepted, _) = carried_out(&driver, None);
    let status = |n: usize| ends[n - 1].1;
    assert_eq!([1, 2, 3, 4, 5, 8].map(status), [Status::Active; 6], "{ends:?}");
    assert_eq!([6, 7, 9].map(status), [Status::Removed; 3], "{ends:?}");
    assert!(ends[0].2.as_deref() == Some("/capstor/store/cscs/customer-1/project-1"), "{ends:?}");
    let mut at = 0;
    loop {
        let (ends_then, accepted_then, broken_off) = carried_out(&driver, Some(at));
        assert_eq!((ends_then, accepted_then), (ends.clone(), accepted.clone()), "killed at line {at}");
        at += 1;
        if !broken_off {
            break;
        }
    }
    assert!(at > 30, "only {at} lines");
}

#[test]
fn killed_at_every_line_of_the_journal_memory_comes_to_the_same_end() {
    same_end_wherever_it_is_killed(|_| Box::new(Memory::default()));
}

#[test]
fn killed_at_every_line_of_the_journal_posix_comes_to_the_same_end() {
    same_end_wherever_it_is_killed(|root| {
        let rules = Rules { must_be_mounted: false, change_owner: false };
        Box::new(Tree::new(root.to_owned(), Declared::new("user"), rules))
    });
}

#[test]
fn a_call_whose_answer_is_lost_is_no_fault_once_the_document_shows_its_aim() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::new(all_kinds().into_iter().take(3));
    let systems = system(Box::new(Memory::default()));
    let bench = Bench { model: &model, systems: &systems, folder: folder.path(), policy: Policy::default() };
    let journal = Journal::open(&folder.path().join("journal"), &clock()).unwrap();
    let lost = |call: &Call| match model.call(call) {
        Answer::Accepted if call.action != Action::SetBackendId => Answer::Unclear("no answer within 30 s".into()),
        answer => answer,
    };
    let report = bench.with(&journal, &mut Ledger::default(), &lost).unwrap();
    assert_eq!((report.ended.len(), report.failed.len()), (3, 0), "{:?}", report.failed);
    assert!(model.ends().iter().all(|(_, status, _)| *status == Status::Active));
}

#[test]
fn a_passing_fault_never_errs_an_order() {
    #[derive(Debug)]
    struct Full(Memory);
    impl Driver for Full {
        fn ready(&self) -> Result<(), Fault> {
            Ok(())
        }
        fn held_as(&self, limits: crate::limits::Limits) -> crate::limits::Limits {
            self.0.held_as(limits)
        }
        fn is_free(&self, project: u32) -> Result<bool, Fault> {
            self.0.is_free(project)
        }
        fn observe(&self, wanted: &[&Wanted]) -> Vec<Result<Seen, Fault>> {
            self.0.observe(wanted)
        }
        fn trash(&self) -> Result<Vec<crate::driver::Trashed>, Fault> {
            self.0.trash()
        }
        fn ensure(&self, _: &Wanted, _: crate::driver::Before<'_>) -> Result<(), Fault> {
            Err(Fault::unclear("no space left"))
        }
        fn retire(&self, _: &Wanted, _: u64, _: crate::driver::Before<'_>) -> Result<(), Fault> {
            Err(Fault::unclear("busy"))
        }
        fn restore(&self, _: &Wanted, _: crate::driver::Before<'_>) -> Result<(), Fault> {
            Err(Fault::unclear("busy"))
        }
        fn adopt(&self, _: &Wanted, _: crate::driver::Before<'_>) -> Result<(), Fault> {
            Err(Fault::unclear("busy"))
        }
        fn purge(&self, _: &crate::driver::Trashed, _: crate::driver::Before<'_>) -> Result<(), Fault> {
            Err(Fault::unclear("busy"))
        }
        fn usage(
            &self,
            wanted: &[&Wanted],
            seen: &(dyn Fn(u64) + Sync),
        ) -> Vec<Result<Option<crate::limits::Usage>, Fault>> {
            self.0.usage(wanted, seen)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let model = Model::new(all_kinds().into_iter().take(3));
    let systems = system(Box::new(Full(Memory::default())));
    let bench = Bench { model: &model, systems: &systems, folder: folder.path(), policy: Policy::default() };
    for _ in 0..3 {
        assert_eq!(bench.pass(None).unwrap().failed.len(), 3);
    }
    let told: Vec<_> = model.accepted.lock().unwrap().iter().map(|(_, action)| *action).collect();
    assert_eq!(told, ["approve_by_provider"], "the one that is approved before it is made, once");
}

#[test]
fn an_empty_or_unreadable_document_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::new(all_kinds());
    let systems = system(Box::new(Memory::default()));
    furnish(&systems, &model, &mut Ledger::open(&folder.path().join("ledger")).unwrap());
    let before = systems[0].driver.trash().unwrap();
    let empty = Model::default();
    let bench = Bench {
        model: &empty,
        systems: &systems,
        folder: folder.path(),
        policy: Policy { heal: true, ..Policy::default() },
    };
    assert!(bench.pass(None).unwrap().plan.tasks.is_empty());
    assert_eq!(systems[0].driver.trash().unwrap(), before);
    let journal = Journal::open(&folder.path().join("journal"), &clock()).unwrap();
    let read = || Err(Fault::unclear("502"));
    let (call, permitted) = (|_: &Call| -> Answer { panic!("nothing to tell") }, |_: &str| Ok(()));
    let outside = Outside {
        read: &read,
        call: &call,
        permitted: &permitted,
        tokens: &BTreeMap::new(),
        by: "test",
        confirmed: false,
    };
    let result = pass(&systems, outside, &journal, &mut Ledger::default(), Policy::default(), &clock());
    assert!(matches!(result, Err(PassError::Document(_))));
}

#[test]
fn a_lost_lease_stops_before_the_next_effect() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::new([all_kinds().remove(1)]);
    let systems = system(Box::new(Memory::default()));
    let journal = Journal::open(&folder.path().join("journal"), &clock()).unwrap();
    let effects = StdMutex::new(0);
    let permitted = |_: &str| {
        let mut effects = effects.lock().unwrap();
        *effects += 1;
        if *effects > 1 { Err(Fault::Stopped("the lease is lost".into())) } else { Ok(()) }
    };
    let (read, call) = (|| Ok(model.document()), |call: &Call| model.call(call));
    let outside = Outside {
        read: &read,
        call: &call,
        permitted: &permitted,
        tokens: &BTreeMap::new(),
        by: "test",
        confirmed: false,
    };
    let report = pass(&systems, outside, &journal, &mut Ledger::default(), Policy::default(), &clock()).unwrap();
    assert_eq!(report.failed.len(), 1);
    assert!(model.accepted.lock().unwrap().is_empty());
}

fn any_order() -> impl Strategy<Value = Option<(OrderKind, OrderState, Offering)>> {
    let kind = prop_oneof![
        Just(OrderKind::Create),
        Just(OrderKind::Update),
        Just(OrderKind::Terminate),
        Just(OrderKind::Other)
    ];
    let state = prop_oneof![Just(OrderState::PendingProvider), Just(OrderState::Executing), Just(OrderState::Other)];
    let offering = prop_oneof![Just(Offering::SiteAgent), Just(Offering::Basic), Just(Offering::Other)];
    prop::option::weighted(0.7, (kind, state, offering))
}

fn any_status() -> impl Strategy<Value = Status> {
    let all = [Status::Pending, Status::Active, Status::Updating, Status::Removing, Status::Removed, Status::Error];
    prop::sample::select(all.to_vec())
}

proptest! {
    // `PROPTEST_CASES=100000 cargo test --release -p hpc-storage-provisioner random` for the long run.
    #[test]
    fn of_random_worlds_the_plan_is_empty_after_apply(
        seeds in prop::collection::vec((any_status(), any_order(), 0_u8..4, 0_u8..6), 1..12), heal in any::<bool>(),
    ) {
        let resources: Vec<_> = seeds.iter().zip(1..).map(|((status, order, tb, _), n)| resource(n, *status, *order, f64::from(*tb))).collect();
        let model = Model::new(resources.clone());
        let memory = Memory::default();
        for (resource, (_, _, _, there)) in resources.iter().zip(&seeds) {
            let place = crate::place::Place::parse(&resource.path, "/capstor").unwrap();
            match there {
                1 => memory.put_unmarked(&place),
                2 | 3 => memory.put_marked(&place, resource.id),
                4 => memory.put_marked(&place, Uuid::from_u128(u128::MAX)),
                5 => memory.put_trashed(resource.id),
                _ => {}
            }
        }
        let systems = system(Box::new(memory));
        let read = || Ok(model.document());
        let (call, permitted) = (|call: &Call| model.call(call), |_: &str| Ok(()));
        let outside = Outside { read: &read, call: &call, permitted: &permitted, tokens: &BTreeMap::new(), by: "test", confirmed: false };
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&folder.path().join("journal"), &clock()).unwrap();
        let mut ledger = Ledger::default();
        let policy = Policy { heal, ..Policy::default() };
        let first = survey(&systems, outside.read, &journal.past(), &mut ledger).unwrap();
        let plan = planned(&first, policy, true);
        let report = carry_out(plan, &first.document, &systems, outside, &journal, &mut ledger, &clock()).unwrap();
        prop_assert!(report.failed.is_empty(), "{:?}", report);
        let after = survey(&systems, outside.read, &journal.past(), &mut ledger).unwrap();
        let rest = planned(&after, policy, true);
        prop_assert!(rest.tasks.is_empty(), "{:?}\nafter {:?}", rest, report);
    }
}
