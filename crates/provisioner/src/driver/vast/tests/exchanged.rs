//! Directories that somebody who may write in the one above puts into each other's places.

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Two directories with something in each, and a driver.
struct Two {
    simulated: Simulated,
    vast: Vast,
    a: Wanted,
    b: Wanted,
}

impl Two {
    fn new(follows: bool) -> Self {
        let simulated = Simulated::start();
        simulated.world().follows = follows;
        let vast = vast(&simulated);
        let bench = bench(&vast, &|_| {});
        let (a, b) = (bench.wanted(1), Wanted { gid: 30_600, ..bench.wanted(2) });
        let two = Self { simulated, vast, a, b };
        for wanted in [&two.a, &two.b] {
            two.vast.ensure(wanted, &go).unwrap();
            std::fs::write(two.path(wanted).join("data"), wanted.id.to_string()).unwrap();
        }
        two
    }

    fn path(&self, wanted: &Wanted) -> PathBuf {
        self.simulated.folder.path().join(wanted.place.to_string())
    }

    /// Puts what is at B's place into A's.
    fn exchange(&self) {
        let a = self.path(&self.a);
        std::fs::rename(&a, a.with_file_name("moved")).unwrap();
        std::fs::rename(self.path(&self.b), &a).unwrap();
    }

    /// Where the directory with B's data is, below the root, and its owner and mode.
    fn of_b(&self) -> Vec<(String, u32, u32)> {
        let (root, b) = (self.simulated.folder.path(), self.b.id.to_string());
        let mut found = Vec::new();
        let mut left = vec![root.to_owned()];
        while let Some(folder) = left.pop() {
            if std::fs::read_to_string(folder.join("data")).is_ok_and(|data| data == b) {
                let it = std::fs::metadata(&folder).unwrap();
                found.push((folder.strip_prefix(root).unwrap().display().to_string(), it.gid(), it.mode() & 0o7777));
            }
            let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            left.extend(entries.filter(|path| path.is_dir()));
        }
        found
    }
}

/// `work`, with `deed` done just before its effect number `at`; whether it has that many.
fn with_deed(at: u32, deed: &(dyn Fn() + Sync), work: &dyn Fn(Before<'_>) -> Result<(), Fault>) -> bool {
    let effects = AtomicU32::new(0);
    let before = |_: &str| {
        if effects.fetch_add(1, Ordering::Relaxed) == at {
            deed();
        }
        Ok(())
    };
    drop(work(&before));
    effects.into_inner() > at
}

#[test]
fn what_is_exchanged_while_it_is_made_as_wanted_is_not_given_away() {
    for follows in [false, true] {
        for at in 0.. {
            let two = Two::new(follows);
            let changed = Wanted { gid: 30_700, mode: Mode(0o2750), limits: Limits::least(), ..two.a.clone() };
            let reached = with_deed(at, &|| two.exchange(), &|before| two.vast.ensure(&changed, before));
            if !reached {
                assert_eq!(at, 3, "limits, owner, mode");
                break;
            }
            assert_eq!(two.of_b(), [(two.a.place.to_string(), 30_600, 0o2770)], "at effect {at}");
        }
    }
}
