//! Directories with marks of resources that are not in the document; and empty documents.

use std::collections::BTreeSet;

use program::error_chain;
use provisioner_core::document::Document;
use serde::Serialize;
use storage_driver::{DriverError, Marked, Trashed};
use uuid::Uuid;

use super::out::{self, Page};
use super::{EXIT_FAILURE, Failure, progress};
use crate::pass::{Survey, System};
use crate::provisioner::Provisioner;

/// How many levels below the root are searched.
const LEVELS: usize = 6;

/// A directory with the mark of a resource that is not in the document.
#[derive(Debug, Serialize)]
pub(super) struct Orphan {
    system: String,
    resource: Uuid,
    /// Below the root of the system; `None` in the trash.
    path: Option<String>,
    /// Since when it is in the trash, in seconds since 1970.
    in_trash_since: Option<u64>,
}

/// Shows what has a mark and is not in the document. Fails if a system cannot be read.
pub(super) fn show(provisioner: &Provisioner, document: &Document, json: bool) -> Result<(), Failure> {
    let held = document.rejected.iter().chain(&document.skipped).filter_map(|item| item.id);
    let known: BTreeSet<_> = document.resources.iter().map(|resource| resource.id).chain(held).collect();
    let (mut orphans, mut unread) = (Vec::new(), Vec::new());
    for system in &provisioner.systems {
        match progress::during(&provisioner.walked, || of_system(system)) {
            Ok(found) => orphans.extend(found.into_iter().filter(|orphan| !known.contains(&orphan.resource))),
            Err(fault) => unread.push((&*system.key, error_chain(&fault))),
        }
    }
    for (system, fault) in &unread {
        out::eprint(&format!("{system}: {fault}"));
    }
    if json {
        out::print_json(&orphans)?;
    } else {
        let mut page = Page::new();
        for Orphan { system, resource, path, in_trash_since } in &orphans {
            page.line(0, &format!("{resource} on {system}"));
            page.line(4, path.as_deref().unwrap_or_default());
            if let Some(since) = in_trash_since {
                page.line(4, &format!("in the trash since {}", out::date(*since)));
            }
        }
        page.line(0, &format!("{} on the storage that are not in the proxy's list.", orphans.len()));
        page.print()?;
    }
    if unread.is_empty() { Ok(()) } else { Err(Failure { code: EXIT_FAILURE, text: String::new() }) }
}

/// Everything on a system that has a mark.
fn of_system(system: &System) -> Result<Vec<Orphan>, DriverError> {
    system.driver.ready()?;
    let orphan = |resource, path, in_trash_since| Orphan { system: system.key.clone(), resource, path, in_trash_since };
    let placed = system.driver.marked(LEVELS)?.into_iter().map(|Marked { id, path }| orphan(id, Some(path), None));
    let trash = system.driver.trash()?.into_iter().chain(system.driver.claimed()?);
    let trash = trash.map(|Trashed { id, since }| orphan(id, None, Some(since)));
    Ok(placed.chain(trash).collect())
}

/// Reports an empty list of the proxy. Fails if there were resources before: then it is not Waldur that is empty; the
/// proxy or its permissions in Waldur are wrong.
pub(super) fn empty(provisioner: &Provisioner, survey: &Survey) -> Result<(), Failure> {
    let Document { resources, rejected, skipped, .. } = &survey.document;
    if !(resources.is_empty() && rejected.is_empty() && skipped.is_empty()) {
        return Ok(());
    }
    let text = "the proxy's list is empty: it contains no resource of any system";
    let worked = std::fs::metadata(provisioner.journal_path()).is_ok_and(|journal| journal.len() > 0);
    let found = |system: &&System| of_system(system).is_ok_and(|found| !found.is_empty());
    let known = if worked {
        "the journal shows that there were resources".to_owned()
    } else if let Some(system) = provisioner.systems.iter().find(found) {
        format!("{} has directories of resources", system.key)
    } else {
        out::eprint(&format!("note: {text}"));
        return Ok(());
    };
    let remedy = "nothing was touched. Check the proxy's token and run `hpc-storage-proxy check`";
    Err(Failure { code: EXIT_FAILURE, text: format!("{text}, but {known}; {remedy}") })
}
