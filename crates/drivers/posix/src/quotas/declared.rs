//! Stores limits in an extended attribute without enforcing them.

use std::os::fd::BorrowedFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::Quotas;
use crate::handle::privilege_error;
use storage_driver::DriverError;
use storage_driver::limits::{QuotaLimits, Usage};

/// Limits in an extended attribute, for file systems without quotas.
#[derive(Debug)]
pub struct Declared(String);

impl Declared {
    /// Uses the attribute namespace `trusted` or `user`.
    pub fn new(namespace: &str) -> Self {
        Self(format!("{namespace}.hpc-storage.limits"))
    }

    fn failed(&self, verb: &str, error: Errno) -> DriverError {
        privilege_error(format!("the attribute {} cannot be {verb}", self.0), error)
    }
}

impl Quotas for Declared {
    fn ready(&self, root: BorrowedFd<'_>) -> Result<(), DriverError> {
        match rustix::fs::fgetxattr(root, self.0.as_str(), &mut [0; 512][..]) {
            Ok(_) | Err(Errno::NODATA) => Ok(()),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    fn block(&self) -> u64 {
        1
    }

    fn read(&self, directory: BorrowedFd<'_>, _: u32) -> Result<(Option<QuotaLimits>, Option<Usage>), DriverError> {
        let mut text = [0; 512];
        match rustix::fs::fgetxattr(directory, self.0.as_str(), &mut text) {
            // Unreadable limits count as none, and are written again.
            Ok(length) => Ok((text.get(..length).and_then(|text| serde_json::from_slice(text).ok()), None)),
            Err(Errno::NODATA) => Ok((None, None)),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    fn set(&self, directory: BorrowedFd<'_>, _: u32, limits: &QuotaLimits) -> Result<(), DriverError> {
        let text = serde_json::to_vec(limits)
            .map_err(|error| DriverError::temporary_from("limits cannot be written", error))?;
        rustix::fs::fsetxattr(directory, self.0.as_str(), &text, XattrFlags::empty())
            .map_err(|error| self.failed("set", error))
    }

    fn clear(&self, _: BorrowedFd<'_>, _: u32) -> Result<(), DriverError> {
        Ok(())
    }
}
