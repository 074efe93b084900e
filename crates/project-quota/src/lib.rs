//! Project quotas of the Linux kernel, by open handles alone: [`tag`] gives directories a project ID, [`quota`] sets limits
//! and tells usage.
//!
//! No path is resolved, no `/etc/projects` is read, no program is started. `quotactl_fd` needs Linux 5.14, and changing
//! anything needs CAP_SYS_ADMIN. To the kernel 0 means *unlimited*, and project 0 stands for everything untagged: the types
//! here cannot say either.

use std::num::{NonZeroU32, NonZeroU64};

use rustix::io::Errno;
use thiserror::Error;

mod call;
pub mod quota;
pub mod tag;

/// The number of a project: neither 0, which stands for everything untagged, nor 2^32 − 1, which stands for an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Project(NonZeroU32);

impl Project {
    /// The project with this number; `None` for 0 and 2^32 − 1.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) if number.get() != u32::MAX => Some(Self(number)),
            _ => None,
        }
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// Limits of a project: all of them to be set, or `Option`s as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits<T = NonZeroU64> {
    /// Soft limit of the space, in bytes.
    pub space_soft: T,
    /// Hard limit of the space, in bytes.
    pub space_hard: T,
    /// Soft limit of the inodes.
    pub inodes_soft: T,
    /// Hard limit of the inodes.
    pub inodes_hard: T,
}

impl Limits {
    /// Whether a kernel would take them as they are: XFS silently leaves the old limits where a soft one is above its hard one.
    fn judge(&self, block: u64) -> Result<(), Error> {
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
    /// The limits if all of them are set.
    pub fn all(self) -> Option<Limits> {
        Some(Limits {
            space_soft: self.space_soft?,
            space_hard: self.space_hard?,
            inodes_soft: self.inodes_soft?,
            inodes_hard: self.inodes_hard?,
        })
    }
}

/// What the kernel knows of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Its limits; `None` where unlimited.
    pub limits: Limits<Option<NonZeroU64>>,
    /// Space that its files take, in bytes.
    pub space: u64,
    /// Files and directories that are tagged with it.
    pub inodes: u64,
}

/// Why a call came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The kernel said no.
    #[error("{call}: {errno}")]
    Kernel {
        /// What it was asked.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
    /// A limit that the kernel would round.
    #[error("a limit of {bytes} bytes is no whole number of blocks of {block} bytes")]
    Uneven {
        /// The limit.
        bytes: u64,
        /// The unit in which the kernel takes limits.
        block: u64,
    },
    /// A limit that the kernel would not take, and not say so.
    #[error("a soft limit is above its hard one")]
    SoftAboveHard,
    /// A number of the kernel's that counts more bytes than 2^64.
    #[error("the kernel tells of {0} blocks, which is beyond what a computer can hold")]
    Beyond(u64),
}

impl Error {
    /// The kernel's word, if it was the kernel that said no.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// So many blocks in bytes.
fn bytes(blocks: u64, block: u64) -> Result<u64, Error> {
    blocks.checked_mul(block).ok_or(Error::Beyond(blocks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_everything_untagged_is_no_project() {
        assert_eq!(Project::new(0), None);
        assert_eq!(Project::new(u32::MAX), None);
        assert_eq!(Project::new(7).map(Project::get), Some(7));
    }

    #[test]
    fn limits_that_are_half_set_are_not_all() {
        let some = NonZeroU64::new(1);
        let set = Limits { space_soft: some, space_hard: some, inodes_soft: some, inodes_hard: some };
        assert!(set.all().is_some());
        assert!(Limits { inodes_soft: None, ..set }.all().is_none());
    }
}
