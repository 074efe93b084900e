//! Small files that others write: how they are read, and when they have changed.

use std::fs::File;
use std::hash::Hasher;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use xxhash_rust::xxh3::Xxh3;

/// How often files are looked at. Other than notifications this works with every file system, and whatever way a file is
/// replaced: Kubernetes changes where a link leads.
const INTERVAL: Duration = Duration::from_secs(2);
/// As much of a file as is looked at.
const LARGEST: u64 = 1 << 20;

/// What a regular file holds; an error when that is more than `largest` bytes.
pub(crate) fn read(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    // A pipe would have us wait for whoever writes to it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(largest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest { Err(ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Why a file cannot be read, in the words of people.
pub(crate) fn why(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => String::from("cannot be read (no such file)"),
        ErrorKind::Other => format!("cannot be read ({error})"),
        kind => format!("cannot be read ({kind})"),
    }
}

/// Files that are looked at again and again.
#[derive(Debug)]
pub(crate) struct Watch {
    paths: Vec<PathBuf>,
    known: Vec<Option<u128>>,
}

impl Watch {
    /// Takes what the files hold now for known.
    pub(crate) async fn new(paths: Vec<PathBuf>) -> Self {
        let known = look(paths.clone()).await;
        Self { paths, known }
    }

    /// Looks at these files from now on. Those that were looked at stay known as they were.
    pub(crate) async fn follow(&mut self, paths: Vec<PathBuf>) {
        if paths != self.paths {
            *self = Self::new(paths).await;
        }
    }

    /// Resolves when the files hold something else than is known, and have done so for a while: several of them may
    /// belong together, and are not written at once. That is known from then on. Without files it never resolves.
    pub(crate) async fn changed(&mut self) {
        if self.paths.is_empty() {
            return std::future::pending().await;
        }
        let mut last = self.known.clone();
        loop {
            sleep(INTERVAL).await;
            let now = look(self.paths.clone()).await;
            if now != self.known && now == last {
                self.known = now;
                return;
            }
            last = now;
        }
    }
}

/// What each file holds, as a number. Read beside the threads that serve: a file system may be slow.
async fn look(paths: Vec<PathBuf>) -> Vec<Option<u128>> {
    let look = move || paths.iter().map(|path| read(path, LARGEST).ok().map(|bytes| number(&bytes))).collect();
    // An error says that the program ends.
    spawn_blocking(look).await.unwrap_or_default()
}

fn number(bytes: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.write(bytes);
    hasher.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_the_right_size_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        assert_eq!(why(&read(&path, 5).unwrap_err()), "cannot be read (no such file)");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(why(&read(directory.path(), 5).unwrap_err()), "cannot be read (not a regular file)");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_once_when_it_has_settled() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        std::fs::write(&one, "a").unwrap();
        let mut watch = Watch::new(vec![one.clone(), other.clone()]).await;
        std::fs::write(&other, "b").unwrap();
        watch.changed().await;
        // A link that leads elsewhere.
        std::fs::remove_file(&one).unwrap();
        std::os::unix::fs::symlink(&other, &one).unwrap();
        watch.changed().await;
        // Written anew with the same bytes.
        std::fs::write(&other, "b").unwrap();
        assert!(tokio::time::timeout(INTERVAL * 10, watch.changed()).await.is_err());
        std::fs::remove_file(&other).unwrap();
        watch.changed().await;
        let mut none = Watch::new(Vec::new()).await;
        assert!(tokio::time::timeout(INTERVAL * 10, none.changed()).await.is_err());
    }
}
