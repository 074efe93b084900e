//! Reads and sets limits and usage on XFS and ext4.
//!
//! The kernel accepts the commands of XFS for every file system without rounding: ext4 also keeps limits in bytes in memory and
//! rounds them to [`EXT4_BLOCK`] only on disk.

use std::ffi::c_uint;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::call::{Command, Layout, quotactl};
use crate::{Error, Limits, Project, Quota, bytes};

const SET_LIMITS: Command = Command { number: 0x5804, name: "Q_XSETQLIM" };
const GET_QUOTA: Command = Command { number: 0x5803, name: "Q_XGETQUOTA" };
const GET_STATE: Command = Command { number: 0x5808, name: "Q_XGETQSTATV" };

/// Has no effect if the file system has quotas.
const SYNC: Command = Command { number: 0x5807, name: "Q_XQUOTASYNC" };

/// Block size of space in these commands, in bytes.
const UNIT: u64 = 512;

/// Block size of limits on disk in ext4, in bytes. XFS uses the block size of the file system (`f_bsize` of `fstatfs`).
pub const EXT4_BLOCK: u64 = 1024;

/// `struct fs_disk_quota` in `linux/dqblk_xfs.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct DiskQuota {
    version: i8,
    flags: i8,
    fields: u16,
    id: u32,
    space_hard: u64,
    space_soft: u64,
    inodes_hard: u64,
    inodes_soft: u64,
    space: u64,
    inodes: u64,
    inodes_timer: i32,
    space_timer: i32,
    inodes_warnings: u16,
    space_warnings: u16,
    timers_high: [i8; 3],
    padding2: i8,
    realtime_hard: u64,
    realtime_soft: u64,
    realtime: u64,
    realtime_timer: i32,
    realtime_warnings: u16,
    padding3: i16,
    padding4: [u8; 8],
}

const _: () = assert!(size_of::<DiskQuota>() == 112);

#[expect(unsafe_code, reason = "guarantees the layout")]
// SAFETY: the fields are those in the header, in the same order, with a checked total size, and all are integers.
unsafe impl Layout for DiskQuota {
    const COMMANDS: &'static [c_uint] = &[SET_LIMITS.number, GET_QUOTA.number];
}

/// `FS_DQUOT_VERSION`.
const VERSION: i8 = 1;
/// `FS_PROJ_QUOTA`.
const PROJECT_FLAG: i8 = 1 << 1;
/// `FS_DQ_ISOFT | FS_DQ_IHARD | FS_DQ_BSOFT | FS_DQ_BHARD`.
const ALL_LIMITS: u16 = 0b1111;

/// `struct fs_qfilestatv`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct File {
    inode: u64,
    blocks: u64,
    extents: u32,
    padding: u32,
}

/// `struct fs_quota_statv`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Statv {
    version: i8,
    padding1: u8,
    flags: u16,
    in_core: u32,
    files: [File; 3],
    time_limits: [i32; 3],
    warning_limits: [u16; 3],
    padding3: u16,
    padding4: u32,
    padding2: [u64; 7],
}

const _: () = assert!(size_of::<Statv>() == 160);

#[expect(unsafe_code, reason = "guarantees the layout")]
// SAFETY: the fields are those in the header, in the same order, with a checked total size, and all are integers.
unsafe impl Layout for Statv {
    // The kernel ignores the argument of the second command.
    const COMMANDS: &'static [c_uint] = &[GET_STATE.number, SYNC.number];
}

/// `FS_QSTATV_VERSION1`.
const STATV_VERSION: i8 = 1;
/// `FS_QUOTA_PDQ_ACCT`.
const COUNTED: u16 = 1 << 4;
/// `FS_QUOTA_PDQ_ENFD`.
const ENFORCED: u16 = 1 << 5;

/// State of project quotas on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Usage is counted (accounting).
    pub counted: bool,
    /// Limits are enforced.
    pub enforced: bool,
}

/// Whether the kernel supports quotas on the file system of `fd`, enabled or not.
///
/// The other functions return ENOSYS in two cases: the kernel does not support quotas (at all, or on this file system), or
/// none are enabled.
pub fn is_supported(fd: BorrowedFd<'_>) -> bool {
    quotactl(fd, SYNC, 0, &mut Statv::default()).err().is_none_or(|error| error.errno() != Some(Errno::NOSYS))
}

/// The state of project quotas on the file system of `fd`. Fails with ENOSYS if no quotas of any kind are enabled or the kernel
/// does not support them; [`is_supported`] distinguishes the two.
pub fn state(fd: BorrowedFd<'_>) -> Result<State, Error> {
    let mut found = Statv { version: STATV_VERSION, ..Statv::default() };
    quotactl(fd, GET_STATE, 0, &mut found)?;
    Ok(State { counted: found.flags & COUNTED != 0, enforced: found.flags & ENFORCED != 0 })
}

/// Sets all four limits. Rejects space limits that are not a multiple of 512 bytes. Limits that are read
/// back are rounded up to the block size of the file system.
pub fn set(fd: BorrowedFd<'_>, project: Project, limits: &Limits) -> Result<(), Error> {
    quotactl(fd, SET_LIMITS, project.get(), &mut encode(project, limits)?)
}

/// Removes all limits of the project.
pub fn clear(fd: BorrowedFd<'_>, project: Project) -> Result<(), Error> {
    let mut nothing = DiskQuota { fields: ALL_LIMITS, ..of(project) };
    match quotactl(fd, SET_LIMITS, project.get(), &mut nothing) {
        // Without a record there are no limits.
        Err(fault) if matches!(fault.errno(), Some(Errno::NODATA | Errno::NOENT)) => Ok(()),
        done => done,
    }
}

/// Limits and usage of the project. A project without a record has no limits and no usage.
pub fn get(fd: BorrowedFd<'_>, project: Project) -> Result<Quota, Error> {
    let mut found = of(project);
    match quotactl(fd, GET_QUOTA, project.get(), &mut found) {
        Ok(()) => decode(&found),
        Err(fault) if matches!(fault.errno(), Some(Errno::NODATA | Errno::NOENT)) => decode(&of(project)),
        Err(fault) => Err(fault),
    }
}

fn of(project: Project) -> DiskQuota {
    DiskQuota { version: VERSION, flags: PROJECT_FLAG, id: project.get(), ..DiskQuota::default() }
}

fn encode(project: Project, limits: &Limits) -> Result<DiskQuota, Error> {
    limits.check(UNIT)?;
    Ok(DiskQuota {
        fields: ALL_LIMITS,
        space_hard: limits.space_hard.get() / UNIT,
        space_soft: limits.space_soft.get() / UNIT,
        inodes_hard: limits.inodes_hard.get(),
        inodes_soft: limits.inodes_soft.get(),
        ..of(project)
    })
}

fn decode(found: &DiskQuota) -> Result<Quota, Error> {
    Ok(Quota {
        limits: Limits {
            space_soft: NonZeroU64::new(bytes(found.space_soft, UNIT)?),
            space_hard: NonZeroU64::new(bytes(found.space_hard, UNIT)?),
            inodes_soft: NonZeroU64::new(found.inodes_soft),
            inodes_hard: NonZeroU64::new(found.inodes_hard),
        },
        space: bytes(found.space, UNIT)?,
        inodes: found.inodes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_matches_the_kernel() {
        use std::mem::offset_of;
        assert_eq!(offset_of!(DiskQuota, space_hard), 8);
        assert_eq!(offset_of!(DiskQuota, inodes_timer), 56);
        assert_eq!(offset_of!(DiskQuota, realtime_hard), 72);
        assert_eq!(offset_of!(Statv, files), 8);
        assert_eq!(offset_of!(Statv, time_limits), 80);
        assert_eq!(offset_of!(Statv, padding2), 104);
    }

    #[test]
    fn unsupported_quotas_differ_from_disabled_ones() {
        use std::os::fd::AsFd;
        let proc = std::fs::File::open("/proc").unwrap();
        assert_eq!(state(proc.as_fd()).unwrap_err().errno(), Some(Errno::NOSYS));
        assert!(!is_supported(proc.as_fd()));
    }

    #[test]
    fn limits_that_the_kernel_would_round_or_ignore_are_rejected() {
        let project = Project::new(1).unwrap();
        let limits = |soft, hard| {
            let [soft, hard] = [soft, hard].map(|n| NonZeroU64::new(n).unwrap());
            Limits { space_soft: soft, space_hard: hard, inodes_soft: NonZeroU64::MIN, inodes_hard: NonZeroU64::MIN }
        };
        assert_eq!(encode(project, &limits(512, 513)), Err(Error::Uneven { bytes: 513, block: 512 }));
        assert_eq!(encode(project, &limits(1024, 512)), Err(Error::SoftAboveHard));
        assert_eq!(encode(project, &limits(512, 1024)).unwrap().space_hard, 2);
        let beyond = DiskQuota { space: 1 << 60, ..of(project) };
        assert_eq!(decode(&beyond), Err(Error::Beyond(1 << 60)));
    }

    proptest! {
        #[test]
        fn encoded_limits_decode(soft in 1_u64..1 << 54, more in 0_u64..1 << 54, inodes in 1_u64.., id in 1..u32::MAX) {
            let n = |n| NonZeroU64::new(n).unwrap();
            let limits = Limits {
                space_soft: n(soft * 512), space_hard: n((soft + more) * 512), inodes_soft: n(1), inodes_hard: n(inodes),
            };
            let encoded = encode(Project::new(id).unwrap(), &limits).unwrap();
            prop_assert_eq!(decode(&encoded).unwrap().limits.all(), Some(limits));
            prop_assert_eq!(encoded.id, id);
        }
    }
}
