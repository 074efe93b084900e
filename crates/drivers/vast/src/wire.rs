//! Request and response bodies of a VAST management system.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use driver_rest::{single_line, whole_number};
use storage_driver::limits::{Bytes, Inodes, QuotaLimits, Usage};
use storage_driver::{Desired, DriverError};

/// A quota object. A limit of `null` or 0 means unlimited.
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
    /// The first value that cannot be parsed.
    invalid: Option<String>,
}

impl Quota {
    /// Parses a row of the list. An invalid value only affects the quota's own path (see [`Self::check_valid`]). It is an
    /// error if the row has no ID or path, because then it could be the quota of any path.
    pub(super) fn parse(row: &Value) -> Result<Self, String> {
        let mut invalid = None;
        let mut note = |key: &str, value: &Value| {
            let text = || format!("{key} is {}", single_line(&value.to_string()));
            invalid.get_or_insert_with(text);
        };
        let mut number = |key: &str| {
            let value = &row[key];
            let read = whole_number(value).and_then(|read| u64::try_from(read).ok());
            if read.is_none() && !value.is_null() {
                note(key, value);
            }
            read
        };
        let id = number("id").ok_or("a quota has no valid `id`: look at the list of quotas in VMS")?;
        let path = row["path"].as_str();
        let path = path.ok_or_else(|| format!("the quota {id} has no valid `path`: look at it in VMS"))?.to_owned();
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
        Ok(Self { id, name, path, tenant_id, state, space, inodes, used_space, used_inodes, invalid })
    }

    pub(super) fn check_valid(&self) -> Result<(), DriverError> {
        let Some(invalid) = &self.invalid else { return Ok(()) };
        let (id, name, path) = (self.id, single_line(&self.name), &self.path);
        Err(DriverError::temporary(format!(
            "the quota {id} ({name}) of {path} is invalid: {invalid}; look at it in VMS"
        )))
    }

    /// The resource and the inode of the directory, from the name. Only the exact notation of [`name`] counts.
    fn parse_name(&self) -> Option<(Uuid, Option<u64>)> {
        let (id, inode) = match self.name.split_once('.') {
            Some((id, inode)) => (id, Some(inode.parse().ok()?)),
            None => (&*self.name, None),
        };
        let id: Uuid = id.parse().ok()?;
        let text = inode.map_or_else(|| id.to_string(), |inode| name(id, inode));
        (text == self.name).then_some((id, inode))
    }

    /// The resource to which the quota belongs.
    pub(super) fn mark(&self) -> Option<Uuid> {
        self.parse_name().map(|(id, _)| id)
    }

    /// The inode of the quota's directory. Earlier versions did not record it.
    pub(super) fn inode(&self) -> Option<u64> {
        self.parse_name().and_then(|(_, inode)| inode)
    }

    /// Describes a directory with another inode, with the remedy.
    pub(super) fn mismatch(&self, inode: u64) -> String {
        let (what, why) = match self.inode() {
            Some(_) => ("not the directory", "directories were moved or swapped: put the right one there"),
            None => ("possibly not the directory", "its name does not contain the inode of its directory"),
        };
        let right = self.mark().map(|id| name(id, inode)).unwrap_or_default();
        format!(
            "{what} of the quota {}; {why}. If it is the right directory, rename the quota to {right} in VMS",
            self.name
        )
    }

    /// Whether the quota belongs to this tenant. Quotas without a tenant belong to the only one.
    pub(super) fn belongs_to(&self, tenant: u64) -> bool {
        self.tenant_id.is_none_or(|of| of == tenant)
    }

    pub(super) fn check_state(&self) -> Result<(), String> {
        match self.state.as_deref() {
            Some("FAILED") => Err(format!("the quota of {} is in the state FAILED: look at it in VMS", self.path)),
            _ => Ok(()),
        }
    }

    pub(super) fn limits(&self) -> Option<QuotaLimits> {
        let ([soft, hard], [inodes_soft, inodes_hard]) = (self.space, self.inodes);
        QuotaLimits::new([soft?, hard?].map(Bytes), [inodes_soft?, inodes_hard?].map(Inodes)).ok()
    }

    /// `None` if VAST has not determined it yet.
    pub(super) fn usage(&self) -> Option<Usage> {
        Some(Usage { space: Bytes(self.used_space?), inodes: Inodes(self.used_inodes?) })
    }
}

/// All rows of a list, or a page of them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Rows {
    All(Vec<Value>),
    Page { results: Vec<Value>, count: usize, next: Option<String> },
}

#[derive(Deserialize)]
pub(super) struct Login {
    pub(super) access: String,
}

/// The usual body of a refusal.
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

/// A new quota for an existing directory.
pub(super) fn new_quota(path: &str, inode: u64, tenant: u64, desired: &Desired) -> Value {
    let mut body = limits(desired.limits);
    body["name"] = name(desired.id, inode).into();
    body["path"] = path.into();
    body["tenant_id"] = tenant.into();
    body["create_dir"] = false.into();
    body
}
