use std::sync::Mutex as StdMutex;

use proptest::prelude::*;
use provisioner_core::document::{Offering, OrderKind, OrderState, Status};
use storage_driver::Desired;
use storage_driver::memory::Memory;

use super::harness::{Harness, all_kinds, clock, external, pass, populate};
use super::model::{Model, resource};
use super::*;
use crate::journal::Journal;
use crate::killed::Kill;

fn system(driver: Box<dyn Driver>) -> [System; 1] {
    super::harness::system(driver, 100)
}

#[test]
fn a_lost_answer_is_not_an_error_if_the_document_shows_the_effect_of_the_call() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::new(all_kinds().into_iter().take(3));
    let systems = system(Box::new(Memory::default()));
    let harness = Harness::new(&model, &systems, folder.path());
    let journal = Journal::open(&folder.path().join("journal"), &clock()).unwrap();
    let lost = |call: &Call| match model.call(call) {
        Answer::Accepted if call.action != "set_backend_id" => Answer::Unclear("no answer within 30 s".into()),
        answer => answer,
    };
    let report = harness.with(&journal, &mut Ledger::default(), &lost).unwrap();
    assert_eq!((report.ended.len(), report.failed.len()), (3, 0), "{:?}", report.failed);
    assert!(model.ends().iter().all(|(_, status, _)| *status == Status::Active));
}

#[test]
fn a_transient_error_never_sets_an_order_erred() {
    #[derive(Debug)]
    struct Full(Memory);
    impl Driver for Full {
        fn ready(&self) -> Result<(), DriverError> {
            Ok(())
        }
        fn stored_limits(&self, limits: storage_driver::limits::QuotaLimits) -> storage_driver::limits::QuotaLimits {
            self.0.stored_limits(limits)
        }
        fn is_free(&self, project: u32) -> Result<bool, DriverError> {
            self.0.is_free(project)
        }
        fn read_record(&self) -> Result<Option<Vec<u8>>, DriverError> {
            self.0.read_record()
        }
        fn append_to_record(&self, text: &[u8]) -> Result<(), DriverError> {
            self.0.append_to_record(text)
        }
        fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>> {
            self.0.observe(desired)
        }
        fn trash(&self) -> Result<Vec<storage_driver::Trashed>, DriverError> {
            self.0.trash()
        }
        fn marked(&self, levels: usize) -> Result<Vec<storage_driver::Marked>, DriverError> {
            self.0.marked(levels)
        }
        fn trash_usage(
            &self,
            trashed: &[(storage_driver::Trashed, Option<u32>)],
        ) -> Vec<Result<Option<storage_driver::limits::Usage>, DriverError>> {
            self.0.trash_usage(trashed)
        }
        fn claimed(&self) -> Result<Vec<storage_driver::Trashed>, DriverError> {
            self.0.claimed()
        }
        fn ensure(&self, _: &Desired, _: storage_driver::Guard<'_>) -> Result<(), DriverError> {
            Err(DriverError::temporary("no space left"))
        }
        fn retire(&self, _: &Desired, _: u64, _: storage_driver::Guard<'_>) -> Result<(), DriverError> {
            Err(DriverError::temporary("busy"))
        }
        fn restore(&self, _: &Desired, _: storage_driver::Guard<'_>) -> Result<(), DriverError> {
            Err(DriverError::temporary("busy"))
        }
        fn adopt(&self, _: &Desired, _: storage_driver::Guard<'_>) -> Result<(), DriverError> {
            Err(DriverError::temporary("busy"))
        }
        fn claim(
            &self,
            _: &storage_driver::Trashed,
            _: Option<u32>,
            _: storage_driver::Guard<'_>,
        ) -> Result<(), DriverError> {
            Err(DriverError::temporary("busy"))
        }
        fn purge(
            &self,
            _: &storage_driver::Trashed,
            _: Option<u32>,
            _: storage_driver::Guard<'_>,
        ) -> Result<(), DriverError> {
            Err(DriverError::temporary("busy"))
        }
        fn usage(&self, desired: &[&Desired]) -> Vec<Result<Option<storage_driver::limits::Usage>, DriverError>> {
            self.0.usage(desired)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let model = Model::new(all_kinds().into_iter().take(3));
    let systems = system(Box::new(Full(Memory::default())));
    let harness = Harness::new(&model, &systems, folder.path());
    for _ in 0..3 {
        assert_eq!(harness.pass().unwrap().failed.len(), 3);
    }
    let accepted: Vec<_> = model.accepted.lock().unwrap().iter().map(|(_, action)| *action).collect();
    assert_eq!(accepted, ["approve_by_provider"], "once, for the one that is approved before its directory is created");
}

#[test]
fn an_empty_or_unreadable_document_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::new(all_kinds());
    let systems = system(Box::new(Memory::default()));
    populate(&systems, &model);
    let before = systems[0].driver.trash().unwrap();
    let empty = Model::default();
    let policy = Policy { heal: true, ..Policy::default() };
    let harness = Harness { policy, ..Harness::new(&empty, &systems, folder.path()) };
    assert!(harness.pass().unwrap().plan.tasks.is_empty());
    assert_eq!(systems[0].driver.trash().unwrap(), before);
    let journal = Journal::open(&folder.path().join("journal"), &clock()).unwrap();
    let read = || Err(DriverError::temporary("502"));
    let (call, permitted) = (|_: &Call| -> Answer { panic!("there is nothing to call") }, |_: &str| Ok(()));
    let external = external(&journal, &read, &call, &permitted);
    let result = pass(&systems, external, &mut Ledger::default(), Policy::default(), &clock());
    assert!(matches!(result, Err(PassError::Document(_))));
}

#[test]
fn a_lost_lease_stops_before_the_next_side_effect() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::new([all_kinds().remove(1)]);
    let systems = system(Box::new(Memory::default()));
    let journal = Journal::open(&folder.path().join("journal"), &clock()).unwrap();
    let effects = StdMutex::new(0);
    let permitted = |_: &str| {
        let mut effects = effects.lock().unwrap();
        *effects += 1;
        if *effects > 1 { Err(DriverError::Stopped("the lease is lost".into())) } else { Ok(()) }
    };
    let (read, call) = (|| Ok(model.document()), |call: &Call| model.call(call));
    let external = external(&journal, &read, &call, &permitted);
    let report = pass(&systems, external, &mut Ledger::default(), Policy::default(), &clock()).unwrap();
    assert_eq!(report.failed.len(), 1);
    assert!(model.accepted.lock().unwrap().is_empty());
}

#[test]
fn a_crash_leaves_at_most_one_batch_unfinished() {
    let folder = tempfile::tempdir().unwrap();
    let order = Some((OrderKind::Create, OrderState::Executing, Offering::SiteAgent));
    let model = Model::new((1..=300).map(|n| resource(n, Status::Pending, order, 2.0)));
    let systems = system(Box::new(Memory::default()));
    let harness = Harness::new(&model, &systems, folder.path());
    harness.killed(Some(Kill::After(256 + 10))).0.unwrap_err();
    let unfinished = || Journal::open(&folder.path().join("journal"), &clock()).unwrap().past().unfinished.len();
    assert!((250..=256).contains(&unfinished()), "{}", unfinished());
    assert!(harness.pass().unwrap().failed.is_empty());
    assert!(model.ends().iter().all(|(_, status, _)| *status == Status::Active));
}

pub(super) fn any_order() -> impl Strategy<Value = Option<(OrderKind, OrderState, Offering)>> {
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

pub(super) fn any_status() -> impl Strategy<Value = Status> {
    let all = [Status::Pending, Status::Active, Status::Updating, Status::Removing, Status::Removed, Status::Error];
    prop::sample::select(all.to_vec())
}

proptest! {
    // The long run: `PROPTEST_CASES=100000 cargo test --release -p hpc-storage-provisioner random`.
    #[test]
    fn in_random_worlds_the_plan_is_empty_after_apply(
        seeds in prop::collection::vec((any_status(), any_order(), 0_u8..4, 0_u8..6), 1..12), heal in any::<bool>(), refuse in any::<bool>(),
    ) {
        let resources: Vec<_> = seeds.iter().zip(1..).map(|((status, order, tb, _), n)| resource(n, *status, *order, f64::from(*tb))).collect();
        let model = Model::new(resources.clone());
        let memory = Memory::default();
        for (resource, (_, _, _, there)) in resources.iter().zip(&seeds) {
            let place = storage_driver::place::Place::parse(&resource.path, "/capstor").unwrap();
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
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&folder.path().join("journal"), &clock()).unwrap();
        let external = external(&journal, &read, &call, &permitted);
        let mut ledger = Ledger::default();
        let policy = Policy { heal, refuse, ..Policy::default() };
        let first = survey(&systems, external.read, &journal.past(), &mut ledger).unwrap();
        let plan = planned(&first, policy, true);
        let report = carry_out(plan, &first.document, &systems, external, &clock()).unwrap();
        prop_assert!(report.failed.is_empty(), "{:?}", report);
        let after = survey(&systems, external.read, &journal.past(), &mut ledger).unwrap();
        let rest = planned(&after, policy, true);
        prop_assert!(rest.tasks.is_empty(), "{:?}\nafter {:?}", rest, report);
    }
}
