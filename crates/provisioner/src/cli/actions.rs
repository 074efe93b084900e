//! `adopt`, `restore`, `retire` and `reject`: what a person decides.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::SystemTime;

use clap::Args;
use uuid::Uuid;

use super::apply::begin;
use super::out::{self, Page};
use super::plans::{self, Entry, LIMIT};
use super::{EXIT_FAILURE, Failure, failure, look, progress};
use crate::document::Status;
use crate::driver::{Driver, DriverError, Guard, Observed};
use crate::pass::{self, Survey};
use crate::plan::{self, Case, Hold};
use crate::provisioner::{Provisioner, Session};
use program::error_chain;

/// For which resources something is decided.
#[derive(Debug, Args)]
pub(super) struct Chosen {
    /// UUIDs, paths or slugs
    #[arg(value_name = "RESOURCE", required_unless_present_any = ["all", "hold"], conflicts_with_all = ["all", "hold"])]
    resources: Vec<String>,
    /// All for which it can be done
    #[arg(long)]
    all: bool,
    /// All for which it can be done and that `plan` shows as held like this
    #[arg(long, value_name = "HOLD", value_parser = plans::holds())]
    hold: Vec<Hold>,
    /// Do not ask before it is done for all of --all or --hold
    #[arg(long)]
    yes: bool,
}

/// What is decided.
#[derive(Clone, Copy)]
enum Decision {
    Adopt,
    Restore { make: bool },
}

/// Whether it can be done for a resource.
enum Verdict {
    Possible,
    /// Nothing is left to do.
    Already(&'static str),
    /// Why not.
    Impossible(String),
}

/// Marks the directories at the resources' places as their own.
pub(super) fn adopt(provisioner: &Provisioner, chosen: &Chosen) -> Result<(), Failure> {
    decide(provisioner, Decision::Adopt, chosen)
}

/// Brings the directories back, or makes them.
pub(super) fn restore(provisioner: &Provisioner, chosen: &Chosen, make: bool) -> Result<(), Failure> {
    decide(provisioner, Decision::Restore { make }, chosen)
}

fn decide(provisioner: &Provisioner, decision: Decision, chosen: &Chosen) -> Result<(), Failure> {
    // A user who names a resource has decided; all of a kind are shown first.
    let mut seen = None::<BTreeSet<Uuid>>;
    if chosen.resources.is_empty() && !chosen.yes {
        // Nobody is kept waiting while a person reads.
        let (survey, notes) = provisioner.look(false)?;
        out::notes(&notes);
        let (cases, _) = choose(provisioner, &survey, decision, chosen)?;
        let mut page = Page::new();
        let entries =
            cases.iter().map(|case| entry(provisioner, case, decision.name().into(), String::new())).collect();
        plans::groups(&mut page, entries, LIMIT);
        page.line(0, &format!("{} to {}.", cases.len(), decision.name()));
        page.print()?;
        if !cases.is_empty() && !confirmed(&format!("{} all of these?", decision.name())) {
            return Err(failure(format!("nothing was done: give --yes to {} all of them", decision.name())));
        }
        seen = Some(cases.iter().map(|case| case.resource.id).collect());
    }
    let mut session = begin(provisioner, decision.name())?;
    let survey = session.look()?;
    let (mut cases, already) = choose(provisioner, &survey, decision, chosen)?;
    cases.retain(|case| seen.as_ref().is_none_or(|seen| seen.contains(&case.resource.id)));
    let results = progress::of_tasks(provisioner, || carry_out(&mut session, decision, &cases))?;
    let mut page = Page::new();
    for (case, why) in already {
        page.line(0, &case.resource.path);
        page.line(2, why);
    }
    let (done, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(|(_, result)| result.is_ok());
    let failed = failed.into_iter().filter_map(|(case, result)| Some((case, error_chain(&result.err()?))));
    let failed: Vec<_> =
        failed.map(|(case, why)| entry(provisioner, case, format!("failed ({})", decision.name()), why)).collect();
    let summary = format!("{} {}, {} failed.", done.len(), decision.past(), failed.len());
    let all_done = failed.is_empty();
    plans::groups(&mut page, failed, 0);
    let done =
        done.into_iter().map(|(case, _)| entry(provisioner, case, decision.past().into(), decision.next().into()));
    plans::groups(&mut page, done.collect(), LIMIT);
    page.line(0, &summary);
    page.print()?;
    if all_done { Ok(()) } else { Err(Failure { code: EXIT_FAILURE, text: String::new() }) }
}

/// The resources that are chosen and for which it can be done, and those for which nothing is left to do. Fails where one that
/// is named is neither.
#[expect(clippy::type_complexity, reason = "two lists of one kind")]
fn choose<'a>(
    provisioner: &Provisioner,
    survey: &'a Survey,
    decision: Decision,
    chosen: &Chosen,
) -> Result<(Vec<&'a Case>, Vec<(&'a Case, &'static str)>), Failure> {
    if chosen.resources.is_empty() {
        let plan = pass::planned(survey, provisioner.settings.policy, false);
        let held = plan.held.iter().filter(|held| chosen.hold.contains(&held.hold));
        let held: BTreeSet<_> = held.filter_map(|held| held.id).collect();
        let chosen = |case: &&Case| chosen.all || held.contains(&case.resource.id);
        // What is terminated claims no directory unless somebody names it.
        let possible =
            |case: &&Case| case.resource.status != Status::Removed && matches!(decision.judge(case), Verdict::Possible);
        return Ok((survey.cases.iter().filter(chosen).filter(possible).collect(), Vec::new()));
    }
    let (mut cases, mut already, mut impossible) = (BTreeMap::new(), Vec::new(), Vec::new());
    for name in &chosen.resources {
        match look::find(survey, name) {
            Ok(case) => match decision.judge(case) {
                Verdict::Possible => _ = cases.insert(case.resource.id, case),
                Verdict::Already(why) => already.push((case, why)),
                Verdict::Impossible(why) => impossible.push(format!("{name}: {why}")),
            },
            Err(unknown) => impossible.push(unknown.text),
        }
    }
    match impossible.pop() {
        None => Ok((cases.into_values().collect(), already)),
        Some(last) => {
            for why in impossible {
                out::tell(&format!("error: {why}"));
            }
            Err(failure(last))
        }
    }
}

/// What came of each resource.
type Results<'a> = Vec<(&'a Case, Result<(), DriverError>)>;

fn carry_out<'a>(session: &mut Session<'_>, decision: Decision, cases: &[&'a Case]) -> Result<Results<'a>, Failure> {
    let mut results = Vec::new();
    for system in &session.provisioner.systems {
        let ours: Vec<_> = cases.iter().copied().filter(|case| case.resource.system == system.key).collect();
        let resources: Vec<_> = ours.iter().map(|case| (case.resource.id, &*case.resource.path)).collect();
        let by_id: BTreeMap<_, _> = ours.iter().map(|case| (case.resource.id, *case)).collect();
        let done =
            session.drive_all(system, &resources, &|id, guard| decision.act(&*system.driver, by_id[&id], guard))?;
        results.extend(ours.into_iter().zip(done));
    }
    Ok(results)
}

impl Decision {
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

    /// What comes next.
    fn next(self) -> &'static str {
        match self {
            Self::Adopt => "marked; the next pass carries out its order, or shows what differs from the document",
            Self::Restore { .. } => "there again, as in the document",
        }
    }

    fn judge(self, case: &Case) -> Verdict {
        use Verdict::{Already, Impossible, Possible};
        if let (Self::Restore { .. }, status) = (self, case.resource.status)
            && !matches!(status, Status::Active | Status::Updating)
        {
            return Impossible(format!(
                "the resource is {}, not in use in Waldur: nothing would keep the directory. Have its termination rejected \
                 there, or where that is done already, order it again and copy from the trash",
                format!("{status:?}").to_lowercase()
            ));
        }
        let possible = || case.desired.as_ref().map_or_else(|refusal| Impossible(refusal.reason.clone()), |_| Possible);
        match (self, &case.observed) {
            (_, Err(fault)) => Impossible(fault.clone()),
            (Self::Adopt, Ok(Observed::Unmarked(_)))
            | (Self::Restore { .. }, Ok(Observed::Trashed { .. }))
            | (Self::Restore { make: true }, Ok(Observed::Absent)) => possible(),
            (Self::Adopt, Ok(Observed::Ours(_))) => Already("it is marked as this resource's already"),
            (Self::Adopt, Ok(Observed::Obstructed(what))) => Impossible(format!("it cannot be adopted: {what}")),
            (Self::Adopt, Ok(Observed::Absent | Observed::Trashed { .. } | Observed::Purging { .. })) => {
                Impossible("there is no directory at its place to be adopted".into())
            }
            (Self::Restore { make: false }, Ok(Observed::Absent)) => {
                Impossible("it is not in the trash; --make makes an empty directory".into())
            }
            (Self::Restore { .. }, Ok(Observed::Purging { .. })) => Impossible(
                "its directory is being deleted for good by `purge`, and what is left of it cannot be brought back: let \
                 `purge` end, then --make makes an empty directory"
                    .into(),
            ),
            (Self::Restore { .. }, Ok(Observed::Ours(_))) => Already("its directory is there already"),
            (Self::Restore { .. }, Ok(Observed::Unmarked(_))) => {
                Impossible("a directory without our mark is at its place: `adopt` it if it is the right one".into())
            }
            (Self::Restore { .. }, Ok(Observed::Obstructed(what))) => Impossible(what.clone()),
        }
    }

    fn act(self, driver: &dyn Driver, case: &Case, guard: Guard<'_>) -> Result<(), DriverError> {
        let desired = case.desired.as_ref().map_err(|refusal| DriverError::unclear(refusal.reason.clone()))?;
        match (self, &case.observed) {
            (Self::Adopt, _) => driver.adopt(desired, guard),
            (Self::Restore { .. }, Ok(Observed::Trashed { .. })) => driver.restore(desired, guard),
            (Self::Restore { .. }, _) => driver.ensure(desired, guard),
        }
    }
}

/// A resource with what of its directory differs from the document.
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

/// Asks at the terminal; without one the answer is no.
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

/// Puts the directory of a resource into the trash that is terminated in Waldur, without an order to do it for: one that was
/// withdrawn while the directory was made, or ended by staff.
pub(super) fn retire(provisioner: &Provisioner, name: &str) -> Result<(), Failure> {
    let mut session = begin(provisioner, "retire")?;
    let (survey, _) = session.plan(false)?;
    let case = look::find(&survey, name)?;
    if case.resource.status != Status::Removed {
        return Err(failure(
            "the resource is not terminated in Waldur: order its termination there, and the directory goes with it",
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
        Ok(_) => return Err(failure("no directory of this resource is at its place")),
        Err(fault) => return Err(failure(fault.clone())),
    }
    let now = provisioner.clock.now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let desired = case.desired.as_ref().map_err(|refusal| failure(refusal.reason.clone()))?;
    let system = provisioner.systems.iter().find(|system| system.key == case.resource.system);
    let system = system.ok_or_else(|| failure("its system is not driven here"))?;
    let retire = |guard: Guard<'_>| system.driver.retire(desired, now, guard);
    progress::during(&provisioner.walked, || session.drive(system, desired.id, &case.resource.path, &retire))?;
    let mut page = Page::new();
    page.line(0, &format!("{} is in the trash now.", case.resource.path));
    page.print()
}

/// Ends an order without carrying it out: rejects it, or sets it erred after its approval. Without `yes` it only shows that.
pub(super) fn reject(provisioner: &Provisioner, name: &str, reason: &str, yes: bool) -> Result<(), Failure> {
    let reason = reason.trim();
    if reason.is_empty() {
        return Err(failure("--reason is empty: Waldur shows it to the customer"));
    }
    let mut session = begin(provisioner, "reject")?;
    let (survey, _) = session.plan(false)?;
    let case = look::find(&survey, name)?;
    let task = plan::reject(case, reason).map_err(|why| failure(format!("{}: {why}", case.resource.path)))?;
    let steps = task.steps.iter().map(plan::Step::name).collect::<Vec<_>>().join(", ");
    let order = case.resource.order.as_ref().map(|order| format!("{:?} order {}", order.kind, order.id));
    let what = format!("{}: {}", case.resource.path, order.unwrap_or_default());
    let mut page = Page::new();
    if !yes {
        page.line(0, &format!("{what} would be ended by: {steps}. --yes does it."));
        return page.print();
    }
    let report = session.perform(&survey, plan::Plan { tasks: vec![task], held: Vec::new() }, true)?;
    if let Some(fault) = report.failed.into_values().next() {
        return Err(failure(format!("{what} was not rejected: {fault}")));
    }
    page.line(0, &format!("{what} was rejected ({steps})."));
    page.print()
}
