//! Directories of mounted file systems.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use serde_json::Value;

use super::{Pair, Probed};

/// How many levels below the root the trash may be.
const DEPTH: usize = 8;
/// Attributes with limits that are not enforced: one JSON object, `{"space_soft": BYTES, "space_hard": …, "inodes_soft": …, "inodes_hard": …}`.
const ATTRIBUTES: [&str; 2] = ["trusted.hpc-storage.limits", "user.hpc-storage.limits"];

/// Device and inode numbers of the directories of each resource, by `itemId`.
pub(super) type Known = HashMap<String, HashSet<(u64, u64)>>;

/// Limits of space and inodes.
type Limits = (Option<Pair>, Option<Pair>);

/// The directory of a mount point; `None` if that is not an absolute path, or leads out of the root.
pub(super) fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let relative = path.strip_prefix('/')?;
    let plain = Path::new(relative).components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !relative.is_empty()).then(|| root.join(relative))
}

pub(super) fn read(
    root: &Path,
    path: &str,
    item: &str,
    known: &Mutex<Known>,
    limits: fn(&Path) -> anyhow::Result<Limits>,
) -> anyhow::Result<Probed> {
    let Some(directory) = below(root, path) else { return Ok(Probed::absent(None)) };
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.entry(item.to_owned()).or_default();
    let is_in_trash = |number: &(u64, u64)| is_below(root, *number, DEPTH);
    match fs::symlink_metadata(&directory) {
        Ok(metadata) if metadata.is_dir() => {
            let number = (metadata.dev(), metadata.ino());
            known.insert(number);
            // Directories that were there before, and were not taken from the trash.
            let earlier: Vec<_> = known.iter().filter(|other| **other != number).collect();
            if earlier.iter().any(|other| !is_in_trash(other)) {
                bail!("{path} is not the directory that was there before: that one is gone, with its data");
            }
            let (space, inodes) = limits(&directory)?;
            Ok(Probed {
                exists: Some(true),
                // Only root can give directories to groups.
                gid: rustix::process::geteuid().is_root().then_some(metadata.gid().into()),
                mode: Some(metadata.mode() & 0o7777),
                space,
                inodes,
                trash: Some(!earlier.is_empty()),
            })
        }
        Ok(_) => Ok(Probed::absent(None)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Probed::absent((!known.is_empty()).then(|| known.iter().any(is_in_trash))))
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", directory.display())),
    }
}

/// Whether a directory with this device and inode number is somewhere below.
fn is_below(directory: &Path, number: (u64, u64), depth: usize) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let directories =
        entries.filter_map(|entry| entry.metadata().ok().filter(Metadata::is_dir).map(|data| (entry.path(), data)));
    directories
        .into_iter()
        .any(|(path, data)| (data.dev(), data.ino()) == number || (depth > 0 && is_below(&path, number, depth - 1)))
}

/// The limits in an extended attribute.
pub(super) fn declared(directory: &Path) -> anyhow::Result<Limits> {
    let mut text = [0; 512];
    let found = ATTRIBUTES.iter().find_map(|name| rustix::fs::getxattr(directory, *name, &mut text).ok());
    let Some(length) = found else { return Ok((None, None)) };
    let limits: Value = serde_json::from_slice(text.get(..length).unwrap_or_default())
        .with_context(|| format!("the limits of {} are not JSON", directory.display()))?;
    let pair = |kind: &str| {
        let limit = |how: &str| limits[format!("{kind}_{how}")].as_u64();
        Some(Pair { soft: limit("soft"), hard: limit("hard") })
    };
    Ok((pair("space"), pair("inodes")))
}

/// The limits of the directory's project.
pub(super) fn project_quota(directory: &Path) -> anyhow::Result<Limits> {
    let what = || format!("cannot read the project quota of {}", directory.display());
    let file = File::open(directory).with_context(what)?;
    let limits = match project_quota::tag::get(file.as_fd()).with_context(what)?.project {
        Some(project) => Some(project_quota::quota::get(file.as_fd(), project).with_context(what)?.limits),
        None => None,
    };
    // Without a project, nothing limits it.
    let pair = |pick: fn(&project_quota::Limits<Option<NonZeroU64>>) -> [Option<NonZeroU64>; 2]| {
        let [soft, hard] = limits.as_ref().map_or([None, None], pick);
        let number = |limit: Option<NonZeroU64>| Some(limit.map_or(0, NonZeroU64::get));
        Some(Pair { soft: number(soft), hard: number(hard) })
    };
    Ok((pair(|it| [it.space_soft, it.space_hard]), pair(|it| [it.inodes_soft, it.inodes_hard])))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::num::NonZeroU64;
    use std::os::fd::AsFd;
    use std::path::Path;

    use project_quota::tag::{self, Tag};
    use project_quota::{Limits, Project, quota};

    use super::{Pair, below, project_quota as limits_of};

    #[test]
    fn paths_lead_below_the_root() {
        let root = Path::new("/root");
        assert_eq!(below(root, "/a/b"), Some("/root/a/b".into()));
        for path in ["", "/", "a", "/a/..", "/..", "/a/../../b"] {
            assert_eq!(below(root, path), None, "{path}");
        }
    }

    #[test]
    #[ignore = "needs a kernel with project quotas: .ci/kernel"]
    fn limits_of_a_project_quota_are_read() {
        for variable in ["KERNEL_XFS", "KERNEL_EXT4"] {
            let Some(mounted) = std::env::var_os(variable) else { panic!("only .ci/kernel sets {variable}") };
            let directory = Path::new(&mounted).join("conformance");
            fs::create_dir(&directory).unwrap();
            let nothing = Some(Pair { soft: Some(0), hard: Some(0) });
            assert_eq!(limits_of(&directory).unwrap(), (nothing, nothing), "{variable}");
            let (file, project) = (File::open(&directory).unwrap(), Project::new(4711).unwrap());
            let number = |number| NonZeroU64::new(number).unwrap();
            let [space_soft, space_hard] = [number(1 << 20), number(2 << 20)];
            let limits = Limits { space_soft, space_hard, inodes_soft: number(10), inodes_hard: number(20) };
            quota::set(file.as_fd(), project, &limits).unwrap();
            tag::set(file.as_fd(), Tag { project: Some(project), inherit: true }).unwrap();
            let space = Some(Pair { soft: Some(1 << 20), hard: Some(2 << 20) });
            let inodes = Some(Pair { soft: Some(10), hard: Some(20) });
            assert_eq!(limits_of(&directory).unwrap(), (space, inodes), "{variable}");
        }
    }
}
