//! The storage provisioner: reads the document that the proxy publishes, makes real directories and quotas of it, and
//! reports back to Waldur.
//!
//! It works from state, not from events: each pass reads the whole document, looks at the storage, and plans what is
//! missing ([`provisioner_core`], pure). It can be killed anywhere; the next pass comes to the same end. Nothing here runs a
//! shell, follows a symlink, or takes absence from the document for a wish to delete.

pub mod cli;
pub mod config;
#[cfg(test)]
mod documents;
mod drivers;
pub mod journal;
pub mod lease;
pub mod ledger;
mod listen;
pub mod metrics;
#[cfg(test)]
mod operations;
pub mod pass;
pub mod project_ids;
pub mod provisioner;
pub mod source;
