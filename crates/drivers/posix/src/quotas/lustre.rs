//! Project quotas of Lustre: project IDs by ioctl, limits and usage by `lfs`.
//!
//! **Never tested with a real Lustre.** Written from Lustre's manual and recorded output of `lfs` 2.12 to 2.16, and tested with
//! a simulated `lfs` and the ioctls of XFS, which Lustre shares.
//!
//! Trees are tagged by our own walk instead of `lfs project -s -r`, with the same ioctls: that command tags the top
//! first, so the ID of the top proves nothing after a crash. It also takes a path, below which users could swap
//! directories, and would need a timeout of hours.

use std::fmt::Display;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::{Quotas, number};
use crate::command::{CommandError, Program, run};
use storage_driver::DriverError;
use storage_driver::limits::{QuotaLimits, Usage};

mod lfs;

/// Exit code of `lfs` if its numbers are inaccurate.
const EIO: i32 = 5;
/// Timeout of `lfs`, which waits for unavailable servers.
const TIMEOUT: Duration = Duration::from_mins(2);

/// Quotas of one mounted Lustre file system.
#[derive(Debug)]
pub struct Lustre {
    lfs: Program,
    mount: String,
    /// The default quota of projects; read once per pass, when it is needed.
    default: Mutex<Option<lfs::Default>>,
}

impl Lustre {
    /// Quotas of the file system that is mounted at `mount`, an absolute path.
    ///
    /// `lfs` takes the mount point instead of a handle, so each call first checks that the handle is on the same file system.
    pub fn new(lfs: Program, mount: &str) -> Result<Self, DriverError> {
        if !mount.starts_with('/') || mount.contains(|each: char| each.is_whitespace() || each.is_control()) {
            return Err(DriverError::temporary(format!(
                "the mount point {mount:?} is not an absolute path without spaces: give the directory where Lustre is mounted"
            )));
        }
        Ok(Self { lfs, mount: mount.to_owned(), default: Mutex::new(None) })
    }

    fn call(&self, directory: BorrowedFd<'_>, arguments: &[String], what: impl Display) -> Result<String, DriverError> {
        let unknown =
            |error: Errno| DriverError::temporary_from(format!("{what}: {} cannot be read", self.mount), error);
        let [here, there] = [rustix::fs::fstat(directory), rustix::fs::stat(self.mount.as_str())];
        if here.map_err(unknown)?.st_dev != there.map_err(unknown)?.st_dev {
            return Err(DriverError::temporary(format!(
                "{what}: the directory is not on the file system at {}: mount it there, or correct `mount`",
                self.mount
            )));
        }
        run(&self.lfs, arguments, TIMEOUT).map_err(|error| match error {
            CommandError::Unsuccessful { code: Some(EIO), .. } => DriverError::temporary_from(
                format!(
                    "{what}: `lfs` reports inaccurate numbers because some servers do not answer: check them with `lfs check servers`"
                ),
                error,
            ),
            error => DriverError::temporary_from(what.to_string(), error),
        })
    }

    /// The default quota of projects.
    fn default(&self, root: BorrowedFd<'_>) -> Result<lfs::Default, DriverError> {
        let mut known = self.default.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(default) = *known {
            return Ok(default);
        }
        let what = "the default quota of projects cannot be read";
        let output = self.call(root, &lfs::read_default(&self.mount), what)?;
        let default = lfs::default(&output, &self.mount).map_err(|error| DriverError::temporary_from(what, error))?;
        *known = Some(default);
        Ok(default)
    }

    fn quota(&self, directory: BorrowedFd<'_>, project: u32) -> Result<(Option<QuotaLimits>, Usage), DriverError> {
        let what = format!("the quota of project {project} cannot be read");
        let output = self.call(directory, &lfs::read_quota(project, &self.mount), &what)?;
        lfs::parse_quota(&output, &self.mount).map_err(|error| DriverError::temporary_from(what, error))
    }
}

impl Quotas for Lustre {
    /// Checks that `lfs` reports project quotas. Clients cannot see whether the servers enforce them (`lctl get_param
    /// osd-*.*.quota_slave.enabled` on the servers).
    fn ready(&self, root: BorrowedFd<'_>) -> Result<(), DriverError> {
        *self.default.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // Any project works, even without limits.
        self.quota(root, 1).map(|_| ()).map_err(|fault| match fault {
            DriverError::Temporary { what, source } => DriverError::Temporary {
                what: format!(
                    "{what}; if project quotas are off: on the servers, `tune2fs -O project,quota` for ldiskfs, then `lctl \
                     conf_param FSNAME.quota.mdt=ugp` and `….quota.ost=ugp`"
                ),
                source,
            },
            fault => fault,
        })
    }

    fn inspect(&self, root: BorrowedFd<'_>) -> Vec<Result<String, DriverError>> {
        let note = match self.default(root) {
            Ok(lfs::Default([0, 0, 0, 0])) => return Vec::new(),
            Ok(lfs::Default([soft, hard, inodes_soft, inodes_hard])) => format!(
                "a default project quota is set (space {soft}/{hard} KiB, inodes {inodes_soft}/{inodes_hard}; 0 is no limit). \
                 It limits every project without limits of its own. A project ID with exactly these limits and no usage \
                 counts as free"
            ),
            Err(fault) => {
                format!("the default quota of projects cannot be read: {}", storage_driver::error_chain(&fault))
            }
        };
        vec![Ok(note)]
    }

    /// From Lustre 2.16 on, `lfs` shows the default limits for a project without limits, without marking them as defaults.
    fn are_default(&self, root: BorrowedFd<'_>, limits: &QuotaLimits) -> Result<bool, DriverError> {
        Ok(self.default(root)?.limits() == Some(*limits))
    }

    fn metadata_server(&self, directory: BorrowedFd<'_>, path: &Path) -> Result<Option<u32>, DriverError> {
        let path = path.display().to_string();
        let what = format!("the metadata server of {path} cannot be read");
        let output = self.call(directory, &lfs::read_metadata_server(&path), &what)?;
        let index = output.split_whitespace().next().and_then(|word| word.parse().ok());
        index.map(Some).ok_or_else(|| DriverError::temporary(format!("{what}: `lfs` printed no number")))
    }

    fn why_renames_fail(&self) -> Option<&'static str> {
        Some(
            "Lustre renames a directory from one metadata server to another only where `mdt.*.enable_remote_rename` is 1 \
             (`lctl get_param mdt.*.enable_remote_rename` on the servers; `lctl set_param -P mdt.*.enable_remote_rename=1` \
             on the MGS). Without it, nothing can be put into the trash or brought back from there",
        )
    }

    fn block(&self) -> u64 {
        lfs::BLOCK
    }

    fn has_project_ids(&self) -> bool {
        true
    }

    fn read(
        &self,
        directory: BorrowedFd<'_>,
        project: u32,
    ) -> Result<(Option<QuotaLimits>, Option<Usage>), DriverError> {
        let (limits, usage) = self.quota(directory, number(project)?.get())?;
        Ok((limits, Some(usage)))
    }

    fn set(&self, directory: BorrowedFd<'_>, project: u32, limits: &QuotaLimits) -> Result<(), DriverError> {
        let what = format!("the quota of project {project} cannot be set");
        let arguments = lfs::set_quota(number(project)?.get(), limits, &self.mount)
            .map_err(|error| DriverError::temporary_from(what.clone(), error))?;
        self.call(directory, &arguments, what).map(|_| ())
    }

    fn clear(&self, root: BorrowedFd<'_>, project: u32) -> Result<(), DriverError> {
        let arguments = lfs::clear_quota(number(project)?.get(), &self.mount);
        self.call(root, &arguments, format!("the quota of project {project} cannot be removed")).map(|_| ())
    }
}

#[cfg(test)]
mod tests;
