//! A driver for VAST. It uses the management system (VMS) and an NFS mount, with one directory and one quota object for each
//! resource.
//!
//! Written from the documentation of release 5.3, the public knowledge base and the vendor's public clients. **Never tested
//! with a real VAST**: it has only been run against the simulator of the tests.
//!
//! A resource's directory is identified by the quota object of exactly its path, whose name is `UUID.INODE`: the resource's
//! UUID and the inode of the directory. The inode is needed because directories cannot be marked, and any directory can be
//! renamed onto the path: anyone who can write to the parent directory can put another one there, with or without its
//! quota. A different inode is a conflict, at the path and in the trash. The driver assumes that NFS reports the same inode
//! on every mount for the lifetime of the directory; this has not been tested on a real VAST.
//!
//! A quota whose name is only the UUID, as earlier versions named them, belongs to the resource, but its directory is not
//! known: owner, mode and limits are the same for the project's next directory. The driver does nothing with it until
//! `adopt` confirms that it is the right one.
//!
//! A directory is created through the mount, empty and accessible only to this program's user. Then its quota is created, and
//! owner and mode are set. A directory that a crash leaves behind is empty, so its creation continues regardless of the inode
//! in the name of its quota.
//! Directories are not created by the quota call (`create_dir`), because an NFS client that has just seen nothing there may
//! continue to see nothing.
//!
//! A directory is put into the trash by freezing it, denying access and renaming it to `.trash/UUID.SECONDS` below the root.
//! Its quota object remains, whether VAST keeps it at the old path or moves it along, so a restored directory is recognised
//! immediately. The quota is deleted only when another resource uses the path, or by the purge.

use std::os::fd::AsFd;
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use driver_posix::mount::{self, Mount};
use driver_posix::record;
use driver_rest::{Api, Backoff, InvalidSettings, absolute_root, is_within, single_line};
use storage_driver::limits::{QuotaLimits, Usage};
use storage_driver::place::Place;
use storage_driver::registration::{OpenDriver, Registration};
use storage_driver::walked::Walked;
use storage_driver::{Desired, Driver, DriverError, Guard, Marked, Mode, Observed, Present, Trashed};

mod calls;
mod directory;
#[cfg(any(test, feature = "simulated"))]
#[expect(clippy::missing_panics_doc, clippy::unwrap_used, reason = "for tests")]
pub mod simulated;
mod survey;
#[cfg(test)]
mod tests;
mod trash;
mod wire;

use calls::Management;
use directory::{Found, OpenDirectory};
use survey::Survey;
use wire::Quota;

pub const DRIVERS: &[Registration] = &[Registration {
    name: "vast",
    keys: &["vast"],
    project_ids: false,
    local_root: false,
    configure: |settings| {
        let settings: Settings = settings.mapping("vast")?;
        Ok(OpenDriver::new(move |walked| {
            let vast =
                Vast::new(&settings).map_err(|error| DriverError::temporary_from("invalid settings of VAST", error))?;
            Ok(Box::new(vast.with_counter(walked)))
        }))
    },
}];

/// Requires either `token`, or `user` and `password`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The management system (VMS).
    pub api: Api,
    /// An API token (release 5.3 or later) of a manager who may view and change quotas.
    #[serde(default)]
    pub token: Option<SecretString>,
    /// A manager who may view and change quotas.
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub password: Option<SecretString>,
    /// ID of the tenant to which the paths belong.
    #[serde(default = "tenant")]
    pub tenant: u64,
    /// The absolute path of the system's root on VAST, such as `/capstor`.
    pub root: String,
    /// The path on this machine at which that root is mounted over NFS, without root squashing.
    pub mount: PathBuf,
}

const fn tenant() -> u64 {
    1
}

#[derive(Debug)]
pub struct Vast {
    management: Management,
    mount: Mount,
    root: String,
    walked: Walked,
}

/// The state of a resource's path.
enum PathState<'a> {
    /// Without data: no directory, or one whose creation is incomplete; with our quota, if it exists.
    Free(Option<OpenDirectory>, Option<&'a Quota>),
    Ours(OpenDirectory, Present, &'a Quota),
    /// A directory without a quota, with a quota without a mark, or with a quota whose mark is our UUID without an inode.
    Unmarked(OpenDirectory, Present, Option<&'a Quota>),
    Obstructed(String),
}

impl Vast {
    /// Validates the settings without connecting.
    pub fn new(settings: &Settings) -> Result<Self, InvalidSettings> {
        Self::with(settings, Backoff::from_settings(&settings.api), mount::NFS)
    }

    fn with(settings: &Settings, backoff: Backoff, file_system_type: i64) -> Result<Self, InvalidSettings> {
        Ok(Self {
            management: Management::new(settings, backoff)?,
            mount: Mount::new(&settings.mount, file_system_type),
            root: absolute_root(&settings.root)?,
            walked: Walked::default(),
        })
    }

    /// The same driver with a shared counter of the files that it walks over.
    #[must_use]
    pub fn with_counter(self, walked: &Walked) -> Self {
        Self { walked: walked.clone(), ..self }
    }

    fn path(&self, place: &Place) -> String {
        format!("{}/{place}", self.root)
    }

    fn survey(&self) -> Result<Survey, DriverError> {
        let root = self.mount.root()?;
        let by_id = |trees: Vec<Trashed>| trees.into_iter().map(|trashed| (trashed.id, trashed.since)).collect();
        let [trash, claimed] = trash::list(root.as_fd())?.map(by_id);
        Ok(Survey { root, quotas: self.management.quotas()?, trash, claimed })
    }

    fn path_state<'a>(&self, survey: &'a Survey, desired: &Desired) -> Result<PathState<'a>, DriverError> {
        match survey.check_trashed_inode(desired.id) {
            Err(DriverError::Conflict(why)) => return Ok(PathState::Obstructed(why)),
            checked => checked?,
        }
        let path = self.path(&desired.place);
        let quota = survey.quota_at(&path, desired);
        quota.map_or(Ok(()), Quota::check_valid)?;
        let found = directory::find(survey.root.as_fd(), &desired.place)?;
        let ours = quota.is_some_and(|quota| quota.mark() == Some(desired.id));
        if let Some(other) = quota.and_then(Quota::mark).filter(|_| !ours) {
            return Ok(PathState::Obstructed(format!("the quota of {path} belongs to resource {other}")));
        }
        if !ours && let Some(why) = survey.why_nested(&path, desired) {
            return Ok(PathState::Obstructed(why));
        }
        if let Some(elsewhere) = survey.quota_of(desired.id).filter(|quota| quota.path != path)
            && !survey.trash.contains_key(&desired.id)
        {
            return Ok(PathState::Obstructed(format!("its quota is at {}", elsewhere.path)));
        }
        let directory = match found {
            Found::Other => {
                return Ok(PathState::Obstructed("the path or one of its parents is not a directory".into()));
            }
            Found::Nothing => {
                return Ok(match quota.filter(|_| !ours) {
                    Some(quota) => {
                        PathState::Obstructed(format!("{path} has the quota {:?}, but no directory", quota.name))
                    }
                    None => PathState::Free(None, quota),
                });
            }
            Found::Directory(directory) => directory,
        };
        let named = quota.filter(|_| ours);
        let same = named.is_some_and(|quota| quota.inode() == Some(directory.inode()));
        if !same && let Some(other) = survey.other_quota_for(directory.inode(), desired) {
            return Ok(PathState::Obstructed(moved_here(&path, other)));
        }
        if !same && directory.is_incomplete()? {
            return Ok(PathState::Free(Some(directory), named));
        }
        quota.map_or(Ok(()), Quota::check_state).map_err(DriverError::temporary)?;
        let ((uid, gid), mode) = (directory.owner(), directory.mode());
        let (limits, usage) = (quota.and_then(Quota::limits), quota.and_then(Quota::usage));
        let present = Present { uid, gid, mode, limits, project: None, usage, acl: None };
        Ok(match named {
            // Its directory is in the trash, so this is another one.
            Some(_) if survey.trash.contains_key(&desired.id) => {
                PathState::Obstructed("its directory is in the trash, and something else is at its path".into())
            }
            Some(ours) if same => PathState::Ours(directory, present, ours),
            Some(ours) if ours.inode().is_some() => {
                PathState::Obstructed(format!("{path} is {}", ours.mismatch(directory.inode())))
            }
            _ => PathState::Unmarked(directory, present, quota),
        })
    }

    fn observe_one(&self, survey: &Survey, desired: &Desired) -> Result<Observed, DriverError> {
        Ok(match (self.path_state(survey, desired)?, survey.trash.get(&desired.id)) {
            (PathState::Ours(_, present, _), _) => Observed::Ours(present),
            (PathState::Unmarked(_, present, _), _) => Observed::Unmarked(present),
            (PathState::Obstructed(why), _) => Observed::Obstructed(why),
            (PathState::Free(..), Some(since)) => Observed::Trashed { since: *since },
            (PathState::Free(..), None) => {
                survey.claimed.get(&desired.id).map_or(Observed::Absent, |since| Observed::Purging { since: *since })
            }
        })
    }

    /// Creates the quota of this resource for the directory at its path, which has this inode.
    fn create_quota(
        &self,
        survey: &Survey,
        desired: &Desired,
        inode: u64,
        guard: Guard<'_>,
    ) -> Result<(), DriverError> {
        let path = self.path(&desired.place);
        let leftover = survey.leftover_at(&path, desired);
        // VAST may have left a quota of this resource at another path when the directory was restored.
        let stray = survey.quota_of(desired.id).filter(|quota| quota.path != path);
        for old in leftover.into_iter().chain(stray) {
            if let Some(id) = old.mark() {
                survey.check_trashed_inode(id)?;
            }
            guard(&format!("delete the quota {} of {}", old.name, old.path))?;
            self.management.delete(old.id)?;
        }
        guard(&format!("create the quota of {path} with {}", desired.limits))?;
        self.management.create(&path, inode, desired).map_err(|error| match (error, &survey.quotas_above(&path)[..]) {
            (DriverError::Temporary { what, source }, above @ [_, ..]) => DriverError::Temporary {
                what: format!("{what}. Quotas of its parent directories also apply ({}): {NESTING}", list(above)),
                source,
            },
            (error, _) => error,
        })
    }

    /// Renames the quota after this resource and the inode of its directory.
    fn mark(&self, quota: &Quota, desired: &Desired, inode: u64, guard: Guard<'_>) -> Result<(), DriverError> {
        if quota.mark() == Some(desired.id) && quota.inode() == Some(inode) {
            return Ok(());
        }
        guard(&format!("mark the quota {:?} of {}", quota.name, quota.path))?;
        self.management.change(quota.id, &wire::mark(desired.id, inode))
    }

    fn set_limits(&self, quota: &Quota, limits: QuotaLimits, guard: Guard<'_>) -> Result<(), DriverError> {
        if quota.limits() == Some(limits) {
            return Ok(());
        }
        guard(&format!("set the limits of {} to {limits}", quota.path))?;
        self.management.change(quota.id, &wire::limits(limits))
    }
}

/// From VAST's documentation.
const NESTING: &str = "VAST allows 16 levels of nested quotas (older releases 3), and the smallest limit applies";

/// The names and paths of quotas.
fn list(quotas: &[&Quota]) -> String {
    let names = quotas.iter().map(|quota| format!("{} of {}", single_line(&quota.name), quota.path));
    names.collect::<Vec<_>>().join(", ")
}

/// Creates and opens the directory, including missing parents.
fn create_directory(survey: &Survey, desired: &Desired, guard: Guard<'_>) -> Result<OpenDirectory, DriverError> {
    let root = survey.root.as_fd();
    mount::make_parents(root, desired, guard)?;
    guard(&format!("create the directory {}", desired.place))?;
    mount::make_private(root, &desired.place)?;
    let directory = match directory::find(root, &desired.place)? {
        Found::Directory(directory) if directory.is_new()? => directory,
        _ => {
            let text = "is not the directory that was created there just now";
            return Err(DriverError::Conflict(format!("{} {text}", desired.place)));
        }
    };
    match survey.other_quota_for(directory.inode(), desired) {
        Some(other) => Err(DriverError::Conflict(moved_here(&desired.place.to_string(), other))),
        None => Ok(directory),
    }
}

/// Why a directory that belongs to another resource's quota cannot be used. File systems may reuse inodes.
fn moved_here(path: &str, other: &Quota) -> String {
    format!(
        "{path} is the directory of the quota {} of {}: it was moved here. If that quota's directory was deleted by hand, \
         delete the quota in VMS",
        other.name, other.path
    )
}

fn unmarked_error(desired: &Desired, quota: Option<&Quota>) -> DriverError {
    let ours = quota.filter(|quota| quota.mark() == Some(desired.id));
    DriverError::Conflict(match ours {
        Some(_) => {
            format!("the name of the quota of {} does not contain the inode of its directory: adopt it", desired.place)
        }
        None => format!("{} is not marked as ours: adopt it", desired.place),
    })
}

impl Driver for Vast {
    fn ready(&self) -> Result<(), DriverError> {
        self.mount.root()?;
        self.management.quotas().map(drop)
    }

    fn stored_limits(&self, limits: QuotaLimits) -> QuotaLimits {
        limits
    }

    fn inspect(&self, above: &[Place]) -> Vec<Result<String, DriverError>> {
        let quotas = match self.management.quotas() {
            Ok(quotas) => quotas,
            Err(error) => return vec![Err(error)],
        };
        let above: Vec<_> = above.iter().map(|place| self.path(place)).collect();
        let is_above = |quota: &&Quota| is_within(&self.root, &quota.path) || above.contains(&quota.path);
        let outer: Vec<_> = quotas.iter().filter(is_above).collect();
        let mut found = Vec::new();
        if !outer.is_empty() {
            found
                .push(Ok(format!("parents of the directories of resources have quotas ({}): {NESTING}", list(&outer))));
        }
        for (quota, error) in quotas.iter().filter_map(|quota| Some((quota, quota.check_valid().err()?))) {
            // A quota outside the root does not affect any order.
            found.push(if is_within(&quota.path, &self.root) { Err(error) } else { Ok(error.to_string()) });
        }
        if let Ok(root) = self.mount.root() {
            found.extend(record::exposed(root.as_fd()).map(Ok));
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
        match self.survey() {
            Ok(survey) => desired.iter().map(|desired| self.observe_one(&survey, desired)).collect(),
            Err(error) => storage_driver::same_for_all(&error, desired.len()),
        }
    }

    fn trash(&self) -> Result<Vec<Trashed>, DriverError> {
        trash::list(self.mount.root()?.as_fd()).map(|[trash, _]| trash)
    }

    fn marked(&self, _: usize) -> Result<Vec<Marked>, DriverError> {
        let survey = self.survey()?;
        let marked = |quota: &Quota| {
            let id = quota.mark()?;
            let path = quota.path.strip_prefix(&self.root)?.trim_start_matches('/').to_owned();
            let elsewhere = survey.trash.contains_key(&id) || survey.claimed.contains_key(&id);
            (!elsewhere).then_some(Marked { id, path })
        };
        let mut marked: Vec<_> = survey.quotas.iter().filter_map(marked).collect();
        marked.sort();
        Ok(marked)
    }

    fn trash_usage(&self, trashed: &[(Trashed, Option<u32>)]) -> Vec<Result<Option<Usage>, DriverError>> {
        let survey = match self.survey() {
            Ok(survey) => survey,
            Err(error) => return storage_driver::same_for_all(&error, trashed.len()),
        };
        let one = |(trashed, _): &(Trashed, _)| Ok(survey.quota_of(trashed.id).and_then(Quota::usage));
        trashed.iter().map(one).collect()
    }

    fn claimed(&self) -> Result<Vec<Trashed>, DriverError> {
        trash::list(self.mount.root()?.as_fd()).map(|[_, claimed]| claimed)
    }

    fn changed(&self, trashed: &Trashed) -> Result<Option<u64>, DriverError> {
        trash::changed(self.mount.root()?.as_fd(), trashed).map(Some)
    }

    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let survey = self.survey()?;
        if survey.trash.contains_key(&desired.id) {
            return Err(DriverError::Conflict(format!(
                "the directory of {} is in the trash; restore it",
                desired.place
            )));
        }
        match self.path_state(&survey, desired)? {
            PathState::Obstructed(why) => Err(DriverError::Conflict(why)),
            PathState::Unmarked(_, _, quota) => Err(unmarked_error(desired, quota)),
            PathState::Ours(directory, _, quota) => {
                self.set_limits(quota, desired.limits, guard)?;
                directory.set_owner_and_mode(desired, guard)
            }
            PathState::Free(incomplete, quota) => {
                let directory = incomplete.map_or_else(|| create_directory(&survey, desired, guard), Ok)?;
                match quota {
                    Some(quota) => {
                        self.mark(quota, desired, directory.inode(), guard)?;
                        self.set_limits(quota, desired.limits, guard)?;
                    }
                    None => self.create_quota(&survey, desired, directory.inode(), guard)?,
                }
                directory.set_owner_and_mode(desired, guard)
            }
        }
    }

    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Result<(), DriverError> {
        let survey = self.survey()?;
        if survey.trash.contains_key(&desired.id) {
            return survey.check_trashed_inode(desired.id);
        }
        let (directory, present, quota) = match self.path_state(&survey, desired)? {
            PathState::Ours(directory, present, quota) => (directory, present, quota),
            PathState::Free(..) => return Ok(()),
            PathState::Obstructed(why) => return Err(DriverError::Conflict(why)),
            PathState::Unmarked(_, _, quota) => return Err(unmarked_error(desired, quota)),
        };
        survey.check_nothing_below(&quota.path, desired.id)?;
        let Some(usage) = present.usage else {
            return Err(DriverError::temporary(format!("the usage of {} is not known yet", desired.place)));
        };
        directory.set_mode(Mode(0), guard)?;
        self.set_limits(quota, QuotaLimits::frozen_at(usage, 1), guard)?;
        guard(&format!("put {} into the trash", desired.place))?;
        trash::put(survey.root.as_fd(), desired, now)?;
        // A rename is by name. If the directory was replaced just before it, this check prevents a later purge.
        let survey = Survey { trash: [(desired.id, now)].into(), ..survey };
        survey.check_trashed_inode(desired.id)
    }

    fn restore(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let survey = self.survey()?;
        if let Some(since) = survey.trash.get(&desired.id) {
            survey.check_trashed_inode(desired.id)?;
            if !matches!(self.path_state(&survey, desired)?, PathState::Free(None, _)) {
                return Err(DriverError::Conflict(format!("what is at {} is not ours", desired.place)));
            }
            mount::make_parents(survey.root.as_fd(), desired, guard)?;
            let inode = trash::inode(survey.root.as_fd(), &Trashed { id: desired.id, since: *since })?;
            guard(&format!("take {} out of the trash", desired.place))?;
            trash::take_out(survey.root.as_fd(), desired, *since)?;
            let survey = self.survey()?;
            if survey.quota_at(&self.path(&desired.place), desired).is_none() {
                self.create_quota(&survey, desired, inode, guard)?;
            }
        } else if survey.claimed.contains_key(&desired.id)
            && matches!(self.path_state(&survey, desired)?, PathState::Free(None, _))
        {
            return Err(storage_driver::being_purged());
        }
        self.ensure(desired, guard)
    }

    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let survey = self.survey()?;
        match self.path_state(&survey, desired)? {
            PathState::Ours(..) => Ok(()),
            PathState::Unmarked(directory, _, None) => self.create_quota(&survey, desired, directory.inode(), guard),
            PathState::Unmarked(directory, _, Some(quota)) => self.mark(quota, desired, directory.inode(), guard),
            PathState::Obstructed(why) => Err(DriverError::Conflict(why)),
            PathState::Free(..) => {
                Err(DriverError::Conflict(format!("there is nothing to adopt at {}", desired.place)))
            }
        }
    }

    fn claim(&self, trashed: &Trashed, _: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        let survey = self.survey()?;
        if survey.trash.get(&trashed.id) != Some(&trashed.since) {
            return Ok(());
        }
        survey.check_trashed_inode(trashed.id)?;
        // Before the rename, because afterwards the quota would not be found.
        if let Some(quota) = survey.quota_of(trashed.id) {
            survey.check_nothing_below(&quota.path, trashed.id)?;
            guard(&format!("delete the quota {} of {}", quota.name, quota.path))?;
            self.management.delete(quota.id)?;
        }
        guard(&format!("claim the tree of {} in the trash for the purge", trashed.id))?;
        trash::claim(survey.root.as_fd(), trashed)
    }

    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        self.claim(trashed, project, guard)?;
        let root = self.mount.root()?;
        let what = format!("delete the tree of {}", trashed.id);
        guard(&what)?;
        let one = || {
            self.walked.one();
            guard(&what)
        };
        trash::delete(root.as_fd(), trashed, &one)
    }

    fn usage(&self, desired: &[&Desired]) -> Vec<Result<Option<Usage>, DriverError>> {
        let used = |(desired, observed): (&&Desired, Result<Observed, DriverError>)| match observed? {
            Observed::Ours(Present { usage: None, .. }) => {
                Err(DriverError::temporary(format!("the usage of {} is not known yet", desired.place)))
            }
            Observed::Ours(present) => Ok(present.usage),
            _ => Ok(None),
        };
        desired.iter().zip(self.observe(desired)).map(used).collect()
    }
}
