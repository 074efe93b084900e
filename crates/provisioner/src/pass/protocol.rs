//! The protocol of every change, by passes and by commands: the journal says that work begins, and is synced; the guard
//! is called before each side effect; the journal says how the work ended.

use std::collections::BTreeMap;
use std::sync::Mutex;

use program::{error_chain, lock};
use storage_driver::DriverError;
use uuid::Uuid;

use crate::journal::{Begun, Event, Journal, JournalError};

#[derive(Clone, Copy)]
pub struct Protocol<'a> {
    pub journal: &'a Journal,
    /// Fails if work on a system must stop: its lease is lost, or the program has to stop.
    pub permitted: &'a (dyn Fn(&str) -> Result<(), DriverError> + Sync),
    /// Fencing token of each system's lease.
    pub tokens: &'a BTreeMap<String, u64>,
    /// `run`, or the command and its user.
    pub by: &'a str,
}

impl<'a> Protocol<'a> {
    /// Journals that work on these resources begins. One sync for all is enough: none has had a side effect yet.
    pub fn begin(&self, work: impl IntoIterator<Item = (Uuid, Begun)>) -> Result<(), JournalError> {
        let mut work = work.into_iter().peekable();
        if work.peek().is_none() {
            return Ok(());
        }
        for (resource, begun) in work {
            let token = self.tokens.get(&begun.system).copied().unwrap_or_default();
            let begun = Begun { token, by: self.by.to_owned(), ..begun };
            self.journal.write(Some(resource), Event::Begun(begun))?;
        }
        self.journal.sync()
    }

    /// The guard of a driver's work on a resource. A side effect that goes on, with the same text, is journaled once.
    pub fn guard_of(self, system: &'a str, resource: Uuid) -> impl Fn(&str) -> Result<(), DriverError> + Sync + 'a {
        let last = Mutex::new(String::new());
        move |effect| {
            let mut last = lock(&last);
            if *last == effect {
                return (self.permitted)(system);
            }
            self.guard(system, resource, effect)?;
            effect.clone_into(&mut last);
            Ok(())
        }
    }

    /// Called before each side effect: checks that it is permitted, and journals it.
    pub fn guard(&self, system: &str, resource: Uuid, effect: &str) -> Result<(), DriverError> {
        (self.permitted)(system)?;
        let written = self.journal.write(Some(resource), Event::Effect { what: effect.to_owned() });
        written.map_err(|error| DriverError::Stopped(format!("{effect}: {}", error_chain(&error))))?;
        // Writing may have waited for a slow disk, longer than a lease is valid.
        (self.permitted)(system)
    }

    /// Journals that work on a resource is complete, or why it failed. The caller syncs.
    pub fn end(&self, resource: Uuid, result: &Result<(), String>) -> Result<(), JournalError> {
        let event = match result {
            Ok(()) => Event::Ended,
            Err(fault) => Event::Failed { fault: fault.clone() },
        };
        self.journal.write(Some(resource), event)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use program::Clock;

    use super::*;

    #[test]
    fn a_lease_that_is_lost_while_the_journal_is_written_permits_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&folder.path().join("journal"), &Clock::system()).unwrap();
        let checks = AtomicUsize::new(0);
        let permitted = |_: &str| match checks.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(DriverError::Stopped("the lease is lost".into())),
        };
        let protocol = Protocol { journal: &journal, permitted: &permitted, tokens: &BTreeMap::new(), by: "run" };
        assert!(protocol.guard("capstor", Uuid::nil(), "move it").is_err());
    }
}
