//! A driver that is opened when it is first used, so that a system that is unavailable at the start delays no other.

use std::fmt;
use std::sync::OnceLock;

use storage_driver::limits::{QuotaLimits, Usage};
use storage_driver::place::Place;
use storage_driver::registration::OpenDriver;
use storage_driver::walked::Walked;
use storage_driver::{Desired, Driver, DriverError, Guard, Marked, Observed, Trashed};

/// A driver that is opened when it is first used.
pub(crate) struct OnDemand {
    open: OpenDriver,
    walked: Walked,
    driver: OnceLock<Box<dyn Driver>>,
}

impl OnDemand {
    pub(crate) fn new(open: OpenDriver, walked: Walked) -> Self {
        Self { open, walked, driver: OnceLock::new() }
    }

    fn driver(&self) -> Result<&dyn Driver, DriverError> {
        if let Some(driver) = self.driver.get() {
            return Ok(&**driver);
        }
        let driver = self.open.open(&self.walked)?;
        Ok(&**self.driver.get_or_init(|| driver))
    }
}

impl fmt::Debug for OnDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnDemand").field(&self.driver.get()).finish()
    }
}

impl Driver for OnDemand {
    fn ready(&self) -> Result<(), DriverError> {
        self.driver()?.ready()
    }

    fn stored_limits(&self, limits: QuotaLimits) -> QuotaLimits {
        // Limits of an unavailable system are not compared.
        self.driver().map_or(limits, |driver| driver.stored_limits(limits))
    }

    fn is_free(&self, project: u32) -> Result<bool, DriverError> {
        self.driver()?.is_free(project)
    }

    fn inspect(&self, above: &[Place]) -> Vec<Result<String, DriverError>> {
        self.driver().map_or_else(|fault| vec![Err(fault)], |driver| driver.inspect(above))
    }

    fn trash_project(&self, trashed: &Trashed) -> Result<Option<u32>, DriverError> {
        self.driver()?.trash_project(trashed)
    }

    fn read_record(&self) -> Result<Option<Vec<u8>>, DriverError> {
        self.driver()?.read_record()
    }

    fn append_to_record(&self, text: &[u8]) -> Result<(), DriverError> {
        self.driver()?.append_to_record(text)
    }

    fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>> {
        self.driver()
            .map_or_else(|fault| storage_driver::same_for_all(&fault, desired.len()), |driver| driver.observe(desired))
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
        self.driver()
            .map_or_else(|fault| storage_driver::same_for_all(&fault, desired.len()), |driver| driver.usage(desired))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use storage_driver::memory::Memory;

    #[test]
    fn opening_is_repeated_until_the_system_is_available() {
        static THERE: AtomicBool = AtomicBool::new(false);
        let driver = OnDemand::new(
            OpenDriver::new(|_| {
                let there = THERE.load(Ordering::Relaxed);
                if there { Ok(Box::new(Memory::default())) } else { Err(DriverError::temporary("away")) }
            }),
            Walked::default(),
        );
        assert!(driver.ready().is_err() && driver.trash().is_err());
        THERE.store(true, Ordering::Relaxed);
        assert!(driver.ready().is_ok());
    }
}
