//! Commands that act on named resources: `adopt`, `restore`, `retire` and `reject`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, IsTerminal, Write};

use clap::{ArgGroup, Args};
use program::error_chain;
use provisioner_core::document::Status;
use provisioner_core::plan::{self, Case, Hold, Plan, Step, Task};
use provisioner_core::preflight;
use storage_driver::Observed;
use uuid::Uuid;

use super::apply::begin;
use super::out::{self, Page};
use super::plans::{self, Entry, LIMIT};
use super::{EXIT_FAILURE, Failure, explain, failure, progress};
use crate::pass::{self, Survey};
use crate::provisioner::Provisioner;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("selection").args(["resources", "all", "hold"]).required(true))]
pub(super) struct Selection {
    /// UUIDs, paths or slugs
    #[arg(value_name = "RESOURCE")]
    resources: Vec<String>,
    /// All resources for which it is possible
    #[arg(long)]
    all: bool,
    /// All resources for which it is possible and that `plan` shows as held for this reason
    #[arg(long, value_name = "HOLD", value_parser = plans::holds())]
    hold: Vec<Hold>,
    /// Do not ask for confirmation with --all or --hold
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy)]
enum Action {
    Adopt,
    Restore { make: bool },
}

enum Verdict {
    /// By this step.
    Possible(Step),
    /// Nothing is left to do.
    Already(&'static str),
    /// Why not.
    Impossible(String),
}

pub(super) fn adopt(provisioner: &Provisioner, selection: &Selection) -> Result<(), Failure> {
    run(provisioner, Action::Adopt, selection)
}

pub(super) fn restore(provisioner: &Provisioner, selection: &Selection, make: bool) -> Result<(), Failure> {
    run(provisioner, Action::Restore { make }, selection)
}

fn run(provisioner: &Provisioner, action: Action, selection: &Selection) -> Result<(), Failure> {
    // Naming a resource is a decision; a group is shown first.
    let mut shown = None::<BTreeSet<Uuid>>;
    if selection.resources.is_empty() && !selection.yes {
        // Without locks: a person reads.
        let (survey, notes) = provisioner.look(false)?;
        out::notes(&notes);
        let selected = select(provisioner, &survey, action, selection)?;
        let mut page = Page::new();
        let cases = selected.tasks.iter().map(|(case, _)| *case);
        let entries = cases.map(|case| entry(provisioner, case, action.name().into(), String::new())).collect();
        plans::groups(&mut page, entries, LIMIT);
        page.line(0, &format!("{} to {}.", selected.tasks.len(), action.name()));
        page.print()?;
        if !selected.tasks.is_empty() && !confirmed(&format!("{} all of these?", action.name())) {
            return Err(failure(format!("nothing was done: give --yes to {} all of them", action.name())));
        }
        shown = Some(selected.tasks.iter().map(|(case, _)| case.resource.id).collect());
    }
    let mut session = begin(provisioner, action.name())?;
    let survey = session.look()?;
    let mut selected = select(provisioner, &survey, action, selection)?;
    selected.tasks.retain(|(case, _)| shown.as_ref().is_none_or(|shown| shown.contains(&case.resource.id)));
    let mut failures = BTreeMap::new();
    progress::of_tasks(provisioner, || {
        // One by one: each system has its own concurrency limit.
        provisioner.systems.iter().try_for_each(|system| {
            let ours = selected.tasks.iter().filter(|(_, task)| task.system == system.key);
            let tasks = ours.map(|(_, task)| task.clone()).collect();
            let report = session.perform(&survey, Plan { tasks, held: Vec::new() }, true)?;
            failures.extend(report.failed);
            Ok::<_, Failure>(())
        })
    })?;
    let mut page = Page::new();
    for (case, why) in selected.already {
        page.line(0, &case.resource.path);
        page.line(2, why);
    }
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for (case, _) in &selected.tasks {
        match failures.remove(&case.resource.id) {
            None => done.push(entry(provisioner, case, action.past().into(), action.next().into())),
            Some(why) => failed.push(entry(provisioner, case, format!("failed ({})", action.name()), why)),
        }
    }
    let summary = format!("{} {}, {} failed.", done.len(), action.past(), failed.len());
    let all_done = failed.is_empty();
    plans::groups(&mut page, failed, 0);
    plans::groups(&mut page, done, LIMIT);
    page.line(0, &summary);
    page.print()?;
    if all_done { Ok(()) } else { Err(Failure { code: EXIT_FAILURE, text: String::new() }) }
}

struct Selected<'a> {
    tasks: Vec<(&'a Case, Task)>,
    /// Resources for which nothing is left to do, and why.
    already: Vec<(&'a Case, &'static str)>,
}

/// Fails if a named resource is unknown, or the action is impossible for it.
fn select<'a>(
    provisioner: &Provisioner,
    survey: &'a Survey,
    action: Action,
    selection: &Selection,
) -> Result<Selected<'a>, Failure> {
    if selection.resources.is_empty() {
        let plan = pass::planned(survey, provisioner.settings.policy, false);
        let held = plan.held.iter().filter(|held| selection.hold.contains(&held.hold));
        let held: BTreeSet<_> = held.filter_map(|held| held.id).collect();
        // A terminated resource claims no directory unless it is named.
        let selected = |case: &&Case| {
            (selection.all || held.contains(&case.resource.id)) && case.resource.status != Status::Removed
        };
        let task = |case: &'a Case| match action.verdict(case) {
            Verdict::Possible(step) => Some((case, Task::manual(case, step))),
            Verdict::Already(_) | Verdict::Impossible(_) => None,
        };
        let tasks = survey.cases.iter().filter(selected).filter_map(task).collect();
        return Ok(Selected { tasks, already: Vec::new() });
    }
    let (mut tasks, mut already, mut impossible) = (BTreeMap::new(), Vec::new(), Vec::new());
    for name in &selection.resources {
        match explain::find(survey, name) {
            Ok(case) => match action.verdict(case) {
                Verdict::Possible(step) => _ = tasks.insert(case.resource.id, (case, Task::manual(case, step))),
                Verdict::Already(why) => already.push((case, why)),
                Verdict::Impossible(why) => impossible.push(format!("{name}: {why}")),
            },
            Err(unknown) => impossible.push(unknown.text),
        }
    }
    match impossible.pop() {
        None => Ok(Selected { tasks: tasks.into_values().collect(), already }),
        Some(last) => {
            for why in impossible {
                out::eprint(&format!("error: {why}"));
            }
            Err(failure(last))
        }
    }
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Adopt => "adopt",
            Self::Restore { .. } => "restore",
        }
    }

    fn past(self) -> &'static str {
        match self {
            Self::Adopt => "adopted",
            Self::Restore { .. } => "restored",
        }
    }

    /// The state afterwards, and what comes next.
    fn next(self) -> &'static str {
        match self {
            Self::Adopt => "marked; the next pass carries out its order, or shows what differs from the document",
            Self::Restore { .. } => "in place, as in the document",
        }
    }

    fn verdict(self, case: &Case) -> Verdict {
        use Verdict::{Already, Impossible};
        if let (Self::Restore { .. }, status) = (self, case.resource.status)
            && !matches!(status, Status::Active | Status::Updating)
        {
            return Impossible(format!(
                "the resource is {}, not in use in Waldur, and nothing would keep the directory. If its termination is not \
                 approved yet, have it rejected in Waldur; otherwise have a new resource ordered, and copy the data from the \
                 trash",
                format!("{status:?}").to_lowercase()
            ));
        }
        if matches!(self, Self::Restore { .. }) && preflight::is_being_terminated(&case.resource) {
            return Impossible(
                "an order terminates the resource, and the next pass would remove the directory again: `reject` the order first".into(),
            );
        }
        let observed = match &case.observed {
            Ok(observed) => observed,
            Err(error) => return Impossible(error_chain(error)),
        };
        let step = match (self, observed) {
            (Self::Adopt, Observed::Unmarked(_)) => Step::Adopt,
            (Self::Restore { .. }, Observed::Trashed { .. }) => Step::Restore,
            (Self::Restore { make: true }, Observed::Absent) => Step::Ensure,
            (Self::Adopt, Observed::Ours(_)) => return Already("it already has the mark of this resource"),
            (Self::Adopt, Observed::Obstructed(what)) => return Impossible(format!("it cannot be adopted: {what}")),
            (Self::Adopt, Observed::Absent | Observed::Trashed { .. } | Observed::Purging { .. }) => {
                return Impossible("there is no directory at its path to adopt".into());
            }
            (Self::Restore { make: false }, Observed::Absent) => {
                return Impossible("it is not in the trash; --make creates an empty directory".into());
            }
            (Self::Restore { .. }, Observed::Purging { .. }) => {
                return Impossible(
                    "`purge` is deleting its directory permanently, and what is left cannot be restored: wait until `purge` has \
                     ended; then --make creates an empty directory"
                        .into(),
                );
            }
            (Self::Restore { .. }, Observed::Ours(_)) => return Already("its directory is already in place"),
            (Self::Restore { .. }, Observed::Unmarked(_)) => {
                return Impossible(
                    "there is a directory without our mark at its path: `adopt` it if it is the right one".into(),
                );
            }
            (Self::Restore { .. }, Observed::Obstructed(what)) => return Impossible(what.clone()),
        };
        match &case.desired {
            Ok(desired) => Verdict::Possible(step(desired.clone())),
            Err(obstacle) => Impossible(obstacle.reason.clone()),
        }
    }
}

/// A resource, and the values of its directory that differ from the document.
fn entry<'a>(provisioner: &Provisioner, case: &'a Case, kind: String, note: String) -> Entry<'a> {
    let (system, terabyte) = (&*case.resource.system, plans::terabyte(&provisioner.systems, &case.resource.system));
    let detail = match (&case.observed, &case.desired) {
        (Ok(Observed::Unmarked(present)), Ok(desired)) => plans::described(&present.differences(desired), terabyte),
        (Ok(Observed::Trashed { since }), _) => format!("in the trash since {}", out::date(*since)),
        (_, Ok(desired)) => desired.describe(terabyte),
        _ => String::new(),
    };
    Entry { kind, system, note, name: case.resource.path.clone(), detail }
}

/// Asks on the terminal; without a terminal, the answer is no.
fn confirmed(question: &str) -> bool {
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return false;
    }
    let mut answer = String::new();
    let asked = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    asked.and_then(|()| stdin.lock().read_line(&mut answer)).is_ok()
        && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// Moves the directory of a resource to the trash that is terminated in Waldur without an order that was carried out
/// here: the order was cancelled while the directory was created, or staff ended it.
pub(super) fn retire(provisioner: &Provisioner, name: &str) -> Result<(), Failure> {
    let mut session = begin(provisioner, "retire")?;
    let (survey, _) = session.plan(false)?;
    let case = explain::find(&survey, name)?;
    if case.resource.status != Status::Removed {
        return Err(failure(
            "the resource is not terminated in Waldur: order its termination there; the order moves the directory to the trash",
        ));
    }
    match &case.observed {
        Ok(Observed::Ours(_)) => {}
        Ok(Observed::Trashed { since } | Observed::Purging { since }) => {
            return out::print(&format!(
                "{} is already in the trash, since {}.\n",
                out::escaped(&case.resource.path),
                out::date(*since)
            ));
        }
        Ok(_) => return Err(failure("there is no directory of this resource at its path")),
        Err(error) => return Err(failure(error_chain(error))),
    }
    let desired = case.desired.as_ref().map_err(|refusal| failure(refusal.reason.clone()))?;
    let task = Task::manual(case, Step::Retire(desired.clone()));
    let plan = Plan { tasks: vec![task], held: Vec::new() };
    let report = progress::during(&provisioner.walked, || session.perform(&survey, plan, true))?;
    if let Some(fault) = report.failed.into_values().next() {
        return Err(failure(fault));
    }
    let mut page = Page::new();
    page.line(0, &format!("{} is in the trash now.", case.resource.path));
    page.print()
}

/// Ends an order without carrying it out: rejects it, or sets it erred after its approval. Without `yes`, only shows
/// how.
pub(super) fn reject(provisioner: &Provisioner, name: &str, reason: &str, yes: bool) -> Result<(), Failure> {
    let reason = reason.trim();
    if reason.is_empty() {
        return Err(failure("--reason is empty: Waldur shows it to the customer"));
    }
    let mut session = begin(provisioner, "reject")?;
    let (survey, _) = session.plan(false)?;
    let case = explain::find(&survey, name)?;
    let task = plan::reject(case, reason).map_err(|why| failure(format!("{}: {why}", case.resource.path)))?;
    let steps = task.steps.iter().map(Step::name).collect::<Vec<_>>().join(", ");
    let order = case.resource.order.as_ref().map(|order| format!("{:?} order {}", order.kind, order.id));
    let what = format!("{}: {}", case.resource.path, order.unwrap_or_default());
    let mut page = Page::new();
    if !yes {
        page.line(0, &format!("{what} would be ended by: {steps}. --yes does it."));
        return page.print();
    }
    let report = session.perform(&survey, Plan { tasks: vec![task], held: Vec::new() }, true)?;
    if let Some(fault) = report.failed.into_values().next() {
        return Err(failure(format!("{what} was not rejected: {fault}")));
    }
    page.line(0, &format!("{what} was rejected ({steps})."));
    page.print()
}

#[cfg(test)]
mod tests {
    use provisioner_core::document::{Document, OrderKind, OrderState, Resource};
    use provisioner_core::last_order::LastOrder;
    use provisioner_core::plan::Policy;
    use provisioner_core::preflight::Unnumbered;
    use storage_driver::memory::Memory;
    use storage_driver::{Desired, Driver, Mode};

    use super::*;
    use crate::journal::Past;
    use crate::ledger::Ledger;
    use crate::pass::{harness, model};

    const LOWEST: u32 = 1000;

    /// A resource in each state, without an order and with each order.
    fn all_resources() -> Vec<Resource> {
        use OrderKind::{Create, Other, Restore, Terminate, Update};
        let mut resources = model::with_each_status(&[Create, Restore, Update, Terminate, Other]);
        let unclaimed = model::resource(resources.len() as u128 + 1, Status::Pending, None, 2.0);
        resources.push(Resource { unclaimed: true, ..unclaimed });
        resources
    }

    /// Puts a directory into the storage.
    type Put = fn(&Memory, Unnumbered);

    /// All resources as cases, with an empty record.
    fn surveyed(put: Put) -> Survey {
        let (model, memory) = (model::Model::new(all_resources()), Memory::default());
        let systems = harness::system(Box::new(memory.clone()), LOWEST);
        let document = model.document();
        let resources: Vec<_> = document.resources.iter().collect();
        for desired in preflight::check(&resources, &Document::default(), "capstor", &systems[0].rules, &|_| false) {
            put(&memory, desired.unwrap());
        }
        let read = || Ok(model.document());
        let mut survey = pass::survey(&systems, &read, &Past::default(), &mut Ledger::default()).unwrap();
        // Each order was completed here, so that Waldur is known to be late.
        for case in &mut survey.cases {
            let kind = match case.resource.status {
                Status::Pending => OrderKind::Create,
                Status::Updating => OrderKind::Update,
                _ => OrderKind::Terminate,
            };
            case.last_order = Some(LastOrder { sent: true, ..LastOrder::new(Uuid::nil(), kind, 0) });
        }
        survey
    }

    /// Makes a drifted directory. All have the same project ID, so that it is unknown whose it is.
    fn make(memory: &Memory, desired: Unnumbered) -> Desired {
        let desired = Desired { mode: Mode(0o700), ..desired.with_project(Some(LOWEST + 1)) };
        memory.ensure(&desired, &|_| Ok(())).unwrap();
        desired
    }

    #[test]
    fn no_step_creates_or_changes_a_directory_without_a_project_id() {
        let storages: [(&str, Put); 3] = [
            ("absent", |_, _| {}),
            ("in place", |memory, desired| _ = make(memory, desired)),
            ("in the trash", |memory, desired| memory.retire(&make(memory, desired), 1, &|_| Ok(())).unwrap()),
        ];
        let policy = Policy { heal: true, absent_is_gone: true, ..Policy::default() };
        for (storage, put) in storages {
            let survey = surveyed(put);
            let planned = pass::planned(&survey, policy, true).tasks.into_iter().flat_map(|task| task.steps);
            let commanded = survey.cases.iter().map(|case| Action::Restore { make: true }.verdict(case));
            let commanded = commanded.filter_map(|verdict| match verdict {
                Verdict::Possible(step) => Some(step),
                _ => None,
            });
            let mut count = 0;
            for step in planned.chain(commanded) {
                if let Step::Ensure(desired) | Step::Restore(desired) = step {
                    let resource =
                        survey.cases.iter().find(|case| case.resource.id == desired.id).map(|case| &case.resource);
                    assert!(desired.project.is_some(), "{storage}: {resource:?}");
                    count += 1;
                }
            }
            assert!(count > 10, "{storage}: {count}");
        }
    }

    #[test]
    fn restore_makes_the_directory_of_a_resource_whose_termination_is_not_approved() {
        let survey = surveyed(|_, _| {});
        let verdict = |state| {
            let of = |case: &&Case| {
                let order = case.resource.order.as_ref().map(|order| (order.kind, order.state));
                case.resource.status == Status::Active && order == Some((OrderKind::Terminate, state))
            };
            Action::Restore { make: true }.verdict(survey.cases.iter().find(of).unwrap())
        };
        assert!(matches!(verdict(OrderState::Other), Verdict::Possible(Step::Ensure(_))));
        for state in [OrderState::PendingProvider, OrderState::Executing] {
            assert!(matches!(verdict(state), Verdict::Impossible(why) if why.contains("`reject` the order first")));
        }
    }
}
