//! VAST, by its management system (VMS) and a mount over NFS: one directory with one quota object for each resource.
//!
//! Written from the documentation of release 5.3, the public knowledge base and the vendor's public clients. **Never run
//! against a real VAST**: what is known of it is what the simulator of the tests does.
//!
//! A resource's directory is known by the quota object of exactly its path, whose name is the resource's UUID. The
//! directory is made over the mount, empty and closed to all but this program's user, then the quota, then owner and mode:
//! what a crash leaves in between holds nothing and is taken up again. Directories are not made by the quota call
//! (`create_dir`): an NFS client that has just seen nothing there may go on seeing nothing.
//!
//! Into the trash goes a directory by being frozen, closed and renamed to `.trash/UUID.SECONDS` below the root. Its quota
//! object stays, whether VAST leaves it at the old path or moves it along: so a directory that comes back is known at once.
//! Only when another resource gets the path, or with the purge, it is taken away.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;
use uuid::Uuid;

use super::mount::{self, Mount};
use super::rest::{Api, NotSetUp, Pace};
use super::walked::Walked;
use super::{Before, Driver, Fault, Present, Seen, Trashed, Wanted};
use crate::document::Mode;
use crate::limits::{Limits, Usage};
use crate::place::Place;

mod calls;
mod held;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
mod trash;
mod wire;

use calls::Management;
use held::{Found, Held};
use wire::Quota;

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

/// What is there at one time.
struct Survey {
    quotas: Vec<Quota>,
    /// Since when, by resource.
    trash: BTreeMap<Uuid, u64>,
}

impl Survey {
    fn of(&self, id: Uuid) -> Option<&Quota> {
        self.quotas.iter().find(|quota| quota.mark() == Some(id))
    }

    /// Left behind at this path by another resource, which is in the trash.
    fn left_at(&self, path: &str, wanted: &Wanted) -> Option<&Quota> {
        let left = |mark: Uuid| mark != wanted.id && self.trash.contains_key(&mark);
        self.quotas.iter().find(|quota| quota.path == path && quota.mark().is_some_and(left))
    }

    /// The quota of whatever is at this path now.
    fn at(&self, path: &str, wanted: &Wanted) -> Option<&Quota> {
        let left = self.left_at(path, wanted).map(|quota| quota.id);
        self.quotas.iter().find(|quota| quota.path == path && Some(quota.id) != left)
    }
}

/// What a resource's path holds, told apart as far as it can be.
enum At<'a> {
    /// Nothing that holds data: no directory, or one that was just begun; with our quota, if that is there.
    Free(Option<Held>, Option<&'a Quota>),
    Ours(Held, Present, &'a Quota),
    Unmarked(Present, Option<&'a Quota>),
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

    fn survey(&self, root: BorrowedFd<'_>) -> Result<Survey, Fault> {
        let trash = trash::list(root)?.into_iter().map(|trashed| (trashed.id, trashed.since)).collect();
        Ok(Survey { quotas: self.management.quotas()?, trash })
    }

    fn at<'a>(&self, survey: &'a Survey, root: BorrowedFd<'_>, wanted: &Wanted) -> Result<At<'a>, Fault> {
        let path = self.path(&wanted.place);
        let quota = survey.at(&path, wanted);
        let found = held::look(root, &wanted.place)?;
        let ours = quota.is_some_and(|quota| quota.mark() == Some(wanted.id));
        if let Some(other) = quota.and_then(Quota::mark).filter(|_| !ours) {
            return Ok(At::Obstructed(format!("the quota of {path} is {other}'s")));
        }
        if let Some(elsewhere) = survey.of(wanted.id).filter(|quota| quota.path != path)
            && !survey.trash.contains_key(&wanted.id)
        {
            return Ok(At::Obstructed(format!("its quota is at {}", elsewhere.path)));
        }
        match (found, quota) {
            (Found::Other, _) => Ok(At::Obstructed("there, or on the way, is something that is no directory".into())),
            (Found::Nothing, Some(quota)) if !ours => {
                Ok(At::Obstructed(format!("{path} has the quota {:?}, but no directory", quota.name)))
            }
            (Found::Nothing, ours) => Ok(At::Free(None, ours)),
            (Found::Directory(held), _) if !ours && held.is_begun()? => Ok(At::Free(Some(held), None)),
            (Found::Directory(held), quota) => {
                let ((uid, gid), mode) = (held.owner(), held.mode());
                quota.map_or(Ok(()), Quota::judge).map_err(Fault::unclear)?;
                let (limits, usage) = (quota.and_then(Quota::limits), quota.and_then(Quota::usage));
                let present = Present { uid, gid, mode, limits, project: None, usage, acl: None };
                match quota.filter(|_| ours) {
                    // What was in its place is in the trash: this is something else.
                    Some(_) if survey.trash.contains_key(&wanted.id) => {
                        Ok(At::Obstructed("it is in the trash, and something else is in its place".into()))
                    }
                    Some(ours) => Ok(At::Ours(held, present, ours)),
                    None => Ok(At::Unmarked(present, quota)),
                }
            }
        }
    }

    fn one(&self, survey: &Survey, root: BorrowedFd<'_>, wanted: &Wanted) -> Result<Seen, Fault> {
        Ok(match (self.at(survey, root, wanted)?, survey.trash.get(&wanted.id)) {
            (At::Ours(_, present, _), _) => Seen::Ours(present),
            (At::Unmarked(present, _), _) => Seen::Unmarked(present),
            (At::Obstructed(why), _) => Seen::Obstructed(why),
            (At::Free(..), Some(since)) => Seen::Trashed { since: *since },
            (At::Free(..), None) => Seen::Absent,
        })
    }

    /// Gives the directory at the path a quota of this resource.
    fn set_quota(&self, survey: &Survey, wanted: &Wanted, before: Before<'_>) -> Result<(), Fault> {
        let path = self.path(&wanted.place);
        let left = survey.left_at(&path, wanted);
        // One of this resource that did not come along out of the trash.
        let stray = survey.of(wanted.id).filter(|quota| quota.path != path);
        for old in left.into_iter().chain(stray) {
            before(&format!("take away the quota {} of {}", old.name, old.path))?;
            self.management.delete(old.id)?;
        }
        before(&format!("quota of {path}: {}", wanted.limits))?;
        self.management.make(&path, wanted)
    }

    fn limit(&self, quota: &Quota, limits: Limits, before: Before<'_>) -> Result<(), Fault> {
        if quota.limits() == Some(limits) {
            return Ok(());
        }
        before(&format!("limits of {}: {limits}", quota.path))?;
        self.management.change(quota.id, &wire::limits(limits))
    }
}

/// Makes the directory with those above, and holds it.
fn make(root: BorrowedFd<'_>, wanted: &Wanted, before: Before<'_>) -> Result<Held, Fault> {
    mount::make_parents(root, wanted, before)?;
    before(&format!("make the directory {}", wanted.place))?;
    mount::make_private(root, &wanted.place)?;
    match held::look(root, &wanted.place)? {
        Found::Directory(held) if held.is_new()? => Ok(held),
        _ => Err(Fault::Conflict(format!("at {} is something else than what was made there just now", wanted.place))),
    }
}

impl Driver for Vast {
    fn ready(&self) -> Result<(), Fault> {
        self.mount.root()?;
        self.management.quotas().map(drop)
    }

    fn held_as(&self, limits: Limits) -> Limits {
        limits
    }

    fn is_free(&self, _: u32) -> Result<bool, Fault> {
        Ok(true)
    }

    fn observe(&self, wanted: &[&Wanted]) -> Vec<Result<Seen, Fault>> {
        let surveyed = |root: OwnedFd| self.survey(root.as_fd()).map(|survey| (root, survey));
        match self.mount.root().and_then(surveyed) {
            Ok((root, survey)) => wanted.iter().map(|wanted| self.one(&survey, root.as_fd(), wanted)).collect(),
            Err(fault) => super::same_for_all(&fault, wanted.len()),
        }
    }

    fn trash(&self) -> Result<Vec<Trashed>, Fault> {
        trash::list(self.mount.root()?.as_fd())
    }

    fn ensure(&self, wanted: &Wanted, before: Before<'_>) -> Result<(), Fault> {
        let root = self.mount.root()?;
        let survey = self.survey(root.as_fd())?;
        if survey.trash.contains_key(&wanted.id) {
            return Err(Fault::Conflict(format!("the directory of {} is in the trash; restore it", wanted.place)));
        }
        match self.at(&survey, root.as_fd(), wanted)? {
            At::Obstructed(why) => Err(Fault::Conflict(why)),
            At::Unmarked(..) => Err(Fault::Conflict(format!("{} is not ours", wanted.place))),
            At::Ours(held, _, quota) => {
                self.limit(quota, wanted.limits, before)?;
                held.give(wanted, before)
            }
            At::Free(begun, quota) => {
                let held = begun.map_or_else(|| make(root.as_fd(), wanted, before), Ok)?;
                match quota {
                    Some(quota) => self.limit(quota, wanted.limits, before)?,
                    None => self.set_quota(&survey, wanted, before)?,
                }
                held.give(wanted, before)
            }
        }
    }

    fn retire(&self, wanted: &Wanted, now: u64, before: Before<'_>) -> Result<(), Fault> {
        let root = self.mount.root()?;
        let survey = self.survey(root.as_fd())?;
        if survey.trash.contains_key(&wanted.id) {
            return Ok(());
        }
        let (held, present, quota) = match self.at(&survey, root.as_fd(), wanted)? {
            At::Ours(held, present, quota) => (held, present, quota),
            At::Free(..) => return Ok(()),
            At::Obstructed(why) => return Err(Fault::Conflict(why)),
            At::Unmarked(..) => return Err(Fault::Conflict(format!("{} is not ours", wanted.place))),
        };
        let Some(usage) = present.usage else {
            return Err(Fault::unclear(format!("what {} uses is not known yet", wanted.place)));
        };
        held.set_mode(Mode(0), before)?;
        self.limit(quota, Limits::frozen_at(usage, 1), before)?;
        before(&format!("put {} into the trash", wanted.place))?;
        trash::put(root.as_fd(), wanted, now)
    }

    fn restore(&self, wanted: &Wanted, before: Before<'_>) -> Result<(), Fault> {
        let root = self.mount.root()?;
        let survey = self.survey(root.as_fd())?;
        if let Some(since) = survey.trash.get(&wanted.id) {
            if !matches!(self.at(&survey, root.as_fd(), wanted)?, At::Free(None, _)) {
                return Err(Fault::Conflict(format!("at {} is something that is not ours", wanted.place)));
            }
            mount::make_parents(root.as_fd(), wanted, before)?;
            before(&format!("take {} out of the trash", wanted.place))?;
            trash::take_out(root.as_fd(), wanted, *since)?;
            let survey = self.survey(root.as_fd())?;
            if survey.at(&self.path(&wanted.place), wanted).is_none() {
                self.set_quota(&survey, wanted, before)?;
            }
        }
        self.ensure(wanted, before)
    }

    fn adopt(&self, wanted: &Wanted, before: Before<'_>) -> Result<(), Fault> {
        let root = self.mount.root()?;
        let survey = self.survey(root.as_fd())?;
        match self.at(&survey, root.as_fd(), wanted)? {
            At::Ours(..) => Ok(()),
            At::Unmarked(_, None) => self.set_quota(&survey, wanted, before),
            At::Unmarked(_, Some(quota)) => {
                before(&format!("mark the quota {:?} of {}", quota.name, quota.path))?;
                self.management.change(quota.id, &wire::mark(wanted.id))
            }
            At::Obstructed(why) => Err(Fault::Conflict(why)),
            At::Free(..) => Err(Fault::Conflict(format!("at {} is nothing to adopt", wanted.place))),
        }
    }

    fn purge(&self, trashed: &Trashed, _: Option<u32>, before: Before<'_>) -> Result<(), Fault> {
        let root = self.mount.root()?;
        let survey = self.survey(root.as_fd())?;
        if survey.trash.get(&trashed.id) != Some(&trashed.since) {
            return Ok(());
        }
        // First, for without the tree nobody would look for it any more.
        if let Some(quota) = survey.of(trashed.id) {
            before(&format!("delete the quota {} of {}", quota.name, quota.path))?;
            self.management.delete(quota.id)?;
        }
        before(&format!("delete the tree of {}", trashed.id))?;
        trash::delete(root.as_fd(), trashed, &self.walked)
    }

    fn usage(&self, wanted: &[&Wanted]) -> Vec<Result<Option<Usage>, Fault>> {
        let used = |(wanted, seen): (&&Wanted, Result<Seen, Fault>)| match seen? {
            Seen::Ours(Present { usage: None, .. }) => {
                Err(Fault::unclear(format!("what {} uses is not known yet", wanted.place)))
            }
            Seen::Ours(present) => Ok(present.usage),
            _ => Ok(None),
        };
        wanted.iter().zip(self.observe(wanted)).map(used).collect()
    }
}
