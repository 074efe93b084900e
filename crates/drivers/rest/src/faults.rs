//! Faults by chance, the same ones in each run; and a driver that is called again until they have passed, as passes do.

use storage_driver::limits::{QuotaLimits, Usage};
use storage_driver::{Desired, Driver, DriverError, Guard, Marked, Observed, Trashed};

/// Numbers that look like chance (xorshift).
#[derive(Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.is_multiple_of(n)
    }
}

/// Calls a driver again as long as its faults may pass.
#[derive(Debug)]
pub struct Again<'a>(pub &'a dyn Driver);

fn again<T>(work: impl Fn() -> Result<T, DriverError>) -> Result<T, DriverError> {
    for _ in 0..200 {
        match work() {
            Err(DriverError::Passing { .. }) => {}
            other => return other,
        }
    }
    work()
}

impl Driver for Again<'_> {
    fn ready(&self) -> Result<(), DriverError> {
        again(|| self.0.ready())
    }

    fn held_as(&self, limits: QuotaLimits) -> QuotaLimits {
        self.0.held_as(limits)
    }

    fn is_free(&self, project: u32) -> Result<bool, DriverError> {
        again(|| self.0.is_free(project))
    }

    fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>> {
        desired.iter().map(|desired| again(|| self.0.observe(&[desired]).remove(0))).collect()
    }

    fn trash(&self) -> Result<Vec<Trashed>, DriverError> {
        again(|| self.0.trash())
    }

    fn marked(&self, levels: usize) -> Result<Vec<Marked>, DriverError> {
        again(|| self.0.marked(levels))
    }

    fn trash_usage(&self, trashed: &[(Trashed, Option<u32>)]) -> Vec<Result<Option<Usage>, DriverError>> {
        trashed.iter().map(|one| again(|| self.0.trash_usage(std::slice::from_ref(one)).remove(0))).collect()
    }

    fn claimed(&self) -> Result<Vec<Trashed>, DriverError> {
        again(|| self.0.claimed())
    }

    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        again(|| self.0.ensure(desired, guard))
    }

    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Result<(), DriverError> {
        again(|| self.0.retire(desired, now, guard))
    }

    fn restore(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        again(|| self.0.restore(desired, guard))
    }

    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        again(|| self.0.adopt(desired, guard))
    }

    fn claim(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        again(|| self.0.claim(trashed, project, guard))
    }

    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        again(|| self.0.purge(trashed, project, guard))
    }

    fn usage(&self, desired: &[&Desired]) -> Vec<Result<Option<Usage>, DriverError>> {
        desired.iter().map(|desired| again(|| self.0.usage(&[desired]).remove(0))).collect()
    }
}
