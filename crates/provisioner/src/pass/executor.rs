//! Carries out tasks: approvals first, then, with a document read again, everything else.
//!
//! A directory is retired only when Waldur can no longer refuse the termination. With an offering of the type
//! `Marketplace.Slurm`, Waldur has approved it by then, and the order is executing. With `Marketplace.Basic`, the
//! approval ends the order, and Waldur may refuse it for months (an expired project, a blocked organization). If the
//! directory were retired first, the users of a resource that they still have would be locked out all that time. So the
//! approval is sent first, and the directory is retired when the document shows the resource as terminated. If the
//! program is killed between the two, a terminated resource keeps its directory; the record on the storage shows that
//! its approval was sent by a provisioner, and the next pass retires it, on whatever host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use program::{error_chain, lock};
use provisioner_core::document::{Document, OrderKind, OrderState, Resource, Status};
use provisioner_core::last_order::{ACCEPTED, SENT};
use provisioner_core::plan::{Step, Task};
use provisioner_core::preflight;
use storage_driver::{Desired, DriverError, Observed};
use tracing::warn;
use uuid::Uuid;

use super::protocol::Protocol;
use super::{Answer, Call, External, System, parallel_map};
use crate::journal::{self, Begun, Event, JournalError};
use crate::record::{self, Approved, Entry};

/// How many tasks begin with one sync of the journal: after a crash, at most these are unfinished.
const BATCH: usize = 256;

pub(super) struct Executor<'a> {
    pub(super) systems: &'a [System],
    pub(super) external: External<'a>,
    /// Seconds since 1970.
    pub(super) now: u64,
    /// Resources whose approval certainly had no effect.
    pub(super) declined: Mutex<BTreeSet<Uuid>>,
}

/// Why a task stopped.
enum Stop<'t> {
    Failed(String),
    /// The call may have reached its aim; a document that is read afterwards shows whether it has.
    Unclear(&'t Step, String),
    /// Waldur refuses the call, unless a document that is read afterwards shows that its aim had been reached before.
    Refused(&'t Step, String),
    /// Everything is done except for the last call. A document that is read afterwards shows whether the order needs
    /// it.
    Last(&'t Step),
}

/// The result of each task; the text says why it failed.
pub(super) type Results = BTreeMap<Uuid, Result<(), String>>;

/// Journals and collects results.
struct Outcomes<'t> {
    protocol: Protocol<'t>,
    results: Results,
    unclear: Vec<(&'t Task, &'t Step, String)>,
    last: Vec<(&'t Task, &'t Step)>,
}

impl<'t> Outcomes<'t> {
    fn end(&mut self, task: &Task, result: Result<(), String>) -> Result<(), JournalError> {
        self.protocol.end(task.id, &result)?;
        self.results.insert(task.id, result);
        Ok(())
    }

    fn settle(&mut self, task: &'t Task, result: Result<(), Stop<'t>>) -> Result<(), JournalError> {
        match result {
            Ok(()) => self.end(task, Ok(()))?,
            Err(Stop::Failed(why)) => self.end(task, Err(why))?,
            Err(Stop::Unclear(step, why) | Stop::Refused(step, why)) => self.unclear.push((task, step, why)),
            Err(Stop::Last(step)) => self.last.push((task, step)),
        }
        Ok(())
    }
}

impl Executor<'_> {
    /// Carries out all tasks, which were planned from this document.
    pub(super) fn run(&self, tasks: &[Task], document: &Document) -> Result<Results, JournalError> {
        let External { protocol, read, progress, .. } = self.external;
        let unreadable = |fault: &DriverError| format!("the document cannot be read: {}", error_chain(fault));
        let concerned = self.systems.iter().filter(|system| tasks.iter().any(|task| task.system == system.key));
        let at_once = concerned.map(|system| system.at_once).max().unwrap_or(1);
        let mut outcomes = Outcomes { protocol, results: Results::new(), unclear: Vec::new(), last: Vec::new() };
        let before = by_id(document);
        let mut resources = before.clone();
        let (first, ready): (Vec<_>, Vec<_>) = tasks.iter().partition(|task| task.approves_first());
        let mut work: Vec<_> = ready.into_iter().map(|task| (task, &task.steps[..], false)).collect();
        let fresh;
        if !first.is_empty() {
            protocol.begin(first.iter().map(|task| self.begun(task, resources[&task.id])))?;
            self.record(first.iter().filter_map(|task| self.recorded(task, resources[&task.id])));
            progress.begin("approvals", first.len());
            let answers = parallel_map(&first, at_once, |task| {
                progress.counted(|| self.call(&task.steps[0], task, resources[&task.id]))
            });
            fresh = read();
            let fresh = fresh.as_ref().map(by_id);
            for (task, answer) in first.into_iter().zip(answers) {
                let now = fresh.as_ref().map(|fresh| fresh.get(&task.id).copied()).map_err(|fault| unreadable(fault));
                match now.and_then(|now| approved(task, resources[&task.id], now).map(|steps| (steps, now))) {
                    Ok((steps, now)) => {
                        resources.extend(now.map(|now| (task.id, now)));
                        work.push((task, steps, true));
                    }
                    Err(state) => {
                        let why = match answer {
                            Ok(()) | Err(Stop::Last(_)) => format!("approved, but {state}"),
                            // A call that was refused or not sent is not an approval.
                            Err(Stop::Failed(why) | Stop::Refused(_, why)) => why,
                            Err(Stop::Unclear(_, why)) => format!("{why}; {state}"),
                        };
                        outcomes.end(task, Err(why))?;
                    }
                }
            }
        }
        progress.begin("tasks", work.len());
        for batch in work.chunks(BATCH) {
            let new = || batch.iter().filter(|(_, _, begun)| !begun);
            protocol.begin(new().map(|(task, ..)| self.begun(task, resources[&task.id])))?;
            self.record(new().filter_map(|(task, ..)| self.recorded(task, resources[&task.id])));
            let results = parallel_map(batch, at_once, |(task, steps, _)| {
                progress.counted(|| self.task(task, steps, resources[&task.id]))
            });
            for ((task, ..), result) in batch.iter().zip(results) {
                outcomes.settle(task, result)?;
            }
        }
        if !outcomes.last.is_empty() {
            let after = read();
            let after = after.as_ref().map(by_id);
            for (task, step) in std::mem::take(&mut outcomes.last) {
                let now = after.as_ref().ok().and_then(|after| after.get(&task.id).copied());
                let is_open = now.and_then(|now| now.order.as_ref()).is_some_and(|order| Some(order.id) == task.order);
                let result = match &after {
                    Err(fault) => Err(Stop::Failed(unreadable(fault))),
                    Ok(_) if is_open => self.call(step, task, resources[&task.id]),
                    // The order has ended by itself.
                    Ok(_) => Ok(()),
                };
                outcomes.settle(task, result)?;
            }
        }
        if !outcomes.unclear.is_empty() {
            let after = read();
            let after = after.as_ref().map(by_id);
            for (task, step, why) in std::mem::take(&mut outcomes.unclear) {
                let reached = after
                    .as_ref()
                    .is_ok_and(|after| super::call::reached(step, resources[&task.id], after.get(&task.id).copied()));
                outcomes.end(task, if reached { Ok(()) } else { Err(why) })?;
            }
        }
        protocol.journal.sync()?;
        let declined = lock(&self.declined);
        let is_over = |task: &&Task| outcomes.results.get(&task.id) == Some(&Ok(())) || declined.contains(&task.id);
        let recorded = tasks.iter().filter(is_over).filter(|task| self.recorded(task, before[&task.id]).is_some());
        self.record(recorded.map(|task| (&*task.system, Entry::Ended { resource: task.id })));
        Ok(outcomes.results)
    }

    fn begun(&self, task: &Task, resource: &Resource) -> (Uuid, Begun) {
        let Task { system, path, order, why, .. } = task.clone();
        let kind = order.and(resource.order.as_ref()).map(|order| order.kind);
        let steps = task.steps.iter().map(journal::step_text).collect();
        let unconfirmed = task.mass().filter(|_| !self.external.confirmed);
        (task.id, Begun { system, path, order, kind, steps, why, unconfirmed, ..Begun::default() })
    }

    /// The entry of the record for work that the next provisioner could not distinguish from a change that somebody else made, with
    /// the system. Work for an order that stays open until the work is done needs none.
    fn recorded<'t>(&self, task: &'t Task, resource: &Resource) -> Option<(&'t str, Entry)> {
        let moves = |step: &Step| matches!(step, Step::Retire(_) | Step::Restore(_));
        // Waldur ends orders for options when they are approved.
        let asks_for_options = resource.order.as_ref().is_some_and(|order| order.new_options.is_some());
        let changes = |step: &Step| matches!(step, Step::Ensure(_)) && (task.order.is_none() || asks_for_options);
        if !task.steps.iter().any(|step| moves(step) || changes(step)) {
            return None;
        }
        let order = resource.order.as_ref().filter(|_| task.approves_first());
        let approved = order.map(|order| Approved { order: order.id, kind: order.kind });
        let work = record::Begun { approved, at: self.now };
        Some((&task.system, Entry::Begun { resource: task.id, work }))
    }

    /// Appends to the records. If one cannot be written, for example because the file system is full, the work is done nevertheless:
    /// it may be what frees the space. If this host then fails, a person has to complete it.
    fn record<'t>(&self, entries: impl Iterator<Item = (&'t str, Entry)>) {
        let mut all = BTreeMap::<_, Vec<_>>::new();
        for (system, entry) in entries {
            all.entry(system).or_default().push(entry);
        }
        for system in self.systems {
            let Some(entries) = all.get(&*system.key) else { continue };
            let permitted = (self.external.protocol.permitted)(&system.key);
            if let Err(error) = permitted.and_then(|()| record::append(&*system.driver, entries)) {
                warn!(system = system.key, "another host could not see what is begun here: {}", error_chain(&error));
            }
        }
    }

    fn task<'t>(&self, task: &'t Task, steps: &'t [Step], resource: &Resource) -> Result<(), Stop<'t>> {
        let system = self.systems.iter().find(|system| system.key == task.system);
        let system = system.ok_or_else(|| Stop::Failed(format!("no system {} is configured", task.system)))?;
        let guard = self.external.protocol.guard_of(&system.key, task.id);
        // Nobody is locked out, and nothing is created, for an order that could not be ended afterwards.
        for call in steps.iter().filter_map(|step| Call::new(step, task, resource)) {
            call.and_then(|call| (self.external.reaches)(&call)).map_err(Stop::Failed)?;
        }
        for step in steps {
            match step {
                Step::Adopt(desired) => system.driver.adopt(desired, &guard).map_err(Stop::failed)?,
                Step::Ensure(desired) => {
                    system.driver.ensure(desired, &guard).map_err(Stop::failed)?;
                    verify(system, desired)?;
                }
                Step::Restore(desired) => {
                    system.driver.restore(desired, &guard).map_err(Stop::failed)?;
                    verify(system, desired)?;
                }
                Step::Retire(desired) => {
                    system.driver.retire(desired, self.now, &guard).map_err(Stop::failed)?;
                    match observe(system, desired)? {
                        Observed::Trashed { .. } | Observed::Purging { .. } => {}
                        other => return Err(unexpected("moved to the trash", &other)),
                    }
                }
                Step::Gone(desired) => match observe(system, desired)? {
                    Observed::Absent => {}
                    other => return Err(unexpected("taken for gone", &other)),
                },
                Step::Done if may_have_ended(task, resource) => return Err(Stop::Last(step)),
                Step::Approve
                | Step::Reject(_)
                | Step::SetBackendId
                | Step::Done
                | Step::Erred(_)
                | Step::SetStateOk => self.call(step, task, resource)?,
            }
        }
        Ok(())
    }

    fn call<'t>(&self, step: &'t Step, task: &Task, resource: &Resource) -> Result<(), Stop<'t>> {
        let Some(call) = Call::new(step, task, resource) else { return Ok(()) };
        let (call, Protocol { journal, permitted, .. }) = (call.map_err(Stop::Failed)?, self.external.protocol);
        permitted(&task.system).map_err(Stop::failed)?;
        let note = |outcome: &str, refused, denied| {
            if step == &Step::Approve && (refused || denied) {
                lock(&self.declined).insert(task.id);
            }
            let event = Event::Callback { call: call.action.into(), outcome: outcome.into(), refused, denied };
            journal.write(Some(task.id), event).map_err(|error| Stop::Failed(error_chain(&error)))
        };
        note(SENT, false, false)?;
        match (self.external.call)(&call) {
            Answer::Accepted => note(ACCEPTED, false, false),
            Answer::Unclear(why) => {
                note(&why, false, false)?;
                Err(Stop::Unclear(step, why))
            }
            Answer::Missing(why) => {
                note(&why, false, true)?;
                Err(Stop::Unclear(step, why))
            }
            Answer::Refused(why) => {
                note(&why, true, false)?;
                Err(Stop::Refused(step, format!("Waldur refuses {}: {why}", call.action)))
            }
            Answer::Denied(why) => {
                note(&why, false, true)?;
                Err(Stop::Failed(why))
            }
        }
    }
}

impl Stop<'_> {
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    fn failed(fault: DriverError) -> Self {
        Self::Failed(error_chain(&fault))
    }
}

fn by_id(document: &Document) -> BTreeMap<Uuid, &Resource> {
    document.resources.iter().map(|resource| (resource.id, resource)).collect()
}

/// The steps that are left after an order was approved, or why the order cannot be carried out yet.
fn approved<'t>(task: &'t Task, before: &Resource, now: Option<&Resource>) -> Result<&'t [Step], String> {
    let Some(now) = now else { return Err("it is no longer in the document".into()) };
    let planned_from =
        |it: &Resource| (it.path.clone(), preflight::desired_mode(it), it.gid, it.uid, it.new_quotas.or(it.quotas));
    // Also if the order has ended: a cancelled order leaves the resource as it was.
    if planned_from(before) != planned_from(now) {
        return Err("it has changed since: the next pass makes a new plan".into());
    }
    let rest = &task.steps[1..];
    match &now.order {
        Some(order) if Some(order.id) == task.order => match order.state {
            OrderState::Executing => Ok(rest),
            _ => Err("its order is not executing yet: Waldur has it wait".into()),
        },
        // Waldur ends some orders on approval, those of Basic offerings and those for options: only work on the storage
        // is left. If Waldur's worker lags, the resource still has the status that it had while the order was open.
        None if ended_on_approval(before, now) => {
            let work = |step: &&Step| matches!(step, Step::Ensure(_) | Step::Restore(_) | Step::Retire(_));
            Ok(&rest[..rest.iter().take_while(work).count()])
        }
        None if now.status == Status::Removing => Err("Waldur does not show it as terminated yet".into()),
        _ => Err("its order has ended".into()),
    }
}

/// Whether an order that has ended was carried out. A cancelled order leaves the resource as it was.
fn ended_on_approval(before: &Resource, now: &Resource) -> bool {
    match before.order.as_ref().map(|order| order.kind) {
        Some(OrderKind::Terminate) => now.status == Status::Removed,
        Some(OrderKind::Update) => matches!(now.status, Status::Active | Status::Updating),
        _ => now.status == Status::Active,
    }
}

/// Whether Waldur may have ended the order already. It ends orders for options when they are approved, or soon after.
fn may_have_ended(task: &Task, resource: &Resource) -> bool {
    let asks_for_options = resource.order.as_ref().is_some_and(|order| order.new_options.is_some());
    asks_for_options && task.approves_first()
}

/// Fails unless the storage system now reports the desired state.
fn verify<'t>(system: &System, desired: &Desired) -> Result<(), Stop<'t>> {
    match observe(system, desired)? {
        Observed::Ours(present) => {
            let differences = present.differences(desired);
            if differences.is_empty() {
                return Ok(());
            }
            let differences: Vec<_> = differences.iter().map(|it| it.describe(system.rules.terabyte)).collect();
            Err(Stop::Failed(format!("changed, but the storage reads back: {}", differences.join(", "))))
        }
        other => Err(unexpected("changed", &other)),
    }
}

fn observe<'t>(system: &System, desired: &Desired) -> Result<Observed, Stop<'t>> {
    let observed = system.driver.observe(&[desired]).pop();
    observed.unwrap_or_else(|| Err(DriverError::temporary("the system did not answer"))).map_err(Stop::failed)
}

fn unexpected<'t>(done: &str, observed: &Observed) -> Stop<'t> {
    let found = match observed {
        Observed::Absent => "there is nothing",
        Observed::Ours(_) => "the directory is still there",
        Observed::Unmarked(_) => "there is a directory without our mark",
        Observed::Obstructed(what) => what,
        Observed::Trashed { .. } => "the directory is in the trash",
        Observed::Purging { .. } => "the directory is in the trash and being deleted",
    };
    Stop::Failed(format!("{done}, but {found}"))
}
