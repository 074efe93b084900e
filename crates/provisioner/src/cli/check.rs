//! `check`: tests everything that a pass needs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use program::error_chain;
use provisioner_core::document::{Document, Resource};
use serde_json::{Value, json};
use storage_driver::place::Place;
use waldur_answers::{Callbacks, OWNER_NEEDED, TEST_APPROVAL};

use super::out::{self, Page};
use super::{EXIT_FAILURE, Failure};
use crate::journal::Journal;
use crate::lease::for_purge;
use crate::ledger::Ledger;
use crate::provisioner::Provisioner;
use crate::source::WaldurError;

enum Outcome {
    Ok(String),
    /// A possible problem, which does not make the command fail.
    Warning(String),
    Failed(String),
}

impl Outcome {
    fn detail(&self) -> &str {
        let (Self::Ok(detail) | Self::Warning(detail) | Self::Failed(detail)) = self;
        detail
    }

    fn json(&self, what: &str) -> Value {
        let mut row = json!({"check": what, "ok": !matches!(self, Self::Failed(_)), "detail": self.detail()});
        if matches!(self, Self::Warning(_)) {
            row["warning"] = json!(true);
        }
        row
    }

    fn show(&self, what: &str, page: &mut Page) {
        let mark = match self {
            Self::Ok(_) => "ok",
            Self::Warning(_) => "warn",
            Self::Failed(_) => "FAILED",
        };
        page.marked(mark, &format!("{what}: {}", self.detail()));
    }
}

impl From<Result<String, String>> for Outcome {
    fn from(result: Result<String, String>) -> Self {
        result.map_or_else(Self::Failed, Self::Ok)
    }
}

/// Runs all checks, even if some fail.
pub(super) fn check(provisioner: &Provisioner, json: bool) -> Result<(), Failure> {
    let mut rows = vec![("settings".to_owned(), Outcome::Ok("valid".into()))];
    let mut add = |what: &str, outcome: Outcome| rows.push((what.to_owned(), outcome));
    let document = provisioner.source.read();
    let counts = document.as_ref().map_err(|fault| error_chain(fault)).map(|document| {
        let (ours, others): (Vec<_>, Vec<_>) = document.resources.iter().partition(|it| is_driven(provisioner, it));
        format!(
            "{} resources on the managed systems, {} on others, {} invalid",
            ours.len(),
            others.len(),
            document.rejected.len()
        )
    });
    add("document", counts.into());
    if let Ok(document) = &document {
        if let Some(result) = callbacks(provisioner, document) {
            add("callbacks", result.into());
        }
        if let Some(outcome) = waldur_token(provisioner, document) {
            add("Waldur token", outcome);
        }
    }
    // If the file cannot be read, the state directory fails its check.
    let mut ledger = Ledger::open(&provisioner.ledger_path()).unwrap_or_default();
    for system in &provisioner.systems {
        let name = format!("system {}", system.key);
        let ready = system.driver.ready().map_err(|fault| error_chain(&fault));
        let is_ready = ready.is_ok();
        let trash = ready.and_then(|()| system.driver.trash().map_err(|fault| error_chain(&fault)));
        add(&name, trash.map(|trash| format!("ready, {} in the trash", trash.len())).into());
        if is_ready {
            if let Err(fault) = ledger.load(&system.key, &*system.driver) {
                add(&name, Outcome::Failed(error_chain(&fault)));
            }
            let resources = document.iter().flat_map(|document| &document.resources);
            let paths = resources.filter(|it| it.system == system.key).map(|it| &*it.path);
            for found in system.driver.inspect(&above(paths, &system.rules.published_root)) {
                add(&name, found.map_err(|fault| error_chain(&fault)).into());
            }
        }
    }
    add("state directory", state(provisioner).into());
    let mut names: Vec<_> = provisioner.systems.iter().map(|system| system.key.clone()).collect();
    if provisioner.settings.purge.enabled {
        names.extend(provisioner.systems.iter().map(|system| for_purge(&system.key)));
    }
    if let Some(checked) = provisioner.leases.check(&names) {
        add("leases", checked.map_err(|error| error_chain(&error)).into());
    }
    if let Ok(document) = &document {
        for (system, why) in misnamed(provisioner, document) {
            add(&format!("system {system}"), Outcome::Failed(why));
        }
        if let Some(detail) = quota_problems(provisioner, document) {
            add("quotas", Outcome::Warning(detail));
        }
    }
    if json {
        out::print_json(&rows.iter().map(|(what, outcome)| outcome.json(what)).collect::<Vec<_>>())?;
    } else {
        let mut page = Page::new();
        for (what, outcome) in &rows {
            outcome.show(what, &mut page);
        }
        page.print()?;
    }
    let failed = rows.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
    if failed { Err(Failure { code: EXIT_FAILURE, text: String::new() }) } else { Ok(()) }
}

fn is_driven(provisioner: &Provisioner, resource: &Resource) -> bool {
    provisioner.systems.iter().any(|system| system.key == resource.system)
}

/// Whether callbacks with the token for Waldur can succeed; `None` if there is no token, or the proxy relays all callbacks.
/// Reads the user's roles only, because a callback would change an order.
fn waldur_token(provisioner: &Provisioner, document: &Document) -> Option<Outcome> {
    provisioner.settings.waldur.as_ref()?;
    let mut links =
        document.resources.iter().filter(|it| is_driven(provisioner, it)).flat_map(|it| it.links.all()).peekable();
    let is_idle = links.peek().is_none();
    let is_used = links.any(|link| provisioner.source.leads_to_waldur(link));
    if !is_used && !is_idle {
        return None;
    }
    // Without links it is unknown whether the proxy relays, and the token may only be for `usage --report`.
    let problem = |text| if is_used { Outcome::Failed(text) } else { Outcome::Warning(text) };
    let user = match provisioner.source.token_user() {
        Ok(user) => user,
        Err(WaldurError::Unusable(why)) => return Some(Outcome::Failed(why)),
        Err(WaldurError::Missing(why) | WaldurError::Unreadable(why)) => {
            let unknown = format!("whether the token may approve orders is unknown: {why}; {TEST_APPROVAL}");
            return Some(Outcome::Warning(unknown));
        }
    };
    let (mut offerings, mut unseen) = (Vec::new(), Vec::new());
    for system in provisioner.systems.iter().map(|system| &*system.key) {
        let resource = document.resources.iter().find(|it| it.system == system);
        let known = match resource.map(|resource| provisioner.source.offering(resource.id)) {
            None => Err(format!("there is no resource on {system} yet")),
            Some(Ok(found)) => found.ok_or_else(|| format!("{system}: Waldur names no provider")),
            Some(Err(WaldurError::Missing(_))) => {
                unseen.push(system);
                continue;
            }
            Some(Err(WaldurError::Unusable(why) | WaldurError::Unreadable(why))) => Err(format!("{system}: {why}")),
        };
        offerings.push((system, known));
    }
    if !unseen.is_empty() {
        let unseen = unseen.join(", ");
        return Some(problem(format!(
            "the token's user does not see the resources of {unseen}: Waldur answers 404 to callbacks; for callbacks \
             {OWNER_NEEDED}"
        )));
    }
    Some(match user.callbacks(offerings) {
        Callbacks::Allowed(detail) => Outcome::Ok(detail),
        Callbacks::Unknown(detail) => Outcome::Warning(format!("{detail}; {TEST_APPROVAL}")),
        Callbacks::Refused(detail) => problem(format!("{detail}; for callbacks {OWNER_NEEDED}")),
    })
}

/// All directories between the published root of a system and the directories with these published paths.
fn above<'a>(paths: impl Iterator<Item = &'a str>, root: &str) -> Vec<Place> {
    let mut above = BTreeSet::new();
    for path in paths {
        // The plan holds resources whose path is invalid.
        let mut next = Place::parse(path, root).ok().and_then(|place| place.parent());
        while let Some(place) = next.filter(|place| !above.contains(place)) {
            next = place.parent();
            above.insert(place);
        }
    }
    above.into_iter().collect()
}

/// Systems of the settings that have no resource in the document, while systems that are not in the settings have some; each
/// with a message.
pub(super) fn misnamed(provisioner: &Provisioner, document: &Document) -> Vec<(String, String)> {
    let published: BTreeSet<_> = document.resources.iter().map(|it| &*it.system).collect();
    let driven: BTreeSet<_> = provisioner.systems.iter().map(|system| &*system.key).collect();
    let others: Vec<_> = published.difference(&driven).copied().collect();
    let why = format!(
        "the document has no resources on it, but has some on {}, which the settings do not name: check the name in `systems`",
        others.join(", ")
    );
    // The name may be misspelt. Without other names, nothing has been ordered on the system yet.
    let empty = driven.difference(&published).filter(|_| !others.is_empty());
    empty.map(|system| ((*system).to_owned(), why.clone())).collect()
}

/// The number of resources whose quotas cannot be trusted, and the first of them.
fn quota_problems(provisioner: &Provisioner, document: &Document) -> Option<String> {
    let problem = |it: &Resource| Some((it.path.clone(), it.quota_problem.as_ref()?.detail.clone()));
    let problems: Vec<_> =
        document.resources.iter().filter(|it| is_driven(provisioner, it)).filter_map(problem).collect();
    let (path, detail) = problems.first()?;
    let count = problems.len();
    Some(format!(
        "{count} resources have quotas that cannot be trusted and are not applied; the first is {path}: {detail}"
    ))
}

/// Whether there are credentials for the links of the orders in progress; `None` without orders.
fn callbacks(provisioner: &Provisioner, document: &Document) -> Option<Result<String, String>> {
    let links =
        document.resources.iter().filter(|it| is_driven(provisioner, it)).flat_map(|resource| resource.links.all());
    let mut reached = links.map(|link| provisioner.source.leads(link)).peekable();
    reached.peek()?;
    Some(
        reached
            .try_fold(0, |count, reached| reached.map(|()| count + 1))
            .map(|count| format!("{count} links, with credentials for all of them")),
    )
}

fn state(provisioner: &Provisioner) -> Result<String, String> {
    let directory = &provisioner.settings.state_directory;
    // The first pass creates the directory, if it has the rights.
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(directory);
    let writable = rustix::fs::access(there, rustix::fs::Access::WRITE_OK);
    writable.map_err(|error| {
        format!(
            "{} is not writable ({}): create it for the user that runs the provisioner",
            directory.display(),
            std::io::Error::from(error)
        )
    })?;
    if !there.is_dir() {
        return Err(format!("{} is not a directory: move it away, or change state_directory", there.display()));
    }
    if there != directory {
        return Ok("does not exist yet: the first pass creates it".into());
    }
    probe(directory)?;
    let path = provisioner.journal_path();
    let (first, last) =
        if path.exists() { Journal::check(&path).map_err(|error| error_chain(&error))? } else { (1, 0) };
    Ledger::open(&provisioner.ledger_path()).map_err(|error| error_chain(&error))?;
    let from = if first > 1 { format!(", without those before line {first}") } else { String::new() };
    Ok(format!("writable and synced, a journal of {last} lines{from}"))
}

/// Writes, syncs and removes a file in the state directory. This detects a file system that is full or read-only.
fn probe(directory: &Path) -> Result<(), String> {
    let path = directory.join(format!(".check-{}", std::process::id()));
    let write = || {
        let mut file = File::options().write(true).create_new(true).open(&path)?;
        // A full file system has no room for a block.
        file.write_all(&[0; 4096])?;
        file.sync_all()
    };
    let written = write();
    let removed = match std::fs::remove_file(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound && written.is_err() => Ok(()),
        removed => removed.and_then(|()| File::open(directory)?.sync_all()),
    };
    written.and(removed).map_err(|error| {
        format!("a file in {} cannot be written, synced and removed ({error}): {}", directory.display(), remedy(&error))
    })
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::ReadOnlyFilesystem => "mount it writable; in a systemd unit, list it in ReadWritePaths=",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free some space: the provisioner does nothing without its journal"
        }
        ErrorKind::PermissionDenied => "make it writable for the user that runs the provisioner",
        _ => "check the disk that it is on",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_writes_to_the_state_directory_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(probe(directory.path()), Ok(()));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        // Not even root can create a file there.
        let fault = probe(Path::new("/proc")).unwrap_err();
        assert!(fault.starts_with("a file in /proc cannot be written"), "{fault}");
    }

    #[test]
    fn each_write_error_has_a_remedy() {
        for (errno, words) in
            [(28, "free some space"), (122, "free some space"), (30, "ReadWritePaths="), (13, "for the user")]
        {
            assert!(remedy(&io::Error::from_raw_os_error(errno)).contains(words), "{errno}");
        }
    }

    #[test]
    fn each_directory_above_is_listed_once() {
        let paths = ["/sys/store/a/p1", "/sys/store/a/p2", "/sys/store/b/p1", "/sys/top", "/other/store/c/p1"];
        let above: Vec<_> = above(paths.into_iter(), "/sys").iter().map(ToString::to_string).collect();
        assert_eq!(above, ["store", "store/a", "store/b"]);
    }
}
