//! A driver for IBM Storage Scale. It uses the management interface (REST v2) and one fileset for each resource.
//!
//! Written from the documentation of release 5.2.3. **Never tested with a real Storage Scale**: it has only been run against
//! the simulator of the tests.
//!
//! A fileset's comment holds the UUID of its resource and, in the trash, the time when it was put there. A new fileset is created
//! unlinked, given its quota, and linked at its place. Owner and mode are set last, through the mounted file system: the
//! interface returns modes only by one job for each directory, which is too slow for thousands. Usage is as old as the
//! management server's cache. An existing directory that is not a fileset cannot be converted into one, so it blocks its
//! place.
//!
//! The setting `removal` ([`Removal`]) determines how a fileset is put into the trash. Unlinking has a side effect: IBM Storage
//! Protect treats the files of an unlinked fileset as deleted, and their backups expire. By default the fileset is
//! frozen in place (owned by the provisioner's user, mode 0, limits at the current usage), marked in its comment and renamed
//! to `trash-NAME`. It stays linked, so its path is not available until it is purged. Alternatively it is frozen and
//! unlinked, but never by force: open files are a temporary error. `purge` unlinks filesets that are still linked, and
//! deletes them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use driver_posix::mount::{self, Found, Mount};
use driver_posix::record;
use driver_rest::{Api, Backoff, InvalidSettings, absolute_root, is_below};
use storage_driver::limits::{QuotaLimits, Usage};
use storage_driver::place::Place;
use storage_driver::registration::{OpenDriver, Registration};
use storage_driver::{Desired, Driver, DriverError, Guard, Marked, Observed, Present, Trashed};

mod calls;
#[cfg(any(test, feature = "simulated"))]
#[expect(clippy::missing_panics_doc, clippy::unwrap_used, reason = "for tests")]
pub mod simulated;
#[cfg(test)]
mod tests;
mod wire;

use calls::Management;
use wire::{Fileset, Mark, Quota};

pub const DRIVERS: &[Registration] = &[Registration {
    name: "scale",
    keys: &["scale"],
    project_ids: false,
    local_root: false,
    configure: |settings| {
        let settings: Settings = settings.mapping("scale")?;
        Ok(OpenDriver::new(move |_| {
            let scale = Scale::new(&settings);
            Ok(Box::new(
                scale.map_err(|error| DriverError::temporary_from("invalid settings of Storage Scale", error))?,
            ))
        }))
    },
}];

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The management server (GUI).
    pub api: Api,
    /// A user with the role StorageAdmin or Administrator.
    pub user: String,
    pub password: SecretString,
    /// Name of the file system as in `mmlsfs`.
    pub filesystem: String,
    /// The absolute path of the system's root on Storage Scale: the mount point of the file system, or a directory below it.
    pub root: String,
    /// The path of that root on this machine. It must be on a mounted Storage Scale file system.
    pub mount: PathBuf,
    /// The file system's block size in bytes, to which it rounds quotas of space. Checked before each pass.
    pub block_size: u64,
    /// `new` for filesets with their own inode space (independent), or the name of the fileset whose inode space they share,
    /// such as `root` (dependent).
    #[serde(default = "inode_space")]
    pub inode_space: String,
    /// What happens to the fileset of a removed resource until `purge` deletes it.
    #[serde(default)]
    pub removal: Removal,
}

/// How a fileset goes into the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Removal {
    /// It is frozen and renamed, and stays linked: backups by path continue. Its path is not available until it is purged.
    #[default]
    Freeze,
    /// It is frozen and unlinked: its path is available immediately, and IBM Storage Protect expires its backups.
    Unlink,
}

/// Quotas by the names of their filesets. If a quota cannot be parsed: the reason.
type Quotas = BTreeMap<String, Result<Quota, String>>;

const NOT_A_DIRECTORY: &str = "the path or one of its parents is not a directory";

fn inode_space() -> String {
    "new".into()
}

#[derive(Debug)]
pub struct Scale {
    management: Management,
    mount: Mount,
    root: String,
    block_size: u64,
    independent: bool,
    removal: Removal,
    filesystem: String,
}

impl Scale {
    /// Validates the settings without connecting.
    pub fn new(settings: &Settings) -> Result<Self, InvalidSettings> {
        Self::with(settings, Backoff::from_settings(&settings.api), mount::GPFS)
    }

    fn with(settings: &Settings, backoff: Backoff, file_system_type: i64) -> Result<Self, InvalidSettings> {
        if settings.block_size == 0 || !settings.block_size.is_multiple_of(1024) {
            return Err(InvalidSettings::Setting("`block_size` must be a multiple of 1024 bytes".into()));
        }
        Ok(Self {
            management: Management::new(settings, backoff)?,
            mount: Mount::new(&settings.mount, file_system_type),
            root: absolute_root(&settings.root)?,
            block_size: settings.block_size,
            independent: settings.inode_space == "new",
            removal: settings.removal,
            filesystem: settings.filesystem.clone(),
        })
    }

    fn junction(&self, place: &Place) -> String {
        format!("{}/{place}", self.root)
    }

    fn survey(&self) -> Result<Survey, DriverError> {
        Ok(Survey { filesets: self.management.filesets()?, quotas: self.management.quotas()? })
    }

    /// Why the place of a fileset with this mark cannot be used.
    fn why_occupied(&self, occupant: &Fileset, mark: Mark) -> String {
        let (name, id) = (occupant.name(), mark.id);
        match mark.retired {
            None => format!("the fileset {name} at this path belongs to resource {id}"),
            Some(_) => format!(
                "the fileset {name} at this path belongs to resource {id}, which was removed. It stays linked so that its \
                 backups do not expire: purge it, or unlink it (`mmunlinkfileset {} {name}`)",
                self.filesystem
            ),
        }
    }

    fn observe_one(&self, survey: &Survey, root: BorrowedFd<'_>, desired: &Desired) -> Result<Observed, DriverError> {
        let junction = self.junction(&desired.place);
        if let Some((fileset, mark)) = survey.marked_fileset(desired)? {
            if let Some(since) = trashed_since(fileset, mark) {
                return Ok(if mark.claimed { Observed::Purging { since } } else { Observed::Trashed { since } });
            }
            match fileset.junction() {
                Some(at) if at == junction => {
                    return self.present(survey, root, fileset, &desired.place).map(Observed::Ours);
                }
                Some(at) => {
                    return Ok(Observed::Obstructed(format!("its fileset {} is linked at {at}", fileset.name())));
                }
                // Creation is incomplete: `ensure` continues it.
                None if survey.fileset_at(&junction).is_none() => {
                    return match mount::find(root, &desired.place.to_string())? {
                        Found::Directory { .. } => Err(self.directory_at_place(fileset.name(), &desired.place)),
                        Found::Nothing => Ok(Observed::Absent),
                        Found::Other => Ok(Observed::Obstructed(NOT_A_DIRECTORY.into())),
                    };
                }
                None => {}
            }
        }
        match survey.fileset_at(&junction) {
            Some(other) => match other.mark() {
                Some(mark) => Ok(Observed::Obstructed(self.why_occupied(other, mark))),
                None => self.present(survey, root, other, &desired.place).map(Observed::Unmarked),
            },
            None => match mount::find(root, &desired.place.to_string())? {
                Found::Nothing => {
                    Ok(survey.why_nested(&junction, desired).map_or(Observed::Absent, Observed::Obstructed))
                }
                Found::Directory { .. } => {
                    Ok(Observed::Obstructed("the directory at this path is not a fileset".into()))
                }
                Found::Other => Ok(Observed::Obstructed(NOT_A_DIRECTORY.into())),
            },
        }
    }

    fn present(
        &self,
        survey: &Survey,
        root: BorrowedFd<'_>,
        fileset: &Fileset,
        place: &Place,
    ) -> Result<Present, DriverError> {
        let Found::Directory { uid, gid, mode } = mount::find(root, &place.to_string())? else {
            return Err(DriverError::temporary(format!(
                "the fileset {} is linked at {}, but {place} does not exist below `mount`: check that `mount` is `root`",
                fileset.name(),
                self.junction(place)
            )));
        };
        let quota = survey.quota(fileset.name())?;
        let (limits, usage) = (quota.and_then(Quota::limits), quota.map(Quota::usage));
        Ok(Present { uid, gid, mode, limits, project: None, usage, acl: None })
    }

    /// The resource's fileset: in the trash, at its place, or not linked yet.
    fn own_fileset<'a>(
        &self,
        survey: &'a Survey,
        desired: &Desired,
    ) -> Result<Option<(&'a Fileset, Mark)>, DriverError> {
        let junction = self.junction(&desired.place);
        match (survey.marked_fileset(desired)?, survey.fileset_at(&junction)) {
            (Some((fileset, _)), _) if fileset.junction().is_some_and(|at| at != junction) => {
                Err(DriverError::Conflict(format!("its fileset {} is linked at another path", fileset.name())))
            }
            (Some((fileset, mark)), _) if mark.retired.is_some() && fileset.junction().is_none() => {
                Ok(Some((fileset, mark)))
            }
            (Some((fileset, mark)), None) => Ok(Some((fileset, mark))),
            (Some((fileset, mark)), Some(occupant)) if fileset.name() == occupant.name() => Ok(Some((fileset, mark))),
            (_, Some(occupant)) => Err(DriverError::Conflict(match occupant.mark() {
                Some(mark) => self.why_occupied(occupant, mark),
                None => format!("the fileset {} at {junction} does not belong to this resource", occupant.name()),
            })),
            (None, None) => Ok(None),
        }
    }

    /// Takes an existing fileset out of the trash and raises its maximum number of inodes, as needed. Returns its new name.
    fn prepare(
        &self,
        fileset: &Fileset,
        mark: Mark,
        desired: &Desired,
        guard: Guard<'_>,
    ) -> Result<String, DriverError> {
        let mut name = fileset.name().to_owned();
        if mark.retired.is_some() {
            guard(&format!("mark the fileset {name} as in use"))?;
            self.management.mark(&name, Mark::in_use(desired.id), &fileset.name_in_use())?;
            name = fileset.name_in_use();
        }
        let inodes = desired.limits.inodes_hard();
        if self.independent && fileset.max_inodes().is_some_and(|max| max < inodes) {
            guard(&format!("raise the maximum of the fileset {name} to {} inodes", inodes.0))?;
            self.management.raise_max_inodes(&name, inodes)?;
        }
        Ok(name)
    }

    /// Creates the fileset, or brings the existing one to the desired state. Conflict if it is in the trash, unless
    /// `restore` is set.
    fn reconcile(&self, desired: &Desired, restore: bool, guard: Guard<'_>) -> Result<(), DriverError> {
        let root = self.mount.root()?;
        let survey = self.survey()?;
        let found = self.own_fileset(&survey, desired)?;
        if found.is_none_or(|(fileset, _)| fileset.junction().is_none()) {
            self.check_not_nested(&survey, desired)?;
        }
        let (name, current, linked) = if let Some((fileset, mark)) = found {
            if mark.claimed {
                return Err(storage_driver::being_purged());
            }
            if !restore && trashed_since(fileset, mark).is_some() {
                return Err(DriverError::Conflict(format!(
                    "the fileset {} is in the trash; restore it",
                    fileset.name()
                )));
            }
            let current = survey.quota(fileset.name())?.and_then(Quota::limits);
            (self.prepare(fileset, mark, desired, guard)?, current, fileset.junction().is_some())
        } else {
            let name = Fileset::name_for(desired.id);
            if mount::find(root.as_fd(), &desired.place.to_string())? != Found::Nothing {
                return Err(DriverError::Conflict(format!("what is at {} is not a fileset", desired.place)));
            }
            guard(&format!("create the fileset {name}"))?;
            self.management.create(&name, desired)?;
            (name, None, false)
        };
        self.set_limits(&name, current, desired.limits, guard)?;
        if !linked {
            self.link(root.as_fd(), &name, desired, guard)?;
        }
        mount::set_owner_and_mode(root.as_fd(), desired, guard)
    }

    fn check_not_nested(&self, survey: &Survey, desired: &Desired) -> Result<(), DriverError> {
        let nested = survey.why_nested(&self.junction(&desired.place), desired);
        nested.map_or(Ok(()), |why| Err(DriverError::Conflict(why)))
    }

    /// The error for a directory at the place of an unlinked fileset of ours. Either a user created the directory, or the
    /// fileset is linked and the server does not show that yet.
    fn directory_at_place(&self, name: &str, place: &Place) -> DriverError {
        self.management.request_refresh(calls::FILESETS);
        DriverError::temporary(format!(
            "{place} is a directory, but the fileset {name} is shown as unlinked: either that is out of date, or a user created the directory \
             and has to move it away"
        ))
    }

    fn list_trash(&self, claimed: bool) -> Result<Vec<Trashed>, DriverError> {
        let filesets = self.management.filesets()?;
        let trashed = |fileset: &Fileset| {
            let mark = fileset.mark().filter(|mark| mark.claimed == claimed)?;
            Some(Trashed { id: mark.id, since: trashed_since(fileset, mark)? })
        };
        Ok(filesets.iter().filter_map(trashed).collect())
    }

    fn set_limits(
        &self,
        name: &str,
        current: Option<QuotaLimits>,
        limits: QuotaLimits,
        guard: Guard<'_>,
    ) -> Result<(), DriverError> {
        if current == Some(limits) {
            return Ok(());
        }
        guard(&format!("set the limits of the fileset {name} to {limits}"))?;
        self.management.set_limits(name, limits)
    }

    /// Links the fileset at its place, where nothing may exist.
    fn link(&self, root: BorrowedFd<'_>, name: &str, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        match mount::find(root, &desired.place.to_string())? {
            Found::Nothing => {}
            Found::Directory { .. } => return Err(self.directory_at_place(name, &desired.place)),
            Found::Other => return Err(DriverError::Conflict(format!("{}: {NOT_A_DIRECTORY}", desired.place))),
        }
        mount::make_parents(root, desired, guard)?;
        let junction = self.junction(&desired.place);
        guard(&format!("link the fileset {name} at {junction}"))?;
        self.management.link(name, &junction)
    }
}

/// When a fileset was put into the trash, with either kind of removal. A marked fileset that is linked and not yet renamed is
/// not in the trash.
fn trashed_since(fileset: &Fileset, mark: Mark) -> Option<u64> {
    mark.retired.filter(|_| fileset.junction().is_none() || fileset.name() == fileset.name_in_trash())
}

/// The filesets that are in the trash with this mark.
fn trashed_filesets(filesets: &[Fileset], mark: Mark) -> impl Iterator<Item = &Fileset> {
    let matches = move |fileset: &&Fileset| fileset.mark() == Some(mark) && trashed_since(fileset, mark).is_some();
    filesets.iter().filter(matches)
}

/// The filesets and quotas that the management server shows.
struct Survey {
    filesets: Vec<Fileset>,
    quotas: Quotas,
}

impl Survey {
    fn marked_fileset(&self, desired: &Desired) -> Result<Option<(&Fileset, Mark)>, DriverError> {
        let marked = |it| Fileset::mark(it).filter(|mark| mark.id == desired.id).map(|mark| (it, mark));
        let mut marked = self.filesets.iter().filter_map(marked);
        match (marked.next(), marked.next()) {
            (Some((one, _)), Some((two, _))) => Err(DriverError::Conflict(format!(
                "the comments of two filesets, {} and {}, hold the UUID {}",
                one.name(),
                two.name(),
                desired.id
            ))),
            (found, _) => Ok(found),
        }
    }

    /// The quota of a fileset; an error if it cannot be parsed.
    fn quota(&self, name: &str) -> Result<Option<&Quota>, DriverError> {
        match self.quotas.get(name) {
            None => Ok(None),
            Some(Ok(quota)) => Ok(Some(quota)),
            Some(Err(why)) => Err(DriverError::temporary(format!("invalid quota of the fileset {name}: {why}"))),
        }
    }

    /// Why a junction is nested in another resource's fileset, if it is.
    fn why_nested(&self, junction: &str, desired: &Desired) -> Option<String> {
        self.filesets.iter().find_map(|fileset| {
            let at = fileset.junction().filter(|at| is_below(junction, at))?;
            let other = fileset.mark().filter(|mark| mark.id != desired.id)?;
            Some(storage_driver::nested(at, other.id))
        })
    }

    /// Conflict if another resource's fileset is linked below a junction.
    fn check_nothing_below(&self, junction: &str, desired: &Desired) -> Result<(), DriverError> {
        let other = self.filesets.iter().find(|fileset| {
            fileset.junction().is_some_and(|at| is_below(at, junction))
                && fileset.mark().is_some_and(|mark| mark.id != desired.id)
        });
        other.map_or(Ok(()), |other| {
            let name = other.name();
            Err(DriverError::Conflict(format!(
                "the fileset {name} of another resource is linked below {junction}: move it first"
            )))
        })
    }

    fn fileset_at(&self, junction: &str) -> Option<&Fileset> {
        self.filesets.iter().find(|fileset| fileset.junction() == Some(junction))
    }
}

impl Driver for Scale {
    fn ready(&self) -> Result<(), DriverError> {
        self.mount.root()?;
        self.management.filesystem()?.check_settings(self.block_size, &self.root).map_err(DriverError::temporary)
    }

    fn stored_limits(&self, limits: QuotaLimits) -> QuotaLimits {
        limits.in_blocks_of(self.block_size)
    }

    fn inspect(&self, _: &[Place]) -> Vec<Result<String, DriverError>> {
        let mut found = Vec::new();
        match self.management.filesystem() {
            Ok(filesystem) if filesystem.has_quotas_per_fileset() => found.push(Ok(format!(
                "quotas of users and groups are per fileset (--perfileset-quota): limits are set by the call for single \
                 filesets. If that is refused, run `mmchfs {} --noperfileset-quota`",
                self.filesystem
            ))),
            Ok(_) => {}
            Err(error) => found.push(Err(error)),
        }
        if let Ok(root) = self.mount.root() {
            found.extend(record::exposed(root.as_fd()).map(Ok));
        }
        if self.removal == Removal::Unlink {
            let text = "removed filesets are unlinked (`removal: unlink`): IBM Storage Protect expires their backups";
            found.push(Ok(text.to_owned()));
        }
        found
    }

    fn read_record(&self) -> Result<Option<Vec<u8>>, DriverError> {
        record::read(self.mount.root()?.as_fd()).map(Some)
    }

    fn append_to_record(&self, text: &[u8]) -> Result<(), DriverError> {
        record::append(self.mount.root()?.as_fd(), text)
    }

    fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>> {
        match self.mount.root().and_then(|root| Ok((root, self.survey()?))) {
            Ok((root, survey)) => {
                desired.iter().map(|desired| self.observe_one(&survey, root.as_fd(), desired)).collect()
            }
            Err(error) => storage_driver::same_for_all(&error, desired.len()),
        }
    }

    fn trash(&self) -> Result<Vec<Trashed>, DriverError> {
        self.list_trash(false)
    }

    fn marked(&self, _: usize) -> Result<Vec<Marked>, DriverError> {
        let filesets = self.management.filesets()?;
        let marked = |fileset: &Fileset| {
            let mark = fileset.mark().filter(|mark| trashed_since(fileset, *mark).is_none())?;
            // A fileset that is not linked yet has no path: report its name instead.
            let path = fileset.junction().map_or(fileset.name(), |at| at.strip_prefix(&self.root).unwrap_or(at));
            Some(Marked { id: mark.id, path: path.trim_start_matches('/').to_owned() })
        };
        let mut marked: Vec<_> = filesets.iter().filter_map(marked).collect();
        marked.sort();
        Ok(marked)
    }

    fn trash_usage(&self, trashed: &[(Trashed, Option<u32>)]) -> Vec<Result<Option<Usage>, DriverError>> {
        let survey = match self.survey() {
            Ok(survey) => survey,
            Err(error) => return storage_driver::same_for_all(&error, trashed.len()),
        };
        let one = |(trashed, _): &(Trashed, _)| {
            let mark = Mark { id: trashed.id, retired: Some(trashed.since), claimed: false };
            let Some(fileset) = trashed_filesets(&survey.filesets, mark).next() else { return Ok(None) };
            Ok(survey.quota(fileset.name())?.map(Quota::usage))
        };
        trashed.iter().map(one).collect()
    }

    fn claimed(&self) -> Result<Vec<Trashed>, DriverError> {
        self.list_trash(true)
    }

    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        self.reconcile(desired, false, guard)
    }

    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Result<(), DriverError> {
        let root = self.mount.root()?;
        let survey = self.survey()?;
        let Some((fileset, mark)) = self.own_fileset(&survey, desired)? else { return Ok(()) };
        if trashed_since(fileset, mark).is_some() {
            return Ok(());
        }
        let name = fileset.name();
        if let Some(junction) = fileset.junction() {
            survey.check_nothing_below(junction, desired)?;
            mount::revoke_access(root.as_fd(), &desired.place, guard)?;
        }
        if fileset.junction().is_some() || mark.retired.is_none() {
            let Some(quota) = survey.quota(name)? else {
                return Err(DriverError::temporary(format!(
                    "the usage of the fileset {name} is unknown: check that its quota is accounted"
                )));
            };
            self.set_limits(name, quota.limits(), QuotaLimits::frozen_at(quota.usage(), self.block_size), guard)?;
        }
        let retired = Mark { retired: Some(mark.retired.unwrap_or(now)), ..mark };
        let new_name = match self.removal {
            Removal::Freeze => fileset.name_in_trash(),
            Removal::Unlink => name.to_owned(),
        };
        if mark != retired || new_name != name {
            guard(&format!("mark the fileset {name} as trashed"))?;
            self.management.mark(name, retired, &new_name)?;
        }
        if self.removal == Removal::Unlink && fileset.junction().is_some() {
            guard(&format!("unlink the fileset {name}"))?;
            self.management.unlink(name)?;
        }
        Ok(())
    }

    fn restore(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let root = self.mount.root()?;
        let survey = self.survey()?;
        if let Some((fileset, mark)) = self.own_fileset(&survey, desired)?
            && fileset.junction().is_none()
        {
            if mark.claimed {
                return Err(storage_driver::being_purged());
            }
            if let Some(occupant) = survey.fileset_at(&self.junction(&desired.place)) {
                return Err(DriverError::Conflict(format!("the fileset {} is at its path", occupant.name())));
            }
            self.check_not_nested(&survey, desired)?;
            self.link(root.as_fd(), fileset.name(), desired, guard)?;
        }
        self.reconcile(desired, true, guard)
    }

    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let survey = self.survey()?;
        let junction = self.junction(&desired.place);
        let Some(found) = survey.fileset_at(&junction) else {
            return Err(DriverError::Conflict(format!(
                "there is no fileset at {junction}, and only filesets can be adopted"
            )));
        };
        if let Some((fileset, _)) = survey.marked_fileset(desired)?
            && fileset.name() != found.name()
        {
            return Err(DriverError::Conflict(format!("this resource already has a fileset: {}", fileset.name())));
        }
        match found.mark() {
            Some(mark) if mark.id == desired.id => Ok(()),
            Some(mark) => {
                Err(DriverError::Conflict(format!("the fileset {} belongs to resource {}", found.name(), mark.id)))
            }
            None => {
                guard(&format!("mark the fileset {}", found.name()))?;
                self.management.mark(found.name(), Mark::in_use(desired.id), found.name())
            }
        }
    }

    fn claim(&self, trashed: &Trashed, _: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        let mark = Mark { id: trashed.id, retired: Some(trashed.since), claimed: false };
        let filesets = self.management.filesets()?;
        for fileset in trashed_filesets(&filesets, mark) {
            // Check first: a claimed fileset cannot be restored.
            self.management.check_deletable(fileset, &filesets)?;
            guard(&format!("mark the fileset {} as claimed by the purge", fileset.name()))?;
            self.management.mark(fileset.name(), Mark { claimed: true, ..mark }, fileset.name())?;
        }
        Ok(())
    }

    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        self.claim(trashed, project, guard)?;
        let mark = Mark { id: trashed.id, retired: Some(trashed.since), claimed: true };
        let filesets = self.management.filesets()?;
        for fileset in trashed_filesets(&filesets, mark) {
            let name = fileset.name();
            // Check first: once it is unlinked, its backups expire.
            self.management.check_deletable(fileset, &filesets)?;
            if fileset.junction().is_some() {
                guard(&format!("unlink the fileset {name}"))?;
                self.management.unlink(name)?;
            }
            guard(&format!("delete the fileset {name}"))?;
            self.management.delete(name, mark)?;
        }
        Ok(())
    }

    fn usage(&self, desired: &[&Desired]) -> Vec<Result<Option<Usage>, DriverError>> {
        let survey = match self.survey() {
            Ok(survey) => survey,
            Err(error) => return storage_driver::same_for_all(&error, desired.len()),
        };
        let one = |desired: &&Desired| {
            let junction = self.junction(&desired.place);
            let is_in_use = |(fileset, mark): &(&Fileset, Mark)| {
                fileset.junction() == Some(&*junction) && trashed_since(fileset, *mark).is_none()
            };
            let Some((fileset, _)) = survey.marked_fileset(desired)?.filter(is_in_use) else { return Ok(None) };
            match survey.quota(fileset.name())? {
                Some(quota) => Ok(Some(quota.usage())),
                None => Err(DriverError::temporary(format!("the usage of the fileset {} is unknown", fileset.name()))),
            }
        };
        desired.iter().map(one).collect()
    }
}
