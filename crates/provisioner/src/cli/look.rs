//! `plan`, `status`, `explain`: looking, never touching.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::json;
use uuid::Uuid;

use super::{Failure, failure, out};
use crate::document::{OrderState, Resource, Status};
use crate::driver::{Acl, Seen};
use crate::journal::{self, Event};
use crate::pass::{self, Survey};
use crate::plan::{Case, Held, Hold, Plan, Step};
use crate::site::Site;

/// What is to be done.
pub(super) fn plan(site: &Site, json: bool, file: Option<&Path>) -> Result<(), Failure> {
    let (survey, notes) = site.look()?;
    for note in notes {
        out::tell(&format!("note: {note}"));
    }
    // A file is what a person looks at before saying yes: it has everything.
    let plan = pass::planned(&survey, site.settings.policy, file.is_some());
    if let Some(file) = file {
        let text = serde_json::to_string_pretty(&plan)?;
        std::fs::write(file, text + "\n").map_err(|error| failure(format!("{}: {error}", file.display())))?;
    }
    if json {
        return out::print_json(&plan);
    }
    out::print(&shown(&plan, &survey))
}

/// A plan for people.
pub(super) fn shown(plan: &Plan, survey: &Survey) -> String {
    let mut text = String::new();
    if !plan.tasks.is_empty() {
        let mut table = out::table(&["PATH", "STEPS", "WHY"]);
        for task in &plan.tasks {
            let steps = task.steps.iter().map(Step::name).collect::<Vec<_>>().join(", ");
            table.add_row([out::harmless(&task.path), steps, out::harmless(&task.why)]);
        }
        text += &(table.trim_fmt() + "\n\n");
    }
    if !plan.held.is_empty() {
        text += &held(plan);
    }
    let asks = plan.held.iter().filter(|held| held.hold == Hold::Asks).count();
    if asks > 0 {
        _ = writeln!(
            text,
            "{asks} of them go only with --yes-to-many; `plan --out FILE` has them among what is to be done."
        );
    }
    text + &format!(
        "{} to do, {} held, {} resources on the systems that are driven here.\n",
        plan.tasks.len(),
        plan.held.len(),
        survey.cases.len()
    )
}

fn folds(held: &Held) -> bool {
    matches!(held.hold, Hold::Fault | Hold::Asks)
}

fn held(plan: &Plan) -> String {
    let mut table = out::table(&["HELD", "PATH OR ID", "REASON"]);
    // A whole system that cannot be read, or asks, is one line.
    let mut alike = BTreeMap::<_, usize>::new();
    for it in plan.held.iter().filter(|it| folds(it)) {
        *alike.entry((&it.system, it.hold, &it.reason)).or_default() += 1;
    }
    for it in &plan.held {
        let many = folds(it).then(|| alike.remove(&(&it.system, it.hold, &it.reason)));
        let name = match (many, &*it.path, it.id) {
            (Some(None), ..) => continue,
            (Some(Some(many)), ..) if many > 1 => format!("{}: {many} resources", it.system),
            (_, "", Some(id)) => id.to_string(),
            (_, "", None) => "?".into(),
            (_, path, _) => path.to_owned(),
        };
        table.add_row([format!("{:?}", it.hold).to_lowercase(), out::harmless(&name), out::harmless(&it.reason)]);
    }
    table.trim_fmt() + "\n\n"
}

/// What waits, what is in the trash, what was begun.
pub(super) fn status(site: &Site, json: bool) -> Result<(), Failure> {
    let (survey, notes) = site.look()?;
    let plan = pass::planned(&survey, site.settings.policy, false);
    let mut counts = BTreeMap::new();
    for held in &plan.held {
        *counts.entry(held.hold).or_insert(0_usize) += 1;
    }
    let trash: BTreeMap<_, _> = site
        .systems
        .iter()
        .map(|system| {
            (system.key.as_str(), system.driver.trash().map(|trash| trash.len()).map_err(|fault| pass::told(&fault)))
        })
        .collect();
    let begun = survey.cases.iter().filter(|case| case.unfinished).count();
    if json {
        let trash: BTreeMap<_, _> = trash.iter().map(|(system, count)| (system, count.as_ref().ok())).collect();
        return out::print_json(&json!({
            "resources": survey.cases.len(), "to_do": plan.tasks.len(), "held": counts, "in_trash": trash, "begun": begun,
            "notes": notes, "reasons": plan.held,
        }));
    }
    let mut text = String::new();
    if !plan.held.is_empty() {
        text += &held(&plan);
    }
    _ = writeln!(text, "resources   {}\nto do       {}\nbegun       {begun}", survey.cases.len(), plan.tasks.len());
    for (hold, count) in counts {
        _ = writeln!(text, "{:<11} {count}", format!("{hold:?}").to_lowercase());
    }
    for (system, count) in trash {
        let count = count.map_or_else(|fault| fault, |count| count.to_string());
        _ = writeln!(text, "trash       {count} on {system}");
    }
    for note in notes {
        out::tell(&format!("note: {note}"));
    }
    out::print(&text)
}

/// How many lines of the journal are shown.
const LINES: usize = 40;

/// The whole story of one resource.
pub(super) fn explain(site: &Site, name: &str, json: bool) -> Result<(), Failure> {
    let (survey, notes) = site.look()?;
    let case = find(&survey, name)?;
    // Of the whole plan: what it waits for may be that there is so much else.
    let mut plan = pass::planned(&survey, site.settings.policy, false);
    plan.tasks.retain(|task| task.id == case.resource.id);
    plan.held.retain(|held| held.id == Some(case.resource.id));
    let story = journal::story(&site.journal_path(), case.resource.id).unwrap_or_default();
    let resource = &case.resource;
    if json {
        let order = resource.order.as_ref().map(
            |order| json!({"uuid": order.id, "type": order.kind, "state": order.state, "offering": order.offering}),
        );
        let wanted = case.wanted.as_ref().map_err(|refusal| refusal.reason.clone());
        return out::print_json(&json!({
            "resource": resource.id, "path": resource.path, "system": resource.system, "status": resource.status,
            "order": order, "wanted": wanted.as_ref().ok(), "refused": wanted.as_ref().err(),
            "seen": case.seen.as_ref().ok(), "unreadable": case.seen.as_ref().err(), "begun": case.unfinished,
            "next": plan, "story": story, "notes": notes,
        }));
    }
    let mut text = format!("{}  {}\n\n", resource.id, out::harmless(&resource.path));
    let mut line = |label: &str, said: String| _ = writeln!(text, "{label:<10}{}", out::harmless(&said));
    line("Waldur", format!("status {:?}, {}", resource.status, order(case)).to_lowercase());
    match &case.wanted {
        Ok(wanted) => line(
            "Wanted",
            format!(
                "mode {:o}, owner {}:{}, {}, project ID {}",
                wanted.mode.0, wanted.uid, wanted.gid, wanted.limits, wanted.project
            ),
        ),
        Err(refusal) => line("Wanted", format!("nothing can be: {}", refusal.reason)),
    }
    line("Storage", seen(case));
    for task in &plan.tasks {
        line("Next", format!("{} ({})", task.steps.iter().map(Step::name).collect::<Vec<_>>().join(", "), task.why));
    }
    for held in &plan.held {
        line("Waits", format!("{}: {}", format!("{:?}", held.hold).to_lowercase(), held.reason));
    }
    if plan.tasks.is_empty() && plan.held.is_empty() {
        let gone = if resource.status == Status::Removed { "it is gone in Waldur, and " } else { "" };
        line("Next", format!("nothing: {gone}all is as it should be"));
    }
    if case.unfinished {
        line("Begun", "work on it was begun and not brought to its end".into());
    }
    let earlier = story.len().saturating_sub(LINES);
    if earlier > 0 {
        line("", format!("{earlier} earlier lines: --json"));
    }
    for (time, event) in &story[earlier..] {
        line(&time[..time.len().min(19)], format!("          {}", event_text(event)));
    }
    for note in notes {
        out::tell(&format!("note: {note}"));
    }
    out::print(&text)
}

/// The case that a UUID (its own or its order's), a path or a slug means. What is terminated gives way to what came after it by the same name.
pub(super) fn find<'a>(survey: &'a Survey, name: &str) -> Result<&'a Case, Failure> {
    // Shells complete a directory's name with a slash.
    let name = name.trim().trim_end_matches('/');
    let id = Uuid::try_parse(name).ok();
    let means = |case: &&Case| {
        let Resource { id: resource, path, name: slug, order, .. } = &case.resource;
        let order = order.as_ref().is_some_and(|order| Some(order.id) == id);
        Some(*resource) == id || order || path == name || slug.as_deref() == Some(name)
    };
    let mut found: Vec<_> = survey.cases.iter().filter(means).collect();
    if found.iter().any(|case| case.resource.status != Status::Removed) {
        found.retain(|case| case.resource.status != Status::Removed);
    }
    match found[..] {
        [case] => Ok(case),
        [] => {
            let held = survey.held.iter().find(|held| held.id.is_some() && held.id == id);
            let elsewhere = survey.document.resources.iter().find(|it| Some(it.id) == id || it.path == name);
            if let Some(elsewhere) = elsewhere {
                return Err(failure(format!("{name} is on {}, which is not driven here", elsewhere.system)));
            }
            Err(failure(held.map_or_else(
                || format!("{name} is not among the {} resources of the systems that are driven here: is it in the proxy's list?", survey.cases.len()),
                |held| format!("{name}: {}", held.reason),
            )))
        }
        _ => {
            let each = |case: &&Case| format!("{} ({:?})", case.resource.id, case.resource.status).to_lowercase();
            let each = found.iter().map(each).collect::<Vec<_>>().join(", ");
            Err(failure(format!("{} resources are called {name}, give the UUID: {each}", found.len())))
        }
    }
}

fn order(case: &Case) -> String {
    case.resource.order.as_ref().map_or("no order in progress".into(), |order| {
        let state = match order.state {
            OrderState::PendingProvider => "pending-provider",
            OrderState::Executing => "executing",
            OrderState::Other => "another one, not the provider's",
        };
        format!("{:?} order {} in state {state}, offering of type {:?}", order.kind, order.id, order.offering)
    })
}

fn seen(case: &Case) -> String {
    match &case.seen {
        Err(fault) => format!("cannot be read: {fault}"),
        Ok(Seen::Absent) => "nothing is there".into(),
        Ok(Seen::Obstructed(what)) => what.clone(),
        Ok(Seen::Trashed { since }) => format!("in the trash since {}", out::date(*since)),
        Ok(Seen::Ours(present)) => format!(
            "mode {:o}, owner {}:{}, {}, {}{}",
            present.mode.0,
            present.uid,
            present.gid,
            present.limits.map_or("no quotas".into(), |limits| limits.to_string()),
            present.usage.map_or("usage: see `usage`".into(), |usage| format!(
                "uses {} bytes, {} inodes",
                usage.space.0, usage.inodes.0
            )),
            present.acl.as_ref().map_or(String::new(), acl),
        ),
        Ok(Seen::Unmarked(_)) => "a directory without our mark".into(),
    }
}

/// ACLs, with what they should be where they are otherwise.
fn acl(acl: &Acl) -> String {
    let words = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    let wanted = if acl.found == acl.wanted { String::new() } else { format!(" instead of {}", words(&acl.wanted)) };
    format!(", ACL {}{wanted}", words(&acl.found))
}

fn event_text(event: &Event) -> String {
    match event {
        Event::Begun { steps, why, by, .. } if steps.is_empty() => format!("begun by {by} ({why})"),
        Event::Begun { steps, why, by, .. } => format!("begun by {by} ({why}): {}", steps.join("; ")),
        Event::Effect { what } => what.clone(),
        Event::Callback { call, outcome, refused: true } => format!("Waldur refuses {call}: {outcome}"),
        Event::Callback { call, outcome, .. } => format!("{call}: {outcome}"),
        Event::Continues { after, .. } => format!("the journal goes on from {after}"),
        Event::Ended => "ended".into(),
        Event::Failed { fault } => format!("broken off: {fault}"),
    }
}
