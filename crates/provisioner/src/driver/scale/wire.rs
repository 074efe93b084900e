//! What is sent to a Storage Scale management server, and what it answers.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::driver::Wanted;
use crate::driver::rest::quoted;
use crate::limits::{Bytes, Inodes, Limits, Usage};

/// A fileset's comment: whose it is, and since when it is in the trash, as `UUID` or `UUID retired=SECONDS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) id: Uuid,
    /// Seconds since 1970.
    pub(super) retired: Option<u64>,
}

impl Mark {
    pub(super) const fn of(id: Uuid) -> Self {
        Self { id, retired: None }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)?;
        self.retired.map_or(Ok(()), |since| write!(f, " retired={since}"))
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(comment: &str) -> Result<Self, ()> {
        let (id, retired) = match comment.split_once(" retired=") {
            Some((id, since)) => (id, Some(since.parse().map_err(|_| ())?)),
            None => (comment, None),
        };
        // Only as written here: a UUID in a person's own words is no mark.
        let id: Uuid = id.parse().map_err(|_| ())?;
        let mark = Self { id, retired };
        if mark.to_string() == comment { Ok(mark) } else { Err(()) }
    }
}

/// One page of a list; which list decides the field that is there.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    pub(super) filesets: Vec<Fileset>,
    #[serde(default)]
    pub(super) quotas: Vec<Quota>,
    #[serde(default)]
    paging: Option<Paging>,
}

#[derive(Debug, Deserialize)]
struct Paging {
    #[serde(rename = "lastId")]
    last_id: Option<u64>,
}

impl Page {
    /// From where the next page begins; `None` on the last.
    pub(super) fn next(&self) -> Option<u64> {
        self.paging.as_ref().and_then(|paging| paging.last_id).filter(|last| *last > 0)
    }
}

/// A fileset. Its name is in `config` in release 5.0 and beside it from 5.0.1 on.
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
    most_inodes: Option<u64>,
}

impl Fileset {
    /// The name of a fileset that is made for a resource.
    pub(super) fn name_for(id: Uuid) -> String {
        format!("hpc-{}", id.simple())
    }

    pub(super) fn name(&self) -> &str {
        self.name.as_deref().or(self.config.name.as_deref()).unwrap_or_default()
    }

    /// Where it is linked; an unlinked one says `--`.
    pub(super) fn junction(&self) -> Option<&str> {
        self.config.path.as_deref().filter(|path| path.starts_with('/'))
    }

    pub(super) fn mark(&self) -> Option<Mark> {
        self.config.comment.as_deref()?.parse().ok()
    }

    /// How many inodes an independent fileset has room for; a dependent one says 0.
    pub(super) fn most_inodes(&self) -> Option<Inodes> {
        self.config.most_inodes.filter(|most| *most > 0).map(Inodes)
    }
}

/// A quota: space in KiB, each use beside what is in doubt, that is handed out to nodes and perhaps used. What is in use
/// can be below zero for a moment.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "as the interface names them")]
pub(super) struct Quota {
    #[serde(default)]
    quota_type: String,
    #[serde(default)]
    pub(super) object_name: String,
    #[serde(default)]
    block_usage: i64,
    #[serde(default)]
    block_quota: u64,
    #[serde(default)]
    block_limit: u64,
    #[serde(default)]
    block_in_doubt: i64,
    #[serde(default)]
    files_usage: i64,
    #[serde(default)]
    files_quota: u64,
    #[serde(default)]
    files_limit: u64,
    #[serde(default)]
    files_in_doubt: i64,
}

impl Quota {
    pub(super) fn is_of_a_fileset(&self) -> bool {
        self.quota_type.eq_ignore_ascii_case("FILESET")
    }

    /// `None` where one of them is 0, which means unlimited.
    pub(super) fn limits(&self) -> Option<Limits> {
        let bytes = |kib: u64| Bytes(kib.saturating_mul(1024));
        let inodes = [self.files_quota, self.files_limit].map(Inodes);
        Limits::new([self.block_quota, self.block_limit].map(bytes), inodes).ok()
    }

    /// What is used, and what may be.
    pub(super) fn usage(&self) -> Usage {
        let sum = |used: i64, doubt: i64| used.saturating_add(doubt).max(0).unsigned_abs();
        let space = sum(self.block_usage, self.block_in_doubt).saturating_mul(1024);
        Usage { space: Bytes(space), inodes: Inodes(sum(self.files_usage, self.files_in_doubt)) }
    }
}

/// The file system's own properties.
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
}

impl Filesystem {
    /// Whether it is as the settings say; if not, what to do.
    pub(super) fn judge(&self, block: u64, root: &str) -> Result<(), String> {
        let (held, mounted) = (self.block.block_size, self.mount.mount_point.trim_end_matches('/'));
        if held != block {
            return Err(format!("`block_size` is {block}, but the file system's is {held}: correct it"));
        }
        if !root.strip_prefix(mounted).is_some_and(|below| below.is_empty() || below.starts_with('/')) {
            return Err(format!(
                "`root` is {root}, which is not below {mounted}, where the file system is: correct it"
            ));
        }
        if !self.quota.quotas_enforced.to_ascii_lowercase().contains("fileset") {
            return Err("quotas of filesets are not enforced: enable them (mmchfs -Q yes)".into());
        }
        Ok(())
    }
}

/// The answer to a change: a job that runs, or a refusal.
#[derive(Debug, Deserialize)]
pub(super) struct Changed {
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

/// How far a job is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Running,
    /// Over; also where the server has forgotten how it ended: what is there afterwards tells.
    Over,
    /// It failed; what the system says.
    Failed(String),
}

impl Job {
    pub(super) fn progress(&self) -> Progress {
        match &*self.status {
            "COMPLETED" | "UNKNOWN" => Progress::Over,
            "FAILED" | "CANCELLED" => {
                // A list in the code that is public, a text in the documentation.
                let text = match self.result.as_ref().map(|result| &result.stderr) {
                    Some(Value::Array(lines)) => lines.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
                    Some(Value::String(text)) => text.clone(),
                    _ => String::new(),
                };
                Progress::Failed(quoted(&text))
            }
            _ => Progress::Running,
        }
    }
}

/// Whether a refusal says that what was to be made is there already.
pub(super) fn says_exists(text: &str) -> bool {
    text.contains("EFSSP1102C")
}

/// Whether a refusal says that there is no such fileset.
pub(super) fn says_absent(text: &str) -> bool {
    text.contains("Invalid value in 'filesetName'") || text.contains("Invalid value in 'fsetName'")
}

/// A new fileset, unlinked. An independent one has room for as many inodes as it may have.
pub(super) fn make(name: &str, wanted: &Wanted, inode_space: &str) -> Value {
    let comment = Mark::of(wanted.id).to_string();
    let mut body = json!({ "filesetName": name, "comment": comment, "inodeSpace": inode_space });
    if inode_space == "new" {
        body["maxNumInodes"] = wanted.limits.inodes_hard().0.to_string().into();
    }
    body
}

/// All four limits. Bare numbers are bytes and inodes.
pub(super) fn limit(name: &str, limits: Limits) -> Value {
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
