//! The storage provisioner: reads the document that the proxy publishes, creates directories and quotas accordingly, and
//! reports to Waldur.
//!
//! It works from state, not from events: each pass reads the whole document, observes the storage, and plans the
//! differences ([`provisioner_core`], which is pure). It can be killed at any time; the next pass reaches the same state. It
//! runs no shell, follows no symlinks, and never deletes a directory because its resource is absent from the document.

pub mod cli;
pub mod config;
#[cfg(test)]
mod documents;
mod drivers;
pub mod journal;
#[cfg(test)]
mod killed;
pub mod lease;
pub mod ledger;
mod listen;
pub mod metrics;
#[cfg(test)]
mod operations;
pub mod pass;
pub mod project_ids;
pub mod provisioner;
pub mod record;
pub mod report;
pub mod source;
