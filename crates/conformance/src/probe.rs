//! Reads the state of one directory on the storage.

mod directory;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use serde_json::{Value, json};

use crate::outcome::Failure;

/// File in which a client without real storage keeps its directories.
const FILE: &str = "storage.json";
/// Most bytes that a probe may print.
const MAX_PRINTED: u64 = 64 * 1024;

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
            ("trash", self.trash.is_some()),
        ];
        known.into_iter().filter(|(_, known)| !known).map(|(name, _)| name).collect()
    }

    /// What a program prints.
    fn of_program(value: &Value) -> anyhow::Result<Self> {
        let flag = |key: &str| match field(value, key)? {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => bail!("{key} is {other}, neither true nor false"),
        };
        let exists = flag("exists")?.context("exists is null: a probe has to know whether the directory exists")?;
        let trash = flag("trash")?;
        if exists { Self::of_directory(value, trash) } else { Ok(Self::absent(trash)) }
    }

    /// A directory that exists.
    fn of_directory(value: &Value, trash: Option<bool>) -> anyhow::Result<Self> {
        let pair = |key: &str| {
            let Some(pair) = field(value, key)? else { return Ok(None) };
            let limit = |how: &str| field(pair, how).and_then(|limit| limit.map(amount).transpose());
            let pair = limit("soft").and_then(|soft| Ok(Pair { soft, hard: limit("hard")? }));
            pair.map(Some).with_context(|| format!("the limits of {key} are not valid"))
        };
        let mode = match field(value, "mode")? {
            None => None,
            Some(Value::String(text)) => {
                Some(u32::from_str_radix(text, 8).with_context(|| format!("the mode {text:?} is not octal"))?)
            }
            Some(other) => bail!("the mode {other} is not a text of octal digits"),
        };
        let gid = field(value, "gid")?.map(amount).transpose().context("the GID is not valid")?;
        Ok(Self { exists: Some(true), gid, mode, space: pair("space")?, inodes: pair("inodes")?, trash })
    }
}

/// The value of a key; `None` if it is null.
fn field<'a>(object: &'a Value, key: &str) -> anyhow::Result<Option<&'a Value>> {
    let value = object.get(key).with_context(|| format!("{key} is missing; write null if it cannot be known"))?;
    Ok(Some(value).filter(|value| !value.is_null()))
}

/// A whole number; one that does not fit counts as the largest one.
fn amount(value: &Value) -> anyhow::Result<u64> {
    let large = || value.as_f64().filter(|number| *number >= 18e18).map(|_| u64::MAX);
    // `1e13`, as languages with one type of numbers write it.
    let whole = || value.as_f64().filter(|number| number.fract() == 0.0).and_then(|it| format!("{it:.0}").parse().ok());
    value.as_u64().or_else(large).or_else(whole).with_context(|| format!("{value} is not a whole number"))
}

/// A probe in one case.
#[derive(Debug)]
pub(crate) struct Probe {
    kind: Kind,
    root: PathBuf,
    environment: Vec<(&'static str, String)>,
    /// Time for a program.
    timeout: Duration,
    /// Milliseconds that programs have taken.
    taken: AtomicU64,
    /// The directories seen so far: to find them again in the trash.
    known: Mutex<directory::Known>,
    /// Inode number, mode and group of the planted directories, by path.
    planted: Mutex<HashMap<String, [u64; 3]>>,
}

impl Probe {
    pub(crate) fn new(kind: &Kind, root: &Path, environment: &[(&'static str, String)], timeout: Duration) -> Self {
        let (kind, root, environment) = (kind.clone(), root.to_owned(), environment.to_vec());
        Self {
            kind,
            root,
            environment,
            timeout,
            taken: AtomicU64::default(),
            known: Mutex::default(),
            planted: Mutex::default(),
        }
    }

    /// What an error of this probe means: a program is not part of what is tested, but a file or directory is made by the command.
    pub(crate) fn failure(&self, error: &anyhow::Error) -> Failure {
        let text = format!("{error:#}");
        if matches!(self.kind, Kind::Program(_)) { Failure::Broken(text) } else { Failure::Seen(text) }
    }

    /// The time that programs have taken so far. The command waits while one reads the directory at the arrival of a callback.
    pub(crate) fn taken(&self) -> Duration {
        Duration::from_millis(self.taken.load(Ordering::Relaxed))
    }

    /// Modes of the directories above the mount point, from the top; none if the probe cannot know.
    pub(crate) fn parents(&self, path: &str) -> anyhow::Result<Vec<(String, u32)>> {
        if !matches!(self.kind, Kind::Posix | Kind::Xfs) {
            return Ok(Vec::new());
        }
        let above: Vec<&Path> = Path::new(path).ancestors().skip(1).filter(|path| path.parent().is_some()).collect();
        let mode = |path: &&Path| {
            let directory = path.to_str().and_then(|path| directory::below(&self.root, path));
            let directory = directory.ok_or_else(|| anyhow!("{} is not below the root", path.display()))?;
            let metadata = fs::metadata(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
            Ok((path.display().to_string(), metadata.mode() & 0o7777))
        };
        above.iter().rev().map(mode).collect()
    }

    /// Reads the directory at the mount point, or the trash, for the resource with this ID.
    pub(crate) fn read(&self, path: &str, item: &str) -> anyhow::Result<Probed> {
        match &self.kind {
            Kind::Json => self.json(path, item),
            Kind::Posix => directory::read(&self.root, path, item, &self.known, directory::declared),
            Kind::Xfs => directory::read(&self.root, path, item, &self.known, directory::project_quota),
            Kind::Program(program) => {
                let what = || format!("the probe {}", program.display());
                let begun = Instant::now();
                let printed = self.ask(program, path, item).with_context(what);
                self.taken.fetch_add(u64::try_from(begun.elapsed().as_millis())?, Ordering::Relaxed);
                let printed = printed?;
                let value = serde_json::from_slice(&printed).with_context(|| format!("{} printed no JSON", what()))?;
                Probed::of_program(&value).with_context(what)
            }
        }
    }

    /// Runs a program; returns what it prints. Kills it if it takes too long or prints too much.
    fn ask(&self, program: &Path, path: &str, item: &str) -> anyhow::Result<Vec<u8>> {
        // Files, not pipes: what the program leaves behind cannot keep them open.
        let (mut printed, mut complaint) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut child = Command::new(program)
            .args([path, item])
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(printed.try_clone()?)
            .stderr(complaint.try_clone()?)
            .process_group(0)
            .spawn()
            .context("it cannot be started")?;
        let (group, begun) = (Pid::from_child(&child), Instant::now());
        let outcome = loop {
            if let Some(status) = child.try_wait()? {
                break Ok(status);
            }
            if begun.elapsed() > self.timeout {
                break Err(anyhow!("it did not answer within {:?}, a quarter of --timeout", self.timeout));
            }
            if [&printed, &complaint].iter().any(|file| file.metadata().is_ok_and(|file| file.len() > MAX_PRINTED)) {
                break Err(anyhow!("it printed more than {MAX_PRINTED} bytes"));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        if outcome.is_err() {
            // Fails if it has ended just now.
            let _ = kill_process_group(group, Signal::KILL);
            child.wait()?;
        }
        let status = outcome?;
        let text = |file: &mut File| {
            let mut bytes = Vec::new();
            file.rewind().and_then(|()| file.take(MAX_PRINTED).read_to_end(&mut bytes)).map(|_| bytes)
        };
        if !status.success() {
            let complaint = text(&mut complaint)?;
            bail!("it failed ({status}): {}", String::from_utf8_lossy(&complaint).trim());
        }
        Ok(text(&mut printed)?)
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
            Some(directory) => Probed::of_directory(directory, trash)
                .with_context(|| format!("{path} in {}", self.root.join(FILE).display())),
            None => Ok(Probed::absent(trash)),
        }
    }

    /// Puts a directory that belongs to nobody at the path; `false` if this kind of probe cannot.
    pub(crate) fn plant(&self, path: &str, is_empty: bool) -> anyhow::Result<bool> {
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
                if !is_empty {
                    fs::write(directory.join("data"), "of somebody else")?;
                }
                let mut planted = self.planted.lock().unwrap_or_else(PoisonError::into_inner);
                planted.extend(identity(&directory).map(|identity| (path.to_owned(), identity)));
                Ok(true)
            }
            Kind::Program(_) => Ok(false),
        }
    }

    /// Whether what was planted is still there, unchanged.
    pub(crate) fn is_planted(&self, path: &str) -> anyhow::Result<bool> {
        if self.kind == Kind::Json {
            let stored = self.stored()?;
            return Ok(stored["directories"][path]["mode"] == "700" && stored["directories"][path]["gid"] == 1);
        }
        let planted = self.planted.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied();
        let found = directory::below(&self.root, path).and_then(|directory| identity(&directory));
        Ok(planted.is_some() && planted == found)
    }

    /// Puts a symbolic link to a directory at the path; `false` if this kind of probe cannot.
    pub(crate) fn plant_link(&self, path: &str, target: &Path) -> anyhow::Result<bool> {
        if !matches!(self.kind, Kind::Posix | Kind::Xfs) {
            return Ok(false);
        }
        let link = directory::below(&self.root, path).ok_or_else(|| anyhow!("{path} is not below the root"))?;
        fs::create_dir_all(link.parent().unwrap_or(&self.root))?;
        std::os::unix::fs::symlink(target, link)?;
        Ok(true)
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

/// Inode number, mode and group.
fn identity(directory: &Path) -> Option<[u64; 3]> {
    let metadata = fs::symlink_metadata(directory).ok()?;
    Some([metadata.ino(), metadata.mode().into(), metadata.gid().into()])
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::{Kind, Pair, Probe, Probed, amount};
    use crate::outcome::Failure;

    fn probe(kind: &Kind) -> (TempDir, Probe) {
        let directory = TempDir::new().unwrap();
        let probe = Probe::new(kind, directory.path(), &[], Duration::from_mins(1));
        (directory, probe)
    }

    /// What a probe that is this shell script answers for `/a` and the item `1`, with a variable ANSWER.
    fn ask(script: &str, timeout: Duration) -> Result<Probed, String> {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("probe");
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let answer = json!({ "exists": true, "gid": 7, "mode": "2770", "space": { "soft": 1, "hard": 2e0 }, "inodes": null, "trash": false });
        let probe = Probe::new(&Kind::Program(file), directory.path(), &[("ANSWER", answer.to_string())], timeout);
        probe.read("/a", "1").map_err(|error| match probe.failure(&error) {
            Failure::Broken(text) => text,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_json_file_has_directories_and_trash() {
        let (directory, probe) = probe(&Kind::Json);
        assert_eq!(probe.read("/a/b", "1").unwrap(), Probed::absent(Some(false)));
        let limits = json!({ "soft": 9_007_199_254_740_993_u64, "hard": 2e19 });
        let entry = json!({ "itemId": "1", "gid": 7, "mode": "2770", "space": limits, "inodes": null });
        let stored = json!({ "directories": { "/a/b": entry }, "trash": { "2": {} } });
        fs::write(directory.path().join("storage.json"), stored.to_string()).unwrap();
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
        fs::create_dir_all(at("capstor/p0")).unwrap();
        assert_eq!(probe.read("/capstor/p0", "1").unwrap().exists, Some(true));
        fs::create_dir(at("capstor/.trash")).unwrap();
        fs::rename(at("capstor/p0"), at("capstor/.trash/x")).unwrap();
        assert_eq!(probe.read("/capstor/p0", "1").unwrap(), Probed::absent(Some(true)));
        // Another directory takes its place.
        fs::create_dir(at("capstor/p0")).unwrap();
        for _ in 0..2 {
            assert_eq!(probe.read("/capstor/p0", "1").unwrap().trash, Some(true));
        }
        fs::remove_dir(at("capstor/.trash/x")).unwrap();
        let error = probe.read("/capstor/p0", "1").unwrap_err().to_string();
        assert!(error.ends_with("that one is gone, with its data"), "{error}");
        fs::remove_dir(at("capstor/p0")).unwrap();
        assert_eq!(probe.read("/capstor/p0", "1").unwrap(), Probed::absent(Some(false)));
        assert_eq!(probe.read("/capstor/p1", "2").unwrap(), Probed::absent(None));
    }

    #[test]
    fn a_program_answers_with_one_json_object() {
        let minute = Duration::from_mins(1);
        let whole = ask(r#"[ "$1 $2" = "/a 1" ] && echo "$ANSWER"; echo a warning >&2"#, minute).unwrap();
        assert_eq!((whole.exists, whole.gid, whole.mode), (Some(true), Some(7), Some(0o2770)));
        assert_eq!(whole.space, Some(Pair { soft: Some(1), hard: Some(2) }));
        assert_eq!(whole.unknown(), ["inode limits"]);
        let absent = ask(r#"echo '{"exists": false, "trash": null}'"#, minute).unwrap();
        assert_eq!(absent, Probed::absent(None));
        let slow = ask(r#"sleep 1; echo "$ANSWER""#, minute).unwrap();
        assert_eq!(slow, whole);
        // A child that keeps the output open.
        let begun = Instant::now();
        assert_eq!(ask(r#"sleep 50 & echo "$ANSWER""#, minute).unwrap(), whole);
        assert!(begun.elapsed() < Duration::from_secs(40));
    }

    #[test]
    fn a_program_that_does_not_answer_is_no_fault_of_the_command() {
        for (script, part) in [
            ("echo no such pool >&2; exit 3", "exit status: 3): no such pool"),
            ("kill -9 $$", "signal: 9"),
            ("true", "printed no JSON"),
            ("echo hello", "printed no JSON"),
            ("echo \"$ANSWER\" and more", "printed no JSON"),
            ("echo '[]'", "exists is missing"),
            ("echo null", "exists is missing"),
            ("echo '{}'", "exists is missing"),
            (r#"echo '{"exists": 1}'"#, "exists is 1"),
            (r#"echo '{"exists": null, "trash": true}'"#, "exists is null"),
            (r#"echo '{"exists": true}'"#, "trash is missing"),
            (
                r#"echo '{"exists": true, "trash": false, "gid": null, "mode": null, "space": null}'"#,
                "inodes is missing",
            ),
            (r#"echo "$ANSWER" | sed 's/7/"7"/'"#, "the GID is not valid: \"7\" is not a whole number"),
            (
                r#"echo "$ANSWER" | sed 's/"soft":1/"soft":-1/'"#,
                "the limits of space are not valid: -1 is not a whole number",
            ),
            (r#"echo "$ANSWER" | sed 's/2770/rwx/'"#, "the mode \"rwx\" is not octal"),
            ("yes", "it printed more than 65536 bytes"),
            ("yes >&2", "it printed more than 65536 bytes"),
        ] {
            let error = ask(script, Duration::from_mins(1)).unwrap_err();
            assert!(error.starts_with("the probe /") && error.contains(part), "{script}: {error}");
        }
        let begun = Instant::now();
        let error = ask("sleep 600 & sleep 600", Duration::from_secs(1)).unwrap_err();
        assert!(error.ends_with("it did not answer within 1s, a quarter of --timeout"), "{error}");
        assert!(begun.elapsed() < Duration::from_mins(5), "the probe was not killed");
        let missing = Probe::new(&Kind::Program("/no/such/probe".into()), "/".as_ref(), &[], Duration::from_secs(1));
        let error = format!("{:#}", missing.read("/a", "1").unwrap_err());
        assert!(error.starts_with("the probe /no/such/probe: it cannot be started: No such file"), "{error}");
    }

    #[test]
    fn amounts_are_whole_numbers() {
        for (value, expected) in [(json!(0), 0), (json!(1e13), 10_000_000_000_000), (json!(2e19), u64::MAX)] {
            assert_eq!(amount(&value).unwrap(), expected);
        }
        for value in [json!(-1), json!(0.5), json!("1"), json!(true), json!([]), Value::Null] {
            assert!(amount(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn a_directory_without_limits_in_the_file_is_wrong() {
        let (directory, probe) = probe(&Kind::Json);
        let limits = json!({ "soft": 1, "hard": 1 });
        for (space, part) in
            [(json!({}), "space are not valid: soft is missing"), (json!(7), "space are not valid: soft is missing")]
        {
            let entry = json!({ "itemId": "1", "gid": 7, "mode": "2770", "space": space, "inodes": limits });
            let stored = json!({ "directories": { "/a/b": entry }, "trash": {} });
            fs::write(directory.path().join("storage.json"), stored.to_string()).unwrap();
            let error = probe.read("/a/b", "1").unwrap_err();
            let Failure::Seen(text) = probe.failure(&error) else { panic!("{error:#}") };
            assert!(text.contains("/a/b in ") && text.contains(part), "{text}");
        }
    }

    #[test]
    fn parents_have_modes() {
        let (directory, probe) = probe(&Kind::Posix);
        fs::create_dir_all(directory.path().join("a/b/c")).unwrap();
        for (path, mode) in [("a", 0o755), ("a/b", 0o700)] {
            fs::set_permissions(directory.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        assert_eq!(probe.parents("/a/b/c").unwrap(), [("/a".to_owned(), 0o755), ("/a/b".to_owned(), 0o700)]);
    }
}
