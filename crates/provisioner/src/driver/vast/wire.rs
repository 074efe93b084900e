//! What is sent to a VAST management system, and what it answers.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::driver::Wanted;
use crate::limits::{Bytes, Inodes, Limits, Usage};

/// A quota object. A limit of `null` or 0 is none.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Quota {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) name: String,
    pub(super) path: String,
    #[serde(default)]
    tenant_id: Option<u64>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    soft_limit: Option<u64>,
    #[serde(default)]
    hard_limit: Option<u64>,
    #[serde(default)]
    soft_limit_inodes: Option<u64>,
    #[serde(default)]
    hard_limit_inodes: Option<u64>,
    #[serde(default)]
    used_effective_capacity: Option<u64>,
    #[serde(default)]
    used_inodes: Option<u64>,
}

impl Quota {
    /// Whose it is: its name is a UUID, written as UUIDs are written here.
    pub(super) fn mark(&self) -> Option<Uuid> {
        self.name.parse().ok().filter(|id: &Uuid| id.to_string() == self.name)
    }

    /// A tenant that is not said is the only one.
    pub(super) fn is_of(&self, tenant: u64) -> bool {
        self.tenant_id.is_none_or(|of| of == tenant)
    }

    /// Whether it does what a quota is for.
    pub(super) fn judge(&self) -> Result<(), String> {
        match self.state.as_deref() {
            Some("FAILED") => Err(format!("the quota of {} is in the state FAILED: look at it in VMS", self.path)),
            _ => Ok(()),
        }
    }

    pub(super) fn limits(&self) -> Option<Limits> {
        let space = [self.soft_limit?, self.hard_limit?].map(Bytes);
        Limits::new(space, [self.soft_limit_inodes?, self.hard_limit_inodes?].map(Inodes)).ok()
    }

    /// `None` where VAST does not say yet.
    pub(super) fn usage(&self) -> Option<Usage> {
        Some(Usage { space: Bytes(self.used_effective_capacity?), inodes: Inodes(self.used_inodes?) })
    }
}

/// Rows of a list: all of them, or a page.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Rows {
    All(Vec<Quota>),
    Page { results: Vec<Quota>, count: usize, next: Option<String> },
}

/// The answer to a login.
#[derive(Deserialize)]
pub(super) struct Login {
    pub(super) access: String,
}

/// What a refusal says, where it says it in the usual way.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    pub(super) detail: String,
}

pub(super) fn limits(limits: Limits) -> Value {
    json!({
        "soft_limit": limits.space_soft().0,
        "hard_limit": limits.space_hard().0,
        "soft_limit_inodes": limits.inodes_soft().0,
        "hard_limit_inodes": limits.inodes_hard().0,
    })
}

pub(super) fn mark(id: Uuid) -> Value {
    json!({ "name": id.to_string() })
}

/// A new quota for a directory that is there.
pub(super) fn make(path: &str, tenant: u64, wanted: &Wanted) -> Value {
    let mut body = limits(wanted.limits);
    body["name"] = wanted.id.to_string().into();
    body["path"] = path.into();
    body["tenant_id"] = tenant.into();
    body["create_dir"] = false.into();
    body
}
