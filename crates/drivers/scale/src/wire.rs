//! Request and response bodies of a Storage Scale management server.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use driver_rest::{is_within, single_line, whole_number};
use storage_driver::Desired;
use storage_driver::limits::{Bytes, Inodes, QuotaLimits, Usage};

/// The content of a fileset's comment: its resource, and when it was put into the trash, as `UUID`, `UUID retired=SECONDS` or
/// `UUID purge=SECONDS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) id: Uuid,
    /// When it was put into the trash, in seconds since 1970.
    pub(super) retired: Option<u64>,
    /// Whether a purge has claimed it.
    pub(super) claimed: bool,
}

impl Mark {
    pub(super) const fn in_use(id: Uuid) -> Self {
        Self { id, retired: None, claimed: false }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)?;
        let word = if self.claimed { "purge" } else { "retired" };
        self.retired.map_or(Ok(()), |since| write!(f, " {word}={since}"))
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(comment: &str) -> Result<Self, ()> {
        let split = |word| comment.split_once(word);
        let claimed = split(" purge=");
        let (id, retired) = match split(" retired=").or(claimed) {
            Some((id, since)) => (id, Some(since.parse().map_err(|_| ())?)),
            None => (comment, None),
        };
        // Only the exact notation counts: a UUID within a comment that a person wrote is not a mark.
        let id: Uuid = id.parse().map_err(|_| ())?;
        let mark = Self { id, retired, claimed: claimed.is_some() };
        if mark.to_string() == comment { Ok(mark) } else { Err(()) }
    }
}

/// One page of a list. Which field is present depends on the list.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    pub(super) filesets: Vec<Fileset>,
    #[serde(default)]
    pub(super) quotas: Vec<Value>,
    #[serde(default)]
    pub(super) snapshots: Vec<Snapshot>,
    #[serde(default)]
    paging: Option<Paging>,
}

#[derive(Debug, Deserialize)]
struct Paging {
    #[serde(rename = "lastId")]
    last_id: Option<u64>,
}

impl Page {
    /// `lastId` for the request of the next page; `None` on the last page.
    pub(super) fn next(&self) -> Option<u64> {
        self.paging.as_ref().and_then(|paging| paging.last_id).filter(|last| *last > 0)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Snapshot {
    #[serde(rename = "snapshotName", default)]
    pub(super) name: String,
}

/// A fileset. Release 5.0 has the name in `config`, release 5.0.1 and later have it next to `config`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Fileset {
    #[serde(rename = "filesetName", default)]
    name: Option<String>,
    config: Config,
}

#[derive(Debug, Clone, Deserialize)]
struct Config {
    #[serde(rename = "filesetName", default)]
    name: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    comment: Option<String>,
    #[serde(rename = "maxNumInodes", default)]
    max_inodes: Value,
    #[serde(rename = "inodeSpace", default)]
    inode_space: Value,
    #[serde(rename = "isInodeSpaceOwner", default)]
    owns_inode_space: Option<bool>,
}

/// Prefix of the names of filesets that are in the trash and linked.
const TRASH_PREFIX: &str = "trash-";

impl Fileset {
    /// The name for the fileset of a resource.
    pub(super) fn name_for(id: Uuid) -> String {
        format!("hpc-{}", id.simple())
    }

    pub(super) fn name(&self) -> &str {
        self.name.as_deref().or(self.config.name.as_deref()).unwrap_or_default()
    }

    /// Where it is linked. Unlinked filesets have the path `--`.
    pub(super) fn junction(&self) -> Option<&str> {
        self.config.path.as_deref().filter(|path| path.starts_with('/'))
    }

    pub(super) fn mark(&self) -> Option<Mark> {
        self.config.comment.as_deref()?.parse().ok()
    }

    /// The maximum number of inodes of an independent fileset. Dependent ones have 0.
    pub(super) fn max_inodes(&self) -> Option<Inodes> {
        let max = whole_number(&self.config.max_inodes).and_then(|max| max.try_into().ok());
        max.filter(|max| *max > 0).map(Inodes)
    }

    /// Whether it has its own inode space.
    pub(super) fn is_independent(&self) -> bool {
        self.config.owns_inode_space.unwrap_or(self.max_inodes().is_some())
    }

    /// Whether it shares the inode space of `other`, an independent fileset.
    pub(super) fn depends_on(&self, other: &Self) -> bool {
        let space = |it: &Self| whole_number(&it.config.inode_space);
        self.name() != other.name() && space(self).is_some() && space(self) == space(other)
    }

    /// The name it has while it is in the trash and linked.
    pub(super) fn name_in_trash(&self) -> String {
        if self.name().starts_with(TRASH_PREFIX) {
            self.name().to_owned()
        } else {
            format!("{TRASH_PREFIX}{}", self.name())
        }
    }

    /// The name it has while it is in use.
    pub(super) fn name_in_use(&self) -> String {
        self.name().strip_prefix(TRASH_PREFIX).unwrap_or(self.name()).to_owned()
    }
}

/// A quota. Usage has an additional in-doubt value: the amount that was allocated to nodes and may be in use. Usage can
/// temporarily be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quota {
    /// Soft and hard limit in KiB.
    block_limits: [u64; 2],
    /// Soft and hard limit.
    files_limits: [u64; 2],
    /// In use and in doubt, in KiB.
    blocks: [i64; 2],
    /// In use and in doubt.
    files: [i64; 2],
}

impl Quota {
    /// Parses a row of the list into the fileset's name and its quota. An invalid number is an error for that fileset only.
    /// `None` for quotas of users and groups, and for rows without a name.
    pub(super) fn parse(row: &Value) -> Option<(String, Result<Self, String>)> {
        let kind = row["quotaType"].as_str().unwrap_or_default();
        let name = row["objectName"].as_str().filter(|_| kind.eq_ignore_ascii_case("FILESET"))?;
        Some((name.to_owned(), Self::parse_numbers(row)))
    }

    fn parse_numbers(row: &Value) -> Result<Self, String> {
        fn pair<T: TryFrom<i128> + Copy + Default>(row: &Value, keys: [&str; 2]) -> Result<[T; 2], String> {
            let mut pair = [T::default(); 2];
            for (number, key) in pair.iter_mut().zip(keys).filter(|(_, key)| !row[*key].is_null()) {
                let read = whole_number(&row[key]).and_then(|read| read.try_into().ok());
                *number =
                    read.ok_or_else(|| format!("{key} is not a whole number: {}", single_line(&row[key].to_string())))?;
            }
            Ok(pair)
        }
        Ok(Self {
            block_limits: pair(row, ["blockQuota", "blockLimit"])?,
            files_limits: pair(row, ["filesQuota", "filesLimit"])?,
            blocks: pair(row, ["blockUsage", "blockInDoubt"])?,
            files: pair(row, ["filesUsage", "filesInDoubt"])?,
        })
    }

    /// `None` if one of the limits is 0, which means unlimited.
    pub(super) fn limits(&self) -> Option<QuotaLimits> {
        let bytes = |kib: u64| Bytes(kib.saturating_mul(1024));
        QuotaLimits::new(self.block_limits.map(bytes), self.files_limits.map(Inodes)).ok()
    }

    /// Usage including the in-doubt value.
    pub(super) fn usage(&self) -> Usage {
        let sum = |[used, doubt]: [i64; 2]| used.saturating_add(doubt).max(0).unsigned_abs();
        Usage { space: Bytes(sum(self.blocks).saturating_mul(1024)), inodes: Inodes(sum(self.files)) }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Filesystems {
    pub(super) filesystems: Vec<Filesystem>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Filesystem {
    block: Block,
    mount: MountPoint,
    quota: Enforced,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    block_size: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MountPoint {
    mount_point: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Enforced {
    #[serde(default)]
    quotas_enforced: String,
    #[serde(default)]
    perfileset_quotas: Value,
}

impl Filesystem {
    /// Whether quotas of users and groups are per fileset (`--perfileset-quota`).
    ///
    /// This determines the call that sets quotas. According to the documentation, `POST filesystems/{fs}/quotas` requires it
    /// to be off, and `POST filesystems/{fs}/filesets/{fileset}/quotas` requires it to be on. `GET filesystems/{fs}/quotas`
    /// contains quotas of filesets in both cases. IBM's CSI driver uses the first call only, and asks sites to turn it off.
    pub(super) fn has_quotas_per_fileset(&self) -> bool {
        match &self.quota.perfileset_quotas {
            Value::Bool(on) => *on,
            Value::String(text) => text.eq_ignore_ascii_case("yes"),
            _ => false,
        }
    }

    /// Checks that the settings match the file system. An error says what to correct.
    pub(super) fn check_settings(&self, block_size: u64, root: &str) -> Result<(), String> {
        let (actual, mounted) = (self.block.block_size, &self.mount.mount_point);
        if actual != block_size {
            return Err(format!("`block_size` is {block_size}, but the file system's is {actual}: correct it"));
        }
        if !is_within(root, mounted) {
            return Err(format!(
                "`root` is {root}, which is not below {mounted}, the mount point of the file system: correct it"
            ));
        }
        if !self.quota.quotas_enforced.to_ascii_lowercase().contains("fileset") {
            return Err("fileset quotas are not enforced: enable them (`mmchfs -Q yes`)".into());
        }
        Ok(())
    }
}

/// The response to a change: a job that was started, or the reason for a refusal.
#[derive(Debug, Deserialize)]
pub(super) struct ChangeResponse {
    #[serde(default)]
    pub(super) status: Status,
    #[serde(default)]
    pub(super) jobs: Vec<Job>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    pub(super) message: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Job {
    #[serde(rename = "jobId", alias = "jobid")]
    pub(super) id: u64,
    #[serde(default)]
    status: String,
    #[serde(default)]
    result: Option<JobResult>,
}

#[derive(Debug, Deserialize)]
struct JobResult {
    #[serde(default)]
    stderr: Value,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Running,
    /// Completed, or the server no longer knows how it ended: the state of the fileset shows that.
    Ended,
    /// Holds the reason.
    Failed(String),
}

impl Job {
    pub(super) fn progress(&self) -> Progress {
        match &*self.status {
            "COMPLETED" | "UNKNOWN" => Progress::Ended,
            "FAILED" | "CANCELLED" => {
                // Public clients expect a list, the documentation describes a string.
                let text = match self.result.as_ref().map(|result| &result.stderr) {
                    Some(Value::Array(lines)) => lines.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
                    Some(Value::String(text)) => text.clone(),
                    _ => String::new(),
                };
                Progress::Failed(single_line(&text))
            }
            _ => Progress::Running,
        }
    }
}

/// Whether the reason for a refusal is that the fileset already exists.
pub(super) fn says_exists(text: &str) -> bool {
    text.contains("EFSSP1102C")
}

/// Whether the reason for a refusal is that the fileset does not exist.
pub(super) fn says_absent(text: &str) -> bool {
    text.contains("Invalid value in 'filesetName'") || text.contains("Invalid value in 'fsetName'")
}

/// Inodes to preallocate for a new fileset, as in IBM's CSI driver.
const PREALLOCATED: u64 = 1024;

/// Creates an unlinked fileset. The maximum number of inodes of an independent one is its hard limit.
pub(super) fn new_fileset(name: &str, desired: &Desired, inode_space: &str) -> Value {
    let comment = Mark::in_use(desired.id).to_string();
    let mut body = json!({ "filesetName": name, "comment": comment, "inodeSpace": inode_space });
    if inode_space == "new" {
        let max = desired.limits.inodes_hard().0;
        body["maxNumInodes"] = max.to_string().into();
        // Otherwise the file system's default is preallocated, which can exceed the maximum.
        body["allocInodes"] = max.min(PREALLOCATED).to_string().into();
    }
    body
}

/// Sets all four limits. Numbers without a unit are bytes and inodes.
pub(super) fn limits(name: &str, limits: QuotaLimits) -> Value {
    json!({
        "operationType": "setQuota",
        "quotaType": "FILESET",
        "objectName": name,
        "blockSoftLimit": limits.space_soft().0.to_string(),
        "blockHardLimit": limits.space_hard().0.to_string(),
        "filesSoftLimit": limits.inodes_soft().0.to_string(),
        "filesHardLimit": limits.inodes_hard().0.to_string(),
    })
}
