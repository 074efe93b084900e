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
    /// Whose it is, and for the directory with which inode: its name, written as names are written here.
    fn named(&self) -> Option<(Uuid, Option<u64>)> {
        let (id, inode) = match self.name.split_once('.') {
            Some((id, inode)) => (id, Some(inode.parse().ok()?)),
            None => (&*self.name, None),
        };
        let id: Uuid = id.parse().ok()?;
        let text = inode.map_or_else(|| id.to_string(), |inode| name(id, inode));
        (text == self.name).then_some((id, inode))
    }

    /// Whose it is.
    pub(super) fn mark(&self) -> Option<Uuid> {
        self.named().map(|(id, _)| id)
    }

    /// The inode of its directory. Earlier versions did not write it down.
    pub(super) fn inode(&self) -> Option<u64> {
        self.named().and_then(|(_, inode)| inode)
    }

    /// What a directory with another inode is, and what to do.
    pub(super) fn another(&self, inode: u64) -> String {
        let (what, why) = match self.inode() {
            Some(_) => ("another directory than", "something was moved or exchanged: put the right one there"),
            None => ("perhaps not", "it does not say for which directory it is"),
        };
        let right = self.mark().map(|id| name(id, inode)).unwrap_or_default();
        format!("{what} that of the quota {}; {why}. If it is the right one, name its quota {right} in VMS", self.name)
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

/// The name of a resource's quota for the directory with this inode.
fn name(id: Uuid, inode: u64) -> String {
    format!("{id}.{inode}")
}

pub(super) fn mark(id: Uuid, inode: u64) -> Value {
    json!({ "name": name(id, inode) })
}

/// A new quota for a directory that is there.
pub(super) fn make(path: &str, inode: u64, tenant: u64, wanted: &Wanted) -> Value {
    let mut body = limits(wanted.limits);
    body["name"] = name(wanted.id, inode).into();
    body["path"] = path.into();
    body["tenant_id"] = tenant.into();
    body["create_dir"] = false.into();
    body
}
