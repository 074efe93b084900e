//! A driver that is opened when it is first needed: a system that is away at the start holds up no other.

use std::fmt;
use std::sync::OnceLock;

use storage_driver::limits::{QuotaLimits, Usage};
use storage_driver::place::Place;
use storage_driver::{Desired, Driver, DriverError, Guard, Marked, Observed, Trashed};

/// Opens a driver.
pub(crate) type Open = Box<dyn Fn() -> Result<Box<dyn Driver>, DriverError> + Send + Sync>;

/// A driver with how it is opened.
pub(crate) struct OnDemand {
    open: Open,
    driver: OnceLock<Box<dyn Driver>>,
}

impl OnDemand {
    /// A driver that this function opens.
    pub(crate) fn new(open: Open) -> Self {
        Self { open, driver: OnceLock::new() }
    }

    fn driver(&self) -> Result<&dyn Driver, DriverError> {
        if let Some(driver) = self.driver.get() {
            return Ok(&**driver);
        }
        let driver = (self.open)()?;
        Ok(&**self.driver.get_or_init(|| driver))
    }
}

impl fmt::Debug for OnDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnDemand").field(&self.driver.get()).finish()
    }
}

/// The same fault for each that was asked about.
fn each<T>(desired: &[&Desired], fault: &DriverError) -> Vec<Result<T, DriverError>> {
    let told = program::error_chain(fault);
    desired.iter().map(|_| Err(DriverError::unclear(told.clone()))).collect()
}

impl Driver for OnDemand {
    fn ready(&self) -> Result<(), DriverError> {
        self.driver()?.ready()
    }

    fn held_as(&self, limits: QuotaLimits) -> QuotaLimits {
        // Of a system that is away nothing is compared.
        self.driver().map_or(limits, |driver| driver.held_as(limits))
    }

    fn is_free(&self, project: u32) -> Result<bool, DriverError> {
        self.driver()?.is_free(project)
    }

    fn inspect(&self, above: &[Place]) -> Vec<Result<String, DriverError>> {
        self.driver().map_or_else(|fault| vec![Err(fault)], |driver| driver.inspect(above))
    }

    fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>> {
        self.driver().map_or_else(|fault| each(desired, &fault), |driver| driver.observe(desired))
    }

    fn trash(&self) -> Result<Vec<Trashed>, DriverError> {
        self.driver()?.trash()
    }

    fn claimed(&self) -> Result<Vec<Trashed>, DriverError> {
        self.driver()?.claimed()
    }

    fn marked(&self, levels: usize) -> Result<Vec<Marked>, DriverError> {
        self.driver()?.marked(levels)
    }

    fn trash_usage(&self, trashed: &[(Trashed, Option<u32>)]) -> Vec<Result<Option<Usage>, DriverError>> {
        self.driver().map_or_else(
            |fault| storage_driver::same_for_all(&fault, trashed.len()),
            |driver| driver.trash_usage(trashed),
        )
    }

    fn changed(&self, trashed: &Trashed) -> Result<Option<u64>, DriverError> {
        self.driver()?.changed(trashed)
    }

    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        self.driver()?.ensure(desired, guard)
    }

    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Result<(), DriverError> {
        self.driver()?.retire(desired, now, guard)
    }

    fn restore(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        self.driver()?.restore(desired, guard)
    }

    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        self.driver()?.adopt(desired, guard)
    }

    fn claim(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        self.driver()?.claim(trashed, project, guard)
    }

    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        self.driver()?.purge(trashed, project, guard)
    }

    fn usage(&self, desired: &[&Desired]) -> Vec<Result<Option<Usage>, DriverError>> {
        self.driver().map_or_else(|fault| each(desired, &fault), |driver| driver.usage(desired))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use storage_driver::memory::Memory;

    #[test]
    fn a_system_that_comes_back_is_driven_without_a_new_start() {
        static THERE: AtomicBool = AtomicBool::new(false);
        let driver = OnDemand::new(Box::new(|| {
            let there = THERE.load(Ordering::Relaxed);
            if there { Ok(Box::new(Memory::default())) } else { Err(DriverError::unclear("away")) }
        }));
        assert!(driver.ready().is_err() && driver.trash().is_err());
        THERE.store(true, Ordering::Relaxed);
        assert!(driver.ready().is_ok());
    }
}
