//! One pass: read, look, plan, drive, verify, report.
//!
//! Everything is derived anew each time from the document and the storage. The journal adds one thing that neither can
//! tell: whose work was begun and not brought to its end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use thiserror::Error;
use uuid::Uuid;

use crate::document::{Document, OrderKind, OrderState, Resource, Status};
use crate::driver::{Desired, Driver, DriverError, Observed};
use crate::journal::{self, Begun, Event, Journal, JournalError, Past};
use crate::ledger::Ledger;
use crate::plan::{Case, Consent, Held, Hold, Lately, Plan, Policy, Task, plan};
use crate::preflight::{self, Site};
use program::{Clock, error_chain};

#[cfg(test)]
mod bench;
mod call;
#[cfg(test)]
pub(crate) mod kills;
#[cfg(test)]
pub(crate) mod model;
mod progress;
#[cfg(test)]
mod tests;
mod work;

pub use call::{Action, Answer, Call};
pub use progress::{Phase, Progress};

/// A storage system that is driven here.
#[derive(Debug)]
pub struct System {
    /// Its key in the document, in lower case.
    pub key: String,
    /// What preflight needs to know of it.
    pub site: Site,
    /// What drives it.
    pub driver: Box<dyn Driver>,
    /// How many resources are worked on at one time.
    pub at_once: usize,
}

/// What lies outside: the proxy, Waldur, and whoever may say stop.
#[derive(Clone, Copy)]
pub struct Outside<'a> {
    /// Reads the document afresh, complete.
    pub read: &'a (dyn Fn() -> Result<Document, DriverError> + Sync),
    /// Tells Waldur something.
    pub call: &'a (dyn Fn(&Call) -> Answer + Sync),
    /// Whether a call can be sent where its link leads; why not. Asked before the first effect of a task.
    pub reaches: &'a (dyn Fn(&Call) -> Result<(), String> + Sync),
    /// Whether work on a system may go on: the lease is held, nobody said stop. Asked before each effect.
    pub permitted: &'a (dyn Fn(&str) -> Result<(), DriverError> + Sync),
    /// Fencing token of each system's lease.
    pub tokens: &'a BTreeMap<String, u64>,
    /// On whose command: for the journal.
    pub by: &'a str,
    /// Whether a person has said yes to as much as it is.
    pub confirmed: bool,
    /// Where it is counted how far the work has come.
    pub progress: &'a Progress,
}

/// What a pass leaves.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// What was planned.
    pub plan: Plan,
    /// What was brought to its end.
    pub ended: Vec<Uuid>,
    /// What was not, and why; the next pass takes it up.
    pub failed: BTreeMap<Uuid, String>,
}

/// Why there was no pass, or it stopped midway.
#[derive(Debug, Error)]
pub enum PassError {
    /// The document cannot be had. Nothing was touched.
    #[error("the document cannot be read; nothing was touched")]
    Document(#[source] DriverError),
    /// The journal cannot be written. No effect goes without it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The ledger of project IDs cannot be written.
    #[error("the ledger of project IDs cannot be written; nothing was touched")]
    Ledger(#[source] std::io::Error),
}

/// A document with what is found on the storage for it.
#[derive(Debug)]
pub struct Survey {
    /// As read.
    pub document: Document,
    /// One for each resource of the systems that are driven here.
    pub cases: Vec<Case>,
    /// What cannot even be judged.
    pub held: Vec<Held>,
    /// What was begun lately without a person's yes.
    pub lately: Lately,
}

impl Survey {
    /// The same, with everything that Waldur refused due to be tried again: a person does not wait for what the loop waits for.
    #[must_use]
    pub fn retried(mut self) -> Self {
        for refused in self.cases.iter_mut().filter_map(|case| case.last_order.as_mut()?.refused.as_mut()) {
            refused.backs_off = false;
        }
        self
    }
}

/// Reads the document and looks at the storage. Changes nothing; new project IDs are entered into the ledger, unsaved.
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
    // Side by side: all take as long as the slowest.
    let observed = side_by_side(systems, systems.len(), |system| look(system, &desired[&*system.key].1));
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
    let skipped = document.skipped.iter().map(|odd| (odd, "left out by the proxy"));
    let held = ours.chain(skipped).map(odd).collect();
    Ok(Survey { document, cases, held, lately: past.lately() })
}

fn of_system<'a>(document: &'a Document, key: &'a str) -> impl Iterator<Item = &'a Resource> {
    document.resources.iter().filter(move |resource| resource.system == key)
}

/// What is found for each, in their order.
fn look(system: &System, judged: &[Result<Desired, preflight::Obstacle>]) -> Vec<Result<Observed, String>> {
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
        // Where nothing can be wanted nothing is looked for; the planner holds or refuses it.
        Err(_) => Ok(Observed::Absent),
    };
    judged.iter().map(one).collect()
}

/// The plan for what was surveyed. `confirmed`: a person has seen how much it is and said yes.
pub fn planned(survey: &Survey, policy: Policy, confirmed: bool) -> Plan {
    let consent = if confirmed { Consent::Given } else { Consent::Needed(&survey.lately) };
    let mut plan = plan(&survey.cases, policy, consent);
    plan.held.extend(survey.held.iter().cloned());
    plan
}

/// Carries out a plan that was made for this document, and says what came of it.
pub fn carry_out(
    plan: Plan,
    document: &Document,
    systems: &[System],
    outside: Outside<'_>,
    journal: &Journal,
    ledger: &mut Ledger,
    clock: &Clock,
) -> Result<Report, PassError> {
    if plan.tasks.is_empty() {
        return Ok(Report { plan, ..Report::default() });
    }
    ledger.save().map_err(PassError::Ledger)?;
    let resources = document.resources.iter();
    let kinds: BTreeMap<_, _> = resources.filter_map(|it| Some((it.id, it.order.as_ref()?.kind))).collect();
    for task in &plan.tasks {
        let steps = task.steps.iter().map(journal::step_text).collect();
        let Task { system, path, order, why, .. } = task.clone();
        let kind = kinds.get(&task.id).copied();
        let (token, by) = (outside.tokens.get(&system).copied().unwrap_or_default(), outside.by.to_owned());
        let unconfirmed = task.mass().filter(|_| !outside.confirmed);
        let begun = Begun { system, path, token, by, order, kind, steps, why, unconfirmed };
        journal.write(Some(task.id), Event::Begun(begun))?;
    }
    // One sync for all: none of them has had an effect yet.
    journal.sync()?;
    let now = clock.now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let results = work::Pass { systems, outside, journal, now }.run(&plan.tasks, document)?;
    let mut report = Report { plan, ..Report::default() };
    for (id, result) in results {
        match result {
            Ok(()) => {
                journal.write(Some(id), Event::Ended)?;
                report.ended.push(id);
            }
            Err(fault) => {
                journal.write(Some(id), Event::Failed { fault: fault.clone() })?;
                report.failed.insert(id, fault);
            }
        }
    }
    journal.sync()?;
    Ok(report)
}

/// Runs `one` for each of the items, `at_once` at a time, and gives the results in their order.
pub(crate) fn side_by_side<T: Sync, R: Send>(items: &[T], at_once: usize, one: impl Fn(&T) -> R + Sync) -> Vec<R> {
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
