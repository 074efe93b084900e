//! `purge`: deleting for good, a job of its own.

use std::time::SystemTime;

use serde_json::json;

use super::work::begin;
use super::{EXIT_FAILURE, Failure, failure, out, progress};
use crate::document::Status;
use crate::driver::Trashed;
use crate::ledger::ProjectIds;
use crate::pass::System;
use crate::site::Site;

/// Deletes what may be deleted: longer in the trash than the retention, **and** terminated in Waldur.
pub(super) fn purge(site: &Site, yes: bool, json: bool) -> Result<(), Failure> {
    let rules = site.settings.purge;
    if yes && !rules.enabled {
        return Err(failure("purge is off: set purge.enabled if trees shall be deleted for good"));
    }
    let document = site.source.read()?;
    let now = site.clock.now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let oldest = now.saturating_sub(rules.retention_days as u64 * 86_400);
    let terminated = |trashed: &Trashed| {
        document.resources.iter().any(|resource| resource.id == trashed.id && resource.status == Status::Removed)
    };
    let mut due: Vec<(&System, Trashed)> = Vec::new();
    for system in &site.systems {
        system.driver.ready()?;
        let trash = system.driver.trash()?;
        due.extend(trash.into_iter().filter(|it| it.since < oldest && terminated(it)).map(|trashed| (system, trashed)));
    }
    due.sort_by_key(|(_, trashed)| trashed.since);
    let waiting = due.len().saturating_sub(rules.at_most);
    due.truncate(rules.at_most);
    let mut failed = Vec::new();
    if yes && !due.is_empty() {
        let mut work = begin(site, "purge")?;
        for (system, trashed) in &due {
            let project = work.ledger.known(&system.key, trashed.id);
            let purge = || work.drive(system, trashed.id, "", &|before| system.driver.purge(trashed, project, before));
            match progress::during(&site.walked, purge) {
                Ok(()) if system.site.projects == Some(ProjectIds::Gid) => work.ledger.forget(&system.key, trashed.id),
                Ok(()) => {}
                Err(fault) => failed.push((trashed.id, crate::pass::told(&fault))),
            }
        }
        work.ledger.save()?;
    }
    let rows = due
        .iter()
        .map(|(system, trashed)| json!({"system": system.key, "resource": trashed.id, "since": trashed.since}));
    if json {
        let failed: Vec<_> = failed.iter().map(|(id, fault)| json!({"resource": id, "fault": fault})).collect();
        out::print_json(
            &json!({"deleted": yes, "trees": rows.collect::<Vec<_>>(), "waiting": waiting, "failed": failed}),
        )?;
    } else {
        for (system, trashed) in &due {
            let days = now.saturating_sub(trashed.since) / 86_400;
            out::print(&format!("{}  on {}, in the trash for {days} days\n", trashed.id, system.key))?;
        }
        for (id, fault) in &failed {
            out::tell(&format!("{id}: {}", out::harmless(fault)));
        }
        let verb = match (yes, rules.enabled) {
            (true, _) => "deleted",
            (false, true) => "would be deleted (--yes deletes)",
            (false, false) => "would be deleted, but purge.enabled is off",
        };
        out::print(&format!("{} {verb}, {waiting} more are due.\n", due.len() - failed.len()))?;
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure { code: EXIT_FAILURE, text: String::new() }) }
}
