//! Directories that somebody who may write in the one above puts into each other's places.

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Two directories with something in each, and a driver.
struct Two {
    simulated: Simulated,
    vast: Vast,
    a: Desired,
    b: Desired,
}

impl Two {
    fn new(follows: bool) -> Self {
        let simulated = Simulated::start();
        simulated.world().follows = follows;
        let vast = vast(&simulated);
        let bench = bench(&vast, &|_| {});
        let (a, b) = (bench.desired(1), Desired { gid: 30_600, ..bench.desired(2) });
        let two = Self { simulated, vast, a, b };
        for desired in [&two.a, &two.b] {
            two.vast.ensure(desired, &go).unwrap();
            std::fs::write(two.path(desired).join("data"), desired.id.to_string()).unwrap();
        }
        two
    }

    fn path(&self, desired: &Desired) -> PathBuf {
        self.simulated.folder.path().join(desired.place.to_string())
    }

    /// Puts what is at B's place into A's.
    fn exchange(&self) {
        let a = self.path(&self.a);
        std::fs::rename(&a, a.with_file_name("moved")).unwrap();
        std::fs::rename(self.path(&self.b), &a).unwrap();
    }

    /// Names a resource's quota, as a person would; the name that it had.
    fn name(&self, desired: &Desired, name: &str) -> String {
        let mut world = self.simulated.world();
        let whose = |quota: &&mut crate::simulated::Quota| {
            quota.fields["name"].as_str().unwrap().starts_with(&desired.id.to_string())
        };
        let quota = world.quotas.values_mut().find(whose).unwrap();
        std::mem::replace(&mut quota.fields["name"], name.into()).as_str().unwrap().to_owned()
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
fn with_deed(at: u32, deed: &(dyn Fn() + Sync), work: &dyn Fn(Guard<'_>) -> Result<(), DriverError>) -> bool {
    let effects = AtomicU32::new(0);
    let guard = |_: &str| {
        if effects.fetch_add(1, Ordering::Relaxed) == at {
            deed();
        }
        Ok(())
    };
    drop(work(&guard));
    effects.into_inner() > at
}

#[test]
fn what_is_exchanged_while_it_is_made_as_wanted_is_not_given_away() {
    for follows in [false, true] {
        for at in 0.. {
            let two = Two::new(follows);
            let changed = Desired { gid: 30_700, mode: Mode(0o2750), limits: QuotaLimits::least(), ..two.a.clone() };
            let reached = with_deed(at, &|| two.exchange(), &|guard| two.vast.ensure(&changed, guard));
            if !reached {
                assert_eq!(at, 3, "limits, owner, mode");
                break;
            }
            assert_eq!(two.of_b(), [(two.a.place.to_string(), 30_600, 0o2770)], "at effect {at}");
        }
    }
}

#[test]
fn exchanged_directories_are_refused_and_nothing_is_changed() {
    for follows in [false, true] {
        let two = Two::new(follows);
        let Two { simulated, vast, a, b } = &two;
        two.exchange();
        // A simulator's quotas follow when they are listed.
        let seen_then = observed(vast, a);
        let census = simulated.world().census();
        let Observed::Obstructed(why) = seen_then else { panic!("{seen_then:?}") };
        let said = if follows { format!("is {}'s", b.id) } else { format!("the directory of the quota {}.", b.id) };
        assert!(why.contains(&said), "{why}");
        for refused in [vast.ensure(a, &go), vast.retire(a, 5, &go), vast.adopt(a, &go), vast.restore(a, &go)] {
            assert!(matches!(&refused, Err(DriverError::Conflict(text)) if *text == why), "{refused:?}");
        }
        vast.purge(&Trashed { id: a.id, since: 5 }, None, &go).unwrap();
        assert_eq!(vast.usage(&[a]).remove(0).unwrap(), None);
        assert_eq!(simulated.world().census(), census);
        // Put right, all is as before.
        std::fs::rename(two.path(a), two.path(b)).unwrap();
        std::fs::rename(two.path(a).with_file_name("moved"), two.path(a)).unwrap();
        assert!([a, b].iter().all(|it| bench(vast, &|_| {}).is_as_desired(it)));
    }
}

#[test]
fn what_was_copied_in_the_place_of_the_marked_directory_is_not_it() {
    let two = Two::new(false);
    let (path, a) = (two.path(&two.a), &two.a);
    std::fs::rename(&path, path.with_file_name("moved")).unwrap();
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("data"), "copied").unwrap();
    let Observed::Obstructed(why) = observed(&two.vast, a) else { panic!("{:?}", observed(&two.vast, a)) };
    let right = format!("{}.{}", a.id, std::fs::metadata(&path).unwrap().ino());
    assert!(why.contains("moved or exchanged") && why.contains(&format!("name its quota {right} in VMS")), "{why}");
    assert!(matches!(two.vast.ensure(a, &go), Err(DriverError::Conflict(_))));
    two.name(a, &right);
    two.vast.ensure(a, &go).unwrap();
    assert!(bench(&two.vast, &|_| {}).is_as_desired(a));
}

#[test]
fn what_is_exchanged_while_it_is_retired_is_not_purged() {
    for follows in [false, true] {
        for at in 0.. {
            let two = Two::new(follows);
            let (vast, a) = (&two.vast, &two.a);
            if !with_deed(at, &|| two.exchange(), &|guard| vast.retire(a, 5, guard)) {
                assert_eq!(at, 3, "mode, limits, rename");
                break;
            }
            // A handle cannot be renamed.
            let put = format!(".trash/{}.5", a.id);
            let trashed = Trashed { id: a.id, since: 5 };
            assert_eq!(two.of_b(), [(put, 30_600, 0o2770)], "at effect {at}");
            let anew = Desired { id: Uuid::from_u128(77), ..a.clone() };
            for refused in [vast.retire(a, 6, &go), vast.restore(a, &go), vast.purge(&trashed, None, &go)] {
                assert!(matches!(refused, Err(DriverError::Conflict(_))), "{refused:?}");
            }
            // The quota by which it is known is not taken away, either.
            drop(vast.ensure(&anew, &go));
            assert!(matches!(observed(vast, a), Observed::Obstructed(_)), "{:?}", observed(vast, a));
            assert!(vast.purge(&trashed, None, &go).is_err() && two.of_b().len() == 1);
        }
    }
}

#[test]
fn a_tree_in_the_trash_that_was_exchanged_is_neither_restored_nor_purged() {
    for follows in [false, true] {
        let two = Two::new(follows);
        let (vast, a) = (&two.vast, &two.a);
        vast.retire(a, 5, &go).unwrap();
        let tree = two.simulated.folder.path().join(format!(".trash/{}.5", a.id));
        std::fs::rename(&tree, tree.with_file_name("moved")).unwrap();
        std::fs::rename(two.path(&two.b), &tree).unwrap();
        let trashed = Trashed { id: a.id, since: 5 };
        assert!(matches!(observed(vast, a), Observed::Obstructed(why) if why.contains("in the trash")));
        let census = two.simulated.world().census();
        for refused in [vast.restore(a, &go), vast.purge(&trashed, None, &go), vast.retire(a, 6, &go)] {
            assert!(matches!(&refused, Err(DriverError::Conflict(why)) if why.contains("in the trash")), "{refused:?}");
        }
        assert_eq!(two.simulated.world().census(), census);
        std::fs::rename(&tree, two.path(&two.b)).unwrap();
        std::fs::rename(tree.with_file_name("moved"), &tree).unwrap();
        vast.restore(a, &go).unwrap();
        assert!([a, &two.b].iter().all(|it| bench(vast, &|_| {}).is_as_desired(it)));
    }
}

#[test]
fn a_quota_that_does_not_say_for_which_directory_it_is_waits_for_a_person() {
    let two = Two::new(false);
    let Two { simulated, vast, a, b } = &two;
    let bench = bench(vast, &|_| {});
    let (named, other) = (two.name(a, &a.id.to_string()), Desired { id: Uuid::from_u128(77), ..a.clone() });
    assert!(matches!(observed(vast, a), Observed::Unmarked(_)));
    assert!(matches!(observed(vast, &other), Observed::Obstructed(_)), "it is not another's to adopt");
    let census = simulated.world().census();
    for refused in [vast.ensure(a, &go), vast.retire(a, 5, &go)] {
        assert!(matches!(&refused, Err(DriverError::Conflict(why)) if why.contains("adopt it")), "{refused:?}");
    }
    assert_eq!(simulated.world().census(), census);
    vast.adopt(a, &go).unwrap();
    assert!(bench.is_as_desired(a));
    assert_eq!(two.name(a, &named), named);
    // In the trash, too.
    vast.retire(b, 5, &go).unwrap();
    let (named, trashed) = (two.name(b, &b.id.to_string()), Trashed { id: b.id, since: 5 });
    for refused in [vast.restore(b, &go), vast.purge(&trashed, None, &go)] {
        assert!(matches!(&refused, Err(DriverError::Conflict(why)) if why.contains(&named)), "{refused:?}");
    }
    two.name(b, &named);
    vast.purge(&trashed, None, &go).unwrap();
    assert_eq!((vast.trash().unwrap(), simulated.world().quotas.len()), (vec![], 1));
}

#[test]
fn a_directory_that_is_made_anew_gives_its_number_to_the_quota_that_is_left() {
    for at in 0.. {
        let two = Two::new(false);
        let (vast, a) = (&two.vast, &two.a);
        let away = two.path(a).with_file_name("moved");
        std::fs::rename(two.path(a), &away).unwrap();
        assert_eq!(observed(vast, a), Observed::Absent);
        let effects = AtomicU32::new(0);
        let killed = |_: &str| {
            let now = effects.fetch_add(1, Ordering::Relaxed) == at;
            if now { Err(DriverError::Stopped("killed".into())) } else { Ok(()) }
        };
        let stopped = vast.ensure(a, &killed);
        vast.ensure(a, &go).unwrap();
        assert!(bench(vast, &|_| {}).is_as_desired(a), "killed at {at}");
        assert!(two.name(a, "x").ends_with(&format!(".{}", std::fs::metadata(two.path(a)).unwrap().ino())));
        if stopped.is_ok() {
            assert_eq!(at, 4, "directory, mark, owner, mode");
            break;
        }
    }
}

#[test]
fn an_empty_closed_directory_of_another_is_not_taken_for_one_that_was_begun() {
    for follows in [false, true] {
        let simulated = Simulated::start();
        simulated.world().follows = follows;
        let vast = vast(&simulated);
        let bench = bench(&vast, &|_| {});
        let (a, b) = (bench.desired(1), Desired { gid: 0, mode: Mode(0o700), ..bench.desired(2) });
        vast.ensure(&b, &go).unwrap();
        let [to, from] = [&a, &b].map(|desired| simulated.folder.path().join(desired.place.to_string()));
        std::fs::rename(from, &to).unwrap();
        assert!(matches!(observed(&vast, &a), Observed::Obstructed(_)), "{:?}", observed(&vast, &a));
        assert!(matches!(vast.ensure(&a, &go), Err(DriverError::Conflict(_))));
        assert_eq!(std::fs::metadata(&to).unwrap().gid(), 0);
    }
}
