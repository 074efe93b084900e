//! Small files that others write: when they have changed.

use std::hash::Hasher;
use std::path::PathBuf;
use std::time::Duration;

use settings::files::read;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use xxhash_rust::xxh3::Xxh3;

/// How often files are looked at. Other than notifications this works with every file system, and whatever way a file is
/// replaced: Kubernetes changes where a link leads.
const INTERVAL: Duration = Duration::from_secs(2);
/// As much of a file as is looked at.
const LARGEST: u64 = 1 << 20;

/// Files that are looked at again and again.
#[derive(Debug)]
pub(crate) struct FileWatch {
    paths: Vec<PathBuf>,
    known: Vec<Option<u128>>,
}

impl FileWatch {
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

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_once_when_it_has_settled() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        std::fs::write(&one, "a").unwrap();
        let mut watch = FileWatch::new(vec![one.clone(), other.clone()]).await;
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
        let mut none = FileWatch::new(Vec::new()).await;
        assert!(tokio::time::timeout(INTERVAL * 10, none.changed()).await.is_err());
    }
}
