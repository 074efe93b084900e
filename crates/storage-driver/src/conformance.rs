//! What every driver must do, whatever it drives.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use uuid::Uuid;

use crate::Mode;
use crate::limits::{Bytes, Inodes, QuotaLimits};
use crate::place::Place;
use crate::{Desired, Driver, DriverError, Marked, Observed, Trashed};

/// What differs between systems under test.
pub struct Bench<'a> {
    /// The driver, on an empty system whose root is published as `/sys`.
    pub driver: &'a dyn Driver,
    /// Owner and group that the test may give away.
    pub ids: (u32, u32),
    /// Makes a directory without a mark at this place, with its parents, as a person would.
    pub make_unmarked: &'a dyn Fn(&Place),
}

const TB: u64 = 1_000_000_000_000;

#[expect(clippy::unnecessary_wraps, reason = "what drivers ask before each effect")]
fn go(_: &str) -> Result<(), DriverError> {
    Ok(())
}

impl Bench<'_> {
    /// A resource's directory, `n` telling it from others.
    pub fn desired(&self, n: u32) -> Desired {
        let place = Place::parse(&format!("/sys/store/cscs/customer/project-{n}"), "/sys").unwrap();
        let limits =
            QuotaLimits::new([Bytes(10 * TB), Bytes(11 * TB)], [Inodes(1_000_000), Inodes(1_500_000)]).unwrap();
        Desired {
            id: Uuid::from_u128(0x1000 + u128::from(n)),
            place,
            parents: vec![Mode(0o755), Mode(0o775), Mode(0o775)],
            uid: self.ids.0,
            gid: self.ids.1,
            mode: Mode(0o2770),
            limits: self.driver.held_as(limits),
            project: Some(5000 + n),
        }
    }

    pub fn observed(&self, desired: &Desired) -> Observed {
        self.driver.observe(&[desired]).pop().unwrap().unwrap()
    }

    pub fn is_as_desired(&self, desired: &Desired) -> bool {
        matches!(self.observed(desired), Observed::Ours(present) if present.differences(desired).is_empty())
    }

    /// Everything that a driver promises.
    pub fn all(&self) {
        self.driver.ready().unwrap();
        self.a_life();
        self.changes();
        self.what_is_not_ours_stays();
        self.nothing_nests();
        self.killed_anywhere();
    }

    fn a_life(&self) {
        let (driver, desired) = (self.driver, self.desired(1));
        assert_eq!(self.observed(&desired), Observed::Absent);
        assert!(driver.is_free(desired.project.unwrap()).unwrap());
        for _ in 0..2 {
            driver.ensure(&desired, &go).unwrap();
            assert!(self.is_as_desired(&desired), "{:?}", self.observed(&desired));
        }
        let Observed::Ours(present) = self.observed(&desired) else { panic!("{:?}", self.observed(&desired)) };
        let numbered = present.project.is_some();
        assert_eq!(driver.is_free(desired.project.unwrap()).unwrap(), !numbered);
        assert!(driver.usage(&[&desired]).pop().unwrap().unwrap().is_some());
        assert_eq!(driver.marked(6).unwrap(), [Marked { id: desired.id, path: desired.place.to_string() }]);
        for _ in 0..2 {
            driver.retire(&desired, 1_000, &go).unwrap();
            assert_eq!(self.observed(&desired), Observed::Trashed { since: 1_000 });
            assert_eq!(driver.is_free(desired.project.unwrap()).unwrap(), !numbered, "the trash still counts");
        }
        assert_eq!(driver.trash().unwrap(), [Trashed { id: desired.id, since: 1_000 }]);
        for _ in 0..2 {
            driver.restore(&desired, &go).unwrap();
            assert!(self.is_as_desired(&desired), "{:?}", self.observed(&desired));
        }
        assert_eq!(driver.trash().unwrap(), []);
        driver.retire(&desired, 2_000, &go).unwrap();
        let other = Trashed { id: Uuid::from_u128(9), since: 2_000 };
        driver.purge(&other, desired.project, &go).ok();
        assert_eq!(self.observed(&desired), Observed::Trashed { since: 2_000 });
        let trashed = Trashed { id: desired.id, since: 2_000 };
        assert_eq!(driver.marked(6).unwrap(), []);
        let used = driver.trash_usage(&[(trashed.clone(), desired.project), (other, None)]);
        assert!(matches!(used[..], [Ok(Some(_)), Ok(None)]), "{used:?}");
        assert_eq!(driver.claimed().unwrap(), []);
        for _ in 0..2 {
            driver.claim(&trashed, desired.project, &go).unwrap();
            assert_eq!(self.observed(&desired), Observed::Purging { since: 2_000 });
            assert_eq!((driver.trash().unwrap(), driver.claimed().unwrap()), (vec![], vec![trashed.clone()]));
            let restored = driver.restore(&desired, &go);
            assert!(matches!(restored, Err(DriverError::Conflict(_))), "{restored:?}");
        }
        driver.purge(&trashed, desired.project, &go).unwrap();
        assert_eq!(self.observed(&desired), Observed::Absent);
        assert_eq!((driver.trash().unwrap(), driver.claimed().unwrap()), (vec![], vec![]));
        // XFS counts what was deleted for a while.
        let mut waits = 0;
        while !driver.is_free(desired.project.unwrap()).unwrap() {
            waits += 1;
            assert!(waits < 1000, "the number is never free again");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn changes(&self) {
        let mut desired = self.desired(2);
        self.driver.ensure(&desired, &go).unwrap();
        desired.limits = self.driver.held_as(QuotaLimits::new([Bytes(TB); 2], [Inodes(7), Inodes(9)]).unwrap());
        desired.mode = Mode(0o750);
        assert!(!self.is_as_desired(&desired));
        self.driver.ensure(&desired, &go).unwrap();
        assert!(self.is_as_desired(&desired), "{:?}", self.observed(&desired));
    }

    fn what_is_not_ours_stays(&self) {
        let (driver, desired) = (self.driver, self.desired(3));
        (self.make_unmarked)(&desired.place);
        let unmarked = self.observed(&desired);
        assert!(matches!(unmarked, Observed::Unmarked(_)), "{unmarked:?}");
        assert!(matches!(driver.ensure(&desired, &go), Err(DriverError::Conflict(_))));
        assert!(matches!(driver.retire(&desired, 1, &go), Err(DriverError::Conflict(_))));
        assert_eq!(self.observed(&desired), unmarked);
        driver.adopt(&desired, &go).unwrap();
        driver.ensure(&desired, &go).unwrap();
        assert!(self.is_as_desired(&desired), "{:?}", self.observed(&desired));
        let other = Desired { id: Uuid::from_u128(77), ..desired.clone() };
        assert!(matches!(self.observed(&other), Observed::Obstructed(_)));
        for fault in [driver.ensure(&other, &go), driver.retire(&other, 1, &go), driver.adopt(&other, &go)] {
            assert!(matches!(fault, Err(DriverError::Conflict(_))), "{fault:?}");
        }
        assert!(self.is_as_desired(&desired));
    }

    /// No resource's directory lies within another's.
    fn nothing_nests(&self) {
        let (driver, outer) = (self.driver, self.desired(7));
        driver.ensure(&outer, &go).unwrap();
        let inner = Desired {
            place: Place::parse(&format!("/sys/{}/sub", outer.place), "/sys").unwrap(),
            parents: [&outer.parents[..], &[Mode(0o775)]].concat(),
            ..self.desired(8)
        };
        let observed = self.observed(&inner);
        assert!(matches!(&observed, Observed::Obstructed(why) if why.contains(&outer.id.to_string())), "{observed:?}");
        let fault = driver.ensure(&inner, &go);
        assert!(matches!(&fault, Err(DriverError::Conflict(why)) if why.contains(&outer.id.to_string())), "{fault:?}");
        assert!(self.is_as_desired(&outer), "{:?}", self.observed(&outer));
        driver.retire(&outer, 7_000, &go).unwrap();
        driver.purge(&Trashed { id: outer.id, since: 7_000 }, outer.project, &go).unwrap();
    }

    /// Stopped before each effect in turn, and called again: the same end, nothing doubled, nothing left over.
    fn killed_anywhere(&self) {
        let (driver, mut at) = (self.driver, 0);
        loop {
            let desired = self.desired(100 + at);
            let mut whole = killed(at, &|guard| driver.ensure(&desired, guard));
            driver.ensure(&desired, &go).unwrap();
            assert!(self.is_as_desired(&desired), "killed at {at}: {:?}", self.observed(&desired));
            whole &= killed(at, &|guard| driver.retire(&desired, 3_000, guard));
            driver.retire(&desired, 3_001, &go).unwrap();
            assert!(matches!(self.observed(&desired), Observed::Trashed { .. }), "killed at {at}");
            whole &= killed(at, &|guard| driver.restore(&desired, guard));
            driver.restore(&desired, &go).unwrap();
            assert!(self.is_as_desired(&desired), "killed at {at}: {:?}", self.observed(&desired));
            driver.retire(&desired, 4_000, &go).unwrap();
            let [trashed] = &driver.trash().unwrap()[..] else { panic!("{:?}", driver.trash()) };
            whole &= killed(at, &|guard| driver.purge(trashed, desired.project, guard));
            driver.purge(trashed, desired.project, &go).unwrap();
            assert_eq!(self.observed(&desired), Observed::Absent);
            at += 1;
            if whole {
                break;
            }
        }
        assert!(at > 1, "a driver that tells no effect cannot be stopped");
    }
}

/// Runs `work`, stopped before its effect number `at`; whether it came to its end before that.
fn killed(at: u32, work: &dyn Fn(crate::Guard<'_>) -> Result<(), DriverError>) -> bool {
    let effects = AtomicUsize::new(0);
    let guard = |what: &str| {
        if effects.fetch_add(1, Ordering::Relaxed) < at as usize {
            Ok(())
        } else {
            Err(DriverError::Stopped(what.into()))
        }
    };
    match work(&guard) {
        Ok(()) => true,
        Err(DriverError::Stopped(_)) => false,
        Err(fault) => panic!("{fault:?}"),
    }
}

/// Every directory below a root with mode and owner.
pub fn directories(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, it) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(root).unwrap().display();
            found.push(format!("{name}: {:o} {}:{}", it.mode(), it.uid(), it.gid()));
            if it.is_dir() {
                left.push(path);
            }
        }
    }
    found
}

#[test]
fn memory() {
    let driver = crate::memory::Memory::default();
    let make_unmarked = |place: &Place| driver.put_unmarked(place);
    Bench { driver: &driver, ids: (0, 30_500), make_unmarked: &make_unmarked }.all();
}
