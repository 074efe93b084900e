//! Plans and reports as text: tasks and held resources, in groups.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use provisioner_core::plan::{Held, Hold, Plan, Step, Task, TaskAction};
use serde_json::json;
use storage_driver::Difference;
use storage_driver::limits::Terabyte;

use super::out::{self, Page};
use super::{Failure, failure, orphans};
use crate::pass::{self, Report, System};
use crate::provisioner::Provisioner;

/// Default of `--limit`.
pub(super) const LIMIT: usize = 5;

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only resources that are held for this reason; may be repeated, and combined with --action
    #[arg(long, value_name = "HOLD", value_parser = holds())]
    hold: Vec<Hold>,
    /// Only tasks with this action; may be repeated, and combined with --hold
    #[arg(long, value_name = "ACTION", value_parser = actions())]
    action: Vec<TaskAction>,
}

#[derive(Debug, Args, Clone, Copy)]
pub(super) struct Limit {
    /// Show at most this many resources of each group; 0 for all
    #[arg(long, value_name = "NUMBER", default_value_t = LIMIT)]
    pub(super) limit: usize,
}

/// Parses the name of a [`Hold`].
pub(super) fn holds() -> impl TypedValueParser<Value = Hold> {
    let parse = |name: String| Hold::ALL.iter().copied().find(|hold| hold.name() == name).ok_or("unknown");
    PossibleValuesParser::new(Hold::ALL.iter().map(|hold| hold.name())).try_map(parse)
}

fn actions() -> impl TypedValueParser<Value = TaskAction> {
    let parse = |name: String| TaskAction::ALL.iter().copied().find(|action| action.name() == name).ok_or("unknown");
    PossibleValuesParser::new(TaskAction::ALL.iter().map(|action| action.name())).try_map(parse)
}

impl Filter {
    fn apply(&self, plan: &mut Plan) {
        if !self.hold.is_empty() || !self.action.is_empty() {
            plan.tasks.retain(|task| self.action.contains(&task.action));
            plan.held.retain(|held| self.hold.contains(&held.hold));
        }
    }
}

/// Shows the plan, and writes it to `file`.
pub(super) fn plan(
    provisioner: &Provisioner,
    json: bool,
    file: Option<&Path>,
    filter: &Filter,
    Limit { limit }: Limit,
    fresh: bool,
) -> Result<(), Failure> {
    let (survey, notes) = provisioner.look(fresh)?;
    out::notes(&notes);
    // A file is for review, so it also has tasks that are paused or need confirmation.
    let survey = if file.is_some() { survey.retried() } else { survey };
    let mut plan = pass::planned(&survey, provisioner.settings.policy, file.is_some());
    filter.apply(&mut plan);
    if let Some(file) = file {
        let text = serde_json::to_string_pretty(&plan)?;
        std::fs::write(file, text + "\n").map_err(|error| failure(format!("{}: {error}", file.display())))?;
    }
    if json {
        let Plan { tasks, held } = &plan;
        out::print_json(&json!({"tasks": tasks, "held": held, "counts": counts(&plan)}))?;
        return orphans::empty(provisioner, &survey);
    }
    let mut page = Page::new();
    let tasks = plan.tasks.iter().map(|task| planned(task, &provisioner.systems)).collect();
    let mut cut = groups(&mut page, tasks, limit);
    cut |= groups(&mut page, held(&plan, &provisioner.systems), limit);
    if cut {
        page.line(0, "Some are not shown: --limit 0 shows all; --action, --hold and --system filter.");
    }
    let asks = plan.held.iter().filter(|held| held.hold == Hold::Asks).count();
    if asks > 0 {
        let remedy = "`plan --out FILE` includes them; `apply FILE --yes-to-many` carries them out.";
        page.line(0, &format!("{asks} held (asks): {remedy}"));
    }
    let all = survey.cases.len();
    let (to_do, held) = (plan.tasks.len(), plan.held.len());
    page.line(0, &format!("{to_do} to do, {held} held, {all} resources on the managed systems."));
    page.print()?;
    orphans::empty(provisioner, &survey)
}

/// The number of tasks of each action, and of held resources for each reason, on each system.
fn counts(plan: &Plan) -> Vec<serde_json::Value> {
    let mut counts = std::collections::BTreeMap::<_, usize>::new();
    for task in &plan.tasks {
        *counts.entry((&*task.system, "action", task.action.name())).or_default() += 1;
    }
    for held in &plan.held {
        *counts.entry((&*held.system, "hold", held.hold.name())).or_default() += 1;
    }
    let one = |((system, what, name), count): ((&str, &str, &str), usize)| json!({"system": system, what: name, "count": count});
    counts.into_iter().map(one).collect()
}

/// Shows the tasks that ended or failed, and what is held.
pub(super) fn done(page: &mut Page, report: &Report, systems: &[System], limit: usize) {
    let ended: BTreeSet<_> = report.ended.iter().collect();
    let done = report.plan.tasks.iter().filter(|task| ended.contains(&task.id));
    let done = done.map(|task| Entry { kind: task.action.past().into(), ..planned(task, systems) }).collect();
    let failed = report.plan.tasks.iter().filter_map(|task| Some((task, report.failed.get(&task.id)?)));
    let failed = failed.map(|(task, fault)| Entry {
        kind: format!("failed ({})", task.action.name()),
        system: &task.system,
        note: fault.clone(),
        name: task.path.clone(),
        detail: task.id.to_string(),
    });
    let mut cut = groups(page, done, limit);
    cut |= groups(page, failed.collect(), limit);
    cut |= groups(page, held(&report.plan, systems), limit);
    if cut {
        page.line(0, "Some are not shown: --limit 0 shows all.");
    }
    let (done, failed, held) = (report.ended.len(), report.failed.len(), report.plan.held.len());
    page.line(0, &format!("{done} done, {failed} failed, leaving {failed} to do, {held} held."));
}

/// A resource in [`groups`].
pub(super) struct Entry<'a> {
    /// The group, together with the system.
    pub(super) kind: String,
    /// Empty if unknown.
    pub(super) system: &'a str,
    /// Shown once for all entries of the group that share it.
    pub(super) note: String,
    pub(super) name: String,
    pub(super) detail: String,
}

fn planned<'a>(task: &'a Task, systems: &[System]) -> Entry<'a> {
    let steps = task.steps.iter().map(Step::name).collect::<Vec<_>>().join(", ");
    let terabyte = terabyte(systems, &task.system);
    let reason = task.steps.iter().find_map(|step| match step {
        Step::Reject(reason) | Step::Erred(reason) => Some(reason.clone()),
        Step::Ensure(desired) if task.changes.is_empty() => Some(desired.describe(terabyte)),
        _ => None,
    });
    Entry {
        kind: task.action.name().into(),
        system: &task.system,
        note: format!("{}: {steps}", task.why),
        name: task.path.clone(),
        detail: reason.unwrap_or_else(|| described(&task.changes, terabyte)),
    }
}

pub(super) fn held<'a>(plan: &'a Plan, systems: &[System]) -> Vec<Entry<'a>> {
    let name = |held: &Held| match (&*held.path, held.id) {
        ("", Some(id)) => id.to_string(),
        ("", None) => "an item without a UUID".into(),
        (path, _) => path.to_owned(),
    };
    let one = |held: &'a Held| Entry {
        kind: format!("held ({})", held.hold.name()),
        system: &held.system,
        note: held.reason.clone(),
        name: name(held),
        detail: described(&held.changes, terabyte(systems, &held.system)),
    };
    plan.held.iter().map(one).collect()
}

/// Old and new values.
pub(super) fn described(changes: &[Difference], terabyte: Terabyte) -> String {
    changes.iter().map(|change| change.describe(terabyte)).collect::<Vec<_>>().join(", ")
}

pub(super) fn terabyte(systems: &[System], key: &str) -> Terabyte {
    systems.iter().find(|system| system.key == key).map_or(Terabyte::Decimal, |system| system.rules.terabyte)
}

/// Shows entries in groups, at most `limit` of each; 0 shows all. Returns whether it omitted some.
pub(super) fn groups(page: &mut Page, mut entries: Vec<Entry<'_>>, limit: usize) -> bool {
    // The sort is stable: within a note, entries stay in the order of the document.
    entries.sort_by(|a, b| (a.system, &a.kind, &a.note).cmp(&(b.system, &b.kind, &b.note)));
    let mut cut = false;
    for group in entries.chunk_by(|a, b| (a.system, &a.kind) == (b.system, &b.kind)) {
        let Entry { kind, system, .. } = &group[0];
        let on = if system.is_empty() { String::new() } else { format!(" on {system}") };
        page.line(0, &format!("{kind}{on}: {}", group.len()));
        let mut note = None;
        let shown = if limit == 0 { group.len() } else { limit };
        for entry in group.iter().take(shown) {
            if note != Some(&entry.note) && !entry.note.is_empty() {
                page.line(2, &entry.note);
            }
            note = Some(&entry.note);
            page.line(4, &entry.name);
            if !entry.detail.is_empty() {
                page.line(6, &entry.detail);
            }
        }
        if let more @ 1.. = group.len().saturating_sub(shown) {
            page.line(4, &format!("… and {more} more"));
            cut = true;
        }
        page.blank();
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: usize, kind: &str, note: &str) -> Entry<'static> {
        let name = format!("/capstor/store/cscs/university-of-somewhere/project-with-a-long-name-{number:05}");
        Entry { kind: kind.into(), system: "capstor", note: note.into(), name, detail: "space 10 TB → 20 TB".into() }
    }

    #[test]
    fn twenty_thousand_resources_are_summarised_on_one_page() {
        let mut page = Page::wide(Some(80));
        let entries = (0..20_000).map(|n| entry(n, if n % 2 == 0 { "create" } else { "resize" }, "an order")).collect();
        assert!(groups(&mut page, entries, LIMIT));
        let lines: Vec<_> = page.text().lines().collect();
        assert!(lines.len() < 40, "{}", page.text());
        for text in ["create on capstor: 10000", "resize on capstor: 10000", "… and 9995 more"] {
            assert!(lines.iter().any(|line| line.contains(text)), "{text:?} is missing: {}", page.text());
        }
        let whole = |line: &&&str| line.trim_start().starts_with('/') && line.ends_with(|c: char| c.is_ascii_digit());
        assert_eq!(lines.iter().filter(whole).count(), 2 * LIMIT, "each path is whole, on one line");
    }

    #[test]
    fn a_shared_reason_is_shown_once_and_without_a_limit_all_entries_are_shown() {
        let mut page = Page::wide(None);
        let entries = (0..30).map(|n| entry(n, "held (fault)", "the storage cannot be read")).collect();
        assert!(!groups(&mut page, entries, 0));
        assert_eq!(page.text().matches("cannot be read").count(), 1);
        assert_eq!(page.text().matches("project-with").count(), 30);
    }
}
