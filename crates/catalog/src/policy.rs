//! What a site decides about its catalogue.

use crate::quota::InodeRule;

/// A storage system as the catalogue names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Name as clients filter by it.
    pub name: String,
    /// What stands in the `{system}` segment of a path and in `storageSystem`: the name, or the offering's slug
    /// (decision D2).
    pub identifier: String,
    /// Slug of the offering whose resources it holds.
    pub offering_slug: String,
}

/// What a site decides about its catalogue.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The systems in the order of the settings.
    pub systems: Vec<System>,
    /// Name of the file system in every item.
    pub file_system: String,
    /// How inode limits follow from the storage limit.
    pub inodes: InodeRule,
    /// Ignore the target items in `backend_metadata`.
    pub ignore_metadata_targets: bool,
    /// Invent the identities that are missing (decisions D5, D6).
    pub development_mode: bool,
    /// Where callbacks are relayed: the proxy's own public URL, without a trailing slash. `None`: links lead to Waldur.
    pub relay: Option<String>,
    /// Waldur's API, without a trailing slash, for links of resources without an order: an order's own link leads there too.
    pub waldur: String,
}
