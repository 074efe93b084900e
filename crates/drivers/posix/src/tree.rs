//! Directories on a mounted file system, with any kind of quotas.
//!
//! All work uses handles below the system's root that were opened without following a symlink or crossing a mount. A
//! directory is created under a hidden temporary name with mode 0700 and renamed when it is complete.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Gid, OFlags, Uid};
use rustix::io::Errno;

use crate::creation;
use crate::deletion::{EachFile, delete};
use crate::handle::{
    Mark, check_new, chmod, open_below, open_error, open_root, privilege_error, stat, sync, temporary_error,
};
use crate::quotas::Quotas;
use crate::record;
use crate::renaming::{Renamed, rename, rename_named};
use storage_driver::limits::{QuotaLimits, Usage};
use storage_driver::place::Place;
use storage_driver::walked::Walked;
use storage_driver::{Acl, Desired, Driver, DriverError, Guard, Marked, Observed, Present, Trashed};

pub mod acl;
mod nesting;
mod trash;
mod walk;

use acl::{AclEntries, attributes};

/// Settings of the system.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Whether the root must be on a different file system from `/`, so that an empty mount point is not mistaken for an empty
    /// system.
    pub must_be_mounted: bool,
    /// Whether owner and group are set. Otherwise the program needs no privileges, and its user owns all directories.
    pub change_owner: bool,
    /// ACL entries beyond the mode; `None`: ACLs are neither read nor set.
    pub acl: Option<AclEntries>,
}

/// Directories below a root, with quotas of type `Q`.
#[derive(Debug)]
pub struct Tree<Q> {
    root: PathBuf,
    quotas: Q,
    rules: Rules,
    mark: Mark,
    walked: Walked,
}

impl<Q: Quotas> Tree<Q> {
    /// The system with this root.
    pub fn new(root: PathBuf, quotas: Q, rules: Rules) -> Self {
        // Members of a directory's group could forge an attribute that they can write, so `user.` is only for unprivileged trials.
        let mark = Mark::new(if rules.change_owner { "trusted" } else { "user" });
        Self { root, quotas, rules, mark, walked: Walked::default() }
    }

    /// Counts the files that this tree walks over in a shared counter.
    #[must_use]
    pub fn with_counter(self, walked: &Walked) -> Self {
        Self { walked: walked.clone(), ..self }
    }

    fn root(&self) -> Result<OwnedFd, DriverError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let root = open_root(&format!("the root {}", self.root.display()), &self.root, flags)?;
        // Checked with each handle, because it can be unmounted during a pass.
        if self.rules.must_be_mounted {
            let top = fs::metadata("/").map_err(|error| DriverError::temporary_from("/ cannot be read", error))?;
            if stat(&root)?.st_dev == std::os::linux::fs::MetadataExt::st_dev(&top) {
                return Err(DriverError::temporary(format!(
                    "nothing is mounted at or above {}: mount the file system, or set `must_be_mounted: false` for this \
                     system",
                    self.root.display()
                )));
            }
        }
        Ok(root)
    }

    /// Observes one directory. Reads the trash only if the directory is not at its place, because that is slow if the trash is
    /// full.
    ///
    /// A directory in the trash takes precedence over another one at the place: it was removed, and can be restored as soon as
    /// the other one is moved away. Users cannot block a removal by creating something at the place.
    fn observe_one(
        &self,
        root: &OwnedFd,
        desired: &Desired,
        trash: &OnceCell<trash::Trash>,
    ) -> Result<Observed, DriverError> {
        let at_place = self.at_place(root, desired)?;
        if matches!(at_place, Observed::Ours(_)) {
            return Ok(at_place);
        }
        let trash = if let Some(trash) = trash.get() {
            trash
        } else {
            let read = trash::read(root)?;
            trash.get_or_init(|| read)
        };
        // Sorted by UUID and time: the newest entry of this resource is the last one that is not after it.
        let newest = |trees: &[Trashed]| {
            let after = trees.partition_point(|trashed| trashed.id <= desired.id);
            trees[..after].last().filter(|trashed| trashed.id == desired.id).map(|trashed| trashed.since)
        };
        Ok(match (newest(&trash.waiting), newest(&trash.claimed)) {
            (Some(since), _) => Observed::Trashed { since },
            (None, Some(since)) if at_place == Observed::Absent => Observed::Purging { since },
            _ => at_place,
        })
    }

    fn at_place(&self, root: &OwnedFd, desired: &Desired) -> Result<Observed, DriverError> {
        let directory = match open_below(root, &*desired.place.to_string()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(Observed::Absent),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Ok(Observed::Obstructed("a file or a symlink is at its place or above it".into()));
            }
            Err(Errno::XDEV) => {
                return Ok(Observed::Obstructed("another file system is mounted above its place".into()));
            }
            Err(error) => return Err(temporary_error(format!("{} cannot be opened", desired.place), error)),
        };
        match self.mark.read(&directory)? {
            Some(id) if id == desired.id => Ok(Observed::Ours(self.present(&directory, desired)?)),
            Some(other) => Ok(Observed::Obstructed(format!("the directory at its place has the mark of {other}"))),
            None => Ok(Observed::Unmarked(self.present(&directory, desired)?)),
        }
    }

    fn present(&self, directory: &OwnedFd, desired: &Desired) -> Result<Present, DriverError> {
        let stat = stat(directory)?;
        let project = self.quotas.project(directory.as_fd())?;
        let (limits, usage) = match project {
            // The limits of project 0 are not for this directory.
            Some(0) => (None, None),
            project => self.quotas.read(directory.as_fd(), project.unwrap_or_default())?,
        };
        let owner = if self.rules.change_owner { (stat.st_uid, stat.st_gid) } else { (desired.uid, desired.gid) };
        let mode = storage_driver::Mode(stat.st_mode & 0o7777);
        let acl = |named: &AclEntries| {
            let found = attributes::read(directory)?.to_string();
            Ok(Acl { found, desired: named.with(desired.mode).to_string() })
        };
        let acl = self.rules.acl.as_ref().map(acl).transpose()?;
        Ok(Present { uid: owner.0, gid: owner.1, mode, limits, project, usage, acl })
    }

    /// Creates the directory under a temporary name and renames it.
    fn make(&self, root: &OwnedFd, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        self.check_not_nested(root, desired)?;
        let parent = creation::open_or_create_parent(
            root,
            desired,
            (&open_child, &|above, path| self.check_renames_into(above, path)),
            guard,
        )?;
        let temporary = creation::temporary_name(desired.id);
        guard(&format!("create {temporary} beside {}", desired.place))?;
        let directory = creation::open_or_create_temporary(&parent, &temporary, &open_child)?;
        match self.mark.read(&directory)? {
            Some(id) if id == desired.id => {}
            Some(other) => return Err(DriverError::Conflict(format!("{temporary} has the mark of {other}"))),
            None => check_new(&directory, &temporary)?,
        }
        self.check_project_is_free(&directory, desired)?;
        guard(&format!("mark, {}", self.what_is_set()))?;
        self.mark.write(&directory, desired.id)?;
        self.set(&directory, desired, None)?;
        sync(&directory)?;
        guard(&format!("put {} in place", desired.place))?;
        rename(&directory, [&parent, &parent], [&temporary, desired.place.name()])?
            .or_conflict(desired.place.name())?;
        sync(&parent)
    }

    /// Checks that the project ID is still free. It was free when it was assigned, but another system or program can have used
    /// it since then.
    fn check_project_is_free(&self, directory: &OwnedFd, desired: &Desired) -> Result<(), DriverError> {
        let found = self.quotas.project(directory.as_fd())?;
        let Some(project) = project_of(desired, found)? else { return Ok(()) };
        if found == Some(project) || self.is_free(project)? {
            return Ok(());
        }
        Err(DriverError::Conflict(format!(
            "the project ID {project} of {} is in use by another tree: change the ID of that tree, or remove the line of {} from \
             the record to assign a new one",
            desired.place, desired.id
        )))
    }

    /// Counts a file of a walk over a tree, which can take hours: the guard is called again for each.
    fn one(&self, guard: Guard<'_>, what: &str) -> Result<(), DriverError> {
        self.walked.one();
        guard(what)
    }

    /// What [`Self::set`] sets, for messages.
    fn what_is_set(&self) -> &'static str {
        if self.rules.acl.is_some() {
            "owner, project ID, limits, ACLs, mode"
        } else {
            "owner, project ID, limits, mode"
        }
    }

    /// Sets what differs: owner, project ID, limits, and finally ACLs and mode, which give access. `within` is called for each
    /// file that the directory contains; `None` if it is new and empty.
    fn set(&self, directory: &OwnedFd, desired: &Desired, within: Option<EachFile<'_>>) -> Result<(), DriverError> {
        let present = self.present(directory, desired)?;
        if (present.uid, present.gid) != (desired.uid, desired.gid) {
            let (uid, gid) = (Uid::from_raw(desired.uid), Gid::from_raw(desired.gid));
            rustix::fs::fchown(directory, Some(uid), Some(gid)).map_err(|error| {
                privilege_error(format!("owner {}:{} cannot be set", desired.uid, desired.gid), error)
            })?;
        }
        let project = project_of(desired, present.project)?;
        if let Some(project) = project.filter(|_| project != present.project) {
            self.quotas.tag(directory.as_fd(), project, within)?;
        }
        if present.limits != Some(desired.limits) || project != present.project {
            self.quotas.set(directory.as_fd(), project.unwrap_or_default(), &desired.limits)?;
        }
        if let Some(named) = self.rules.acl.as_ref().filter(|_| present.acl.is_some_and(|acl| acl.found != acl.desired))
        {
            attributes::write(directory, &named.with(desired.mode))?;
        }
        // Always after owner and ACL, because changing them clears the set-group-ID bit.
        chmod(directory, desired.mode)
    }

    /// Checks that a directory in the trash has the mark of the resource in its name. The mark can be missing if a user swapped
    /// the directory and a crash prevented the repair.
    fn check_mark(&self, trashed: &Trashed, directory: &OwnedFd) -> Result<(), DriverError> {
        let whose = match self.mark.read(directory)? {
            Some(id) if id == trashed.id => return Ok(()),
            Some(other) => format!("has the mark of {other}"),
            None => "has no mark".into(),
        };
        Err(DriverError::Conflict(format!(
            "{} in the trash {whose}: check its content and move it to its owner's directory",
            trash::name(trashed)
        )))
    }

    /// Checks that directories with other project IDs can be renamed into this one. Otherwise every rename fails with EXDEV.
    fn check_renames_into(&self, directory: &OwnedFd, path: &str) -> Result<(), DriverError> {
        let Some(project) = self.quotas.inherited_project(directory.as_fd())? else { return Ok(()) };
        // Removes `.` or `/` at the end.
        let path: PathBuf = self.root.join(path).components().collect();
        let path = path.display();
        Err(DriverError::temporary(format!(
            "new files in {path} inherit the project ID {project}, so directories with other IDs cannot be renamed into it: run \
             `chattr -P -p 0 {path}`"
        )))
    }

    /// Checks that directories can be renamed out of and into this one, which has this path below the root.
    fn check_no_realm(&self, directory: &OwnedFd, path: &str) -> Result<(), DriverError> {
        if !self.quotas.is_quota_realm(directory.as_fd())? {
            return Ok(());
        }
        let path = self.root.join(path);
        let path = path.display();
        Err(DriverError::temporary(format!(
            "{path} has a quota of its own. No directory can be renamed out of it or into it, so no directory below it can be \
             moved into the trash or restored: remove that quota (`setfattr -n ceph.quota.max_bytes -v 0 {path}`, and the same for \
             ceph.quota.max_files)"
        )))
    }

    /// Checks that the directory can be moved into the trash and deleted later, before anything is changed.
    fn check_can_be_moved(&self, root: &OwnedFd, directory: &OwnedFd, place: &Place) -> Result<(), DriverError> {
        self.check_no_snapshots(directory, &place.to_string())?;
        let mut above = place.parent();
        while let Some(place) = above {
            let path = place.to_string();
            let directory = open_below(root, &*path).map_err(|error| open_error(&path, error))?;
            self.check_no_realm(&directory, &path)?;
            above = place.parent();
        }
        Ok(())
    }

    fn check_no_snapshots(&self, directory: &OwnedFd, path: &str) -> Result<(), DriverError> {
        match self.quotas.snapshots(directory.as_fd())? {
            0 => Ok(()),
            count => Err(DriverError::temporary(format!(
                "{path} has snapshots ({count}), and a directory with snapshots cannot be deleted: delete them first (`rmdir \
                 DIRECTORY/.snap/NAME`, also in the directories below)"
            ))),
        }
    }

    /// Adds why this file system can refuse a rename to another parent, if the error is EXDEV.
    pub(super) fn explain_rename_error(&self, fault: DriverError) -> DriverError {
        match (fault, self.quotas.why_renames_fail()) {
            (DriverError::Temporary { what, source: Some(source) }, Some(why)) if crosses_devices(&*source) => {
                DriverError::Temporary { what: format!("{what}: {why}"), source: Some(source) }
            }
            (fault, _) => fault,
        }
    }

    /// Checks that directories can be renamed into this one and out of it; returns its metadata server.
    fn inspect_one(&self, root: &OwnedFd, path: &str) -> Result<Option<u32>, DriverError> {
        let directory = match open_below(root, path) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(open_error(path, error)),
        };
        // A quota of the root applies to everything below it.
        if path != "." {
            self.check_no_realm(&directory, path)?;
        }
        self.check_renames_into(&directory, path)?;
        self.quotas.metadata_server(directory.as_fd(), &self.root.join(path))
    }

    /// Opens the parent directory, and checks that directories can be renamed into it.
    fn open_parent(&self, root: &OwnedFd, desired: &Desired) -> Result<OwnedFd, DriverError> {
        let path = desired.place.parent().map_or_else(|| ".".to_owned(), |above| above.to_string());
        let above = open_below(root, &*path).map_err(|error| open_error(&path, error))?;
        self.check_renames_into(&above, &path)?;
        Ok(above)
    }

    /// Opens or creates the trash, and checks that directories can be renamed into it.
    fn open_trash(&self, root: &OwnedFd) -> Result<OwnedFd, DriverError> {
        let (trash, made) = trash::open(root)?;
        if made && self.quotas.inherited_project(trash.as_fd())?.is_some() {
            self.quotas.untag(trash.as_fd())?;
        }
        self.check_renames_into(&trash, trash::TRASH)?;
        self.check_no_realm(&trash, trash::TRASH)?;
        Ok(trash)
    }

    /// Returns a conflict if the place is inside another resource's directory.
    fn check_not_nested(&self, root: &OwnedFd, desired: &Desired) -> Result<(), DriverError> {
        let nested = nesting::above(root, &self.mark, (&desired.place, desired.id), &nesting::Above::default())?;
        nested.map_or(Ok(()), |why| Err(DriverError::Conflict(format!("{}: {why}", desired.place))))
    }

    /// Opens the directory at the place if it has the mark of this resource.
    fn open_marked(&self, root: &OwnedFd, desired: &Desired) -> Result<OwnedFd, DriverError> {
        let directory = open_below(root, &*desired.place.to_string())
            .map_err(|error| open_error(&desired.place.to_string(), error))?;
        match self.mark.read(&directory)? {
            Some(id) if id == desired.id => Ok(directory),
            Some(other) => {
                Err(DriverError::Conflict(format!("the directory {} has the mark of {other}", desired.place)))
            }
            None => Err(DriverError::Conflict(format!("the directory {} has no mark", desired.place))),
        }
    }
}

impl<Q: Quotas> Driver for Tree<Q> {
    fn ready(&self) -> Result<(), DriverError> {
        let root = self.root()?;
        if self.rules.change_owner {
            check_marks_are_visible()?;
        }
        if self.rules.acl.is_some() {
            attributes::read(&root)?;
        }
        self.quotas.ready(root.as_fd())?;
        self.check_renames_into(&root, "")
    }

    fn stored_limits(&self, limits: QuotaLimits) -> QuotaLimits {
        self.quotas.stored_limits(&limits)
    }

    fn is_free(&self, project: u32) -> Result<bool, DriverError> {
        let root = self.root()?;
        if self.quotas.project(root.as_fd())?.is_none() {
            return Ok(true);
        }
        let (limits, usage) = self.quotas.read(root.as_fd(), project)?;
        if usage.is_some_and(|usage| (usage.space.0, usage.inodes.0) != (0, 0)) {
            return Ok(false);
        }
        limits.map_or(Ok(true), |limits| self.quotas.are_default(root.as_fd(), &limits))
    }

    fn trash_project(&self, trashed: &Trashed) -> Result<Option<u32>, DriverError> {
        let name = format!("{}/{}", trash::TRASH, trash::name(trashed));
        let directory = open_below(self.root()?, &*name).map_err(|error| open_error(&name, error))?;
        self.check_mark(trashed, &directory)?;
        Ok(self.quotas.project(directory.as_fd())?.filter(|project| *project != 0))
    }

    fn read_record(&self) -> Result<Option<Vec<u8>>, DriverError> {
        record::read(self.root()?.as_fd()).map(Some)
    }

    fn append_to_record(&self, text: &[u8]) -> Result<(), DriverError> {
        record::append(self.root()?.as_fd(), text)
    }

    fn inspect(&self, above: &[Place]) -> Vec<Result<String, DriverError>> {
        let root = match self.root() {
            Ok(root) => root,
            Err(fault) => return vec![Err(fault)],
        };
        let mut found = self.quotas.inspect(root.as_fd());
        found.extend(record::exposed(root.as_fd()).map(Ok));
        let above = above.iter().map(Place::to_string);
        let mut servers = BTreeSet::new();
        for path in [".", trash::TRASH].map(str::to_owned).into_iter().chain(above) {
            match self.inspect_one(&root, &path) {
                Ok(server) => servers.extend(server),
                Err(fault) => found.push(Err(fault)),
            }
        }
        if servers.len() > 1 {
            let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
            found.push(Ok(format!(
                "the directories are on several metadata servers (MDT {}): {}",
                servers.join(", "),
                self.quotas.why_renames_fail().unwrap_or_default()
            )));
        }
        found
    }

    fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>> {
        match self.root() {
            Ok(root) => {
                let (trash, above) = (OnceCell::new(), nesting::Above::default());
                let one = |desired: &&Desired| {
                    let observed = self.observe_one(&root, desired, &trash)?;
                    if !matches!(observed, Observed::Absent | Observed::Unmarked(_)) {
                        return Ok(observed);
                    }
                    let nested = nesting::above(&root, &self.mark, (&desired.place, desired.id), &above)?;
                    Ok(nested.map_or(observed, Observed::Obstructed))
                };
                desired.iter().map(one).collect()
            }
            Err(fault) => storage_driver::same_for_all(&fault, desired.len()),
        }
    }

    fn trash(&self) -> Result<Vec<Trashed>, DriverError> {
        trash::list(&self.root()?)
    }

    fn claimed(&self) -> Result<Vec<Trashed>, DriverError> {
        trash::read(&self.root()?).map(|trash| trash.claimed)
    }

    fn marked(&self, levels: usize) -> Result<Vec<Marked>, DriverError> {
        nesting::marked(&self.root()?, &self.mark, levels, &self.walked)
    }

    fn trash_usage(&self, trashed: &[(Trashed, Option<u32>)]) -> Vec<Result<Option<Usage>, DriverError>> {
        let one = |(trashed, project): &(Trashed, Option<u32>)| {
            let name = format!("{}/{}", trash::TRASH, trash::name(trashed));
            let directory = match open_below(self.root()?, &*name) {
                Ok(directory) => directory,
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(open_error(&name, error)),
            };
            // Not the ID of the files: their owner can change it.
            let has_project_ids = self.quotas.project(directory.as_fd())?.is_some();
            let project = if has_project_ids { *project } else { Some(0) };
            let read = project.map(|project| self.quotas.read(directory.as_fd(), project)).transpose()?;
            match read.and_then(|(_, usage)| usage) {
                Some(usage) => Ok(Some(usage)),
                None => walk::usage(directory.as_fd(), &self.walked).map(Some),
            }
        };
        trashed.iter().map(one).collect()
    }

    fn changed(&self, trashed: &Trashed) -> Result<Option<u64>, DriverError> {
        trash::changed(&self.root()?, trashed).map(Some)
    }

    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let root = self.root()?;
        if let Err(Errno::NOENT) = open_below(&root, &*desired.place.to_string()) {
            self.make(&root, desired, guard)
        } else {
            let directory = self.open_marked(&root, desired)?;
            let what = format!("{} of {}", self.what_is_set(), desired.place);
            guard(&what)?;
            self.set(&directory, desired, Some(&|| self.one(guard, &what)))?;
            sync(&directory)
        }
    }

    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Result<(), DriverError> {
        let root = self.root()?;
        if let Err(Errno::NOENT) = open_below(&root, &*desired.place.to_string()) {
            return Ok(());
        }
        let directory = self.open_marked(&root, desired)?;
        // A directory that cannot be moved must not be frozen.
        nesting::below(&directory, &self.mark, (&desired.place.to_string(), desired.id))?;
        self.check_can_be_moved(&root, &directory, &desired.place)?;
        guard(&format!("freeze {}", desired.place))?;
        let (parent, trash) = (self.open_parent(&root, desired)?, self.open_trash(&root)?);
        if self.rules.change_owner {
            // The owner is changed before the mode, because an owner who has the directory open could set any mode.
            rustix::fs::fchown(&directory, Some(rustix::process::geteuid()), None)
                .map_err(|error| privilege_error(format!("the owner of {} cannot be changed", desired.place), error))?;
        }
        // Nobody has access, except that an unprivileged program keeps its own.
        chmod(&directory, storage_driver::Mode(if self.rules.change_owner { 0 } else { 0o700 }))?;
        let present = self.present(&directory, desired)?;
        // The owner can have set the ID of another project, whose limits must not change.
        if let Some(usage) = present.usage.filter(|_| present.project.is_none() || present.project == desired.project) {
            let frozen = QuotaLimits::frozen_at(usage, self.quotas.block());
            self.quotas.set(directory.as_fd(), present.project.unwrap_or_default(), &frozen)?;
        }
        guard(&format!("move {} into the trash", desired.place))?;
        let name = trash::name(&Trashed { id: desired.id, since: now });
        let renamed = rename(&directory, [&parent, &trash], [desired.place.name(), &name]);
        match renamed.map_err(|fault| self.explain_rename_error(fault))? {
            Renamed::Swapped => return Err(undo_swap(&trash, &name, &parent, desired)),
            renamed => renamed.or_conflict(&name)?,
        }
        sync(&trash)?;
        sync(&parent)
    }

    fn restore(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let root = self.root()?;
        let trash::Trash { waiting, claimed } = trash::read(&root)?;
        let newest = waiting.into_iter().rfind(|trashed| trashed.id == desired.id);
        let free = matches!(open_below(&root, &*desired.place.to_string()), Err(Errno::NOENT));
        if free && newest.is_none() && claimed.iter().any(|trashed| trashed.id == desired.id) {
            return Err(storage_driver::being_purged());
        }
        if newest.is_some() && !free {
            self.open_marked(&root, desired).map_err(|fault| match fault {
                DriverError::Conflict(what) => DriverError::Conflict(format!(
                    "{what}: move what is at {} away, so that the directory can be restored",
                    desired.place
                )),
                fault => fault,
            })?;
        }
        if let Some(trashed) = newest.filter(|_| free) {
            self.check_not_nested(&root, desired)?;
            let check = |above: &OwnedFd, path: &str| {
                self.check_renames_into(above, path).and_then(|()| self.check_no_realm(above, path))
            };
            let parent = creation::open_or_create_parent(&root, desired, (&open_child, &check), guard)?;
            let ((trash, _), name) = (trash::open(&root)?, trash::name(&trashed));
            let directory = open_below(&trash, &*name).map_err(|error| open_error(&name, error))?;
            self.check_mark(&trashed, &directory)?;
            guard(&format!("move {} back from the trash", desired.place))?;
            let place = desired.place.name();
            let renamed = rename(&directory, [&trash, &parent], [&name, place]);
            renamed.map_err(|fault| self.explain_rename_error(fault))?.or_conflict(place)?;
            sync(&parent)?;
            sync(&trash)?;
        }
        self.ensure(desired, guard)
    }

    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let root = self.root()?;
        let directory = open_below(&root, &*desired.place.to_string())
            .map_err(|error| open_error(&desired.place.to_string(), error))?;
        match self.mark.read(&directory)? {
            Some(id) if id == desired.id => return Ok(()),
            Some(other) => {
                return Err(DriverError::Conflict(format!("{} has the mark of {other}", desired.place)));
            }
            None => {
                self.check_not_nested(&root, desired)?;
                guard(&format!("mark {} with {}", desired.place, desired.id))?;
            }
        }
        self.mark.write(&directory, desired.id)?;
        sync(&directory)
    }

    fn claim(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        let root = self.root()?;
        let (name, claimed) = (trash::name(trashed), trash::claimed_name(trashed));
        let (trash, _) = trash::open(&root)?;
        let directory = match open_below(&trash, &*name) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(open_error(&name, error)),
        };
        self.check_mark(trashed, &directory)?;
        nesting::below(&directory, &self.mark, (&name, trashed.id))?;
        self.check_no_snapshots(&directory, &format!("{}/{name}", trash::TRASH))?;
        // Before the tree is deleted, because afterwards the limits could not be found.
        if let Some(project) = project {
            guard(&format!("remove the limits of project {project}"))?;
            self.quotas.clear(root.as_fd(), project)?;
        }
        guard(&format!("rename {name} in the trash to {claimed}"))?;
        rename(&directory, [&trash, &trash], [&name, &claimed])?.or_conflict(&claimed)?;
        sync(&trash)
    }

    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        self.claim(trashed, project, guard)?;
        let name = trash::claimed_name(trashed);
        let (trash, _) = trash::open(&self.root()?)?;
        let directory = match open_below(&trash, &*name) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(open_error(&name, error)),
        };
        self.check_mark(trashed, &directory)?;
        let what = format!("delete {name} in the trash");
        guard(&what)?;
        let top_project = self.quotas.project(directory.as_fd())?.filter(|project| *project != 0);
        let same_project = |directory: BorrowedFd<'_>| {
            top_project.map_or(Ok(()), |top_project| self.quotas.tag(directory, top_project, None))
        };
        let ours = |directory: BorrowedFd<'_>| match self.mark.read(directory)? {
            Some(other) if other != trashed.id => Err(DriverError::Conflict(format!(
                "a directory inside {name} in the trash has the mark of another resource, {other}: move it out of there"
            ))),
            _ => Ok(()),
        };
        delete(&trash, &name, (&same_project, &ours), &|| self.one(guard, &what))
    }

    fn usage(&self, desired: &[&Desired]) -> Vec<Result<Option<Usage>, DriverError>> {
        let one = |desired: &&Desired| {
            let root = self.root()?;
            let directory = match open_below(&root, &*desired.place.to_string()) {
                Err(Errno::NOENT) => return Ok(None),
                _ => self.open_marked(&root, desired)?,
            };
            let present = self.present(&directory, desired)?;
            if let Some(project) = present.project.filter(|_| present.project != desired.project) {
                let own = desired.project.map(|own| format!(", {own}")).unwrap_or_default();
                return Err(DriverError::temporary(format!(
                    "{} has the project ID {project} instead of its own{own}, so its usage is unknown",
                    desired.place
                )));
            }
            match present.usage {
                Some(usage) => Ok(Some(usage)),
                None => walk::usage(directory.as_fd(), &self.walked).map(Some),
            }
        };
        desired.iter().map(one).collect()
    }
}

/// The desired project ID; `None` on file systems without project IDs. `found` is the observed one.
fn project_of(desired: &Desired, found: Option<u32>) -> Result<Option<u32>, DriverError> {
    if found.is_some() && desired.project.is_none() {
        return Err(DriverError::temporary(format!("{} has no project ID assigned", desired.place)));
    }
    Ok(desired.project.filter(|_| found.is_some()))
}

/// Repairs a rename into the trash that moved another directory, because a user had swapped it just before: moves it back
/// to the place, or else gives it a name in the trash without a resource, so that it is neither deleted nor restored as one.
/// Returns the conflict.
fn undo_swap(trash: &OwnedFd, name: &str, parent: &OwnedFd, desired: &Desired) -> DriverError {
    let swapped = format!("{} was swapped with another directory while it was being removed", desired.place);
    if rename_named([trash, parent], [name, desired.place.name()]).is_ok_and(|done| done) {
        return DriverError::Conflict(swapped);
    }
    let unowned_name = trash::unowned_name(name);
    match rename_named([trash, trash], [name, &unowned_name]) {
        Ok(true) => DriverError::Conflict(format!(
            "{swapped}, and the other directory cannot be moved back: it is in the trash as {unowned_name}; check its content and \
             move it to where it belongs"
        )),
        Ok(false) => {
            DriverError::Conflict(format!("{swapped}, and {unowned_name} already exists in the trash: check both"))
        }
        Err(fault) => fault,
    }
}

/// Whether a rename failed with EXDEV.
fn crosses_devices(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::CrossesDevices)
}

fn open_child(above: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    open_below(above, name)
}

/// Checks that this process can see attributes in `trusted.`. Without CAP_SYS_ADMIN outside of user namespaces, they seem not to
/// exist.
fn check_marks_are_visible() -> Result<(), DriverError> {
    use rustix::thread::{CapabilitySet, capabilities};
    let lacks = if !capabilities(None).is_ok_and(|held| held.effective.contains(CapabilitySet::SYS_ADMIN)) {
        "without CAP_SYS_ADMIN"
    } else if fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !maps_every_id(&map)) {
        "in a user namespace"
    } else {
        return Ok(());
    };
    Err(DriverError::temporary(format!(
        "{lacks}, marks of directories can be neither read nor set: run as root, or set `change_owner: false` for a trial"
    )))
}

/// Whether this is the `uid_map` of a process outside of user namespaces: every ID is mapped to itself.
fn maps_every_id(uid_map: &str) -> bool {
    uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests;
