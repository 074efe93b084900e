//! The system calls of a pass, in the same order, and nothing else; `strace -f -c` shows the same counts for both.
//!
//! Names and journal lines are prepared before the measurement; the lines are as long as those of a pass.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, ResolveFlags, XattrFlags};

use crate::world::World;
use crate::{Result, Took};

const MARK: &str = "user.hpc-storage.resource";
const LIMITS: &str = "user.hpc-storage.limits";
/// Lengths of journal lines in bytes.
const BEGUN: usize = 487;
const CALL: usize = 243;
const EFFECT: usize = 250;
const ENDED: usize = 190;
/// Number of calls with two lines each: first approval, later backend ID and `done`.
const LATER_CALLS: usize = 2;

/// The prepared names of one resource.
struct Work {
    path: String,
    parents: [String; 3],
    aside: String,
    name: String,
    mark: String,
}

fn work(world: &World) -> Vec<Work> {
    let one = |(id, customer, name): (uuid::Uuid, String, String)| Work {
        path: format!("store/cscs/{customer}/{name}"),
        parents: ["store".into(), "cscs".into(), customer],
        aside: format!(".new-{}", id.simple()),
        name,
        mark: id.to_string(),
    };
    world.names().map(one).collect()
}

/// As long as the limits of a pass.
fn limits() -> String {
    "x".repeat(101)
}

/// Creates all directories.
pub(crate) fn pending(world: &World, folder: &Path) -> Result<Took> {
    let (root, state) = (folder.join("root"), folder.join("state"));
    let (work, limits) = (work(world), limits());
    let line = |length: usize| "x".repeat(length - 1) + "\n";
    let [begun, call, effect, ended] = [BEGUN, CALL, EFFECT, ENDED].map(line);
    let journal = File::create_new(state.join("journal"))?;
    let start = Instant::now();
    let write = |text: &str, times: usize| (0..times).try_for_each(|_| (&journal).write_all(text.as_bytes()));

    look(&root, &work)?;
    let survey = start.elapsed().as_secs_f64();
    write(&begun, work.len())?;
    journal.sync_data()?;
    write(&call, 2 * work.len())?;
    for one in &work {
        let top = open(&root)?;
        drop(below(&top, &one.path));
        let mut above = top.try_clone()?;
        for parent in &one.parents {
            above = if let Ok(directory) = below(&above, parent) {
                let _ = rustix::fs::unlinkat(&above, &one.aside, AtFlags::REMOVEDIR);
                directory
            } else {
                write(&effect, 1)?;
                rustix::fs::mkdirat(&above, &one.aside, Mode::RWXU)?;
                let directory = below(&above, &one.aside)?;
                is_bare(&directory)?;
                rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o775))?;
                rename(&directory, &above, [&one.aside, parent])?;
                rustix::fs::fsync(&above)?;
                below(&above, parent)?
            };
        }
        write(&effect, 1)?;
        rustix::fs::mkdirat(&above, &one.aside, Mode::RWXU)?;
        let directory = below(&above, &one.aside)?;
        let _ = rustix::fs::fgetxattr(&directory, MARK, &mut [0; 64][..]);
        is_bare(&directory)?;
        write(&effect, 1)?;
        rustix::fs::fstat(&directory)?;
        let _ = rustix::fs::fgetxattr(&directory, LIMITS, &mut [0; 512][..]);
        rustix::fs::fsetxattr(&directory, LIMITS, limits.as_bytes(), XattrFlags::empty())?;
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o2770))?;
        rustix::fs::fsetxattr(&directory, MARK, one.mark.as_bytes(), XattrFlags::empty())?;
        rustix::fs::fsync(&directory)?;
        write(&effect, 1)?;
        rename(&directory, &above, [&one.aside, &one.name])?;
        rustix::fs::fsync(&above)?;
        drop((directory, above, top));
        read_back(&open(&root)?, one)?;
        write(&call, 2 * LATER_CALLS)?;
    }
    write(&ended, work.len())?;
    journal.sync_data()?;
    Ok(Took { survey, all: start.elapsed().as_secs_f64() })
}

/// Reads all directories, which an earlier pass has created.
pub(crate) fn settled(world: &World, folder: &Path) -> Result<Took> {
    let (root, work) = (folder.join("root"), work(world));
    let began = Instant::now();
    look(&root, &work)?;
    let took = began.elapsed().as_secs_f64();
    Ok(Took { survey: took, all: took })
}

/// The survey: checks the root, then looks up each directory.
fn look(root: &Path, work: &[Work]) -> Result<()> {
    let _ = rustix::fs::fgetxattr(open(root)?, LIMITS, &mut [0; 512][..]);
    let root = open(root)?;
    if work.first().is_some_and(|first| below(&root, &first.path).is_err()) {
        let _ = below(&root, ".trash");
        return work.iter().skip(1).try_for_each(|one| {
            below(&root, &one.path).map_or(Ok(()), |_| Err("the directory already exists".into()))
        });
    }
    work.iter().try_for_each(|one| read_back(&root, one))
}

/// Checks that the new directory is still empty.
fn is_bare(directory: &OwnedFd) -> Result<()> {
    for entry in Dir::read_from(directory)? {
        entry?;
    }
    let _ = rustix::process::geteuid();
    rustix::fs::fstat(directory)?;
    Ok(())
}

/// Moves the directory into place, and checks that the path leads to it.
fn rename(directory: &OwnedFd, above: &OwnedFd, [old, new]: [&str; 2]) -> Result<()> {
    rustix::fs::renameat_with(above, old, above, new, RenameFlags::NOREPLACE)?;
    rustix::fs::fstat(directory)?;
    rustix::fs::statat(above, new, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn read_back(root: &OwnedFd, one: &Work) -> Result<()> {
    let directory = below(root, &one.path)?;
    rustix::fs::fgetxattr(&directory, MARK, &mut [0; 64][..])?;
    rustix::fs::fstat(&directory)?;
    rustix::fs::fgetxattr(&directory, LIMITS, &mut [0; 512][..])?;
    Ok(())
}

fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, flags(), Mode::empty())?)
}

fn below(above: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    Ok(rustix::fs::openat2(above, path, flags(), Mode::empty(), resolve)?)
}
