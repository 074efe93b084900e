//! A driver that keeps directories in memory, for tests and trials.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::Mode;
use crate::limits::{Bytes, Inodes, QuotaLimits, Usage};
use crate::place::Place;
use crate::registration::{OpenDriver, Registration};
use crate::{Desired, Driver, DriverError, Guard, Marked, Observed, Present, Trashed};

/// Directories in memory, with blocks of 4096 bytes. Clones are the same system.
#[derive(Debug, Default, Clone)]
pub struct Memory {
    tree: Arc<Mutex<Tree>>,
}

#[derive(Debug, Default)]
struct Tree {
    places: BTreeMap<Place, Directory>,
    building: BTreeMap<Uuid, Directory>,
    trash: BTreeMap<Uuid, (u64, Directory)>,
    /// When the directories that a purge has claimed were put into the trash.
    claimed: BTreeMap<Uuid, u64>,
    record: Vec<u8>,
    /// Whether the record cannot be written.
    full: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Directory {
    mark: Option<Uuid>,
    present: Present,
}

impl Tree {
    /// Why the place is inside another resource's directory, if it is.
    fn above(&self, desired: &Desired) -> Option<String> {
        std::iter::successors(desired.place.parent(), Place::parent).find_map(|above| {
            let other = self.places.get(&above)?.mark.filter(|mark| *mark != desired.id)?;
            Some(crate::nested(&above.to_string(), other))
        })
    }

    /// Whether a marked directory is below a place.
    fn has_below(&self, place: &Place) -> bool {
        self.places.iter().any(|(below, it)| place.holds(below) && it.mark.is_some())
    }
}

const BLOCK: u64 = 4096;

/// The driver `memory`, for trials without storage.
pub const DRIVERS: &[Registration] = &[Registration {
    name: "memory",
    keys: &[],
    project_ids: false,
    local_root: false,
    configure: |_| Ok(OpenDriver::new(|_| Ok(Box::new(Memory::default())))),
}];

impl Memory {
    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates an unmarked directory at a place.
    pub fn put_unmarked(&self, place: &Place) {
        let directory = Directory { mark: None, present: bare() };
        self.tree().places.insert(place.clone(), directory);
    }

    /// Creates a directory with this mark and without limits at a place.
    pub fn put_marked(&self, place: &Place, mark: Uuid) {
        let directory = Directory { mark: Some(mark), present: bare() };
        self.tree().places.insert(place.clone(), directory);
    }

    /// Creates a directory of this resource in the trash.
    pub fn put_trashed(&self, mark: Uuid) {
        let directory = Directory { mark: Some(mark), present: bare() };
        self.tree().trash.insert(mark, (1, directory));
    }

    /// Sets the usage of a directory.
    pub fn fill(&self, place: &Place, usage: Usage) {
        if let Some(directory) = self.tree().places.get_mut(place) {
            directory.present.usage = Some(usage);
        }
    }

    /// Changes the mode of a directory, as a user could.
    pub fn disturb(&self, place: &Place, mode: Mode) {
        if let Some(directory) = self.tree().places.get_mut(place) {
            directory.present.mode = mode;
        }
    }

    /// Replaces the record, as a restored backup would; an empty one is a lost one.
    pub fn replace_record(&self, text: &[u8]) {
        self.tree().record = text.to_vec();
    }

    /// Lets appending to the record fail from now on, or no longer.
    pub fn fill_up(&self, full: bool) {
        self.tree().full = full;
    }

    /// Number of directories, including unfinished ones, and number of directories in the trash.
    pub fn count(&self) -> (usize, usize) {
        let tree = self.tree();
        (tree.places.len() + tree.building.len(), tree.trash.len())
    }
}

fn bare() -> Present {
    let usage = Some(Usage { space: Bytes(0), inodes: Inodes(1) });
    Present { uid: 0, gid: 0, mode: Mode(0o700), limits: None, project: None, usage, acl: None }
}

impl Driver for Memory {
    fn ready(&self) -> Result<(), DriverError> {
        Ok(())
    }

    fn stored_limits(&self, limits: QuotaLimits) -> QuotaLimits {
        limits.in_blocks_of(BLOCK)
    }

    fn is_free(&self, project: u32) -> Result<bool, DriverError> {
        let tree = self.tree();
        let trashed = tree.trash.values().map(|(_, directory)| directory);
        let mut all = tree.places.values().chain(tree.building.values()).chain(trashed);
        Ok(all.all(|it| it.present.project != Some(project)))
    }

    fn trash_project(&self, trashed: &Trashed) -> Result<Option<u32>, DriverError> {
        Ok(self.tree().trash.get(&trashed.id).and_then(|(_, it)| it.present.project))
    }

    fn read_record(&self) -> Result<Option<Vec<u8>>, DriverError> {
        Ok(Some(self.tree().record.clone()))
    }

    fn append_to_record(&self, text: &[u8]) -> Result<(), DriverError> {
        let mut tree = self.tree();
        if tree.full {
            return Err(DriverError::temporary("no space left"));
        }
        tree.record.extend_from_slice(text);
        Ok(())
    }

    fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>> {
        let tree = self.tree();
        let one = |desired: &&Desired| match (tree.places.get(&desired.place), tree.trash.get(&desired.id)) {
            (Some(it), _) if it.mark == Some(desired.id) => Observed::Ours(it.present.clone()),
            (Some(it), _) => match it.mark {
                Some(other) => Observed::Obstructed(format!("it is the directory of {other}")),
                None => Observed::Unmarked(it.present.clone()),
            },
            (None, Some((since, _))) => Observed::Trashed { since: *since },
            (None, None) => match tree.claimed.get(&desired.id) {
                Some(since) => Observed::Purging { since: *since },
                None => tree.above(desired).map_or(Observed::Absent, Observed::Obstructed),
            },
        };
        desired.iter().map(|desired| Ok(one(desired))).collect()
    }

    fn trash(&self) -> Result<Vec<Trashed>, DriverError> {
        Ok(self.tree().trash.iter().map(|(id, (since, _))| Trashed { id: *id, since: *since }).collect())
    }

    fn marked(&self, _: usize) -> Result<Vec<Marked>, DriverError> {
        let tree = self.tree();
        let marked = |(place, it): (&Place, &Directory)| Some(Marked { id: it.mark?, path: place.to_string() });
        let mut marked: Vec<_> = tree.places.iter().filter_map(marked).collect();
        marked.sort();
        Ok(marked)
    }

    fn trash_usage(&self, trashed: &[(Trashed, Option<u32>)]) -> Vec<Result<Option<Usage>, DriverError>> {
        let tree = self.tree();
        let one = |(trashed, _): &(Trashed, _)| Ok(tree.trash.get(&trashed.id).and_then(|(_, it)| it.present.usage));
        trashed.iter().map(one).collect()
    }

    fn claimed(&self) -> Result<Vec<Trashed>, DriverError> {
        Ok(self.tree().claimed.iter().map(|(id, since)| Trashed { id: *id, since: *since }).collect())
    }

    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let there = self.tree().places.get(&desired.place).cloned();
        match there {
            Some(it) if it.mark == Some(desired.id) => {
                if it.present.limits != Some(desired.limits) {
                    guard("limits")?;
                    self.tree()
                        .places
                        .entry(desired.place.clone())
                        .and_modify(|it| it.present.limits = Some(desired.limits));
                }
                guard("owner, mode")?;
                self.tree().places.entry(desired.place.clone()).and_modify(|it| {
                    (it.present.uid, it.present.gid, it.present.mode) = (desired.uid, desired.gid, desired.mode);
                    it.present.project = desired.project;
                });
                Ok(())
            }
            Some(_) => Err(DriverError::Conflict("the place is taken".into())),
            None => {
                if let Some(why) = self.tree().above(desired) {
                    return Err(DriverError::Conflict(why));
                }
                guard("create")?;
                self.tree().building.insert(desired.id, Directory { mark: None, present: bare() });
                guard("owner, project, limits, mode, mark")?;
                let present = Present {
                    uid: desired.uid,
                    gid: desired.gid,
                    mode: desired.mode,
                    limits: Some(desired.limits),
                    project: desired.project,
                    ..bare()
                };
                self.tree().building.insert(desired.id, Directory { mark: Some(desired.id), present });
                guard("rename")?;
                let mut tree = self.tree();
                if let Some(made) = tree.building.remove(&desired.id) {
                    tree.places.insert(desired.place.clone(), made);
                }
                Ok(())
            }
        }
    }

    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Result<(), DriverError> {
        let mark = self.tree().places.get(&desired.place).map(|it| it.mark);
        match mark {
            Some(mark) if mark == Some(desired.id) => {}
            Some(_) => return Err(DriverError::Conflict("the directory is not the resource's".into())),
            None => return Ok(()),
        }
        if self.tree().has_below(&desired.place) {
            return Err(DriverError::Conflict("a directory inside it is another resource's".into()));
        }
        guard("freeze")?;
        self.tree().places.entry(desired.place.clone()).and_modify(|it| {
            it.present.mode = Mode(0);
            it.present.limits = it.present.usage.map(|usage| QuotaLimits::frozen_at(usage, BLOCK));
        });
        guard("move into the trash")?;
        let mut tree = self.tree();
        if let Some(gone) = tree.places.remove(&desired.place) {
            tree.trash.insert(desired.id, (now, gone));
        }
        Ok(())
    }

    fn restore(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        guard("move out of the trash")?;
        let mut tree = self.tree();
        if !tree.trash.contains_key(&desired.id) && tree.claimed.contains_key(&desired.id) {
            return Err(crate::being_purged());
        }
        if tree.has_below(&desired.place) {
            return Err(DriverError::Conflict("something is at its place".into()));
        }
        if !tree.places.contains_key(&desired.place)
            && let Some((_, back)) = tree.trash.remove(&desired.id)
        {
            tree.places.insert(desired.place.clone(), back);
        }
        drop(tree);
        self.ensure(desired, guard)
    }

    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        guard("mark")?;
        match self.tree().places.get_mut(&desired.place) {
            Some(it) if it.mark.is_none() || it.mark == Some(desired.id) => {
                it.mark = Some(desired.id);
                Ok(())
            }
            Some(_) => Err(DriverError::Conflict("the directory is another resource's".into())),
            None => Err(DriverError::Conflict("there is no directory".into())),
        }
    }

    fn claim(&self, trashed: &Trashed, _: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        let mut tree = self.tree();
        if tree.trash.get(&trashed.id).is_some_and(|(since, _)| *since == trashed.since) {
            guard("claim for the purge")?;
            tree.trash.remove(&trashed.id);
            tree.claimed.insert(trashed.id, trashed.since);
        }
        Ok(())
    }

    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        self.claim(trashed, project, guard)?;
        guard("delete")?;
        self.tree().claimed.retain(|id, since| (*id, *since) != (trashed.id, trashed.since));
        Ok(())
    }
}
