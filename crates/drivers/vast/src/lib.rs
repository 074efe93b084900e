//! VAST, by its management system (VMS) and a mount over NFS: one directory with one quota object for each resource.
//!
//! Written from the documentation of release 5.3, the public knowledge base and the vendor's public clients. **Never run
//! against a real VAST**: what is known of it is what the simulator of the tests does.
//!
//! A resource's directory is known by the quota object of exactly its path, whose name is `UUID.INODE`: the resource's UUID
//! and the number of the directory itself. For a directory bears no mark, and a path is had by whatever is renamed to it:
//! who may write in the directory above can put another's there, with or without its quota. A number that differs is a
//! conflict, at the path and in the trash. That NFS gives the same number as long as the directory lives, on every mount, is
//! taken for granted, and was never tried on a real VAST.
//!
//! A quota that is named by the UUID alone, as earlier versions named them, is the resource's, but for which directory is
//! not known: owner, mode and limits do not tell it from the same project's next one. So nothing is done with it, until
//! `adopt` says that it is the right one.
//!
//! The directory is made over the mount, empty and closed to all but this program's user, then the quota, then owner and
//! mode: what a crash leaves in between holds nothing and is taken up again, whatever number its quota has. Directories are
//! not made by the quota call (`create_dir`): an NFS client that has just seen nothing there may go on seeing nothing.
//!
//! Into the trash goes a directory by being frozen, closed and renamed to `.trash/UUID.SECONDS` below the root. Its quota
//! object stays, whether VAST leaves it at the old path or moves it along: so a directory that comes back is known at once.
//! Only when another resource gets the path, or with the purge, it is taken away.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use driver_posix::mount::{self, Mount};
use driver_rest::{Api, NotSetUp, Pace};
use storage_driver::limits::{QuotaLimits, Usage};
use storage_driver::place::Place;
use storage_driver::registration::{OpenDriver, Registration};
use storage_driver::walked::Walked;
use storage_driver::{Desired, Driver, DriverError, Guard, Marked, Mode, Observed, Present, Trashed};

mod calls;
mod held;
#[cfg(any(test, feature = "simulated"))]
#[expect(clippy::missing_panics_doc, clippy::unwrap_used, reason = "for tests")]
pub mod simulated;
mod survey;
#[cfg(test)]
mod tests;
mod trash;
mod wire;

use calls::Management;
use held::{Found, Held};
use survey::Survey;
use wire::Quota;

/// The driver `vast`.
pub const DRIVERS: &[Registration] = &[Registration {
    name: "vast",
    keys: &["vast"],
    project_ids: false,
    local_root: false,
    configure: |settings| {
        let settings: Settings = settings.mapping("vast")?;
        Ok(OpenDriver::new(move |walked| {
            let vast = Vast::new(&settings).map_err(|error| DriverError::passing("VAST is not set up", error))?;
            Ok(Box::new(vast.counting(walked)))
        }))
    },
}];

/// How a VAST cluster is reached. Either `token`, or `user` and `password`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The management system (VMS).
    pub api: Api,
    /// An API token (from release 5.3 on), of a manager who may see and change quotas.
    #[serde(default)]
    pub token: Option<SecretString>,
    /// A manager who may see and change quotas.
    #[serde(default)]
    pub user: Option<String>,
    /// Its password.
    #[serde(default)]
    pub password: Option<SecretString>,
    /// Number of the tenant to which the paths belong.
    #[serde(default = "tenant")]
    pub tenant: u64,
    /// The system's root as VAST names it, such as `/capstor`. Absolute.
    pub root: String,
    /// Where this machine has that root mounted over NFS, without root being squashed.
    pub mount: PathBuf,
}

const fn tenant() -> u64 {
    1
}

/// A VAST cluster's directory tree.
#[derive(Debug)]
pub struct Vast {
    management: Management,
    mount: Mount,
    root: String,
    walked: Walked,
}

/// What a resource's path holds, told apart as far as it can be.
enum At<'a> {
    /// Nothing that holds data: no directory, or one that was just begun; with our quota, if that is there.
    Free(Option<Held>, Option<&'a Quota>),
    Ours(Held, Present, &'a Quota),
    /// With a quota without a mark, or with our mark that does not say for which directory it is.
    Unmarked(Held, Present, Option<&'a Quota>),
    Obstructed(String),
}

impl Vast {
    /// Judges the settings. Nothing is sent yet.
    pub fn new(settings: &Settings) -> Result<Self, NotSetUp> {
        Self::on(settings, Pace::of(&settings.api), mount::NFS)
    }

    fn on(settings: &Settings, pace: Pace, kind: i64) -> Result<Self, NotSetUp> {
        if !settings.root.starts_with('/') {
            return Err(NotSetUp::Setting("`root` must be an absolute path".into()));
        }
        Ok(Self {
            management: Management::new(settings, pace)?,
            mount: Mount::new(&settings.mount, kind),
            root: settings.root.trim_end_matches('/').to_owned(),
            walked: Walked::default(),
        })
    }

    /// The same, with what it walks counted here.
    #[must_use]
    pub fn counting(self, walked: &Walked) -> Self {
        Self { walked: walked.clone(), ..self }
    }

    fn path(&self, place: &Place) -> String {
        format!("{}/{place}", self.root)
    }

    fn survey(&self, root: BorrowedFd<'_>) -> Result<Survey, DriverError> {
        let by_id = |trees: Vec<Trashed>| trees.into_iter().map(|trashed| (trashed.id, trashed.since)).collect();
        let [trash, claimed] = trash::list(root)?.map(by_id);
        Ok(Survey { quotas: self.management.quotas()?, trash, claimed })
    }

    fn at<'a>(&self, survey: &'a Survey, root: BorrowedFd<'_>, desired: &Desired) -> Result<At<'a>, DriverError> {
        match survey.prove_trashed(root, desired.id) {
            Err(DriverError::Conflict(why)) => return Ok(At::Obstructed(why)),
            proved => proved?,
        }
        let path = self.path(&desired.place);
        let quota = survey.at(&path, desired);
        quota.map_or(Ok(()), Quota::is_readable)?;
        let found = held::look(root, &desired.place)?;
        let ours = quota.is_some_and(|quota| quota.mark() == Some(desired.id));
        if let Some(other) = quota.and_then(Quota::mark).filter(|_| !ours) {
            return Ok(At::Obstructed(format!("the quota of {path} is {other}'s")));
        }
        if !ours && let Some(why) = survey.nested_in(&path, desired) {
            return Ok(At::Obstructed(why));
        }
        if let Some(elsewhere) = survey.of(desired.id).filter(|quota| quota.path != path)
            && !survey.trash.contains_key(&desired.id)
        {
            return Ok(At::Obstructed(format!("its quota is at {}", elsewhere.path)));
        }
        let held = match found {
            Found::Other => {
                return Ok(At::Obstructed("there, or on the way, is something that is no directory".into()));
            }
            Found::Nothing => {
                return Ok(match quota.filter(|_| !ours) {
                    Some(quota) => At::Obstructed(format!("{path} has the quota {:?}, but no directory", quota.name)),
                    None => At::Free(None, quota),
                });
            }
            Found::Directory(held) => held,
        };
        let named = quota.filter(|_| ours);
        let same = named.is_some_and(|quota| quota.inode() == Some(held.inode()));
        if !same && let Some(other) = survey.other_for(held.inode(), desired) {
            return Ok(At::Obstructed(moved_here(&path, other)));
        }
        if !same && held.is_begun()? {
            return Ok(At::Free(Some(held), named));
        }
        quota.map_or(Ok(()), Quota::judge).map_err(DriverError::unclear)?;
        let ((uid, gid), mode) = (held.owner(), held.mode());
        let (limits, usage) = (quota.and_then(Quota::limits), quota.and_then(Quota::usage));
        let present = Present { uid, gid, mode, limits, project: None, usage, acl: None };
        Ok(match named {
            // What was in its place is in the trash: this is something else.
            Some(_) if survey.trash.contains_key(&desired.id) => {
                At::Obstructed("it is in the trash, and something else is in its place".into())
            }
            Some(ours) if same => At::Ours(held, present, ours),
            Some(ours) if ours.inode().is_some() => {
                At::Obstructed(format!("at {path} is {}", ours.another(held.inode())))
            }
            _ => At::Unmarked(held, present, quota),
        })
    }

    fn one(&self, survey: &Survey, root: BorrowedFd<'_>, desired: &Desired) -> Result<Observed, DriverError> {
        Ok(match (self.at(survey, root, desired)?, survey.trash.get(&desired.id)) {
            (At::Ours(_, present, _), _) => Observed::Ours(present),
            (At::Unmarked(_, present, _), _) => Observed::Unmarked(present),
            (At::Obstructed(why), _) => Observed::Obstructed(why),
            (At::Free(..), Some(since)) => Observed::Trashed { since: *since },
            (At::Free(..), None) => {
                survey.claimed.get(&desired.id).map_or(Observed::Absent, |since| Observed::Purging { since: *since })
            }
        })
    }

    /// Gives the directory at the path, which has this inode, a quota of this resource.
    fn set_quota(
        &self,
        survey: &Survey,
        root: BorrowedFd<'_>,
        desired: &Desired,
        inode: u64,
        guard: Guard<'_>,
    ) -> Result<(), DriverError> {
        let path = self.path(&desired.place);
        let left = survey.left_at(&path, desired);
        // One of this resource that did not come along out of the trash.
        let stray = survey.of(desired.id).filter(|quota| quota.path != path);
        for old in left.into_iter().chain(stray) {
            if let Some(id) = old.mark() {
                survey.prove_trashed(root, id)?;
            }
            guard(&format!("take away the quota {} of {}", old.name, old.path))?;
            self.management.delete(old.id)?;
        }
        guard(&format!("quota of {path}: {}", desired.limits))?;
        self.management.make(&path, inode, desired).map_err(|fault| match (fault, &survey.above(&path)[..]) {
            (DriverError::Passing { what, source }, above @ [_, ..]) => DriverError::Passing {
                what: format!("{what}. Quotas of directories above it count, too ({}): {NESTING}", named(above)),
                source,
            },
            (fault, _) => fault,
        })
    }

    /// Names the quota after this resource and the directory with this inode.
    fn mark(&self, quota: &Quota, desired: &Desired, inode: u64, guard: Guard<'_>) -> Result<(), DriverError> {
        if quota.mark() == Some(desired.id) && quota.inode() == Some(inode) {
            return Ok(());
        }
        guard(&format!("mark the quota {:?} of {}", quota.name, quota.path))?;
        self.management.change(quota.id, &wire::mark(desired.id, inode))
    }

    fn limit(&self, quota: &Quota, limits: QuotaLimits, guard: Guard<'_>) -> Result<(), DriverError> {
        if quota.limits() == Some(limits) {
            return Ok(());
        }
        guard(&format!("limits of {}: {limits}", quota.path))?;
        self.management.change(quota.id, &wire::limits(limits))
    }
}

/// What VAST's documentation says of quotas within others.
const NESTING: &str = "VAST nests quotas 16 levels deep at most, older releases 3, and the smallest limit holds";

/// Quotas by their names and paths.
fn named(quotas: &[&Quota]) -> String {
    let named = quotas.iter().map(|quota| format!("{} of {}", driver_rest::quoted(&quota.name), quota.path));
    named.collect::<Vec<_>>().join(", ")
}

/// Makes the directory with those above, and holds it.
fn make(survey: &Survey, root: BorrowedFd<'_>, desired: &Desired, guard: Guard<'_>) -> Result<Held, DriverError> {
    mount::make_parents(root, desired, guard)?;
    guard(&format!("make the directory {}", desired.place))?;
    mount::make_private(root, &desired.place)?;
    let held = match held::look(root, &desired.place)? {
        Found::Directory(held) if held.is_new()? => held,
        _ => {
            let what = "is something else than what was made there just now";
            return Err(DriverError::Conflict(format!("at {} {what}", desired.place)));
        }
    };
    match survey.other_for(held.inode(), desired) {
        Some(other) => Err(DriverError::Conflict(moved_here(&desired.place.to_string(), other))),
        None => Ok(held),
    }
}

/// Why a directory that another resource's quota is for cannot be used. A file system may give numbers again.
fn moved_here(path: &str, other: &Quota) -> String {
    format!(
        "at {path} is the directory of the quota {} of {}: it was moved here. If that one's directory was deleted by \
         hand, delete its quota in VMS",
        other.name, other.path
    )
}

fn unmarked(desired: &Desired, quota: Option<&Quota>) -> DriverError {
    let ours = quota.filter(|quota| quota.mark() == Some(desired.id));
    DriverError::Conflict(match ours {
        Some(_) => format!("the quota of {} does not say for which directory it is: adopt it", desired.place),
        None => format!("{} is not ours", desired.place),
    })
}

impl Driver for Vast {
    fn ready(&self) -> Result<(), DriverError> {
        self.mount.root()?;
        self.management.quotas().map(drop)
    }

    fn held_as(&self, limits: QuotaLimits) -> QuotaLimits {
        limits
    }

    fn inspect(&self, above: &[Place]) -> Vec<Result<String, DriverError>> {
        let quotas = match self.management.quotas() {
            Ok(quotas) => quotas,
            Err(fault) => return vec![Err(fault)],
        };
        let above: Vec<_> = above.iter().map(|place| self.path(place)).collect();
        let holds = |quota: &&Quota| survey::holds(&quota.path, &self.root) || above.contains(&quota.path);
        let outer: Vec<_> = quotas.iter().filter(holds).collect();
        let mut found = Vec::new();
        if !outer.is_empty() {
            found.push(Ok(format!("directories above those of resources have quotas ({}): {NESTING}", named(&outer))));
        }
        for fault in quotas.iter().filter_map(|quota| Some((quota, quota.is_readable().err()?))) {
            // One elsewhere stops nothing here.
            found.push(match fault {
                (quota, fault) if survey::holds(&self.root, &quota.path) => Err(fault),
                (_, fault) => Ok(fault.to_string()),
            });
        }
        found
    }

    fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>> {
        let surveyed = |root: OwnedFd| self.survey(root.as_fd()).map(|survey| (root, survey));
        match self.mount.root().and_then(surveyed) {
            Ok((root, survey)) => desired.iter().map(|desired| self.one(&survey, root.as_fd(), desired)).collect(),
            Err(fault) => storage_driver::same_for_all(&fault, desired.len()),
        }
    }

    fn trash(&self) -> Result<Vec<Trashed>, DriverError> {
        trash::list(self.mount.root()?.as_fd()).map(|[trash, _]| trash)
    }

    fn marked(&self, _: usize) -> Result<Vec<Marked>, DriverError> {
        let root = self.mount.root()?;
        let survey = self.survey(root.as_fd())?;
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
        let surveyed = self.mount.root().and_then(|root| self.survey(root.as_fd()));
        let survey = match surveyed {
            Ok(survey) => survey,
            Err(fault) => return storage_driver::same_for_all(&fault, trashed.len()),
        };
        let one = |(trashed, _): &(Trashed, _)| Ok(survey.of(trashed.id).and_then(Quota::usage));
        trashed.iter().map(one).collect()
    }

    fn claimed(&self) -> Result<Vec<Trashed>, DriverError> {
        trash::list(self.mount.root()?.as_fd()).map(|[_, claimed]| claimed)
    }

    fn changed(&self, trashed: &Trashed) -> Result<Option<u64>, DriverError> {
        trash::changed(self.mount.root()?.as_fd(), trashed).map(Some)
    }

    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let root = self.mount.root()?;
        let survey = self.survey(root.as_fd())?;
        if survey.trash.contains_key(&desired.id) {
            return Err(DriverError::Conflict(format!(
                "the directory of {} is in the trash; restore it",
                desired.place
            )));
        }
        match self.at(&survey, root.as_fd(), desired)? {
            At::Obstructed(why) => Err(DriverError::Conflict(why)),
            At::Unmarked(_, _, quota) => Err(unmarked(desired, quota)),
            At::Ours(held, _, quota) => {
                self.limit(quota, desired.limits, guard)?;
                held.give(desired, guard)
            }
            At::Free(begun, quota) => {
                let held = begun.map_or_else(|| make(&survey, root.as_fd(), desired, guard), Ok)?;
                match quota {
                    Some(quota) => {
                        self.mark(quota, desired, held.inode(), guard)?;
                        self.limit(quota, desired.limits, guard)?;
                    }
                    None => self.set_quota(&survey, root.as_fd(), desired, held.inode(), guard)?,
                }
                held.give(desired, guard)
            }
        }
    }

    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Result<(), DriverError> {
        let root = self.mount.root()?;
        let survey = self.survey(root.as_fd())?;
        if survey.trash.contains_key(&desired.id) {
            return survey.prove_trashed(root.as_fd(), desired.id);
        }
        let (held, present, quota) = match self.at(&survey, root.as_fd(), desired)? {
            At::Ours(held, present, quota) => (held, present, quota),
            At::Free(..) => return Ok(()),
            At::Obstructed(why) => return Err(DriverError::Conflict(why)),
            At::Unmarked(_, _, quota) => return Err(unmarked(desired, quota)),
        };
        survey.nothing_nested(&quota.path, desired.id)?;
        let Some(usage) = present.usage else {
            return Err(DriverError::unclear(format!("what {} uses is not known yet", desired.place)));
        };
        held.set_mode(Mode(0), guard)?;
        self.limit(quota, QuotaLimits::frozen_at(usage, 1), guard)?;
        guard(&format!("put {} into the trash", desired.place))?;
        trash::put(root.as_fd(), desired, now)?;
        // What is renamed has no handle: if it was exchanged at that moment, at least nobody deletes it.
        let put = Survey { trash: [(desired.id, now)].into(), ..survey };
        put.prove_trashed(root.as_fd(), desired.id)
    }

    fn restore(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let root = self.mount.root()?;
        let survey = self.survey(root.as_fd())?;
        if let Some(since) = survey.trash.get(&desired.id) {
            survey.prove_trashed(root.as_fd(), desired.id)?;
            if !matches!(self.at(&survey, root.as_fd(), desired)?, At::Free(None, _)) {
                return Err(DriverError::Conflict(format!("at {} is something that is not ours", desired.place)));
            }
            mount::make_parents(root.as_fd(), desired, guard)?;
            let inode = trash::inode(root.as_fd(), &Trashed { id: desired.id, since: *since })?;
            guard(&format!("take {} out of the trash", desired.place))?;
            trash::take_out(root.as_fd(), desired, *since)?;
            let survey = self.survey(root.as_fd())?;
            if survey.at(&self.path(&desired.place), desired).is_none() {
                self.set_quota(&survey, root.as_fd(), desired, inode, guard)?;
            }
        } else if survey.claimed.contains_key(&desired.id)
            && matches!(self.at(&survey, root.as_fd(), desired)?, At::Free(None, _))
        {
            return Err(storage_driver::being_purged());
        }
        self.ensure(desired, guard)
    }

    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let root = self.mount.root()?;
        let survey = self.survey(root.as_fd())?;
        match self.at(&survey, root.as_fd(), desired)? {
            At::Ours(..) => Ok(()),
            At::Unmarked(held, _, None) => self.set_quota(&survey, root.as_fd(), desired, held.inode(), guard),
            At::Unmarked(held, _, Some(quota)) => self.mark(quota, desired, held.inode(), guard),
            At::Obstructed(why) => Err(DriverError::Conflict(why)),
            At::Free(..) => Err(DriverError::Conflict(format!("at {} is nothing to adopt", desired.place))),
        }
    }

    fn claim(&self, trashed: &Trashed, _: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        let root = self.mount.root()?;
        let survey = self.survey(root.as_fd())?;
        if survey.trash.get(&trashed.id) != Some(&trashed.since) {
            return Ok(());
        }
        survey.prove_trashed(root.as_fd(), trashed.id)?;
        // First, for without the tree nobody would look for it any more.
        if let Some(quota) = survey.of(trashed.id) {
            survey.nothing_nested(&quota.path, trashed.id)?;
            guard(&format!("delete the quota {} of {}", quota.name, quota.path))?;
            self.management.delete(quota.id)?;
        }
        guard(&format!("claim the tree of {} in the trash for the purge", trashed.id))?;
        trash::claim(root.as_fd(), trashed)
    }

    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        self.claim(trashed, project, guard)?;
        let root = self.mount.root()?;
        guard(&format!("delete the tree of {}", trashed.id))?;
        trash::delete(root.as_fd(), trashed, &self.walked)
    }

    fn usage(&self, desired: &[&Desired]) -> Vec<Result<Option<Usage>, DriverError>> {
        let used = |(desired, observed): (&&Desired, Result<Observed, DriverError>)| match observed? {
            Observed::Ours(Present { usage: None, .. }) => {
                Err(DriverError::unclear(format!("what {} uses is not known yet", desired.place)))
            }
            Observed::Ours(present) => Ok(present.usage),
            _ => Ok(None),
        };
        desired.iter().zip(self.observe(desired)).map(used).collect()
    }
}
