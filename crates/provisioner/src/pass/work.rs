//! The work of a pass: approvals first, then, with a document read again, everything else.
//!
//! A directory is retired only when Waldur can no longer refuse the termination. An offering of the type `Marketplace.Slurm` has
//! approved it by then, and the order is executing. With `Marketplace.Basic` approval ends the order, and it can be refused for
//! months (an expired project, a blocked organization): retired first, the users of a resource that is still theirs would be
//! cut off all that time. So Waldur is asked first, and the directory is retired when the document says that the resource is
//! terminated. A program that is killed between the two leaves a terminated resource with its directory: the journal knows that its
//! approval was sent from here, and the next pass retires it. Without the journal a person does (`retire`).

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Action, Answer, Call, Outside, PassError, System, side_by_side};
use crate::document::{Document, OrderKind, OrderState, Resource, Status};
use crate::driver::{Desired, DriverError, Observed};
use crate::journal::{Event, Journal};
use crate::plan::{ACCEPTED, SENT, Step, Task};
use crate::preflight;
use crate::seen;
use program::error_chain;

pub(super) struct Pass<'a> {
    pub(super) systems: &'a [System],
    pub(super) outside: Outside<'a>,
    pub(super) journal: &'a Journal,
    /// Seconds since 1970.
    pub(super) now: u64,
}

/// What came of a task or a step.
enum Stop {
    /// Tell why, go on with the next pass.
    Fault(String),
    /// The call may have reached its aim: a document read afterwards tells.
    Unclear(Action, String),
    /// Waldur refuses the call, unless a document read afterwards tells that its aim was reached before.
    Refused(Action, String),
    /// All is done but the last call, which the order may not need: a document read afterwards tells.
    Last(Action),
}

/// What came of each task; a text says why one was not brought to its end.
type Results = Vec<(Uuid, Result<(), String>)>;

impl Pass<'_> {
    /// Works on all tasks; what came of each, in their order. Fails only with the journal.
    pub(super) fn run(&self, tasks: &[Task], document: &Document) -> Result<Results, PassError> {
        let mut results = BTreeMap::new();
        let (first, ready): (Vec<_>, Vec<_>) = tasks.iter().partition(|task| task.approves_first());
        let mut resources = by_id(document);
        let fresh;
        let mut work: Vec<(&Task, &[Step])> = ready.iter().map(|task| (*task, &task.steps[..])).collect();
        if !first.is_empty() {
            let answers = self.in_parallel("approvals", &first, |task| {
                self.call(approval(resources[&task.id]), task, resources[&task.id])
            });
            fresh = (self.outside.read)();
            let fresh = fresh.as_ref().map(by_id);
            for (task, answer) in first.iter().zip(answers) {
                let now = fresh.as_ref().map(|fresh| fresh.get(&task.id).copied());
                let state = now.map_err(|fault| format!("the document cannot be read: {}", error_chain(*fault)));
                match state.and_then(|now| approved(task, resources[&task.id], now).map(|steps| (steps, now))) {
                    Ok((steps, now)) => {
                        resources.extend(now.map(|now| (task.id, now)));
                        work.push((task, steps));
                    }
                    Err(state) => {
                        let text = match answer {
                            Ok(()) => format!("approved, but {state}"),
                            // What was refused, or never sent, is no approval.
                            Err(Stop::Fault(why) | Stop::Refused(_, why)) => why,
                            Err(Stop::Unclear(_, why)) => format!("{why}; {state}"),
                            Err(Stop::Last(action)) => format!("{}: {state}", action.name()),
                        };
                        results.insert(task.id, Err(text));
                    }
                }
            }
        }
        let stops = self.in_parallel("tasks", &work, |(task, steps)| self.task(task, steps, resources[&task.id]));
        let (mut unclear, mut last) = (Vec::new(), Vec::new());
        for ((task, _), stop) in work.iter().zip(stops) {
            match stop {
                Ok(()) => _ = results.insert(task.id, Ok(())),
                Err(Stop::Fault(fault)) => _ = results.insert(task.id, Err(fault)),
                Err(Stop::Unclear(action, why) | Stop::Refused(action, why)) => unclear.push((task.id, action, why)),
                Err(Stop::Last(action)) => last.push((*task, action)),
            }
        }
        if !last.is_empty() {
            let after = (self.outside.read)();
            let after = after.as_ref().map(by_id);
            for (task, action) in last {
                let now = after.as_ref().ok().and_then(|after| after.get(&task.id).copied());
                // Where the order is over, there is nothing left to say.
                let is_open = now.and_then(|now| now.order.as_ref()).is_some_and(|order| Some(order.id) == task.order);
                let stop = match &after {
                    Err(fault) => Err(Stop::Fault(format!("the document cannot be read: {}", error_chain(*fault)))),
                    Ok(_) if is_open => self.call(action, task, resources[&task.id]),
                    Ok(_) => Ok(()),
                };
                match stop {
                    Ok(()) => _ = results.insert(task.id, Ok(())),
                    Err(Stop::Fault(fault)) => _ = results.insert(task.id, Err(fault)),
                    Err(Stop::Unclear(action, why) | Stop::Refused(action, why)) => {
                        unclear.push((task.id, action, why));
                    }
                    Err(Stop::Last(_)) => {}
                }
            }
        }
        if !unclear.is_empty() {
            let after = (self.outside.read)();
            let after = after.as_ref().map(by_id);
            for (id, action, why) in unclear {
                let reached = after.as_ref().is_ok_and(|after| action.reached(resources[&id], after.get(&id).copied()));
                results.insert(id, if reached { Ok(()) } else { Err(why) });
            }
        }
        self.journal.sync()?;
        Ok(tasks.iter().filter_map(|task| Some((task.id, results.remove(&task.id)?))).collect())
    }

    /// As many at once as their systems allow.
    fn in_parallel<T: Sync, R: Send>(&self, what: &'static str, items: &[T], one: impl Fn(&T) -> R + Sync) -> Vec<R> {
        let at_once = self.systems.iter().map(|system| system.at_once).max().unwrap_or(1);
        self.outside.progress.begin(what, items.len());
        side_by_side(items, at_once, |item| {
            let result = one(item);
            self.outside.progress.one();
            result
        })
    }

    fn task(&self, task: &Task, steps: &[Step], resource: &Resource) -> Result<(), Stop> {
        let Some(system) = self.systems.iter().find(|system| system.key == task.system) else {
            return Err(Stop::Fault(format!("no system {} is configured", task.system)));
        };
        let guard = |what: &str| {
            (self.outside.permitted)(&system.key)?;
            let note = self.journal.write(Some(task.id), Event::Effect { what: what.to_owned() });
            note.map_err(|error| DriverError::Stopped(format!("{what}: {}", error_chain(&error))))
        };
        // Nobody is cut off, and nothing made, for an order that could not be ended afterwards.
        for action in steps.iter().filter_map(|step| said(step, resource)) {
            let call = addressed(action, task, resource)?;
            (self.outside.reaches)(&call).map_err(Stop::Fault)?;
        }
        for step in steps {
            if let Some(action) = said(step, resource) {
                if *step == Step::Done && may_be_over(task, resource) {
                    return Err(Stop::Last(action));
                }
                self.call(action, task, resource)?;
                continue;
            }
            match step {
                Step::Ensure(desired) => {
                    system.driver.ensure(desired, &guard).map_err(Stop::fault)?;
                    verify(system, desired)?;
                }
                Step::Restore(desired) => {
                    system.driver.restore(desired, &guard).map_err(Stop::fault)?;
                    verify(system, desired)?;
                }
                Step::Retire(desired) => {
                    system.driver.retire(desired, self.now, &guard).map_err(Stop::fault)?;
                    match observe(system, desired)? {
                        Observed::Trashed { .. } | Observed::Purging { .. } => {}
                        other => {
                            return Err(Stop::Fault(format!("put into the trash, but found {}", describe(&other))));
                        }
                    }
                }
                Step::Gone(desired) => match observe(system, desired)? {
                    Observed::Absent => {}
                    other => return Err(Stop::Fault(format!("taken for gone, but found {}", describe(&other)))),
                },
                Step::Approve
                | Step::Reject(_)
                | Step::SetBackendId
                | Step::Done
                | Step::Erred(_)
                | Step::SetStateOk => {}
            }
        }
        Ok(())
    }

    fn call(&self, action: Action, task: &Task, resource: &Resource) -> Result<(), Stop> {
        let call = addressed(action, task, resource)?;
        (self.outside.permitted)(&task.system).map_err(Stop::fault)?;
        let noted = |outcome: &str, refused, denied| {
            let event = Event::Callback { call: call.action.name().into(), outcome: outcome.into(), refused, denied };
            self.journal.write(Some(task.id), event).map_err(|error| Stop::Fault(error_chain(&error)))
        };
        let note = |outcome: &str| noted(outcome, false, false);
        note(SENT)?;
        let answer = (self.outside.call)(&call);
        seen::callback(call.action.name(), &answer);
        match answer {
            Answer::Accepted => note(ACCEPTED),
            Answer::Unclear(why) => {
                note(&why)?;
                Err(Stop::Unclear(call.action, why))
            }
            Answer::Missing(why) => {
                noted(&why, false, true)?;
                Err(Stop::Unclear(call.action, why))
            }
            Answer::Refused(why) => {
                noted(&why, true, false)?;
                let why = format!("Waldur refuses {}: {why}", call.action.name());
                Err(Stop::Refused(call.action, why))
            }
            Answer::Denied(why) => {
                noted(&why, false, true)?;
                Err(Stop::Fault(why))
            }
        }
    }
}

impl Stop {
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    fn fault(fault: DriverError) -> Self {
        Self::Fault(error_chain(&fault))
    }
}

fn by_id(document: &Document) -> BTreeMap<Uuid, &Resource> {
    document.resources.iter().map(|resource| (resource.id, resource)).collect()
}

/// An approval says again what options the order asks for.
fn approval(resource: &Resource) -> Action {
    Action::Approve(resource.order.as_ref().and_then(|order| order.new_options.clone()))
}

/// What Waldur is told by a step; `None` for work on the storage.
fn said(step: &Step, resource: &Resource) -> Option<Action> {
    match step {
        Step::Approve => Some(approval(resource)),
        Step::Reject(reason) => Some(Action::Reject(reason.clone())),
        Step::SetBackendId => Some(Action::SetBackendId),
        Step::Done => Some(Action::Done),
        Step::Erred(reason) => Some(Action::Erred(reason.clone())),
        Step::SetStateOk => Some(Action::SetStateOk),
        Step::Restore(_) | Step::Ensure(_) | Step::Retire(_) | Step::Gone(_) => None,
    }
}

/// A call with its link.
fn addressed(action: Action, task: &Task, resource: &Resource) -> Result<Call, Stop> {
    let link = action.link(&resource.links).map(ToOwned::to_owned);
    let link = link.ok_or_else(|| Stop::Fault(format!("the document has no link for {}", action.name())))?;
    Ok(Call { resource: task.id, order: task.order, path: task.path.clone(), link, action })
}

/// What is left to do once an order was approved, or what it waits for.
fn approved<'a>(task: &'a Task, before: &Resource, now: Option<&Resource>) -> Result<&'a [Step], String> {
    let Some(now) = now else { return Err("it is not in the document any more".into()) };
    let judged = |it: &Resource| (it.path.clone(), preflight::mode(it), it.gid, it.uid, it.new_quotas.or(it.quotas));
    // Also where the order is over: one that was called off leaves the resource as it was.
    if judged(before) != judged(now) {
        return Err("it changed meanwhile: the next pass plans anew".into());
    }
    let rest = &task.steps[1..];
    match &now.order {
        Some(order) if Some(order.id) == task.order => match order.state {
            OrderState::Executing => Ok(rest),
            _ => Err("its order is not executing yet: Waldur has it wait".into()),
        },
        // Waldur ends some orders on approval, those of Basic offerings and those for options: what is left is the work. Where
        // its worker lags, the resource still is what it was while the order was open.
        None if ended_on_approval(before, now) => {
            let work = |step: &&Step| matches!(step, Step::Ensure(_) | Step::Restore(_) | Step::Retire(_));
            Ok(&rest[..rest.iter().take_while(work).count()])
        }
        None if now.status == Status::Removing => Err("Waldur does not show it as terminated yet".into()),
        _ => Err("its order is over".into()),
    }
}

/// Whether an order that is over came to its aim: one that was called off leaves the resource as it was.
fn ended_on_approval(before: &Resource, now: &Resource) -> bool {
    match before.order.as_ref().map(|order| order.kind) {
        Some(OrderKind::Terminate) => now.status == Status::Removed,
        Some(OrderKind::Update) => matches!(now.status, Status::Active | Status::Updating),
        _ => now.status == Status::Active,
    }
}

/// Whether Waldur may have ended the order already: it ends those for options when they are approved, or soon after.
fn may_be_over(task: &Task, resource: &Resource) -> bool {
    let asks_for_options = resource.order.as_ref().is_some_and(|order| order.new_options.is_some());
    asks_for_options && task.approves_first()
}

/// What the system says afterwards must be what was wanted.
fn verify(system: &System, desired: &Desired) -> Result<(), Stop> {
    match observe(system, desired)? {
        Observed::Ours(present) => {
            let differences = present.differences(desired);
            if differences.is_empty() {
                return Ok(());
            }
            let differences: Vec<_> = differences.iter().map(|it| it.describe(system.site.terabyte)).collect();
            Err(Stop::Fault(format!("made, but read back otherwise: {}", differences.join(", "))))
        }
        other => Err(Stop::Fault(format!("made, but found {}", describe(&other)))),
    }
}

fn observe(system: &System, desired: &Desired) -> Result<Observed, Stop> {
    let observed = system.driver.observe(&[desired]).pop();
    observed.unwrap_or_else(|| Err(DriverError::unclear("the system gave no answer"))).map_err(Stop::fault)
}

fn describe(observed: &Observed) -> &str {
    match observed {
        Observed::Absent => "nothing",
        Observed::Ours(_) => "it still there",
        Observed::Unmarked(_) => "a directory without our mark",
        Observed::Obstructed(what) => what,
        Observed::Trashed { .. } => "it in the trash",
        Observed::Purging { .. } => "it in the trash, being deleted",
    }
}
