//! What is there at one time: the quotas, and what lies in the trash.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use uuid::Uuid;

use super::trash;
use super::wire::Quota;
use storage_driver::{Desired, DriverError, Trashed};

pub(super) struct Survey {
    pub(super) quotas: Vec<Quota>,
    /// Since when, by resource.
    pub(super) trash: BTreeMap<Uuid, u64>,
    /// The same for what a purge has claimed.
    pub(super) claimed: BTreeMap<Uuid, u64>,
}

impl Survey {
    pub(super) fn of(&self, id: Uuid) -> Option<&Quota> {
        self.quotas.iter().find(|quota| quota.mark() == Some(id))
    }

    /// Left behind at this path by another resource, which is in the trash.
    pub(super) fn left_at(&self, path: &str, desired: &Desired) -> Option<&Quota> {
        let left = |mark: Uuid| mark != desired.id && self.trash.contains_key(&mark);
        self.quotas.iter().find(|quota| quota.path == path && quota.mark().is_some_and(left))
    }

    /// The quota of whatever is at this path now.
    pub(super) fn at(&self, path: &str, desired: &Desired) -> Option<&Quota> {
        let left = self.left_at(path, desired).map(|quota| quota.id);
        self.quotas.iter().find(|quota| quota.path == path && Some(quota.id) != left)
    }

    /// The quotas of the directories above this path.
    pub(super) fn above(&self, path: &str) -> Vec<&Quota> {
        self.quotas.iter().filter(|quota| quota.path != path && holds(&quota.path, path)).collect()
    }

    /// Why a path lies within another resource's directory, if it does.
    pub(super) fn nested_in(&self, path: &str, desired: &Desired) -> Option<String> {
        let mut above = self.others(desired.id).filter(|(quota, _)| quota.path != path && holds(&quota.path, path));
        above.next().map(|(quota, other)| storage_driver::nested(&quota.path, other))
    }

    /// A conflict where another resource's directory lies below a path.
    pub(super) fn nothing_nested(&self, path: &str, id: Uuid) -> Result<(), DriverError> {
        let is_below = |quota: &Quota| quota.path != path && holds(path, &quota.path);
        self.others(id).find(|(quota, _)| is_below(quota)).map_or(Ok(()), |(quota, other)| {
            let below = &quota.path;
            Err(DriverError::Conflict(format!(
                "{below} is the directory of another resource, {other}: move it out of {path} first"
            )))
        })
    }

    /// The quotas of other resources whose directories are not in the trash.
    fn others(&self, id: Uuid) -> impl Iterator<Item = (&Quota, Uuid)> {
        let marked = self.quotas.iter().filter_map(|quota| Some((quota, quota.mark()?)));
        marked.filter(move |(_, mark)| *mark != id && !self.trash.contains_key(mark))
    }

    /// Another resource's quota that is for the directory with this inode, wherever that lies now.
    pub(super) fn other_for(&self, inode: u64, desired: &Desired) -> Option<&Quota> {
        let other = |quota: &&Quota| quota.inode() == Some(inode) && quota.mark() != Some(desired.id);
        self.quotas.iter().find(other)
    }

    /// A conflict where the tree in the trash under this UUID is not the one that its quota is for. Without a quota there
    /// is nothing to compare: it is taken away only after this was asked, and nobody else gets into the trash.
    pub(super) fn prove_trashed(&self, root: BorrowedFd<'_>, id: Uuid) -> Result<(), DriverError> {
        let Some(&since) = self.trash.get(&id) else { return Ok(()) };
        let Some(quota) = self.of(id) else { return Ok(()) };
        let inode = trash::inode(root, &Trashed { id, since })?;
        if quota.inode() == Some(inode) {
            return Ok(());
        }
        Err(DriverError::Conflict(format!("in the trash as {id}.{since} is {}", quota.another(inode))))
    }
}

/// Whether a path is the other one, or lies above it.
pub(super) fn holds(upper: &str, lower: &str) -> bool {
    let below = lower.strip_prefix(upper.trim_end_matches('/'));
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}
