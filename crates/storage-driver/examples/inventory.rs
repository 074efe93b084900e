//! A complete driver. It keeps an inventory in a JSON file; a site's own tools configure the storage accordingly, and write
//! the usage into the file. `cargo test -p storage-driver --example inventory` runs the suite against it.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use storage_driver::limits::Usage;
use storage_driver::{Desired, Driver, DriverError, Guard, Marked, Observed, Present, Trashed};
use uuid::Uuid;
type Outcome<T = ()> = Result<T, DriverError>;

#[derive(Debug)]
pub struct Inventory {
    file: PathBuf,
    lock: Mutex<()>, // held while the file is replaced
}

/// A directory in the file. The site's tools deny access to directories in the trash.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    place: String,
    /// UUID of the resource; `None` for a directory that the provisioner did not create.
    mark: Option<Uuid>,
    present: Present,
    /// When it was put into the trash, in seconds since 1970, and whether a purge has claimed it.
    trashed: Option<(u64, bool)>,
}

fn in_trash(it: &Entry, claimed: bool) -> Option<Trashed> {
    Some(Trashed { id: it.mark?, since: it.trashed.filter(|it| it.1 == claimed)?.0 })
}

fn observe(entries: &[Entry], desired: &Desired) -> Observed {
    let (id, place) = (Some(desired.id), desired.place.to_string());
    let in_use = || entries.iter().filter(|it| it.trashed.is_none());
    let holds_it = |it: &Entry| it.mark != id && place.starts_with(&format!("{}/", it.place));
    if let Some((above, other)) = in_use().filter(|it| holds_it(it)).find_map(|it| Some((&it.place, it.mark?))) {
        return Observed::Obstructed(storage_driver::nested(above, other));
    }
    let at_place = in_use().find(|it| it.place == place);
    match (at_place, entries.iter().find(|it| it.mark == id).and_then(|it| it.trashed)) {
        (Some(it), _) if it.mark == id => Observed::Ours(it.present.clone()),
        (Some(it), _) if it.mark.is_none() => Observed::Unmarked(it.present.clone()),
        (Some(_), _) => Observed::Obstructed("it is the directory of another resource".into()),
        (None, Some((since, false))) => Observed::Trashed { since },
        (None, Some((since, true))) => Observed::Purging { since },
        (None, None) => Observed::Absent,
    }
}

impl Inventory {
    fn failed(&self, error: io::Error) -> DriverError {
        DriverError::temporary_from(format!("{} cannot be used", self.file.display()), error)
    }

    fn read(&self) -> Outcome<Vec<Entry>> {
        match std::fs::read(&self.file) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| self.failed(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Edits the entries. If `edit` returns true, calls the guard and replaces the file, which is the only side effect.
    fn update(&self, guard: Guard<'_>, edit: impl FnOnce(&mut Vec<Entry>) -> Outcome<bool>) -> Outcome {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = self.read()?;
        if !edit(&mut entries)? {
            return Ok(());
        }
        guard("replace the inventory")?;
        let (new, text) = (self.file.with_extension("new"), serde_json::to_vec(&entries).map_err(io::Error::from));
        let written = text.and_then(|text| std::fs::write(&new, text));
        written.and_then(|()| std::fs::rename(&new, &self.file)).map_err(|error| self.failed(error))
    }

    /// Creates or changes the entry of a directory whose observed state is acceptable.
    fn set(&self, desired: &Desired, since: Option<u64>, guard: Guard<'_>, accepts: fn(&Observed) -> bool) -> Outcome {
        self.update(guard, |entries| {
            let observed = observe(entries, desired);
            if !accepts(&observed) {
                return Err(DriverError::Conflict(format!("in the way: {observed:?}")));
            }
            let (mark, place) = (Some(desired.id), desired.place.to_string());
            let at = entries.iter().position(|it| it.mark == mark || it.mark.is_none() && it.place == place);
            let old = at.map(|at| entries.swap_remove(at));
            let usage = Some(old.as_ref().and_then(|it| it.present.usage).unwrap_or_default());
            let Desired { uid, gid, mode, limits, .. } = *desired;
            let present = Present { uid, gid, mode, limits: Some(limits), project: None, usage, acl: None };
            entries.push(Entry { place, mark, present, trashed: since.map(|since| (since, false)) });
            Ok(old.as_ref() != entries.last())
        })
    }
}

impl Driver for Inventory {
    fn ready(&self) -> Outcome {
        self.read().map(drop)
    }
    fn observe(&self, desired: &[&Desired]) -> Vec<Outcome<Observed>> {
        desired.iter().map(|desired| Ok(observe(&self.read()?, desired))).collect()
    }
    fn trash(&self) -> Outcome<Vec<Trashed>> {
        Ok(self.read()?.iter().filter_map(|it| in_trash(it, false)).collect())
    }
    fn claimed(&self) -> Outcome<Vec<Trashed>> {
        Ok(self.read()?.iter().filter_map(|it| in_trash(it, true)).collect())
    }
    fn marked(&self, _levels: usize) -> Outcome<Vec<Marked>> {
        let marked = |it: Entry| Some(Marked { id: it.mark.filter(|_| it.trashed.is_none())?, path: it.place });
        Ok(self.read()?.into_iter().filter_map(marked).collect())
    }
    fn trash_usage(&self, trashed: &[(Trashed, Option<u32>)]) -> Vec<Outcome<Option<Usage>>> {
        let usage = |it: &Entry, trashed| (in_trash(it, false).as_ref() == Some(trashed)).then_some(it.present.usage?);
        trashed.iter().map(|(trashed, _)| Ok(self.read()?.iter().find_map(|it| usage(it, trashed)))).collect()
    }
    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Outcome {
        self.set(desired, None, guard, |it| matches!(it, Observed::Ours(_) | Observed::Absent))
    }
    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Outcome {
        match observe(&self.read()?, desired) {
            Observed::Absent | Observed::Trashed { .. } | Observed::Purging { .. } => Ok(()),
            _ => self.set(desired, Some(now), guard, |it| matches!(it, Observed::Ours(_))),
        }
    }
    fn restore(&self, desired: &Desired, guard: Guard<'_>) -> Outcome {
        self.set(desired, None, guard, |it| matches!(it, Observed::Ours(_) | Observed::Trashed { .. }))
    }
    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Outcome {
        self.set(desired, None, guard, |it| matches!(it, Observed::Ours(_) | Observed::Unmarked(_)))
    }
    fn claim(&self, trashed: &Trashed, _project: Option<u32>, guard: Guard<'_>) -> Outcome {
        self.update(guard, |entries| {
            let it = entries.iter_mut().find(|it| in_trash(it, false).as_ref() == Some(trashed));
            Ok(it.map(|it| it.trashed = Some((trashed.since, true))).is_some())
        })
    }
    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Outcome {
        self.claim(trashed, project, guard)?;
        let is_it = |it: &mut Entry| in_trash(it, true).as_ref() == Some(trashed);
        self.update(guard, |entries| Ok(entries.extract_if(.., is_it).count() > 0))
    }
}

#[cfg(test)]
#[path = "inventory/tests.rs"]
mod tests;
