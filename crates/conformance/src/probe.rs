//! Reads the state of one directory on the storage.

mod directory;

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, anyhow, bail};
use serde::Serialize;
use serde_json::{Value, json};

/// File in which a client without real storage keeps its directories.
const FILE: &str = "storage.json";

/// How directories are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From `storage.json`.
    Json,
    /// From a mounted file system; limits from an extended attribute.
    Posix,
    /// The same, with the limits of project quotas.
    Xfs,
    /// By a program.
    Program(PathBuf),
}

impl From<&str> for Kind {
    fn from(text: &str) -> Self {
        match text {
            "json" => Self::Json,
            "posix" => Self::Posix,
            "xfs" => Self::Xfs,
            program => Self::Program(program.into()),
        }
    }
}

/// A soft and a hard limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Pair {
    pub(crate) soft: Option<u64>,
    pub(crate) hard: Option<u64>,
}

/// The state of a directory; `None` is what the probe cannot know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Probed {
    pub(crate) exists: Option<bool>,
    pub(crate) gid: Option<u64>,
    /// Permission bits.
    pub(crate) mode: Option<u32>,
    /// In bytes.
    pub(crate) space: Option<Pair>,
    pub(crate) inodes: Option<Pair>,
    /// Whether the resource's data is in the trash.
    pub(crate) trash: Option<bool>,
}

impl Probed {
    fn absent(trash: Option<bool>) -> Self {
        Self { exists: Some(false), trash, ..Self::default() }
    }

    /// Names of what the probe does not know about a directory that exists.
    pub(crate) fn unknown(&self) -> Vec<&'static str> {
        let known = [
            ("GID", self.gid.is_some()),
            ("mode", self.mode.is_some()),
            ("space limits", self.space.is_some()),
            ("inode limits", self.inodes.is_some()),
        ];
        known.into_iter().filter(|(_, known)| !known).map(|(name, _)| name).collect()
    }

    fn of_json(value: &Value) -> anyhow::Result<Self> {
        let pair = |key: &str| {
            let pair = value.get(key).filter(|pair| pair.is_object())?;
            Some(Pair { soft: amount(&pair["soft"]), hard: amount(&pair["hard"]) })
        };
        let mode = match &value["mode"] {
            Value::Null => None,
            Value::String(text) => {
                Some(u32::from_str_radix(text, 8).with_context(|| format!("the mode {text:?} is not octal"))?)
            }
            other => bail!("the mode {other} is not a text of octal digits"),
        };
        Ok(Self {
            exists: value["exists"].as_bool(),
            gid: value["gid"].as_u64(),
            mode,
            space: pair("space"),
            inodes: pair("inodes"),
            trash: value["trash"].as_bool(),
        })
    }
}

/// A whole number; one that does not fit counts as the largest one.
fn amount(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|number| *number >= 18e18).map(|_| u64::MAX))
}

/// A probe in one case.
#[derive(Debug)]
pub(crate) struct Probe {
    kind: Kind,
    root: PathBuf,
    environment: Vec<(&'static str, String)>,
    /// Device and inode number of the directories seen so far, by `itemId`: they find them again in the trash.
    known: Mutex<HashMap<String, (u64, u64)>>,
}

impl Probe {
    pub(crate) fn new(kind: &Kind, root: &Path, environment: &[(&'static str, String)]) -> Self {
        Self { kind: kind.clone(), root: root.to_owned(), environment: environment.to_vec(), known: Mutex::default() }
    }

    /// Reads the directory at the mount point, or the trash, for the resource with this ID.
    pub(crate) fn read(&self, path: &str, item: &str) -> anyhow::Result<Probed> {
        match &self.kind {
            Kind::Json => self.json(path, item),
            Kind::Posix => directory::read(&self.root, path, item, &self.known, directory::declared),
            Kind::Xfs => directory::read(&self.root, path, item, &self.known, directory::project_quota),
            Kind::Program(program) => {
                let output = Command::new(program)
                    .args([path, item])
                    .envs(self.environment.iter().cloned())
                    .stdin(Stdio::null())
                    .output()
                    .with_context(|| format!("cannot start the probe {}", program.display()))?;
                if !output.status.success() {
                    let text = String::from_utf8_lossy(&output.stderr);
                    bail!("the probe {} failed ({}): {}", program.display(), output.status, text.trim());
                }
                let value = serde_json::from_slice(&output.stdout)
                    .with_context(|| format!("the probe {} printed no JSON", program.display()))?;
                Probed::of_json(&value)
            }
        }
    }

    fn stored(&self) -> anyhow::Result<Value> {
        let path = self.root.join(FILE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is not JSON: replace it as a whole", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(json!({})),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn json(&self, path: &str, item: &str) -> anyhow::Result<Probed> {
        let stored = self.stored()?;
        let trash = Some(stored["trash"].get(item).is_some());
        match stored["directories"].get(path).filter(|directory| directory["itemId"] == item) {
            Some(directory) => Ok(Probed { exists: Some(true), trash, ..Probed::of_json(directory)? }),
            None => Ok(Probed::absent(trash)),
        }
    }

    /// Puts a directory that belongs to nobody at the path; `false` if this kind of probe cannot.
    pub(crate) fn plant(&self, path: &str) -> anyhow::Result<bool> {
        match &self.kind {
            Kind::Json => {
                let mut stored = self.stored()?;
                let foreign = json!({ "itemId": "00000000-0000-0000-0000-000000000000", "gid": 1, "mode": "700",
                    "space": { "soft": 1, "hard": 1 }, "inodes": { "soft": 1, "hard": 1 } });
                if stored["trash"].is_null() {
                    stored["trash"] = json!({});
                }
                stored["directories"][path] = foreign;
                fs::write(self.root.join(FILE), stored.to_string())?;
                Ok(true)
            }
            Kind::Posix | Kind::Xfs => {
                let directory =
                    directory::below(&self.root, path).ok_or_else(|| anyhow!("{path} is not below the root"))?;
                fs::create_dir_all(&directory)?;
                fs::write(directory.join("data"), "of somebody else")?;
                Ok(true)
            }
            Kind::Program(_) => Ok(false),
        }
    }

    /// Whether what was planted is still there, unchanged.
    pub(crate) fn is_planted(&self, path: &str) -> anyhow::Result<bool> {
        match &self.kind {
            Kind::Json => {
                Ok(self.stored()?["directories"][path]["mode"] == "700"
                    && self.stored()?["directories"][path]["gid"] == 1)
            }
            Kind::Posix | Kind::Xfs | Kind::Program(_) => {
                let file = directory::below(&self.root, path).map(|directory| directory.join("data"));
                Ok(file.is_some_and(|file| file.exists()))
            }
        }
    }

    /// Paths of directories in the storage that must not exist, because they lead out of it.
    pub(crate) fn escapes(&self) -> anyhow::Result<Vec<String>> {
        if self.kind != Kind::Json {
            return Ok(Vec::new());
        }
        let stored = self.stored()?;
        let paths = stored["directories"].as_object().into_iter().flatten().map(|(path, _)| path);
        Ok(paths.filter(|path| directory::below(&self.root, path).is_none()).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;

    use super::{Kind, Pair, Probe, Probed};

    fn probe(kind: &Kind) -> (TempDir, Probe) {
        let directory = TempDir::new().unwrap();
        let probe = Probe::new(kind, directory.path(), &[]);
        (directory, probe)
    }

    #[test]
    fn a_json_file_has_directories_and_trash() {
        let (directory, probe) = probe(&Kind::Json);
        assert_eq!(probe.read("/a/b", "1").unwrap(), Probed::absent(Some(false)));
        let limits = json!({ "soft": 9_007_199_254_740_993_u64, "hard": 2e19 });
        let entry = json!({ "itemId": "1", "gid": 7, "mode": "2770", "space": limits, "inodes": null });
        let stored = json!({ "directories": { "/a/b": entry }, "trash": { "2": {} } });
        std::fs::write(directory.path().join("storage.json"), stored.to_string()).unwrap();
        let probed = probe.read("/a/b", "1").unwrap();
        assert_eq!(probed.mode, Some(0o2770));
        assert_eq!(probed.space, Some(Pair { soft: Some(9_007_199_254_740_993), hard: Some(u64::MAX) }));
        assert_eq!(probed.unknown(), ["inode limits"]);
        assert_eq!(probe.read("/a/b", "2").unwrap(), Probed::absent(Some(true)));
    }

    #[test]
    fn a_directory_is_found_again_in_any_trash() {
        let (directory, probe) = probe(&Kind::Posix);
        let at = |path: &str| directory.path().join(path);
        std::fs::create_dir_all(at("capstor/p0")).unwrap();
        assert_eq!(probe.read("/capstor/p0", "1").unwrap().exists, Some(true));
        std::fs::create_dir(at("capstor/.trash")).unwrap();
        std::fs::rename(at("capstor/p0"), at("capstor/.trash/x")).unwrap();
        assert_eq!(probe.read("/capstor/p0", "1").unwrap(), Probed::absent(Some(true)));
        std::fs::remove_dir(at("capstor/.trash/x")).unwrap();
        assert_eq!(probe.read("/capstor/p0", "1").unwrap(), Probed::absent(Some(false)));
        assert_eq!(probe.read("/capstor/p1", "2").unwrap(), Probed::absent(None));
    }
}
