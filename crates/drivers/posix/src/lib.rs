//! Storage drivers for mounted file systems: directories below a root, limited by XFS, ext4, Lustre or CephFS.
//!
//! [`tree`] is one driver for all of them; [`quotas`] has the differences. [`mount`], [`record`] and [`deletion`] are also used by drivers
//! that need the mounted file system in addition to a management interface.

pub mod command;
mod creation;
pub mod deletion;
pub mod handle;
#[cfg(test)]
mod injected;
pub mod mount;
pub mod quotas;
pub mod record;
mod registration;
mod renaming;
#[cfg(any(test, feature = "simulated"))]
#[expect(clippy::missing_panics_doc, clippy::unwrap_used, reason = "for tests")]
pub mod simulated;
pub mod tree;

pub use registration::DRIVERS;
