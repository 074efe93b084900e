//! The document that the proxy publishes.
//!
//! Parsing is strict because the provisioner runs as root. An item that cannot be parsed becomes a [`RejectedItem`]: it is held
//! for an operator, and no value is guessed. An incomplete document is an error.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use storage_driver::Mode;
use thiserror::Error;
use uuid::Uuid;

mod parse;
mod wire;

pub use parse::{page_count, parse};

/// Everything that the proxy publishes at one moment.
#[derive(Debug, Clone, Default)]
pub struct Document {
    /// Projects and users in the document's order; UUIDs are unique.
    pub resources: Vec<Resource>,
    pub nodes: Vec<Node>,
    /// Items that cannot be parsed.
    pub rejected: Vec<RejectedItem>,
    /// Resources that the proxy skipped, with its reason.
    pub skipped: Vec<RejectedItem>,
    /// Time since the proxy started to read this document from Waldur.
    pub age: Duration,
}

/// The directory of a tenant or customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Key of the storage system, in lower case.
    pub system: String,
    /// Path as published.
    pub path: String,
    pub mode: Mode,
}

/// The directory of a project or user, with its order in progress.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// UUID of the Waldur resource.
    pub id: Uuid,
    /// Key of the storage system, in lower case.
    pub system: String,
    /// Path as published.
    pub path: String,
    pub status: Status,
    pub kind: Kind,
    /// Slug of the project or user.
    pub name: Option<String>,
    pub mode: Mode,
    pub gid: Option<u32>,
    /// Owner of a user's directory.
    pub uid: Option<u32>,
    pub quotas: Option<Quotas>,
    /// Quotas that the order in progress requests; `None` if it does not change them (decision D26).
    pub new_quotas: Option<Quotas>,
    /// Why the proxy considers the quotas unreliable.
    pub quota_problem: Option<QuotaProblem>,
    pub order: Option<Order>,
    pub links: Links,
    /// Whether the resource is Creating in Waldur without an order or a backend ID, and so does not reserve its path.
    pub unclaimed: bool,
}

/// Why quotas are unreliable: the document contains a number that nobody requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaProblem {
    /// Whether the order itself requests a quota of 0. All other problems have causes outside the order.
    pub zero_ordered: bool,
    /// The proxy's explanation.
    pub detail: String,
}

/// Soft and hard quotas as published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quotas {
    /// Soft and hard space in TB; the system's settings define a TB.
    pub space: [f64; 2],
    /// Soft and hard number of inodes.
    pub inodes: [f64; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being created.
    Pending,
    /// In use.
    Active,
    /// Being changed.
    Updating,
    /// Removal requested. This status alone changes nothing on the storage.
    Removing,
    /// Terminated in Waldur.
    Removed,
    /// Failed.
    Error,
}

/// Who a directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A project's group.
    Project,
    /// One person.
    User,
}

/// An order in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub id: Uuid,
    pub kind: OrderKind,
    pub state: OrderState,
    pub offering: Offering,
    /// Options that the order requests. Its approval repeats them (specification 8.2).
    pub new_options: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What an order does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderKind {
    /// Creates a resource.
    Create,
    /// Restores a terminated resource.
    Restore,
    /// Changes quotas or options.
    Update,
    /// Terminates a resource.
    Terminate,
    /// Unknown; held for an operator.
    Other,
}

/// The state of an order, as far as the provisioner distinguishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderState {
    /// Waiting for the provider, which is this program.
    PendingProvider,
    /// Approved, not completed.
    Executing,
    /// Waiting for another party or a date.
    Other,
}

/// How Waldur processes the orders of an offering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Offering {
    /// An approved order is executing until `set_state_done` (`Marketplace.Slurm`, `Marketplace.SiteAgent`).
    SiteAgent,
    /// Approval completes the order (`Marketplace.Basic`).
    Basic,
    /// Unknown; held for an operator.
    Other,
}

/// Callback links: those that the state of the order allows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Links {
    #[serde(rename = "approve_by_provider_url")]
    pub approve: Option<String>,
    #[serde(rename = "reject_by_provider_url")]
    pub reject: Option<String>,
    #[serde(rename = "set_state_done_url")]
    pub done: Option<String>,
    #[serde(rename = "set_state_erred_url")]
    pub erred: Option<String>,
    #[serde(rename = "set_backend_id_url")]
    pub backend_id: Option<String>,
    #[serde(rename = "set_state_ok_url")]
    pub ok: Option<String>,
}

impl Links {
    /// All links that are set.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        [&self.approve, &self.reject, &self.done, &self.erred, &self.backend_id, &self.ok]
            .into_iter()
            .filter_map(|link| link.as_deref())
    }
}

/// An item that is held for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedItem {
    /// The `itemId`, if it can be read.
    pub id: Option<Uuid>,
    pub reason: String,
}

/// Why a document cannot be used.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// The response is not a page of the document.
    #[error("page {page} of the proxy's response is not a storage resources document: {reason}")]
    Page {
        /// Number of the page, from 1.
        page: usize,
        /// What is wrong. Contains no text of the response.
        reason: String,
    },
    /// The proxy is too old, or is the Python proxy.
    #[error(
        "the document has no map `orders`, without which no order can be approved or carried out safely: use \
         hpc-storage-proxy 1.0.0 or newer"
    )]
    NoOrders,
    /// The proxy runs in development mode.
    #[error("the GIDs in the document are invented, because the proxy runs in development mode; nothing was changed")]
    MockIdentities,
    /// The list changed while it was read.
    #[error("the document changed while its pages were read: {read} of {total} items")]
    Changed {
        /// Number of items read.
        read: usize,
        /// Number of items that the document has.
        total: usize,
    },
}

#[cfg(test)]
pub(crate) mod tests;
