//! Detects changes of small files, such as secrets and certificates.

use std::hash::Hasher;
use std::path::PathBuf;
use std::time::Duration;

use settings::files::read;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use xxhash_rust::xxh3::Xxh3;

/// Polling interval. Unlike notifications, polling works on every file system and however a file is replaced: Kubernetes
/// changes the target of a symbolic link.
const INTERVAL: Duration = Duration::from_secs(2);
/// Maximum number of bytes read of a file.
const LARGEST: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct FileWatch {
    paths: Vec<PathBuf>,
    known: Vec<Option<u128>>,
}

impl FileWatch {
    /// Starts with the current contents of the files.
    pub(crate) async fn new(paths: Vec<PathBuf>) -> Self {
        let known = hashes(paths.clone()).await;
        Self { paths, known }
    }

    /// Watches these files from now on. Does nothing if they are the same files as before.
    pub(crate) async fn follow(&mut self, paths: Vec<PathBuf>) {
        if paths != self.paths {
            *self = Self::new(paths).await;
        }
    }

    /// Resolves when the contents have changed and then stayed the same for one interval, because files that belong
    /// together are not written at the same moment. Without files it never resolves.
    pub(crate) async fn changed(&mut self) {
        if self.paths.is_empty() {
            return std::future::pending().await;
        }
        let mut last = self.known.clone();
        loop {
            sleep(INTERVAL).await;
            let now = hashes(self.paths.clone()).await;
            if now != self.known && now == last {
                self.known = now;
                return;
            }
            last = now;
        }
    }
}

/// A hash of each file's contents; `None` if it cannot be read. Reads on a blocking thread, because a file system may be slow.
async fn hashes(paths: Vec<PathBuf>) -> Vec<Option<u128>> {
    let read_all = move || paths.iter().map(|path| read(path, LARGEST).ok().map(|bytes| hash(&bytes))).collect();
    // The task fails only while the runtime shuts down.
    spawn_blocking(read_all).await.unwrap_or_default()
}

fn hash(bytes: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.write(bytes);
    hasher.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_is_reported_once_after_it_has_settled() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        std::fs::write(&one, "a").unwrap();
        let mut watch = FileWatch::new(vec![one.clone(), other.clone()]).await;
        std::fs::write(&other, "b").unwrap();
        watch.changed().await;
        // Replaced by a link to another file.
        std::fs::remove_file(&one).unwrap();
        std::os::unix::fs::symlink(&other, &one).unwrap();
        watch.changed().await;
        // Written again with the same bytes.
        std::fs::write(&other, "b").unwrap();
        assert!(tokio::time::timeout(INTERVAL * 10, watch.changed()).await.is_err());
        std::fs::remove_file(&other).unwrap();
        watch.changed().await;
        let mut none = FileWatch::new(Vec::new()).await;
        assert!(tokio::time::timeout(INTERVAL * 10, none.changed()).await.is_err());
    }
}
