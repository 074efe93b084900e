//! What is sent to a Storage Scale management server, and what it answers.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use driver_rest::{quoted, whole};
use storage_driver::Desired;
use storage_driver::limits::{Bytes, Inodes, QuotaLimits, Usage};

/// A fileset's comment: whose it is, and since when it is in the trash, as `UUID` or `UUID retired=SECONDS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) id: Uuid,
    /// Seconds since 1970.
    pub(super) retired: Option<u64>,
    /// Whether a purge has claimed it.
    pub(super) claimed: bool,
}

impl Mark {
    pub(super) const fn of(id: Uuid) -> Self {
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
        // Only as written here: a UUID in a person's own words is no mark.
        let id: Uuid = id.parse().map_err(|_| ())?;
        let mark = Self { id, retired, claimed: claimed.is_some() };
        if mark.to_string() == comment { Ok(mark) } else { Err(()) }
    }
}

/// One page of a list; which list decides the field that is there.
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
    /// From where the next page begins; `None` on the last.
    pub(super) fn next(&self) -> Option<u64> {
        self.paging.as_ref().and_then(|paging| paging.last_id).filter(|last| *last > 0)
    }
}

/// A snapshot of a fileset.
#[derive(Debug, Deserialize)]
pub(super) struct Snapshot {
    #[serde(rename = "snapshotName", default)]
    pub(super) name: String,
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
    most_inodes: Value,
    #[serde(rename = "inodeSpace", default)]
    inode_space: Value,
    #[serde(rename = "isInodeSpaceOwner", default)]
    owns_inode_space: Option<bool>,
}

/// What the name of a fileset in the trash begins with, where filesets stay linked.
const IN_TRASH: &str = "trash-";

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
        let most = whole(&self.config.most_inodes).and_then(|most| most.try_into().ok());
        most.filter(|most| *most > 0).map(Inodes)
    }

    /// Whether it has inodes of its own.
    pub(super) fn is_independent(&self) -> bool {
        self.config.owns_inode_space.unwrap_or(self.most_inodes().is_some())
    }

    /// Whether it shares the inodes of the other, independent one.
    pub(super) fn depends_on(&self, other: &Self) -> bool {
        let space = |it: &Self| whole(&it.config.inode_space);
        self.name() != other.name() && space(self).is_some() && space(self) == space(other)
    }

    /// Its name while it is in the trash and linked.
    pub(super) fn name_in_trash(&self) -> String {
        if self.name().starts_with(IN_TRASH) { self.name().to_owned() } else { format!("{IN_TRASH}{}", self.name()) }
    }

    /// Its name while it is in use.
    pub(super) fn name_in_use(&self) -> String {
        self.name().strip_prefix(IN_TRASH).unwrap_or(self.name()).to_owned()
    }
}

/// A quota: space in KiB, each use beside what is in doubt, that is handed out to nodes and perhaps used. What is in use
/// can be below zero for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quota {
    /// KiB and inodes, soft and hard.
    block_limits: [u64; 2],
    files_limits: [u64; 2],
    /// In use and in doubt.
    blocks: [i64; 2],
    files: [i64; 2],
}

impl Quota {
    /// The quota in a row of the list, by the name of its fileset; what is wrong with a row whose numbers cannot be read, so
    /// that the others can. `None`: it is a user's or a group's, or names no fileset.
    pub(super) fn read(row: &Value) -> Option<(String, Result<Self, String>)> {
        let kind = row["quotaType"].as_str().unwrap_or_default();
        let name = row["objectName"].as_str().filter(|_| kind.eq_ignore_ascii_case("FILESET"))?;
        Some((name.to_owned(), Self::of(row)))
    }

    fn of(row: &Value) -> Result<Self, String> {
        fn pair<T: TryFrom<i128> + Copy + Default>(row: &Value, keys: [&str; 2]) -> Result<[T; 2], String> {
            let mut pair = [T::default(); 2];
            for (number, key) in pair.iter_mut().zip(keys).filter(|(_, key)| !row[*key].is_null()) {
                let read = whole(&row[key]).and_then(|read| read.try_into().ok());
                *number = read.ok_or_else(|| format!("{key} is no whole number: {}", quoted(&row[key].to_string())))?;
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

    /// `None` where one of them is 0, which means unlimited.
    pub(super) fn limits(&self) -> Option<QuotaLimits> {
        let bytes = |kib: u64| Bytes(kib.saturating_mul(1024));
        QuotaLimits::new(self.block_limits.map(bytes), self.files_limits.map(Inodes)).ok()
    }

    /// What is used, and what may be.
    pub(super) fn usage(&self) -> Usage {
        let sum = |[used, doubt]: [i64; 2]| used.saturating_add(doubt).max(0).unsigned_abs();
        Usage { space: Bytes(sum(self.blocks).saturating_mul(1024)), inodes: Inodes(sum(self.files)) }
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
    #[serde(default)]
    perfileset_quotas: Value,
}

impl Filesystem {
    /// Whether quotas of users and groups count by fileset (`--perfileset-quota`).
    ///
    /// This decides where quotas are set. `POST filesystems/{fs}/quotas` is documented to need it off, and `POST
    /// filesystems/{fs}/filesets/{fileset}/quotas` to need it on. `GET filesystems/{fs}/quotas` has filesets' quotas in both
    /// cases. IBM's CSI driver knows the first call alone, and asks sites to turn it off.
    pub(super) fn has_quotas_per_fileset(&self) -> bool {
        match &self.quota.perfileset_quotas {
            Value::Bool(on) => *on,
            Value::String(text) => text.eq_ignore_ascii_case("yes"),
            _ => false,
        }
    }

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

/// Inodes that are preallocated for a new fileset, as many as by IBM's CSI driver.
const PREALLOCATED: u64 = 1024;

/// A new fileset, unlinked. An independent one has room for as many inodes as it may have.
pub(super) fn make(name: &str, desired: &Desired, inode_space: &str) -> Value {
    let comment = Mark::of(desired.id).to_string();
    let mut body = json!({ "filesetName": name, "comment": comment, "inodeSpace": inode_space });
    if inode_space == "new" {
        let most = desired.limits.inodes_hard().0;
        body["maxNumInodes"] = most.to_string().into();
        // Otherwise a number of the file system's own is preallocated, which can be above the most.
        body["allocInodes"] = most.min(PREALLOCATED).to_string().into();
    }
    body
}

/// All four limits. Bare numbers are bytes and inodes.
pub(super) fn limit(name: &str, limits: QuotaLimits) -> Value {
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
