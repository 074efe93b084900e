//! Directories that are moved onto each other's paths by somebody who can write to the parent directory.

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Two directories with data, and a driver.
struct Fixture {
    simulated: Simulated,
    vast: Vast,
    a: Desired,
    b: Desired,
}

impl Fixture {
    fn new(follows: bool) -> Self {
        let simulated = Simulated::start();
        simulated.world().follows = follows;
        let vast = vast(&simulated);
        let bench = bench(&vast, &|_| {});
        let (a, b) = (bench.desired(1), Desired { gid: 30_600, ..bench.desired(2) });
        let fixture = Self { simulated, vast, a, b };
        for desired in [&fixture.a, &fixture.b] {
            fixture.vast.ensure(desired, &allow).unwrap();
            std::fs::write(fixture.path(desired).join("data"), desired.id.to_string()).unwrap();
        }
        fixture
    }

    fn path(&self, desired: &Desired) -> PathBuf {
        self.simulated.folder.path().join(desired.place.to_string())
    }

    /// Moves A's directory aside, and B's directory to A's path.
    fn replace_a_with_b(&self) {
        let a = self.path(&self.a);
        std::fs::rename(&a, a.with_file_name("moved")).unwrap();
        std::fs::rename(self.path(&self.b), &a).unwrap();
    }

    /// Renames a resource's quota, as a person would. Returns the old name.
    fn rename_quota(&self, desired: &Desired, name: &str) -> String {
        let mut world = self.simulated.world();
        let whose = |quota: &&mut crate::simulated::SimulatedQuota| {
            quota.fields["name"].as_str().unwrap().starts_with(&desired.id.to_string())
        };
        let quota = world.quotas.values_mut().find(whose).unwrap();
        std::mem::replace(&mut quota.fields["name"], name.into()).as_str().unwrap().to_owned()
    }

    /// The path below the root, the group and the mode of the directory with B's data.
    fn directory_of_b(&self) -> Vec<(String, u32, u32)> {
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

/// Runs `work` with `action` just before its side effect number `at`. Returns whether `work` has that many.
fn with_action(at: u32, action: &(dyn Fn() + Sync), work: &dyn Fn(Guard<'_>) -> Result<(), DriverError>) -> bool {
    let effects = AtomicU32::new(0);
    let guard = |_: &str| {
        if effects.fetch_add(1, Ordering::Relaxed) == at {
            action();
        }
        Ok(())
    };
    drop(work(&guard));
    effects.into_inner() > at
}

#[test]
fn a_directory_that_is_replaced_during_ensure_is_not_changed() {
    for follows in [false, true] {
        for at in 0.. {
            let fixture = Fixture::new(follows);
            let changed =
                Desired { gid: 30_700, mode: Mode(0o2750), limits: QuotaLimits::minimum(), ..fixture.a.clone() };
            let reached =
                with_action(at, &|| fixture.replace_a_with_b(), &|guard| fixture.vast.ensure(&changed, guard));
            if !reached {
                assert_eq!(at, 3, "limits, owner, mode");
                break;
            }
            assert_eq!(fixture.directory_of_b(), [(fixture.a.place.to_string(), 30_600, 0o2770)], "at effect {at}");
        }
    }
}

#[test]
fn replaced_directories_are_refused_and_nothing_is_changed() {
    for follows in [false, true] {
        let fixture = Fixture::new(follows);
        let Fixture { simulated, vast, a, b } = &fixture;
        fixture.replace_a_with_b();
        // In the simulator, quotas follow their directories when they are listed.
        let first = observed(vast, a);
        let census = simulated.world().census();
        let Observed::Obstructed(why) = first else { panic!("{first:?}") };
        let expected = if follows {
            format!("belongs to resource {}", b.id)
        } else {
            format!("the directory of the quota {}.", b.id)
        };
        assert!(why.contains(&expected), "{why}");
        for refused in
            [vast.ensure(a, &allow), vast.retire(a, 5, &allow), vast.adopt(a, &allow), vast.restore(a, &allow)]
        {
            assert!(matches!(&refused, Err(DriverError::Conflict(text)) if *text == why), "{refused:?}");
        }
        vast.purge(&Trashed { id: a.id, since: 5 }, None, &allow).unwrap();
        assert_eq!(vast.usage(&[a]).remove(0).unwrap(), None);
        assert_eq!(simulated.world().census(), census);
        // Once corrected, everything is as before.
        std::fs::rename(fixture.path(a), fixture.path(b)).unwrap();
        std::fs::rename(fixture.path(a).with_file_name("moved"), fixture.path(a)).unwrap();
        assert!([a, b].iter().all(|it| bench(vast, &|_| {}).is_as_desired(it)));
    }
}

#[test]
fn a_copy_at_the_path_of_the_marked_directory_is_refused() {
    let fixture = Fixture::new(false);
    let (path, a) = (fixture.path(&fixture.a), &fixture.a);
    std::fs::rename(&path, path.with_file_name("moved")).unwrap();
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("data"), "copied").unwrap();
    let Observed::Obstructed(why) = observed(&fixture.vast, a) else { panic!("{:?}", observed(&fixture.vast, a)) };
    let right = format!("{}.{}", a.id, std::fs::metadata(&path).unwrap().ino());
    assert!(why.contains("moved or swapped") && why.contains(&format!("rename the quota to {right} in VMS")), "{why}");
    assert!(matches!(fixture.vast.ensure(a, &allow), Err(DriverError::Conflict(_))));
    fixture.rename_quota(a, &right);
    fixture.vast.ensure(a, &allow).unwrap();
    assert!(bench(&fixture.vast, &|_| {}).is_as_desired(a));
}

#[test]
fn a_directory_that_replaced_another_during_retire_is_not_purged() {
    for follows in [false, true] {
        for at in 0.. {
            let fixture = Fixture::new(follows);
            let (vast, a) = (&fixture.vast, &fixture.a);
            if !with_action(at, &|| fixture.replace_a_with_b(), &|guard| vast.retire(a, 5, guard)) {
                assert_eq!(at, 3, "mode, limits, rename");
                break;
            }
            // The rename is by name, and cannot be prevented.
            let put = format!(".trash/{}.5", a.id);
            let trashed = Trashed { id: a.id, since: 5 };
            assert_eq!(fixture.directory_of_b(), [(put, 30_600, 0o2770)], "at effect {at}");
            let new = Desired { id: Uuid::from_u128(77), ..a.clone() };
            for refused in [vast.retire(a, 6, &allow), vast.restore(a, &allow), vast.purge(&trashed, None, &allow)] {
                assert!(matches!(refused, Err(DriverError::Conflict(_))), "{refused:?}");
            }
            // The quota that identifies it is not deleted, either.
            drop(vast.ensure(&new, &allow));
            assert!(matches!(observed(vast, a), Observed::Obstructed(_)), "{:?}", observed(vast, a));
            assert!(vast.purge(&trashed, None, &allow).is_err() && fixture.directory_of_b().len() == 1);
        }
    }
}

#[test]
fn a_replaced_tree_in_the_trash_is_neither_restored_nor_purged() {
    for follows in [false, true] {
        let fixture = Fixture::new(follows);
        let (vast, a) = (&fixture.vast, &fixture.a);
        vast.retire(a, 5, &allow).unwrap();
        let tree = fixture.simulated.folder.path().join(format!(".trash/{}.5", a.id));
        std::fs::rename(&tree, tree.with_file_name("moved")).unwrap();
        std::fs::rename(fixture.path(&fixture.b), &tree).unwrap();
        let trashed = Trashed { id: a.id, since: 5 };
        assert!(matches!(observed(vast, a), Observed::Obstructed(why) if why.contains("in the trash")));
        let census = fixture.simulated.world().census();
        for refused in [vast.restore(a, &allow), vast.purge(&trashed, None, &allow), vast.retire(a, 6, &allow)] {
            assert!(matches!(&refused, Err(DriverError::Conflict(why)) if why.contains("in the trash")), "{refused:?}");
        }
        assert_eq!(fixture.simulated.world().census(), census);
        std::fs::rename(&tree, fixture.path(&fixture.b)).unwrap();
        std::fs::rename(tree.with_file_name("moved"), &tree).unwrap();
        vast.restore(a, &allow).unwrap();
        assert!([a, &fixture.b].iter().all(|it| bench(vast, &|_| {}).is_as_desired(it)));
    }
}

#[test]
fn a_quota_without_an_inode_waits_for_adopt() {
    let fixture = Fixture::new(false);
    let Fixture { simulated, vast, a, b } = &fixture;
    let bench = bench(vast, &|_| {});
    let (named, other) = (fixture.rename_quota(a, &a.id.to_string()), Desired { id: Uuid::from_u128(77), ..a.clone() });
    assert!(matches!(observed(vast, a), Observed::Unmarked(_)));
    assert!(matches!(observed(vast, &other), Observed::Obstructed(_)), "another resource cannot adopt it");
    let census = simulated.world().census();
    for refused in [vast.ensure(a, &allow), vast.retire(a, 5, &allow)] {
        assert!(matches!(&refused, Err(DriverError::Conflict(why)) if why.contains("adopt it")), "{refused:?}");
    }
    assert_eq!(simulated.world().census(), census);
    vast.adopt(a, &allow).unwrap();
    assert!(bench.is_as_desired(a));
    assert_eq!(fixture.rename_quota(a, &named), named);
    // The same applies in the trash.
    vast.retire(b, 5, &allow).unwrap();
    let (named, trashed) = (fixture.rename_quota(b, &b.id.to_string()), Trashed { id: b.id, since: 5 });
    for refused in [vast.restore(b, &allow), vast.purge(&trashed, None, &allow)] {
        assert!(matches!(&refused, Err(DriverError::Conflict(why)) if why.contains(&named)), "{refused:?}");
    }
    fixture.rename_quota(b, &named);
    vast.purge(&trashed, None, &allow).unwrap();
    assert_eq!((vast.trash().unwrap(), simulated.world().quotas.len()), (vec![], 1));
}

#[test]
fn a_recreated_directory_updates_the_inode_of_its_quota() {
    for at in 0.. {
        let fixture = Fixture::new(false);
        let (vast, a) = (&fixture.vast, &fixture.a);
        let away = fixture.path(a).with_file_name("moved");
        std::fs::rename(fixture.path(a), &away).unwrap();
        assert_eq!(observed(vast, a), Observed::Absent);
        let effects = AtomicU32::new(0);
        let killed = |_: &str| {
            let now = effects.fetch_add(1, Ordering::Relaxed) == at;
            if now { Err(DriverError::Stopped("killed".into())) } else { Ok(()) }
        };
        let stopped = vast.ensure(a, &killed);
        vast.ensure(a, &allow).unwrap();
        assert!(bench(vast, &|_| {}).is_as_desired(a), "killed at {at}");
        assert!(
            fixture.rename_quota(a, "x").ends_with(&format!(".{}", std::fs::metadata(fixture.path(a)).unwrap().ino()))
        );
        if stopped.is_ok() {
            assert_eq!(at, 4, "directory, mark, owner, mode");
            break;
        }
    }
}

#[test]
fn an_empty_inaccessible_directory_of_another_resource_is_not_taken_for_an_incomplete_creation() {
    for follows in [false, true] {
        let simulated = Simulated::start();
        simulated.world().follows = follows;
        let vast = vast(&simulated);
        let bench = bench(&vast, &|_| {});
        let (a, b) = (bench.desired(1), Desired { gid: 0, mode: Mode(0o700), ..bench.desired(2) });
        vast.ensure(&b, &allow).unwrap();
        let [to, from] = [&a, &b].map(|desired| simulated.folder.path().join(desired.place.to_string()));
        std::fs::rename(from, &to).unwrap();
        assert!(matches!(observed(&vast, &a), Observed::Obstructed(_)), "{:?}", observed(&vast, &a));
        assert!(matches!(vast.ensure(&a, &allow), Err(DriverError::Conflict(_))));
        assert_eq!(std::fs::metadata(&to).unwrap().gid(), 0);
    }
}
