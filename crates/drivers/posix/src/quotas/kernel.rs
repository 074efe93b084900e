//! Project quotas of XFS and ext4.
//!
//! At a limit, writes fail with ENOSPC or EDQUOT, depending on file system and kernel. ext4 does not enforce limits for
//! processes with CAP_SYS_RESOURCE, such as root.

use std::os::fd::BorrowedFd;

use project_quota::quota;
use rustix::io::Errno;

use super::{Quotas, number};
use storage_driver::DriverError;
use storage_driver::limits::{Bytes, Inodes, QuotaLimits, Usage};

/// Project quotas of one mounted file system.
#[derive(Debug)]
pub struct Kernel {
    system: System,
    block: u64,
}

/// A supported file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Xfs,
    Ext4,
}

/// File system types of XFS and of ext2, ext3 and ext4 in `fstatfs`.
const MAGIC: [(u64, System); 2] = [(0x5846_5342, System::Xfs), (0xef53, System::Ext4)];

impl Kernel {
    /// Quotas of the file system of this root, which must be XFS or ext4.
    pub fn of(root: BorrowedFd<'_>) -> Result<Self, DriverError> {
        let (system, block) = detect(root)?;
        Ok(Self { system, block })
    }
}

/// The file system of the root and the block size of its limits.
fn detect(root: BorrowedFd<'_>) -> Result<(System, u64), DriverError> {
    let found = rustix::fs::fstatfs(root).map_err(|error| {
        DriverError::temporary_from("the file system type of the root cannot be read", std::io::Error::from(error))
    })?;
    let magic = u64::try_from(found.f_type).unwrap_or_default();
    let block = u64::try_from(found.f_bsize).unwrap_or_default().max(1);
    match MAGIC.iter().find(|(known, _)| *known == magic) {
        Some((_, System::Xfs)) => Ok((System::Xfs, block)),
        Some((_, System::Ext4)) => Ok((System::Ext4, quota::EXT4_BLOCK)),
        None => Err(DriverError::temporary(format!(
            "the root is on a file system of type {magic:#x}, which is neither XFS nor ext4: mount the right one, or \
             choose another driver for this system"
        ))),
    }
}

impl Quotas for Kernel {
    fn ready(&self, root: BorrowedFd<'_>) -> Result<(), DriverError> {
        if detect(root)? != (self.system, self.block) {
            return Err(DriverError::temporary(
                "the file system of the root has changed since the program started: restart the program",
            ));
        }
        let remedy = match self.system {
            System::Xfs => "mount the file system with `-o prjquota`",
            System::Ext4 => {
                "unmount the file system, run `tune2fs -O project,quota -Q prjquota DEVICE`, and mount it with `-o prjquota`"
            }
        };
        match quota::state(root) {
            Ok(quota::State { counted: true, enforced: true }) => Ok(()),
            Ok(quota::State { counted: true, enforced: false }) => {
                Err(DriverError::temporary(format!("project quotas are counted but not enforced: {remedy}")))
            }
            Ok(_) => Err(DriverError::temporary(format!("project quotas are off: {remedy}"))),
            Err(error) => Err(match error.errno() {
                Some(Errno::PERM) => DriverError::temporary_from(
                    "project quotas need the capability CAP_SYS_ADMIN: grant it to the program",
                    error,
                ),
                Some(Errno::NOSYS) if quota::is_supported(root) => {
                    DriverError::temporary_from(format!("project quotas are off: {remedy}"), error)
                }
                Some(Errno::NOSYS) => no_quota_support("the state of project quotas cannot be read", error),
                _ => {
                    DriverError::temporary_from(format!("the state of project quotas cannot be read: {remedy}"), error)
                }
            }),
        }
    }

    fn block(&self) -> u64 {
        self.block
    }

    fn has_project_ids(&self) -> bool {
        true
    }

    fn read(
        &self,
        directory: BorrowedFd<'_>,
        project: u32,
    ) -> Result<(Option<QuotaLimits>, Option<Usage>), DriverError> {
        let found = quota::get(directory, number(project)?).map_err(|error| {
            quota_error(directory, &format!("the quota of project {project} cannot be read"), error)
        })?;
        let limits = found.limits.all().and_then(|all| {
            let space = [all.space_soft, all.space_hard].map(|n| Bytes(n.get()));
            QuotaLimits::new(space, [all.inodes_soft, all.inodes_hard].map(|n| Inodes(n.get()))).ok()
        });
        Ok((limits, Some(Usage { space: Bytes(found.space), inodes: Inodes(found.inodes) })))
    }

    fn set(&self, directory: BorrowedFd<'_>, project: u32, limits: &QuotaLimits) -> Result<(), DriverError> {
        let n = |n: u64| n.try_into().map_err(|_| DriverError::temporary("a limit is 0, which means unlimited"));
        let all = project_quota::Limits {
            space_soft: n(limits.space_soft().0)?,
            space_hard: n(limits.space_hard().0)?,
            inodes_soft: n(limits.inodes_soft().0)?,
            inodes_hard: n(limits.inodes_hard().0)?,
        };
        quota::set(directory, number(project)?, &all)
            .map_err(|error| quota_error(directory, &format!("the quota of project {project} cannot be set"), error))
    }

    fn clear(&self, root: BorrowedFd<'_>, project: u32) -> Result<(), DriverError> {
        quota::clear(root, number(project)?)
            .map_err(|error| quota_error(root, &format!("the quota of project {project} cannot be removed"), error))
    }
}

/// The error of a quota call on the file system of `fd`.
fn quota_error(fd: BorrowedFd<'_>, what: &str, error: project_quota::Error) -> DriverError {
    if error.errno() == Some(Errno::NOSYS) && !quota::is_supported(fd) {
        return no_quota_support(what, error);
    }
    DriverError::temporary_from(what, error)
}

/// The error of a kernel without quotas, where mount options do not help.
fn no_quota_support(what: &str, error: project_quota::Error) -> DriverError {
    DriverError::temporary_from(
        format!(
            "{what}: this kernel has no quota support. It was built without CONFIG_QUOTA or CONFIG_XFS_QUOTA, is older than \
             Linux 5.14, or a container's seccomp filter blocks the system call quotactl_fd: use another kernel, or choose other quotas for \
             this system"
        ),
        error,
    )
}

#[cfg(test)]
mod tests;
