//! The current quotas and the content of the trash.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use uuid::Uuid;

use super::trash;
use super::wire::Quota;
use driver_rest::is_below;
use storage_driver::{Desired, DriverError, Trashed};

pub(super) struct Survey {
    pub(super) root: OwnedFd,
    pub(super) quotas: Vec<Quota>,
    /// Trees in the trash by resource, with the time when they were put there.
    pub(super) trash: BTreeMap<Uuid, u64>,
    /// Trees that a purge has claimed by resource, with the time when they were put into the trash.
    pub(super) claimed: BTreeMap<Uuid, u64>,
}

impl Survey {
    pub(super) fn quota_of(&self, id: Uuid) -> Option<&Quota> {
        self.quotas.iter().find(|quota| quota.mark() == Some(id))
    }

    /// The quota that another resource, which is in the trash, has left at this path.
    pub(super) fn leftover_at(&self, path: &str, desired: &Desired) -> Option<&Quota> {
        let is_trashed = |mark: Uuid| mark != desired.id && self.trash.contains_key(&mark);
        self.quotas.iter().find(|quota| quota.path == path && quota.mark().is_some_and(is_trashed))
    }

    /// The quota of the current directory at this path.
    pub(super) fn quota_at(&self, path: &str, desired: &Desired) -> Option<&Quota> {
        let leftover = self.leftover_at(path, desired).map(|quota| quota.id);
        self.quotas.iter().find(|quota| quota.path == path && Some(quota.id) != leftover)
    }

    /// The quotas of the directories above this path.
    pub(super) fn quotas_above(&self, path: &str) -> Vec<&Quota> {
        self.quotas.iter().filter(|quota| is_below(path, &quota.path)).collect()
    }

    /// Why a path is nested in another resource's directory, if it is.
    pub(super) fn why_nested(&self, path: &str, desired: &Desired) -> Option<String> {
        let above = self.other_quotas(desired.id).find(|(quota, _)| is_below(path, &quota.path));
        above.map(|(quota, other)| storage_driver::nested(&quota.path, other))
    }

    /// Conflict if another resource's directory is below a path.
    pub(super) fn check_nothing_below(&self, path: &str, id: Uuid) -> Result<(), DriverError> {
        self.other_quotas(id).find(|(quota, _)| is_below(&quota.path, path)).map_or(Ok(()), |(quota, other)| {
            let below = &quota.path;
            Err(DriverError::Conflict(format!(
                "{below} is the directory of another resource, {other}: move it out of {path} first"
            )))
        })
    }

    /// The quotas of other resources whose directories are not in the trash.
    fn other_quotas(&self, id: Uuid) -> impl Iterator<Item = (&Quota, Uuid)> {
        let marked = self.quotas.iter().filter_map(|quota| Some((quota, quota.mark()?)));
        marked.filter(move |(_, mark)| *mark != id && !self.trash.contains_key(mark))
    }

    /// Another resource's quota for the directory with this inode, at any path.
    pub(super) fn other_quota_for(&self, inode: u64, desired: &Desired) -> Option<&Quota> {
        let other = |quota: &&Quota| quota.inode() == Some(inode) && quota.mark() != Some(desired.id);
        self.quotas.iter().find(other)
    }

    /// Conflict if the tree in the trash with this UUID is not the one that its quota is for. Succeeds
    /// without a quota: quotas are only deleted after this check, and only this program can access the trash.
    pub(super) fn check_trashed_inode(&self, id: Uuid) -> Result<(), DriverError> {
        let Some(&since) = self.trash.get(&id) else { return Ok(()) };
        let Some(quota) = self.quota_of(id) else { return Ok(()) };
        let inode = trash::inode(self.root.as_fd(), &Trashed { id, since })?;
        if quota.inode() == Some(inode) {
            return Ok(());
        }
        Err(DriverError::Conflict(format!("{id}.{since} in the trash is {}", quota.mismatch(inode))))
    }
}
