//! Linux project quotas through open file descriptors: [`tag`] sets the project ID of directories, [`quota`] sets limits and
//! reads usage.
//!
//! The crate resolves no path, does not read `/etc/projects` and starts no program. `quotactl_fd` needs Linux 5.14, and
//! changes need CAP_SYS_ADMIN. To the kernel, a limit of 0 means *unlimited* and project 0 means *untagged*; the types here
//! cannot express either value.

use std::num::{NonZeroU32, NonZeroU64};

use rustix::io::Errno;
use thiserror::Error;

mod call;
pub mod quota;
pub mod tag;

/// A project ID. Excludes 0, which means untagged, and 2^32 − 1, which means an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Project(NonZeroU32);

impl Project {
    /// The project with this ID; `None` for 0 and 2^32 − 1.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) if number.get() != u32::MAX => Some(Self(number)),
            _ => None,
        }
    }

    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// Limits of a project: all four to set, or `Option`s as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits<T = NonZeroU64> {
    /// Soft space limit in bytes.
    pub space_soft: T,
    /// Hard space limit in bytes.
    pub space_hard: T,
    /// Soft limit of the number of files and directories.
    pub inodes_soft: T,
    /// Hard limit of the number of files and directories.
    pub inodes_hard: T,
}

impl Limits {
    /// Checks that the kernel applies the limits exactly: XFS silently keeps the old limits if a soft limit exceeds its hard limit.
    fn check(&self, block: u64) -> Result<(), Error> {
        for bytes in [self.space_soft, self.space_hard] {
            if !bytes.get().is_multiple_of(block) {
                return Err(Error::Uneven { bytes: bytes.get(), block });
            }
        }
        if self.space_soft > self.space_hard || self.inodes_soft > self.inodes_hard {
            return Err(Error::SoftAboveHard);
        }
        Ok(())
    }
}

impl Limits<Option<NonZeroU64>> {
    /// The limits, if all four are set.
    pub fn all(self) -> Option<Limits> {
        Some(Limits {
            space_soft: self.space_soft?,
            space_hard: self.space_hard?,
            inodes_soft: self.inodes_soft?,
            inodes_hard: self.inodes_hard?,
        })
    }
}

/// Limits and usage of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The limits; `None` = unlimited.
    pub limits: Limits<Option<NonZeroU64>>,
    /// Space used, in bytes.
    pub space: u64,
    /// Number of files and directories with this project ID.
    pub inodes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The kernel returned an error.
    #[error("{call}: {errno}")]
    Kernel {
        /// The system call or command.
        call: &'static str,
        errno: Errno,
    },
    /// The kernel would round the limit.
    #[error("a limit of {bytes} bytes is not a multiple of the block size of {block} bytes")]
    Uneven {
        /// The limit in bytes.
        bytes: u64,
        /// The block size in bytes.
        block: u64,
    },
    /// The kernel would silently ignore the limit.
    #[error("a soft limit exceeds its hard limit")]
    SoftAboveHard,
    /// The kernel returned a number of blocks that is more than 2^64 bytes.
    #[error("the kernel returned {0} blocks, which does not fit into 64 bits as bytes")]
    Beyond(u64),
}

impl Error {
    /// The error number, if the kernel returned one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// Converts blocks to bytes.
fn bytes(blocks: u64, block: u64) -> Result<u64, Error> {
    blocks.checked_mul(block).ok_or(Error::Beyond(blocks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ids_are_not_projects() {
        assert_eq!(Project::new(0), None);
        assert_eq!(Project::new(u32::MAX), None);
        assert_eq!(Project::new(7).map(Project::get), Some(7));
    }

    #[test]
    fn partial_limits_are_not_all() {
        let some = NonZeroU64::new(1);
        let set = Limits { space_soft: some, space_hard: some, inodes_soft: some, inodes_hard: some };
        assert!(set.all().is_some());
        assert!(Limits { inodes_soft: None, ..set }.all().is_none());
    }
}
