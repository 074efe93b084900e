//! One pass: reads the document, observes the storage, plans, carries the plan out, verifies, and reports.
//!
//! Each pass starts from the document and the storage. The journal adds what neither of them shows, such as unfinished
//! work.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use program::{Clock, error_chain};
use serde::Serialize;
use thiserror::Error;
use uuid::Uuid;

use crate::document::{Document, Resource};
use crate::driver::{Desired, Driver, DriverError, Observed};
use crate::journal::{JournalError, Past};
use crate::ledger::Ledger;
use crate::plan::{Case, Consent, Held, Hold, Lately, Plan, Policy, plan};
use crate::preflight::{self, Site};

#[cfg(test)]
mod bench;
mod call;
mod executor;
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
    pub site: Site,
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
    #[error("the ledger of project IDs cannot be written; nothing was touched")]
    Ledger(#[source] std::io::Error),
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
    pub lately: Lately,
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
    let mut desired = BTreeMap::new();
    for system in systems {
        let resources: Vec<_> = of_system(&document, &system.key).collect();
        let ended =
            |resource: &Resource| past.last_order(resource.id).is_some_and(|last| last.explains(resource.status));
        let judged = preflight::judge(&resources, &document, &system.key, &system.site, &ended);
        let judged: Vec<_> = judged
            .into_iter()
            .map(|judged| judged.map(|desired| Desired { limits: system.driver.held_as(desired.limits), ..desired }))
            .collect();
        desired.insert(&*system.key, (resources, judged));
    }
    // In parallel: all take as long as the slowest.
    let observed = parallel_map(systems, systems.len(), |system| observe(system, &desired[&*system.key].1));
    let mut cases = BTreeMap::new();
    for (system, observed) in systems.iter().zip(observed) {
        let (resources, mut judged) = desired.remove(&*system.key).unwrap_or_default();
        preflight::ghosts(&resources, &mut judged, &observed);
        let of_each = resources.iter().zip(&mut judged).zip(&observed);
        preflight::number(
            of_each.map(|((resource, desired), observed)| (*resource, desired, observed)),
            system,
            ledger,
        );
        for ((resource, desired), observed) in resources.into_iter().zip(judged).zip(observed) {
            let unfinished = past.unfinished.contains(&resource.id);
            let last_order = past.last_order(resource.id).cloned();
            cases.insert(resource.id, Case { resource: resource.clone(), desired, observed, unfinished, last_order });
        }
    }
    // In the document's order, whatever the order of the systems.
    let cases = document.resources.iter().filter_map(|resource| cases.remove(&resource.id)).collect();
    let odd = |(odd, what): (&crate::document::Odd, &str)| Held {
        id: odd.id,
        system: String::new(),
        path: String::new(),
        hold: Hold::Refused,
        reason: format!("{what}: {}", odd.reason),
        changes: Vec::new(),
    };
    let ours = document.odd.iter().map(|odd| (odd, "not understood"));
    let skipped = document.skipped.iter().map(|odd| (odd, "skipped by the proxy"));
    let held = ours.chain(skipped).map(odd).collect();
    Ok(Survey { document, cases, held, lately: past.lately() })
}

fn of_system<'a>(document: &'a Document, key: &'a str) -> impl Iterator<Item = &'a Resource> {
    document.resources.iter().filter(move |resource| resource.system == key)
}

/// What is observed for each, in their order.
fn observe(system: &System, judged: &[Result<Desired, preflight::Obstacle>]) -> Vec<Result<Observed, String>> {
    if let Err(fault) = system.driver.ready() {
        return judged.iter().map(|_| Err(error_chain(&fault))).collect();
    }
    let desired: Vec<_> = judged.iter().filter_map(|judged| judged.as_ref().ok()).collect();
    let mut observed = system.driver.observe(&desired).into_iter();
    let one = |judged: &Result<Desired, _>| match judged {
        Ok(_) => observed
            .next()
            .unwrap_or_else(|| Err(DriverError::unclear("no answer")))
            .map_err(|fault| error_chain(&fault)),
        // Without a desired state there is nothing to observe; the planner holds or rejects it.
        Err(_) => Ok(Observed::Absent),
    };
    judged.iter().map(one).collect()
}

/// Plans what was surveyed. `confirmed`: a person has confirmed the amount of work.
pub fn planned(survey: &Survey, policy: Policy, confirmed: bool) -> Plan {
    let consent = if confirmed { Consent::Given } else { Consent::Needed(&survey.lately) };
    let mut plan = plan(&survey.cases, policy, consent);
    plan.held.extend(survey.held.iter().cloned());
    plan
}

/// Carries out a plan that was made from this document.
pub fn carry_out(
    plan: Plan,
    document: &Document,
    systems: &[System],
    external: External<'_>,
    ledger: &mut Ledger,
    clock: &Clock,
) -> Result<Report, PassError> {
    let mut report = Report { plan, ..Report::default() };
    if report.plan.tasks.is_empty() {
        return Ok(report);
    }
    ledger.save().map_err(PassError::Ledger)?;
    let now = clock.now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let results = executor::Executor { systems, external, now }.run(&report.plan.tasks, document)?;
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
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
