//! `purge` deletes trees in the trash permanently. Passes go on meanwhile: the state directory and the leases of the
//! systems are held only while a tree is claimed, and again while the result is journaled.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use program::error_chain;
use provisioner_core::document::{Document, Resource, Status};
use serde_json::json;
use storage_driver::Trashed;
use uuid::Uuid;

use super::apply::{begin, by_user};
use super::{EXIT_FAILURE, EXIT_HELD, Failure, failure, out, progress};
use crate::config::Purge;
use crate::journal::{self, Begun, Elapsed};
use crate::lease::{LeaseError, Leases, for_purge};
use crate::ledger::ProjectIds;
use crate::pass::{System, parallel_map};
use crate::provisioner::{Provisioner, Session};
use program::lock;

/// How many trees are deleted at the same time.
const AT_ONCE: usize = 4;
/// How long the purge of one tree waits for a pass to end.
const PATIENCE: Duration = Duration::from_mins(10);
const DAY: u64 = 86_400;

/// A tree that may be deleted.
#[derive(Debug)]
struct Due<'a> {
    system: &'a System,
    trashed: Trashed,
    /// Whether an earlier purge claimed it and was interrupted.
    unfinished: bool,
}

/// A tree that is due by its name but must not be deleted.
#[derive(Debug)]
struct Refused<'a> {
    system: &'a System,
    trashed: Trashed,
    reason: String,
}

/// Deletes trees that are in the trash for longer than the retention **and** terminated in Waldur.
pub(super) fn purge(provisioner: &Provisioner, yes: bool, json: bool) -> Result<(), Failure> {
    let rules = provisioner.settings.purge;
    if yes && !rules.enabled {
        return Err(failure("purge is off: set purge.enabled to let it delete trees permanently"));
    }
    let now = provisioner.clock.now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let document = if yes { provisioner.source.read()? } else { provisioner.source.newest()? };
    let (mut due, refused) = due(provisioner, &document, now)?;
    let waiting = due.len().saturating_sub(rules.at_most);
    due.truncate(rules.at_most);
    let mut failed = Vec::new();
    if yes && !due.is_empty() {
        // Fails now if another provisioner works for a long time.
        drop(begin(provisioner, "purge")?);
        let leases = alone(provisioner, &due)?;
        provisioner.walked.limit(rules.rate);
        let session = Mutex::default();
        let delete = |due: &_| delete(provisioner, due, &leases, &session);
        let results = progress::during(&provisioner.walked, || parallel_map(&due, AT_ONCE, delete));
        let results = due.iter().map(|due| due.trashed.id).zip(results);
        failed.extend(results.filter_map(|(id, result)| Some((id, result.err()?.text))));
    }
    if json {
        let trees = due.iter().map(|Due { system, trashed, unfinished }| {
            json!({"system": system.key, "resource": trashed.id, "since": trashed.since, "unfinished": unfinished})
        });
        let refused = refused.iter().map(|Refused { system, trashed, reason }| {
            json!({"system": system.key, "resource": trashed.id, "since": trashed.since, "reason": reason})
        });
        let failed = failed.iter().map(|(id, fault)| json!({"resource": id, "fault": fault}));
        out::print_json(&json!({
            "deleted": yes, "trees": trees.collect::<Vec<_>>(), "waiting": waiting,
            "refused": refused.collect::<Vec<_>>(), "failed": failed.collect::<Vec<_>>(),
        }))?;
    } else {
        for Due { system, trashed, unfinished } in &due {
            let days = now.saturating_sub(trashed.since) / DAY;
            let again = if *unfinished { ", claimed by an earlier purge" } else { "" };
            out::print(&format!("{}  on {}, in the trash for {days} days{again}\n", trashed.id, system.key))?;
        }
        for Refused { system, trashed, reason } in &refused {
            out::eprint(&format!("{}: not deleted from {}: {}", trashed.id, system.key, out::escaped(reason)));
        }
        for (id, fault) in &failed {
            out::eprint(&format!("{id}: {}", out::escaped(fault)));
        }
        let verb = match (yes, rules.enabled) {
            (true, _) => "deleted",
            (false, true) => "would be deleted (--yes deletes)",
            (false, false) => "would be deleted if purge.enabled were on",
        };
        let refusals = if refused.is_empty() { String::new() } else { format!(", {} refused", refused.len()) };
        out::print(&format!("{} {verb}, {waiting} left for the next call{refusals}.\n", due.len() - failed.len()))?;
    }
    if failed.is_empty() && refused.is_empty() {
        Ok(())
    } else {
        Err(Failure { code: EXIT_FAILURE, text: String::new() })
    }
}

/// What may be deleted, oldest first, and what is refused although it is due by its name.
fn due<'a>(
    provisioner: &'a Provisioner,
    document: &Document,
    now: u64,
) -> Result<(Vec<Due<'a>>, Vec<Refused<'a>>), Failure> {
    let elapsed = journal::elapsed(&provisioner.journal_path())?;
    let (mut due, mut refused) = (Vec::new(), Vec::new());
    for system in &provisioner.systems {
        system.driver.ready()?;
        for trashed in system.driver.claimed()? {
            if is_terminated(document, trashed.id) {
                due.push(Due { system, trashed, unfinished: true });
            } else {
                let reason = "an earlier purge claimed it, and it is no longer terminated in Waldur; it may be incomplete. \
                              Look at it: in the trash, its name starts with `purge-`";
                refused.push(Refused { system, trashed, reason: reason.into() });
            }
        }
        let old = |trashed: &Trashed| now.saturating_sub(trashed.since) > retention(provisioner.settings.purge);
        let trash = system.driver.trash()?.into_iter().filter(old);
        for trashed in trash.filter(|trashed| is_terminated(document, trashed.id)) {
            let changed = system.driver.changed(&trashed)?;
            match doubt(&trashed, changed, &elapsed, now, provisioner.settings.purge) {
                None => due.push(Due { system, trashed, unfinished: false }),
                Some(reason) => refused.push(Refused { system, trashed, reason }),
            }
        }
    }
    due.sort_by_key(|due| (!due.unfinished, due.trashed.since));
    Ok((due, refused))
}

/// Whether a resource is terminated in Waldur, without an order in progress that could restore it.
fn is_terminated(document: &Document, id: Uuid) -> bool {
    let terminated = |it: &Resource| it.id == id && it.status == Status::Removed && it.order.is_none();
    document.resources.iter().any(terminated)
}

fn retention(rules: Purge) -> u64 {
    rules.retention_days as u64 * DAY
}

/// Why a tree may not have been in the trash for as long as its name says. The name was made with the clock of that day
/// and is compared with today's clock; either may be wrong. So the directory's own time and the journal must confirm
/// it, to within a day.
fn doubt(trashed: &Trashed, changed: Option<u64>, elapsed: &Elapsed, now: u64, rules: Purge) -> Option<String> {
    let named = out::date(trashed.since);
    let least = retention(rules).saturating_sub(DAY);
    if let Some(last) = elapsed.last().filter(|last| *last > now + DAY) {
        return Some(format!(
            "the clock shows {}, and the journal was last written on {}: set the clock right",
            out::date(now),
            out::date(last)
        ));
    }
    if let Some(changed) = changed.filter(|changed| now.saturating_sub(*changed) < least) {
        return Some(format!(
            "by its name it has been in the trash since {named}, but its directory was changed on {}: the clock was wrong when \
             it was retired, or somebody changed it. It is due {} days after that change",
            out::date(changed),
            rules.retention_days
        ));
    }
    let since = elapsed.since_change(trashed.id, now);
    (since < least).then(|| {
        format!(
            "by its name it has been in the trash since {named}, but the journal shows only {} days since then: the clock \
             is or was wrong, or no provisioner was running (a gap of more than two days counts as two). It is due when the \
             journal shows {} days",
            since / DAY,
            rules.retention_days
        )
    })
}

/// The exclusive right to delete trees in the trash of these systems.
fn alone(provisioner: &Provisioner, due: &[Due<'_>]) -> Result<Leases, Failure> {
    let systems: BTreeSet<_> = due.iter().map(|due| for_purge(&due.system.key)).collect();
    let systems: Vec<_> = systems.into_iter().collect();
    match provisioner.leases.take(&systems, &provisioner.settings.state_directory) {
        Err(LeaseError::Held { .. }) => {
            Err(Failure { code: EXIT_HELD, text: "another purge is deleting trees of these systems".into() })
        }
        taken => Ok(taken?),
    }
}

/// Deletes one tree. `alone` keeps other purges away; one thread at a time uses the state directory, with `session`.
fn delete(provisioner: &Provisioner, due: &Due<'_>, alone: &Leases, session: &Mutex<()>) -> Result<(), Failure> {
    let Due { system, trashed, .. } = due;
    let (key, id) = (&*system.key, trashed.id);
    exclusive(provisioner, session, |session| {
        // Much may have happened since the trash was read.
        if !is_terminated(&provisioner.source.read()?, id) {
            return Err(failure("it is no longer terminated in Waldur"));
        }
        session.ledger.load(key, &*system.driver)?;
        let project = session.ledger.known(key, id);
        session.with_protocol(|protocol| {
            let (why, steps) = ("a person's decision".to_owned(), vec!["purge".to_owned()]);
            protocol.begin([(id, Begun { system: key.to_owned(), why, steps, ..Begun::default() })])?;
            let guard = |effect: &str| protocol.guard(key, id, effect);
            let claimed = system.driver.claim(trashed, project, &guard);
            let claimed = claimed.and_then(|()| guard(&format!("delete {id}.{} permanently", trashed.since)));
            // Work on a claimed tree stays unfinished in the journal until it is deleted.
            if let Err(error) = &claimed {
                protocol.end(id, &Err(error_chain(error)))?;
            }
            protocol.journal.sync()?;
            Ok::<_, Failure>(claimed?)
        })?;
        // Before the deletion, because until then the tree shows that its GID is in use, and afterwards nobody would release it.
        if system.project_ids == Some(ProjectIds::Gid) && project.is_some() {
            session.ledger.release(key, id);
        }
        Ok(session.ledger.save(key, &*system.driver)?)
    })?;
    // The claim keeps passes away: no other right is needed, however long this takes.
    let name = for_purge(key);
    let deleted = system
        .driver
        .purge(trashed, None, &|_| provisioner.permitted(alone, &name))
        .map_err(|error| error_chain(&error));
    exclusive(provisioner, session, |session| {
        Ok(session.with_protocol(|protocol| protocol.end(id, &deleted).and_then(|()| protocol.journal.sync()))?)
    })?;
    deleted.map_err(failure)
}

/// Does something with the exclusive right to the state directory, between two passes.
fn exclusive(
    provisioner: &Provisioner,
    one: &Mutex<()>,
    work: impl FnOnce(&mut Session<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let _one = lock(one);
    work(&mut provisioner.begin(&by_user("purge"), PATIENCE)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Event, Journal, elapsed};
    use program::Clock;
    use provisioner_core::document::{Offering, OrderKind, OrderState};

    const NOW: u64 = 1_790_000_000;

    #[test]
    fn what_an_order_could_bring_back_is_not_terminated() {
        let id = Uuid::from_u128(7);
        let of = |status, order| {
            let resource = crate::pass::model::resource(7, status, order, 1.0);
            is_terminated(&Document { resources: vec![resource], ..Document::default() }, id)
        };
        assert!(of(Status::Removed, None) && !of(Status::Active, None));
        for state in [OrderState::PendingProvider, OrderState::Executing, OrderState::Other] {
            assert!(!of(Status::Removed, Some((OrderKind::Restore, state, Offering::SiteAgent))));
        }
    }

    #[test]
    fn a_tree_goes_when_its_name_its_directory_and_the_journal_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let id = Uuid::from_u128(7);
        let retired = NOW - 91 * DAY;
        for day in 0..=91 {
            let clock = Clock::from_fn(move || SystemTime::UNIX_EPOCH + Duration::from_secs(retired + day * DAY));
            let journal = Journal::open(&path, &clock).unwrap();
            if day == 0 { journal.write(Some(id), Event::Ended).unwrap() } else { journal.heartbeat().unwrap() }
        }
        let elapsed = elapsed(&path).unwrap();
        let rules = Purge { enabled: true, retention_days: 90, at_most: 1, rate: 1 };
        let doubt =
            |since, changed, now| doubt(&Trashed { id, since }, changed, &elapsed, now, rules).unwrap_or_default();
        assert_eq!(doubt(retired, Some(retired), NOW), "");
        assert_eq!(doubt(retired, None, NOW), "");
        // Retired when the clock was 26 years back, on a file system whose own clock was right.
        let back = 26 * 365 * DAY;
        assert!(doubt(retired - back, Some(NOW - 3 * DAY), NOW).contains("its directory was changed on"));
        // The clock is 26 years back, or 100 days forward.
        assert!(doubt(retired - back, Some(retired), NOW - back).contains("set the clock right"));
        let other = Trashed { id: Uuid::from_u128(8), since: NOW - 3 * DAY };
        let early =
            Journal::open(&path, &Clock::from_fn(|| SystemTime::UNIX_EPOCH + Duration::from_secs(NOW))).unwrap();
        early.write(Some(other.id), Event::Ended).unwrap();
        let elapsed = journal::elapsed(&path).unwrap();
        let why = super::doubt(&other, Some(other.since), &elapsed, NOW + 100 * DAY, rules).unwrap();
        assert!(why.contains("shows only 2 days"), "{why}");
    }
}
