//! What is sent to a VAST management system, and what it answers.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use driver_rest::{quoted, whole};
use storage_driver::limits::{Bytes, Inodes, QuotaLimits, Usage};
use storage_driver::{Desired, DriverError};

/// A quota object. A limit of `null` or 0 is none.
#[derive(Debug, Clone)]
pub(super) struct Quota {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) path: String,
    tenant_id: Option<u64>,
    state: Option<String>,
    space: [Option<u64>; 2],
    inodes: [Option<u64>; 2],
    used_space: Option<u64>,
    used_inodes: Option<u64>,
    /// The first value that cannot be read.
    odd: Option<String>,
}

impl Quota {
    /// A row of the list. A value that cannot be read matters to the quota's own path alone ([`Self::is_readable`]); an
    /// error only where the row has no number or path, for then it could be anybody's.
    pub(super) fn read(row: &Value) -> Result<Self, String> {
        let mut odd = None;
        let mut note = |key: &str, value: &Value| {
            let text = || format!("{key} is {}", quoted(&value.to_string()));
            odd.get_or_insert_with(text);
        };
        let mut number = |key: &str| {
            let value = &row[key];
            let read = whole(value).and_then(|read| u64::try_from(read).ok());
            if read.is_none() && !value.is_null() {
                note(key, value);
            }
            read
        };
        let id = number("id").ok_or("a quota has no readable `id`: look at the list of quotas in VMS")?;
        let path = row["path"].as_str();
        let path = path.ok_or_else(|| format!("the quota {id} has no readable `path`: look at it in VMS"))?.to_owned();
        let tenant_id = number("tenant_id");
        let space = ["soft_limit", "hard_limit"].map(&mut number);
        let inodes = ["soft_limit_inodes", "hard_limit_inodes"].map(&mut number);
        let (used_space, used_inodes) = (number("used_effective_capacity"), number("used_inodes"));
        let mut text = |key: &str| {
            let value = &row[key];
            if !value.is_null() && !value.is_string() {
                note(key, value);
            }
            value.as_str().map(str::to_owned)
        };
        let (name, state) = (text("name").unwrap_or_default(), text("state"));
        Ok(Self { id, name, path, tenant_id, state, space, inodes, used_space, used_inodes, odd })
    }

    /// A fault that names what cannot be read.
    pub(super) fn is_readable(&self) -> Result<(), DriverError> {
        let Some(odd) = &self.odd else { return Ok(()) };
        let (id, name, path) = (self.id, quoted(&self.name), &self.path);
        Err(DriverError::unclear(format!("the quota {id} ({name}) of {path} cannot be read: {odd}; look at it in VMS")))
    }

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

    pub(super) fn limits(&self) -> Option<QuotaLimits> {
        let ([soft, hard], [inodes_soft, inodes_hard]) = (self.space, self.inodes);
        QuotaLimits::new([soft?, hard?].map(Bytes), [inodes_soft?, inodes_hard?].map(Inodes)).ok()
    }

    /// `None` where VAST does not say yet.
    pub(super) fn usage(&self) -> Option<Usage> {
        Some(Usage { space: Bytes(self.used_space?), inodes: Inodes(self.used_inodes?) })
    }
}

/// Rows of a list: all of them, or a page.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Rows {
    All(Vec<Value>),
    Page { results: Vec<Value>, count: usize, next: Option<String> },
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

pub(super) fn limits(limits: QuotaLimits) -> Value {
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
pub(super) fn make(path: &str, inode: u64, tenant: u64, desired: &Desired) -> Value {
    let mut body = limits(desired.limits);
    body["name"] = name(desired.id, inode).into();
    body["path"] = path.into();
    body["tenant_id"] = tenant.into();
    body["create_dir"] = false.into();
    body
}
