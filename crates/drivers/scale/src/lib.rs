//! IBM Storage Scale, by its management interface (REST v2): one fileset for each resource.
//!
//! Written from the documentation of release 5.2.3. **Never run against a real Storage Scale**: what is known of it is
//! what the simulator of the tests does.
//!
//! A resource's fileset is known by its comment: the resource's UUID, and since when it is in the trash. It is made
//! unlinked, given its quota, linked at its place, and given owner and mode last, through the mounted file system: the
//! interface tells a mode only by a job for each directory, which is too much for a look at thousands. Usage is as old as
//! what the management server shows of it. A directory at a place that is no fileset cannot be turned into one and is in the
//! way.
//!
//! How a fileset goes into the trash is a setting ([`Removal`]), for unlinking has a price: to IBM Storage Protect the files
//! of an unlinked fileset are deleted, and their backups expire. By default it is frozen where it is (taken away from its
//! owner, mode 0, limits at what is used), marked in its comment and renamed to `trash-NAME`; it stays linked, and its path
//! is taken until it is purged. Otherwise it is frozen and unlinked, never by force: open files make a passing fault.
//! `purge` unlinks, where that was not done, and deletes.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use driver_posix::mount::{self, Found, Mount};
use driver_rest::{Api, NotSetUp, Pace};
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

/// The driver `scale`.
pub const DRIVERS: &[Registration] = &[Registration {
    name: "scale",
    keys: &["scale"],
    project_ids: false,
    local_root: false,
    configure: |settings| {
        let settings: Settings = settings.mapping("scale")?;
        Ok(OpenDriver::new(move |_| {
            Ok(Box::new(
                Scale::new(&settings).map_err(|error| DriverError::passing("Storage Scale is not set up", error))?,
            ))
        }))
    },
}];

/// How a Storage Scale file system is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The management server (GUI).
    pub api: Api,
    /// A user with the roles StorageAdmin or Administrator.
    pub user: String,
    /// Its password.
    pub password: SecretString,
    /// Name of the file system, as `mmlsfs` says it.
    pub filesystem: String,
    /// The system's root as Storage Scale names it: the file system's mount point, or a directory below it. Absolute.
    pub root: String,
    /// Where this machine has that root; it must be a mounted Storage Scale.
    pub mount: PathBuf,
    /// In what blocks of bytes quotas of space are held: the file system's block size. Compared before each pass.
    pub block_size: u64,
    /// `new` for filesets with inodes of their own (independent), or the name of the fileset whose inodes they share, such
    /// as `root` (dependent).
    #[serde(default = "inode_space")]
    pub inode_space: String,
    /// What happens to the fileset of a resource that is removed, until `purge` deletes it.
    #[serde(default)]
    pub removal: Removal,
}

/// How a fileset goes into the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Removal {
    /// It is frozen and renamed, and stays linked: backups by path go on. Its path is taken until it is purged.
    #[default]
    Freeze,
    /// It is frozen and unlinked: its path is free at once, and IBM Storage Protect expires its backups.
    Unlink,
}

/// Quotas of filesets by their names; what is wrong with those that cannot be read.
type Quotas = BTreeMap<String, Result<Quota, String>>;

/// Why nothing can be made at a place.
const IN_THE_WAY: &str = "there, or on the way, is something that is no directory";

fn inode_space() -> String {
    "new".into()
}

/// A Storage Scale file system.
#[derive(Debug)]
pub struct Scale {
    management: Management,
    mount: Mount,
    root: String,
    block: u64,
    independent: bool,
    removal: Removal,
    filesystem: String,
}

impl Scale {
    /// Judges the settings. Nothing is sent yet.
    pub fn new(settings: &Settings) -> Result<Self, NotSetUp> {
        Self::on(settings, Pace::of(&settings.api), mount::GPFS)
    }

    fn on(settings: &Settings, pace: Pace, kind: i64) -> Result<Self, NotSetUp> {
        if settings.block_size == 0 || !settings.block_size.is_multiple_of(1024) {
            return Err(NotSetUp::Setting("`block_size` must be a multiple of 1024 bytes".into()));
        }
        if !settings.root.starts_with('/') {
            return Err(NotSetUp::Setting("`root` must be an absolute path".into()));
        }
        Ok(Self {
            management: Management::new(settings, pace)?,
            mount: Mount::new(&settings.mount, kind),
            root: settings.root.trim_end_matches('/').to_owned(),
            block: settings.block_size,
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

    /// Why a fileset at a place, which has this mark, keeps another resource from it.
    fn in_the_way(&self, there: &Fileset, mark: Mark) -> String {
        let (name, id) = (there.name(), mark.id);
        match mark.retired {
            None => format!("the fileset {name} there is {id}'s"),
            Some(_) => format!(
                "the fileset {name} there is that of {id}, which was removed. It stays linked so that its backups do not \
                 expire: purge it, or unlink it (`mmunlinkfileset {} {name}`)",
                self.filesystem
            ),
        }
    }

    fn one(&self, survey: &Survey, root: BorrowedFd<'_>, desired: &Desired) -> Result<Observed, DriverError> {
        let junction = self.junction(&desired.place);
        if let Some((fileset, mark)) = survey.of(desired)? {
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
                // Begun and not linked: `ensure` takes it up.
                None if survey.at(&junction).is_none() => {
                    return match mount::look(root, &desired.place.to_string())? {
                        Found::Directory { .. } => Err(self.linked_or_taken(fileset.name(), &desired.place)),
                        Found::Nothing => Ok(Observed::Absent),
                        Found::Other => Ok(Observed::Obstructed(IN_THE_WAY.into())),
                    };
                }
                None => {}
            }
        }
        match survey.at(&junction) {
            Some(other) => match other.mark() {
                Some(mark) => Ok(Observed::Obstructed(self.in_the_way(other, mark))),
                None => self.present(survey, root, other, &desired.place).map(Observed::Unmarked),
            },
            None => match mount::look(root, &desired.place.to_string())? {
                Found::Nothing => Ok(survey.above(&junction, desired).map_or(Observed::Absent, Observed::Obstructed)),
                Found::Directory { .. } => Ok(Observed::Obstructed("a directory there is no fileset".into())),
                Found::Other => Ok(Observed::Obstructed(IN_THE_WAY.into())),
            },
        }
    }

    fn present(
        &self,
        survey: &Survey,
        root: BorrowedFd<'_>,
        it: &Fileset,
        place: &Place,
    ) -> Result<Present, DriverError> {
        let Found::Directory { uid, gid, mode } = mount::look(root, &place.to_string())? else {
            return Err(DriverError::unclear(format!(
                "the fileset {} is linked at {}, but {place} is not seen below `mount`: is that `root`?",
                it.name(),
                self.junction(place)
            )));
        };
        let quota = survey.quota(it.name())?;
        let (limits, usage) = (quota.and_then(Quota::limits), quota.map(Quota::usage));
        Ok(Present { uid, gid, mode, limits, project: None, usage, acl: None })
    }

    /// The resource's fileset: in the trash, at its place, or begun and not linked yet.
    fn ours<'a>(&self, survey: &'a Survey, desired: &Desired) -> Result<Option<(&'a Fileset, Mark)>, DriverError> {
        let junction = self.junction(&desired.place);
        match (survey.of(desired)?, survey.at(&junction)) {
            (Some((fileset, _)), _) if fileset.junction().is_some_and(|at| at != junction) => Err(
                DriverError::Conflict(format!("the fileset {} of this resource is linked elsewhere", fileset.name())),
            ),
            (Some((fileset, mark)), _) if mark.retired.is_some() && fileset.junction().is_none() => {
                Ok(Some((fileset, mark)))
            }
            (Some((fileset, mark)), None) => Ok(Some((fileset, mark))),
            (Some((fileset, mark)), Some(there)) if fileset.name() == there.name() => Ok(Some((fileset, mark))),
            (_, Some(there)) => Err(DriverError::Conflict(match there.mark() {
                Some(mark) => self.in_the_way(there, mark),
                None => format!("the fileset {} at {junction} is not this resource's", there.name()),
            })),
            (None, None) => Ok(None),
        }
    }

    /// Makes a fileset that is there fit for use: out of the trash, with room for its inodes. Returns its name then.
    fn use_again(
        &self,
        fileset: &Fileset,
        mark: Mark,
        desired: &Desired,
        guard: Guard<'_>,
    ) -> Result<String, DriverError> {
        let mut name = fileset.name().to_owned();
        if mark.retired.is_some() {
            guard(&format!("mark the fileset {name} as in use"))?;
            self.management.mark(&name, Mark::of(desired.id), &fileset.name_in_use())?;
            name = fileset.name_in_use();
        }
        let inodes = desired.limits.inodes_hard();
        if self.independent && fileset.most_inodes().is_some_and(|most| most < inodes) {
            guard(&format!("room for {} inodes in the fileset {name}", inodes.0))?;
            self.management.make_room(&name, inodes)?;
        }
        Ok(name)
    }

    /// Makes the fileset, or makes the one that is there as wanted; one in the trash only where it is brought back.
    fn bring(&self, desired: &Desired, restores: bool, guard: Guard<'_>) -> Result<(), DriverError> {
        let root = self.mount.root()?;
        let survey = self.survey()?;
        let found = self.ours(&survey, desired)?;
        if found.is_none_or(|(fileset, _)| fileset.junction().is_none()) {
            survey
                .above(&self.junction(&desired.place), desired)
                .map_or(Ok(()), |why| Err(DriverError::Conflict(why)))?;
        }
        let (name, held, linked) = if let Some((fileset, mark)) = found {
            if mark.claimed {
                return Err(storage_driver::being_purged());
            }
            if !restores && trashed_since(fileset, mark).is_some() {
                return Err(DriverError::Conflict(format!(
                    "the fileset {} is in the trash; restore it",
                    fileset.name()
                )));
            }
            let held = survey.quota(fileset.name())?.and_then(Quota::limits);
            (self.use_again(fileset, mark, desired, guard)?, held, fileset.junction().is_some())
        } else {
            let name = Fileset::name_for(desired.id);
            if mount::look(root.as_fd(), &desired.place.to_string())? != Found::Nothing {
                return Err(DriverError::Conflict(format!("at {} is something that is no fileset", desired.place)));
            }
            guard(&format!("make the fileset {name}"))?;
            self.management.make(&name, desired)?;
            (name, None, false)
        };
        self.limit(&name, held, desired.limits, guard)?;
        if !linked {
            self.link(root.as_fd(), &name, desired, guard)?;
        }
        mount::give(root.as_fd(), desired, guard)
    }

    /// A directory is where an unlinked fileset of ours belongs: somebody made it, or, and this will pass, the fileset is
    /// linked and the server does not show it yet.
    fn linked_or_taken(&self, name: &str, place: &Place) -> DriverError {
        self.management.renew(calls::FILESETS);
        DriverError::unclear(format!(
            "at {place} is a directory, while the fileset {name} is shown as unlinked: either that is out of date, or \
             somebody made the directory, and has to move it away"
        ))
    }

    /// What is in the trash, claimed by a purge or not.
    fn in_trash(&self, claimed: bool) -> Result<Vec<Trashed>, DriverError> {
        let filesets = self.management.filesets()?;
        let trashed = |fileset: &Fileset| {
            let mark = fileset.mark().filter(|mark| mark.claimed == claimed)?;
            Some(Trashed { id: mark.id, since: trashed_since(fileset, mark)? })
        };
        Ok(filesets.iter().filter_map(trashed).collect())
    }

    fn limit(
        &self,
        name: &str,
        held: Option<QuotaLimits>,
        limits: QuotaLimits,
        guard: Guard<'_>,
    ) -> Result<(), DriverError> {
        if held == Some(limits) {
            return Ok(());
        }
        guard(&format!("limits of the fileset {name}: {limits}"))?;
        self.management.limit(name, limits)
    }

    /// Links the fileset at the place, which must be free.
    fn link(&self, root: BorrowedFd<'_>, name: &str, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        match mount::look(root, &desired.place.to_string())? {
            Found::Nothing => {}
            Found::Directory { .. } => return Err(self.linked_or_taken(name, &desired.place)),
            Found::Other => return Err(DriverError::Conflict(format!("at {} is no directory", desired.place))),
        }
        mount::make_parents(root, desired, guard)?;
        let junction = self.junction(&desired.place);
        guard(&format!("link the fileset {name} at {junction}"))?;
        self.management.link(name, &junction)
    }
}

/// Since when a fileset is in the trash, whichever way it went there. One that is linked and has its old name is on its way.
fn trashed_since(fileset: &Fileset, mark: Mark) -> Option<u64> {
    mark.retired.filter(|_| fileset.junction().is_none() || fileset.name() == fileset.name_in_trash())
}

/// The filesets that are in the trash with this mark.
fn in_trash_as(filesets: &[Fileset], mark: Mark) -> impl Iterator<Item = &Fileset> {
    let is_it = move |fileset: &&Fileset| fileset.mark() == Some(mark) && trashed_since(fileset, mark).is_some();
    filesets.iter().filter(is_it)
}

/// What the management server says at one time.
struct Survey {
    filesets: Vec<Fileset>,
    quotas: Quotas,
}

impl Survey {
    fn of(&self, desired: &Desired) -> Result<Option<(&Fileset, Mark)>, DriverError> {
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

    /// The quota of the fileset with this name; a fault where it cannot be read.
    fn quota(&self, name: &str) -> Result<Option<&Quota>, DriverError> {
        match self.quotas.get(name) {
            None => Ok(None),
            Some(Ok(quota)) => Ok(Some(quota)),
            Some(Err(why)) => {
                Err(DriverError::unclear(format!("the quota of the fileset {name} cannot be read: {why}")))
            }
        }
    }

    /// Why a junction lies within another resource's fileset, if it does.
    fn above(&self, junction: &str, desired: &Desired) -> Option<String> {
        let holds = |above: &str| junction.strip_prefix(above).is_some_and(|below| below.starts_with('/'));
        self.filesets.iter().find_map(|fileset| {
            let at = fileset.junction().filter(|at| holds(at))?;
            let other = fileset.mark().filter(|mark| mark.id != desired.id)?;
            Some(storage_driver::nested(at, other.id))
        })
    }

    /// A conflict where another resource's fileset is linked below a junction.
    fn below(&self, junction: &str, desired: &Desired) -> Result<(), DriverError> {
        let is_below = |at: &str| at.strip_prefix(junction).is_some_and(|below| below.starts_with('/'));
        let other = self.filesets.iter().find(|fileset| {
            fileset.junction().is_some_and(is_below) && fileset.mark().is_some_and(|mark| mark.id != desired.id)
        });
        other.map_or(Ok(()), |other| {
            let name = other.name();
            Err(DriverError::Conflict(format!(
                "the fileset {name} of another resource is linked below {junction}: move it first"
            )))
        })
    }

    fn at(&self, junction: &str) -> Option<&Fileset> {
        self.filesets.iter().find(|fileset| fileset.junction() == Some(junction))
    }
}

impl Driver for Scale {
    fn ready(&self) -> Result<(), DriverError> {
        self.mount.root()?;
        self.management.filesystem()?.judge(self.block, &self.root).map_err(DriverError::unclear)
    }

    fn held_as(&self, limits: QuotaLimits) -> QuotaLimits {
        limits.in_blocks_of(self.block)
    }

    fn inspect(&self, _: &[Place]) -> Vec<Result<String, DriverError>> {
        let mut found = Vec::new();
        match self.management.filesystem() {
            Ok(filesystem) if filesystem.has_quotas_per_fileset() => found.push(Ok(format!(
                "quotas of users and groups count by fileset (--perfileset-quota): limits are set by the call for single \
                 filesets. If that is refused: `mmchfs {} --noperfileset-quota`",
                self.filesystem
            ))),
            Ok(_) => {}
            Err(fault) => found.push(Err(fault)),
        }
        if self.removal == Removal::Unlink {
            let text = "removed filesets are unlinked (`removal: unlink`): IBM Storage Protect expires their backups";
            found.push(Ok(text.to_owned()));
        }
        found
    }

    fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>> {
        match self.mount.root().and_then(|root| Ok((root, self.survey()?))) {
            Ok((root, survey)) => desired.iter().map(|desired| self.one(&survey, root.as_fd(), desired)).collect(),
            Err(fault) => storage_driver::same_for_all(&fault, desired.len()),
        }
    }

    fn trash(&self) -> Result<Vec<Trashed>, DriverError> {
        self.in_trash(false)
    }

    fn marked(&self, _: usize) -> Result<Vec<Marked>, DriverError> {
        let filesets = self.management.filesets()?;
        let marked = |fileset: &Fileset| {
            let mark = fileset.mark().filter(|mark| trashed_since(fileset, *mark).is_none())?;
            // One that is not linked yet has no path: its name is the best that there is.
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
            Err(fault) => return storage_driver::same_for_all(&fault, trashed.len()),
        };
        let one = |(trashed, _): &(Trashed, _)| {
            let mark = Mark { id: trashed.id, retired: Some(trashed.since), claimed: false };
            let Some(fileset) = in_trash_as(&survey.filesets, mark).next() else { return Ok(None) };
            Ok(survey.quota(fileset.name())?.map(Quota::usage))
        };
        trashed.iter().map(one).collect()
    }

    fn claimed(&self) -> Result<Vec<Trashed>, DriverError> {
        self.in_trash(true)
    }

    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        self.bring(desired, false, guard)
    }

    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Result<(), DriverError> {
        let root = self.mount.root()?;
        let survey = self.survey()?;
        let Some((fileset, mark)) = self.ours(&survey, desired)? else { return Ok(()) };
        if trashed_since(fileset, mark).is_some() {
            return Ok(());
        }
        let name = fileset.name();
        if let Some(junction) = fileset.junction() {
            survey.below(junction, desired)?;
            mount::close(root.as_fd(), &desired.place, guard)?;
        }
        if fileset.junction().is_some() || mark.retired.is_none() {
            let Some(quota) = survey.quota(name)? else {
                return Err(DriverError::unclear(format!(
                    "what the fileset {name} uses is not known: is its quota accounted?"
                )));
            };
            self.limit(name, quota.limits(), QuotaLimits::frozen_at(quota.usage(), self.block), guard)?;
        }
        let retired = Mark { retired: Some(mark.retired.unwrap_or(now)), ..mark };
        let new_name = match self.removal {
            Removal::Freeze => fileset.name_in_trash(),
            Removal::Unlink => name.to_owned(),
        };
        if mark != retired || new_name != name {
            guard(&format!("mark the fileset {name} as in the trash"))?;
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
        if let Some((fileset, mark)) = self.ours(&survey, desired)?
            && fileset.junction().is_none()
        {
            if mark.claimed {
                return Err(storage_driver::being_purged());
            }
            if let Some(other) = survey.at(&self.junction(&desired.place)) {
                return Err(DriverError::Conflict(format!("the fileset {} is in its place", other.name())));
            }
            survey
                .above(&self.junction(&desired.place), desired)
                .map_or(Ok(()), |why| Err(DriverError::Conflict(why)))?;
            self.link(root.as_fd(), fileset.name(), desired, guard)?;
        }
        self.bring(desired, true, guard)
    }

    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let survey = self.survey()?;
        let junction = self.junction(&desired.place);
        let Some(there) = survey.at(&junction) else {
            return Err(DriverError::Conflict(format!(
                "at {junction} is no fileset, and only a fileset can be adopted"
            )));
        };
        if let Some((fileset, _)) = survey.of(desired)?
            && fileset.name() != there.name()
        {
            return Err(DriverError::Conflict(format!("this resource has a fileset already: {}", fileset.name())));
        }
        match there.mark() {
            Some(mark) if mark.id == desired.id => Ok(()),
            Some(mark) => Err(DriverError::Conflict(format!("the fileset {} is {}'s", there.name(), mark.id))),
            None => {
                guard(&format!("mark the fileset {}", there.name()))?;
                self.management.mark(there.name(), Mark::of(desired.id), there.name())
            }
        }
    }

    fn claim(&self, trashed: &Trashed, _: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        let mark = Mark { id: trashed.id, retired: Some(trashed.since), claimed: false };
        let filesets = self.management.filesets()?;
        for fileset in in_trash_as(&filesets, mark) {
            // First: what is claimed is not restored any more.
            self.management.can_be_deleted(fileset, &filesets)?;
            guard(&format!("mark the fileset {} as claimed by the purge", fileset.name()))?;
            self.management.mark(fileset.name(), Mark { claimed: true, ..mark }, fileset.name())?;
        }
        Ok(())
    }

    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        self.claim(trashed, project, guard)?;
        let mark = Mark { id: trashed.id, retired: Some(trashed.since), claimed: true };
        let filesets = self.management.filesets()?;
        for fileset in in_trash_as(&filesets, mark) {
            let name = fileset.name();
            // First: once it is unlinked, its backups expire.
            self.management.can_be_deleted(fileset, &filesets)?;
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
            Err(fault) => return storage_driver::same_for_all(&fault, desired.len()),
        };
        let one = |desired: &&Desired| {
            let junction = self.junction(&desired.place);
            let is_in_use = |(fileset, mark): &(&Fileset, Mark)| {
                fileset.junction() == Some(&*junction) && trashed_since(fileset, *mark).is_none()
            };
            let Some((fileset, _)) = survey.of(desired)?.filter(is_in_use) else { return Ok(None) };
            match survey.quota(fileset.name())? {
                Some(quota) => Ok(Some(quota.usage())),
                None => Err(DriverError::unclear(format!("what the fileset {} uses is not known", fileset.name()))),
            }
        };
        desired.iter().map(one).collect()
    }
}
