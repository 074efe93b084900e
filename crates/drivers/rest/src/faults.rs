//! Faults that simulated servers inject, the same in each run, and a driver that retries temporary errors, as the
//! provisioner does in its passes.

use serde_json::json;
use storage_driver::limits::{QuotaLimits, Usage};
use storage_driver::{Desired, Driver, DriverError, Guard, Marked, Observed, Trashed};

use crate::simulated::Reply;

/// Faults of a simulated server.
#[derive(Debug, Default)]
pub struct InjectedFaults {
    /// State of a xorshift generator.
    random: u64,
    /// One in this many requests fails; `None`: no request fails.
    pub one_in: Option<u64>,
    /// Requests that failed.
    pub count: u32,
    /// Whether the response to the next change is lost.
    pub lose_next: bool,
}

impl InjectedFaults {
    pub fn seeded(seed: u64) -> Self {
        Self { random: seed, ..Self::default() }
    }

    fn random_one_in(&mut self, n: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.is_multiple_of(n)
    }

    /// Decides at random whether a fault occurs now, and counts it.
    pub fn occurs(&mut self) -> bool {
        let occurs = self.one_in.is_some_and(|n| self.random_one_in(n));
        self.count += u32::from(occurs);
        occurs
    }

    /// A reply with 429 or 503, if the request is to be refused.
    pub fn refusal(&mut self) -> Option<Reply> {
        self.occurs().then(|| {
            let status = if self.random_one_in(2) { 429 } else { 503 };
            Reply::Json(status, "retry-after: 0\r\n", json!(null))
        })
    }

    /// The reply, or [`Reply::Lost`] if it is to be lost.
    pub fn deliver(&mut self, method: &str, reply: Reply) -> Reply {
        let lost = method != "GET" && std::mem::take(&mut self.lose_next);
        if lost || self.occurs() { Reply::Lost } else { reply }
    }
}

/// Calls a driver again while its errors are temporary.
#[derive(Debug)]
pub struct Retrying<'a>(pub &'a dyn Driver);

fn retry<T>(work: impl Fn() -> Result<T, DriverError>) -> Result<T, DriverError> {
    for _ in 0..200 {
        match work() {
            Err(DriverError::Temporary { .. }) => {}
            other => return other,
        }
    }
    work()
}

impl Driver for Retrying<'_> {
    fn ready(&self) -> Result<(), DriverError> {
        retry(|| self.0.ready())
    }

    fn stored_limits(&self, limits: QuotaLimits) -> QuotaLimits {
        self.0.stored_limits(limits)
    }

    fn is_free(&self, project: u32) -> Result<bool, DriverError> {
        retry(|| self.0.is_free(project))
    }

    fn trash_project(&self, trashed: &Trashed) -> Result<Option<u32>, DriverError> {
        retry(|| self.0.trash_project(trashed))
    }

    fn read_record(&self) -> Result<Option<Vec<u8>>, DriverError> {
        retry(|| self.0.read_record())
    }

    fn append_to_record(&self, text: &[u8]) -> Result<(), DriverError> {
        self.0.append_to_record(text)
    }

    fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>> {
        desired.iter().map(|desired| retry(|| self.0.observe(&[desired]).remove(0))).collect()
    }

    fn trash(&self) -> Result<Vec<Trashed>, DriverError> {
        retry(|| self.0.trash())
    }

    fn marked(&self, levels: usize) -> Result<Vec<Marked>, DriverError> {
        retry(|| self.0.marked(levels))
    }

    fn trash_usage(&self, trashed: &[(Trashed, Option<u32>)]) -> Vec<Result<Option<Usage>, DriverError>> {
        trashed.iter().map(|one| retry(|| self.0.trash_usage(std::slice::from_ref(one)).remove(0))).collect()
    }

    fn claimed(&self) -> Result<Vec<Trashed>, DriverError> {
        retry(|| self.0.claimed())
    }

    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        retry(|| self.0.ensure(desired, guard))
    }

    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Result<(), DriverError> {
        retry(|| self.0.retire(desired, now, guard))
    }

    fn restore(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        retry(|| self.0.restore(desired, guard))
    }

    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        retry(|| self.0.adopt(desired, guard))
    }

    fn claim(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        retry(|| self.0.claim(trashed, project, guard))
    }

    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        retry(|| self.0.purge(trashed, project, guard))
    }

    fn usage(&self, desired: &[&Desired]) -> Vec<Result<Option<Usage>, DriverError>> {
        desired.iter().map(|desired| retry(|| self.0.usage(&[desired]).remove(0))).collect()
    }
}
