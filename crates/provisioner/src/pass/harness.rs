//! Shared by the tests of passes: the model of Waldur, a storage system, and a program that is restarted for each pass.

use std::path::Path;
use std::time::Duration;

use provisioner_core::document::{Offering, OrderKind, OrderState, Status};
use storage_driver::Desired;
use storage_driver::limits::Terabyte;

use super::model::{Model, resource};
use super::*;
use crate::journal::Journal;
use crate::killed::{self, Kill};
use crate::ledger::ProjectIds;

/// A resource that is in use in Waldur and whose directory is in the trash.
pub(super) const CANCELLED: u128 = 10;

pub(super) fn pass(
    systems: &[System],
    external: External<'_>,
    ledger: &mut Ledger,
    policy: Policy,
    clock: &Clock,
) -> Result<Report, PassError> {
    let mut survey = survey(systems, external.read, &external.protocol.journal.past(), ledger)?;
    save(&mut survey, systems, ledger, external.protocol.permitted);
    let plan = planned(&survey, policy, external.confirmed);
    end_what_needs_nothing(&survey, &plan, systems, external.protocol, ledger)?;
    carry_out(plan, &survey.document, systems, external, clock)
}

pub(super) fn clock() -> Clock {
    Clock::from_fn(|| SystemTime::UNIX_EPOCH + Duration::from_hours(500_000))
}

/// The system of the model; `projects` is the lowest project ID.
pub(crate) fn system(driver: Box<dyn Driver>, projects: u32) -> [System; 1] {
    let rules = SystemRules {
        published_root: "/capstor".into(),
        terabyte: Terabyte::Decimal,
        owner_uid: 0,
        lowest_id: 1000,
        modes: preflight::Modes::default(),
    };
    let project_ids = Some(ProjectIds::From(projects));
    [System { key: "capstor".into(), rules, project_ids, driver, at_once: 1 }]
}

/// The interfaces that differ between tests.
pub(super) fn external<'a>(
    journal: &'a Journal,
    read: &'a (dyn Fn() -> Result<Document, DriverError> + Sync),
    call: &'a (dyn Fn(&Call) -> Answer + Sync),
    permitted: &'a (dyn Fn(&str) -> Result<(), DriverError> + Sync),
) -> External<'a> {
    static NO_TOKENS: BTreeMap<String, u64> = BTreeMap::new();
    static PROGRESS: Progress = Progress::new();
    let protocol = Protocol { journal, permitted, tokens: &NO_TOKENS, by: "test" };
    External { read, call, reaches: &|_| Ok(()), protocol, confirmed: false, progress: &PROGRESS }
}

/// A provisioner whose state directory is a folder.
#[derive(Clone, Copy)]
pub(super) struct Harness<'a> {
    pub(super) model: &'a Model,
    pub(super) systems: &'a [System],
    pub(super) folder: &'a Path,
    pub(super) policy: Policy,
    /// Whether large amounts of work are confirmed.
    pub(super) confirmed: bool,
}

impl<'a> Harness<'a> {
    /// With the default policy, and nothing confirmed.
    pub(super) fn new(model: &'a Model, systems: &'a [System], folder: &'a Path) -> Self {
        Self { model, systems, folder, policy: Policy::default(), confirmed: false }
    }

    /// One pass of a restarted program.
    pub(super) fn pass(&self) -> Result<Report, PassError> {
        let journal = Journal::open(&self.folder.join("journal"), &clock())?;
        self.with(&journal, &mut Ledger::default(), &|call| self.model.call(call))
    }

    /// The same, killed. Returns also the number of writes to the journal and the records.
    pub(super) fn killed(&self, kill: Option<Kill>) -> (Result<Report, PassError>, u64) {
        killed::run(kill, || self.pass())
    }

    pub(super) fn with(
        &self,
        journal: &Journal,
        ledger: &mut Ledger,
        call: &(dyn Fn(&Call) -> Answer + Sync),
    ) -> Result<Report, PassError> {
        let read = || Ok(self.model.document());
        let permitted = |_: &str| Ok(());
        let external = External { confirmed: self.confirmed, ..external(journal, &read, call, &permitted) };
        pass(self.systems, external, ledger, self.policy, &clock())
    }
}

/// One resource for each kind of work.
pub(super) fn all_kinds() -> Vec<Resource> {
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
        resource(CANCELLED, Status::Active, None, 2.0),
        resource(11, Status::Pending, Some((Create, Executing, Offering::SiteAgent)), 0.0),
    ]
}

/// Creates what exists on the storage for resources in use.
pub(super) fn populate(systems: &[System], model: &Model) {
    let mut ledger = Ledger::default();
    ledger.load("capstor", &*systems[0].driver).unwrap();
    let document = model.document();
    let resources: Vec<_> = document.resources.iter().filter(|it| it.status != Status::Pending).collect();
    let before: Vec<_> =
        resources.iter().map(|it| Resource { order: None, new_quotas: None, ..(*it).clone() }).collect();
    let before: Vec<_> = before.iter().collect();
    let [system] = systems else { panic!("the model has one system") };
    let desired = preflight::check(&before, &document, "capstor", &system.rules, &|_| false);
    let absent = Ok(Observed::Absent);
    let unassigned = before.iter().zip(desired).map(|(resource, desired)| (*resource, desired, &absent)).collect();
    let desired = project_ids::assign(unassigned, "capstor", system.project_ids, &*system.driver, &mut ledger);
    ledger.save("capstor", &*system.driver).unwrap();
    for desired in desired.into_iter().flatten() {
        let desired = Desired { limits: system.driver.stored_limits(desired.limits), ..desired };
        systems[0].driver.ensure(&desired, &|_| Ok(())).unwrap();
        if desired.id == Uuid::from_u128(CANCELLED) {
            systems[0].driver.retire(&desired, 1, &|_| Ok(())).unwrap();
        }
    }
}
