//! One pass: reads the document, observes the storage, plans, carries the plan out, verifies, and reports.
//!
//! Each pass starts from the document and the storage. The journal adds what neither of them shows, such as unfinished
//! work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use program::Clock;
use provisioner_core::document::{Document, OrderKind, RejectedItem, Resource, Status};
use provisioner_core::plan::{Case, Consent, Held, Hold, Plan, Policy, Recent, plan};
use provisioner_core::preflight::{self, SystemRules, Unnumbered};
use provisioner_core::{Observation, Turn};
use serde::Serialize;
use storage_driver::{Driver, DriverError, Observed};
use thiserror::Error;
use tracing::warn;
use uuid::Uuid;

use crate::journal::{Event, JournalError, Past};
use crate::ledger::{Ledger, ProjectIds};
use crate::project_ids;
use crate::record::{self, Approved, Begun};
use program::{error_chain, lock};

mod call;
mod executor;
#[cfg(test)]
pub(crate) mod harness;
#[cfg(test)]
pub(crate) mod kills;
#[cfg(test)]
pub(crate) mod model;
mod progress;
mod protocol;
#[cfg(test)]
mod tests;

pub use call::{Answer, Call};
pub use progress::{Phase, Progress};
pub use protocol::Protocol;

/// A storage system that this provisioner drives.
#[derive(Debug)]
pub struct System {
    /// Its key in the document, in lower case.
    pub key: String,
    pub rules: SystemRules,
    /// Where its project IDs come from; `None` if it has none.
    pub project_ids: Option<ProjectIds>,
    pub driver: Box<dyn Driver>,
    /// How many resources are worked on at the same time.
    pub at_once: usize,
}

/// External interfaces and cancellation.
#[derive(Clone, Copy)]
pub struct External<'a> {
    /// Reads the document, bypassing caches.
    pub read: &'a (dyn Fn() -> Result<Document, DriverError> + Sync),
    /// Sends a call to Waldur.
    pub call: &'a (dyn Fn(&Call) -> Answer + Sync),
    /// Checks that there are credentials for a call's link. Called before the first side effect of a task.
    pub reaches: &'a (dyn Fn(&Call) -> Result<(), String> + Sync),
    pub protocol: Protocol<'a>,
    /// Whether a person has confirmed the amount of work.
    pub confirmed: bool,
    pub progress: &'a Progress,
}

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub plan: Plan,
    /// Resources whose tasks are complete.
    pub ended: Vec<Uuid>,
    /// Resources whose tasks failed, and why; the next pass tries again.
    pub failed: BTreeMap<Uuid, String>,
}

/// Why there was no pass, or why it was aborted.
#[derive(Debug, Error)]
pub enum PassError {
    #[error("the document cannot be read; nothing was touched")]
    Document(#[source] DriverError),
    /// Without the journal there are no side effects.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A document, and what was observed on the storage for it.
#[derive(Debug)]
pub struct Survey {
    pub document: Document,
    /// One for each resource of the systems that are driven here.
    pub cases: Vec<Case>,
    /// Items of the document that could not be read.
    pub held: Vec<Held>,
    /// What was begun lately without confirmation.
    pub lately: Recent,
}

impl Survey {
    /// Makes all calls that Waldur refused due for a retry: unlike the loop, a person does not wait.
    #[must_use]
    pub fn retried(mut self) -> Self {
        for refused in self.cases.iter_mut().filter_map(|case| case.last_order.as_mut()?.refused.as_mut()) {
            refused.backs_off = false;
        }
        self
    }
}

/// Reads the document and observes the storage. Changes nothing; new project IDs are added to the ledger, which is not
/// saved.
pub fn survey(
    systems: &[System],
    read: &dyn Fn() -> Result<Document, DriverError>,
    past: &Past,
    ledger: &mut Ledger,
) -> Result<Survey, PassError> {
    let document = read().map_err(PassError::Document)?;
    let mut past = past.clone();
    let readable = load(systems, &document, &mut past, ledger);
    let mut desired = BTreeMap::new();
    for system in systems {
        let resources: Vec<_> = of_system(&document, &system.key).collect();
        let ended =
            |resource: &Resource| past.last_order(resource.id).is_some_and(|last| last.explains(resource.status));
        let checked = preflight::check(&resources, &document, &system.key, &system.rules, &ended).into_iter();
        let stored = |desired: Unnumbered| desired.map_limits(|limits| system.driver.stored_limits(limits));
        let checked: Vec<_> = checked.map(|desired| desired.map(stored)).collect();
        desired.insert(&*system.key, (resources, checked));
    }
    // In parallel: all take as long as the slowest.
    let ready: Vec<_> = systems.iter().zip(readable).collect();
    let observed = parallel_map(&ready, systems.len(), |(system, readable)| {
        observe(system, &desired[&*system.key].1, readable.as_ref().err())
    });
    let mut cases = BTreeMap::new();
    for (system, observed) in systems.iter().zip(observed) {
        let (resources, mut checked) = desired.remove(&*system.key).unwrap_or_default();
        preflight::hold_paths_of_unclaimed(&resources, &mut checked, &observed);
        let unassigned = resources.iter().zip(checked).zip(&observed);
        let unassigned = unassigned.map(|((resource, desired), observed)| (*resource, desired, observed)).collect();
        let desired = project_ids::assign(unassigned, &system.key, system.project_ids, &*system.driver, ledger);
        for ((resource, desired), observed) in resources.into_iter().zip(desired).zip(observed) {
            let unfinished = past.unfinished.contains(&resource.id);
            let last_order = past.last_order(resource.id).cloned();
            cases.insert(resource.id, Case { resource: resource.clone(), desired, observed, unfinished, last_order });
        }
    }
    // In the document's order, whatever the order of the systems.
    let cases = document.resources.iter().filter_map(|resource| cases.remove(&resource.id)).collect();
    let held = |(item, what): (&RejectedItem, &str)| Held {
        id: item.id,
        system: String::new(),
        path: String::new(),
        hold: Hold::Refused,
        turn: Turn::Operator,
        reason: format!("{what}: {}", item.reason),
        changes: Vec::new(),
    };
    let rejected = document.rejected.iter().map(|item| (item, "invalid item"));
    let skipped = document.skipped.iter().map(|item| (item, "skipped by the proxy"));
    let held = rejected.chain(skipped).map(held).collect();
    Ok(Survey { document, cases, held, lately: past.lately() })
}

fn of_system<'a>(document: &'a Document, key: &'a str) -> impl Iterator<Item = &'a Resource> {
    document.resources.iter().filter(move |resource| resource.system == key)
}

/// Reads the records of all systems, before anything is assigned on one of them. Adds begun work to `past`. An error for each system
/// that is not available or whose record cannot be read: nothing is done there.
fn load(
    systems: &[System],
    document: &Document,
    past: &mut Past,
    ledger: &mut Ledger,
) -> Vec<Result<(), Arc<DriverError>>> {
    let records = parallel_map(systems, systems.len(), |system| {
        system.driver.ready()?;
        match record::read(&*system.driver)? {
            None if system.project_ids.is_some() => {
                Err(DriverError::temporary("the driver keeps no record, which systems with project IDs need"))
            }
            record => Ok(record.unwrap_or_default()),
        }
    });
    let mut loaded = Vec::new();
    for (system, record) in systems.iter().zip(records) {
        loaded.push(record.and_then(|record| ledger.take(&system.key, record)).map_err(Arc::new));
        let resources: BTreeMap<_, _> = of_system(document, &system.key).map(|it| (it.id, it)).collect();
        let is_cancelled = |(id, begun): &(Uuid, &Begun)| {
            let cancelled = |approved: &Approved| {
                let order = resources.get(id).and_then(|resource| resource.order.as_ref()).map(|order| order.id);
                let status = resources.get(id).map(|resource| resource.status);
                approved.kind == OrderKind::Terminate
                    && order != Some(approved.order)
                    && status.is_some_and(|status| !matches!(status, Status::Removing | Status::Removed))
            };
            begun.approved.as_ref().is_some_and(cancelled)
        };
        let cancelled: Vec<_> = ledger.begun(&system.key).filter(is_cancelled).map(|(id, it)| (id, it.at)).collect();
        for (resource, at) in cancelled {
            ledger.forget_order(&system.key, resource, at);
        }
        for (resource, begun) in ledger.begun(&system.key) {
            past.add(resource, begun);
        }
    }
    loaded
}

/// Saves what a survey has added to the ledger, before anything is planned from it. Resources whose new project ID cannot be saved are
/// held. `permitted`: fails if the lease of a system is lost.
pub fn save(
    survey: &mut Survey,
    systems: &[System],
    ledger: &mut Ledger,
    permitted: &dyn Fn(&str) -> Result<(), DriverError>,
) {
    for system in systems {
        if !ledger.has_unsaved(&system.key) {
            continue;
        }
        let saved = permitted(&system.key).and_then(|()| ledger.save(&system.key, &*system.driver));
        let Err(error) = saved else { continue };
        let error = Arc::new(DriverError::temporary_from("its new project ID cannot be saved", error));
        let new: BTreeSet<_> = ledger.new_ids(&system.key).collect();
        for case in survey.cases.iter_mut().filter(|case| case.resource.system == system.key) {
            if new.contains(&case.resource.id) {
                case.observed = Err(Arc::clone(&error));
            }
        }
    }
}

/// Observes the directories of a system, in their order. `unreadable`: why the system cannot be read.
fn observe(
    system: &System,
    desired: &[Result<Unnumbered, preflight::Obstacle>],
    unreadable: Option<&Arc<DriverError>>,
) -> Vec<Observation> {
    if let Some(error) = unreadable {
        return desired.iter().map(|_| Err(Arc::clone(error))).collect();
    }
    let observable: Vec<_> = desired.iter().flatten().map(Unnumbered::to_observe).collect();
    let mut observed = system.driver.observe(&observable).into_iter();
    let one = |desired: &Result<_, _>| match desired {
        Ok(_) => observed.next().unwrap_or_else(|| Err(DriverError::temporary("no answer"))).map_err(Arc::new),
        // Not observed, because the planner holds or rejects it anyway.
        Err(_) => Ok(Observed::Absent),
    };
    desired.iter().map(one).collect()
}

/// Plans what was surveyed. `confirmed`: a person has confirmed the amount of work.
pub fn planned(survey: &Survey, policy: Policy, confirmed: bool) -> Plan {
    let consent = if confirmed { Consent::Given } else { Consent::Needed(&survey.lately) };
    let mut plan = plan(&survey.cases, policy, consent);
    plan.held.extend(survey.held.iter().cloned());
    plan
}

/// Journals and records the end of unfinished work that needs nothing more.
pub fn end_what_needs_nothing(
    survey: &Survey,
    plan: &Plan,
    systems: &[System],
    protocol: Protocol<'_>,
    ledger: &mut Ledger,
) -> Result<(), JournalError> {
    let concerned: BTreeSet<_> =
        plan.tasks.iter().map(|task| Some(task.id)).chain(plan.held.iter().map(|held| held.id)).collect();
    let claimed = |case: &Case| matches!(case.observed, Ok(Observed::Purging { .. }));
    let over = |case: &&Case| case.unfinished && !claimed(case) && !concerned.contains(&Some(case.resource.id));
    for case in survey.cases.iter().filter(over) {
        protocol.journal.write(Some(case.resource.id), Event::Ended)?;
        ledger.end(&case.resource.system, case.resource.id);
    }
    for System { key, driver, .. } in systems {
        if let Err(error) = (protocol.permitted)(key).and_then(|()| ledger.save(key, &**driver)) {
            warn!(system = key, "the end of work cannot be recorded: {}", error_chain(&error));
        }
    }
    Ok(())
}

/// Carries out a plan that was made from this document.
pub fn carry_out(
    plan: Plan,
    document: &Document,
    systems: &[System],
    external: External<'_>,
    clock: &Clock,
) -> Result<Report, PassError> {
    let mut report = Report { plan, ..Report::default() };
    if report.plan.tasks.is_empty() {
        return Ok(report);
    }
    let now = clock.now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let executor = executor::Executor { systems, external, now, declined: Mutex::default() };
    let results = executor.run(&report.plan.tasks, document)?;
    report.ended = report.plan.tasks.iter().map(|task| task.id).filter(|id| results.get(id) == Some(&Ok(()))).collect();
    report.failed = results.into_iter().filter_map(|(id, result)| Some((id, result.err()?))).collect();
    Ok(report)
}

/// Calls `one` for each item, at most `at_once` at the same time, and returns the results in the items' order.
pub(crate) fn parallel_map<T: Sync, R: Send>(items: &[T], at_once: usize, one: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if at_once.min(items.len()) <= 1 {
        return items.iter().map(one).collect();
    }
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    let result = one(item);
                    lock(&results).push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
