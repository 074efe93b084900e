//! `explain`: all that is known about one resource.

use program::error_chain;
use provisioner_core::document::{OrderState, Resource, Status};
use provisioner_core::plan::{Case, Step};
use serde_json::json;
use storage_driver::limits::Terabyte;
use storage_driver::{Acl, Observed};
use uuid::Uuid;

use super::out::{self, Page};
use super::{Failure, failure, plans};
use crate::journal;
use crate::pass::{self, Survey};
use crate::provisioner::Provisioner;

/// Maximum number of journal lines that are shown.
const MAX_LINES: usize = 40;

/// Shows one resource: Waldur, desired and observed state, next step, history.
pub(super) fn explain(provisioner: &Provisioner, name: &str, json: bool, fresh: bool) -> Result<(), Failure> {
    let (survey, notes) = provisioner.look(fresh)?;
    let case = find(&survey, name)?;
    // Plans everything, because the resource may be held for the number of other changes.
    let mut plan = pass::planned(&survey, provisioner.settings.policy, false);
    plan.tasks.retain(|task| task.id == case.resource.id);
    plan.held.retain(|held| held.id == Some(case.resource.id));
    let history = journal::history(&provisioner.journal_path(), case.resource.id).unwrap_or_default();
    let resource = &case.resource;
    if json {
        let order = resource.order.as_ref().map(
            |order| json!({"uuid": order.id, "type": order.kind, "state": order.state, "offering": order.offering}),
        );
        let desired = case.desired.as_ref().map_err(|refusal| refusal.reason.clone());
        return out::print_json(&json!({
            "resource": resource.id, "path": resource.path, "system": resource.system, "status": resource.status,
            "order": order, "wanted": desired.as_ref().ok(), "refused": desired.as_ref().err(),
            "seen": case.observed.as_ref().ok(), "unreadable": case.observed.as_ref().err().map(|error| error_chain(error)), "begun": case.unfinished,
            "next": plan, "story": history, "notes": notes,
        }));
    }
    let terabyte = plans::terabyte(&provisioner.systems, &resource.system);
    let mut page = Page::new();
    page.line(0, &resource.path);
    page.line(0, &resource.id.to_string());
    page.blank();
    let mut line = |label: &str, text: String| page.labelled(label, &text);
    line("Waldur", format!("status {:?}, {}", resource.status, order(case)).to_lowercase());
    match &case.desired {
        Ok(desired) => {
            let project = desired.project.map(|project| format!(", project ID {project}")).unwrap_or_default();
            line("Desired", desired.describe(terabyte) + &project);
        }
        Err(refusal) => line("Desired", format!("unknown: {}", refusal.reason)),
    }
    line("Storage", observed(case, terabyte));
    for task in &plan.tasks {
        line("Next", format!("{} ({})", task.steps.iter().map(Step::name).collect::<Vec<_>>().join(", "), task.why));
        let (action, changes) = (task.action.name(), plans::described(&task.changes, terabyte));
        line("", if changes.is_empty() { action.into() } else { format!("{action}: {changes}") });
    }
    for held in &plan.held {
        line("Held", format!("{}: {}", held.hold.name(), held.reason));
        if !held.changes.is_empty() {
            line("", plans::described(&held.changes, terabyte));
        }
    }
    if plan.tasks.is_empty() && plan.held.is_empty() {
        let terminated = if resource.status == Status::Removed { "it is terminated in Waldur, and " } else { "" };
        line("Next", format!("nothing: {terminated}the storage is as it should be"));
    }
    if case.unfinished {
        line("Unfinished", "work on it has begun and not ended".into());
    }
    if history.is_empty() {
        line("History", "none in the journal on this host".into());
    }
    let earlier = history.len().saturating_sub(MAX_LINES);
    if earlier > 0 {
        line("", format!("{earlier} earlier lines: --json"));
    }
    for (time, event) in &history[earlier..] {
        line(time.get(..19).unwrap_or(time), event.to_string());
    }
    out::notes(&notes);
    page.print()
}

/// The case with this UUID (its own or its order's), path or slug. If a terminated resource and a newer one share the name, it
/// is the newer one.
pub(super) fn find<'a>(survey: &'a Survey, name: &str) -> Result<&'a Case, Failure> {
    // Shells complete a directory's name with a slash.
    let name = name.trim().trim_end_matches('/');
    let id = Uuid::try_parse(name).ok();
    let is_named = |case: &&Case| {
        let Resource { id: resource, path, name: slug, order, .. } = &case.resource;
        let order = order.as_ref().is_some_and(|order| Some(order.id) == id);
        Some(*resource) == id || order || path == name || slug.as_deref() == Some(name)
    };
    let mut found: Vec<_> = survey.cases.iter().filter(is_named).collect();
    if found.iter().any(|case| case.resource.status != Status::Removed) {
        found.retain(|case| case.resource.status != Status::Removed);
    }
    match found[..] {
        [case] => Ok(case),
        [] => {
            let held = survey.held.iter().find(|held| held.id.is_some() && held.id == id);
            let elsewhere = survey.document.resources.iter().find(|it| Some(it.id) == id || it.path == name);
            if let Some(elsewhere) = elsewhere {
                return Err(failure(format!(
                    "{name} is on {}, which is not managed here: check `systems` in the settings, and --system",
                    elsewhere.system
                )));
            }
            Err(failure(held.map_or_else(
                || {
                    format!(
                        "{name} is not among the {} resources on the managed systems: check that the proxy lists it",
                        survey.cases.len()
                    )
                },
                |held| format!("{name}: {}", held.reason),
            )))
        }
        _ => {
            let each = |case: &&Case| format!("{} ({:?})", case.resource.id, case.resource.status).to_lowercase();
            let each = found.iter().map(each).collect::<Vec<_>>().join(", ");
            Err(failure(format!("{} resources are called {name}; give the UUID: {each}", found.len())))
        }
    }
}

fn order(case: &Case) -> String {
    case.resource.order.as_ref().map_or("no order in progress".into(), |order| {
        let state = match order.state {
            OrderState::PendingProvider => "in state pending-provider",
            OrderState::Executing => "in state executing",
            OrderState::Other => "that waits for another party's approval",
        };
        format!("{:?} order {} {state}, offering of type {:?}", order.kind, order.id, order.offering)
    })
}

fn observed(case: &Case, terabyte: Terabyte) -> String {
    match &case.observed {
        Err(error) => format!("cannot be read: {}", error_chain(error)),
        Ok(Observed::Absent) => "nothing is there".into(),
        Ok(Observed::Obstructed(what)) => what.clone(),
        Ok(Observed::Trashed { since }) => format!("in the trash since {}", out::date(*since)),
        Ok(Observed::Purging { since }) => {
            format!("in the trash since {}, being deleted permanently by `purge`", out::date(*since))
        }
        Ok(Observed::Ours(present)) => format!(
            "{}, mode {:o}, owner {}:{}, {}{}",
            present.limits.map_or("no quotas".into(), |limits| limits.describe(terabyte)),
            present.mode.0,
            present.uid,
            present.gid,
            present.usage.map_or("usage shown by `usage`".into(), |usage| format!(
                "uses {}, {} inodes",
                terabyte.amount(usage.space),
                usage.inodes.0
            )),
            present.acl.as_ref().map_or(String::new(), acl),
        ),
        Ok(Observed::Unmarked(_)) => "a directory without our mark".into(),
    }
}

/// The ACL, and the desired one if it differs.
fn acl(acl: &Acl) -> String {
    let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    let desired =
        if acl.found == acl.desired { String::new() } else { format!(" instead of {}", or_none(&acl.desired)) };
    format!(", ACL {}{desired}", or_none(&acl.found))
}
