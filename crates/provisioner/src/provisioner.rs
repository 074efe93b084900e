//! Everything that the settings name, opened: systems with their drivers, the source, journal and ledger.

use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BlockingRetryable, ConstantBuilder};

use uuid::Uuid;

use crate::document::Document;
use crate::driver::walked::Walked;
use crate::driver::{DriverError, Guard, Observed};
use crate::drivers::on_demand::OnDemand;
use crate::journal::{self, Begun, Event, Journal, JournalError, Past};
use crate::lease::{Leases, NoLease, StateLock};
use crate::ledger::Ledger;
use crate::pass::{self, Outside, PassError, Progress, Report, Survey, System};
use crate::plan::{Case, Plan};
use crate::preflight;
use crate::settings::{Settings, SystemConfig};
use crate::source::Source;
use program::Clock;
use program::error_chain;

/// On whose command the loop works.
pub const LOOP: &str = "run";
/// How often it is looked whether a lease is free.
const LOOK: Duration = Duration::from_millis(200);

/// How many resources a person's decision begins with one sync of the journal: after a crash at most these are begun and not
/// ended.
const BATCH: usize = 256;

/// From which age on a document is old.
const OLD: Duration = Duration::from_mins(1);

/// What the settings name.
#[derive(Debug)]
pub struct Provisioner {
    /// The settings.
    pub settings: Settings,
    /// The systems that are driven here.
    pub systems: Vec<System>,
    /// The proxy and Waldur.
    pub source: Source,
    /// The time.
    pub clock: Clock,
    /// The files that its drivers have walked.
    pub walked: Walked,
    /// How far the tasks of the pass have come.
    pub progress: Progress,
    /// Set, it stops everything before the next effect.
    pub stop: Arc<AtomicBool>,
}

impl Provisioner {
    /// Opens what only has to be opened for looking.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, DriverError> {
        let stop = Arc::default();
        let source = Source::new(&settings, &stop)?;
        let walked = Walked::default();
        let systems = settings.systems.iter().map(|config| system(config, &walked)).collect();
        Ok(Self { settings, systems, source, clock, walked, progress: Progress::new(), stop })
    }

    /// The same provisioner by other settings. Everything is opened again, so that new secrets are used.
    pub fn with(&self, settings: Settings) -> Result<Self, DriverError> {
        let source = Source::new(&settings, &self.stop)?;
        let (walked, stop, clock) = (self.walked.clone(), Arc::clone(&self.stop), self.clock.clone());
        let systems = settings.systems.iter().map(|config| system(config, &walked)).collect();
        Ok(Self { settings, systems, source, clock, walked, progress: Progress::new(), stop })
    }

    /// The journal's file.
    pub fn journal_path(&self) -> PathBuf {
        self.settings.state_directory.join("journal")
    }

    /// The ledger's file.
    pub fn ledger_path(&self) -> PathBuf {
        self.settings.state_directory.join("ledger.json")
    }

    /// Reads the document and looks at the storage, without rights to change anything; `fresh`: not from the newest reading of
    /// the proxy, but from a new one. The second value says what could not be read of the state directory, and whether the
    /// document is old.
    pub fn look(&self, fresh: bool) -> Result<(Survey, Vec<String>), PassError> {
        let mut notes = Vec::new();
        let past = journal::past(&self.journal_path(), &self.clock).unwrap_or_else(|error| {
            notes.push(format!("{}: what was begun and not ended is not known here", error_chain(&error)));
            Past::default()
        });
        let mut ledger = Ledger::open(&self.ledger_path()).unwrap_or_else(|error| {
            notes.push(format!("the ledger cannot be read ({error}): project IDs are only guessed here"));
            Ledger::default()
        });
        let survey = pass::survey(
            &self.systems,
            &|| if fresh { self.source.read() } else { self.source.newest() },
            &past,
            &mut ledger,
        )?;
        let age = survey.document.age;
        if age >= OLD {
            notes.push(format!("the document is {} s old; --fresh has the proxy read Waldur now", age.as_secs()));
        }
        Ok((survey, notes))
    }

    /// Opens what only one provisioner may have at a time; `by`: on whose command, for the journal. Whoever has it is
    /// waited for, for `patience` at most.
    pub fn begin(&self, by: &str, patience: Duration) -> Result<Session<'_>, BeginError> {
        let directory = &self.settings.state_directory;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| BeginError::State { path: directory.clone(), source })?;
        let names: Vec<_> = self.systems.iter().map(|system| system.key.clone()).collect();
        let take = || {
            let lock = StateLock::take(directory)?;
            Leases::take(&names, directory, self.settings.lease_url.as_ref()).map(|leases| (lock, leases))
        };
        let waits = usize::try_from(patience.as_millis() / LOOK.as_millis()).unwrap_or_default();
        let (lock, leases) = take
            .retry(ConstantBuilder::default().with_delay(LOOK).with_max_times(waits))
            .sleep(std::thread::sleep)
            .when(NoLease::is_held)
            .call()?;
        let journal = Journal::open(&self.journal_path(), &self.clock)?;
        journal.beat()?;
        let ledger = Ledger::open(&self.ledger_path())
            .map_err(|source| BeginError::State { path: self.ledger_path(), source })?;
        Ok(Session { provisioner: self, leases, journal, ledger, by: by.to_owned(), _lock: lock })
    }
}

/// Why work cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// Somebody else is at it.
    #[error(transparent)]
    Lease(#[from] crate::lease::NoLease),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The state directory.
    #[error("{path} cannot be used: `state_directory` must be writable")]
    State {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A provisioner with the right to change it.
#[derive(Debug)]
pub struct Session<'a> {
    /// The provisioner.
    pub provisioner: &'a Provisioner,
    /// The leases.
    pub leases: Leases,
    /// The journal.
    pub journal: Journal,
    /// Project IDs.
    pub ledger: Ledger,
    by: String,
    _lock: StateLock,
}

impl Session<'_> {
    /// Looks, and plans.
    pub fn plan(&mut self, confirmed: bool) -> Result<(Survey, Plan), PassError> {
        let survey = self.survey(&|| self.provisioner.source.read())?;
        let plan = pass::planned(&survey, self.provisioner.settings.policy, confirmed);
        Ok((survey, plan))
    }

    /// Looks, for a person's decision: the proxy's newest reading is as good as a new one, unless it is old.
    pub fn look(&mut self) -> Result<Survey, PassError> {
        let source = &self.provisioner.source;
        self.survey(&|| match source.newest()? {
            document if document.age < OLD => Ok(document),
            _ => source.read(),
        })
    }

    fn survey(&mut self, read: &dyn Fn() -> Result<Document, DriverError>) -> Result<Survey, PassError> {
        let past = self.journal.past();
        let survey = pass::survey(&self.provisioner.systems, read, &past, &mut self.ledger)?;
        // A number is looked up on the storage once, not with each pass until its turn comes.
        self.ledger.save().map_err(PassError::Ledger)?;
        Ok(if self.by == LOOP { survey } else { survey.retried() })
    }

    /// Carries out the whole plan of a survey, which was made just now, and closes what needs nothing any more. `confirmed`: a
    /// person has seen how much it is and said yes.
    pub fn carry_out(&mut self, survey: &Survey, plan: Plan, confirmed: bool) -> Result<Report, PassError> {
        let concerned: BTreeSet<_> =
            plan.tasks.iter().map(|task| Some(task.id)).chain(plan.held.iter().map(|held| held.id)).collect();
        // What was begun and needs nothing any more has come to its end by another way.
        let claimed = |case: &Case| matches!(case.observed, Ok(Observed::Purging { .. }));
        let over = |case: &&Case| case.unfinished && !claimed(case) && !concerned.contains(&Some(case.resource.id));
        for case in survey.cases.iter().filter(over) {
            self.journal.write(Some(case.resource.id), Event::Ended)?;
        }
        self.perform(survey, plan, confirmed)
    }

    /// Carries out these tasks of a survey, and no others.
    pub fn perform(&mut self, survey: &Survey, plan: Plan, confirmed: bool) -> Result<Report, PassError> {
        let (source, leases, stop) = (&self.provisioner.source, &self.leases, &self.provisioner.stop);
        let permitted = |system: &str| {
            if stop.load(Ordering::Relaxed) {
                return Err(DriverError::Stopped("told to stop".into()));
            }
            leases.hold(system)
        };
        let (read, call) = (|| source.read(), |call: &pass::Call| source.call(call));
        let reaches = |call: &pass::Call| source.reaches(call);
        let (tokens, by, progress) = (&leases.tokens, &*self.by, &self.provisioner.progress);
        let outside = Outside {
            read: &read,
            call: &call,
            reaches: &reaches,
            permitted: &permitted,
            tokens,
            by,
            confirmed,
            progress,
        };
        let systems = &self.provisioner.systems;
        pass::carry_out(
            plan,
            &survey.document,
            systems,
            outside,
            &self.journal,
            &mut self.ledger,
            &self.provisioner.clock,
        )
    }

    /// Does one thing to one resource, each effect in the journal before it is had.
    pub fn drive(
        &mut self,
        system: &System,
        resource: Uuid,
        path: &str,
        deed: &(dyn Fn(Guard<'_>) -> Result<(), DriverError> + Sync),
    ) -> Result<(), DriveError> {
        let done = self.drive_all(system, &[(resource, path)], &|_, guard| deed(guard))?;
        Ok(done.into_iter().next().unwrap_or(Ok(()))?)
    }

    /// Does one thing to each of these resources of a system, by UUID and path: as many at once as the system allows, each
    /// effect in the journal before it is had. What came of each, in their order.
    pub fn drive_all(
        &mut self,
        system: &System,
        resources: &[(Uuid, &str)],
        deed: &(dyn Fn(Uuid, Guard<'_>) -> Result<(), DriverError> + Sync),
    ) -> Result<Vec<Result<(), DriverError>>, DriveError> {
        self.ledger.save().map_err(|source| BeginError::State { path: self.provisioner.ledger_path(), source })?;
        self.provisioner.progress.begin("resources", resources.len());
        let mut results = Vec::with_capacity(resources.len());
        for batch in resources.chunks(BATCH) {
            for (resource, path) in batch {
                self.begun(system, *resource, path)?;
            }
            // One sync for all of the batch: none has had an effect yet.
            self.journal.sync()?;
            let done = pass::side_by_side(batch, system.at_once, |(resource, _)| {
                let done = deed(*resource, &|what| self.effect(system, *resource, what));
                self.provisioner.progress.one();
                done
            });
            for ((resource, _), done) in batch.iter().zip(&done) {
                let event = match done {
                    Ok(()) => Event::Ended,
                    Err(fault) => Event::Failed { fault: error_chain(fault) },
                };
                self.journal.write(Some(*resource), event)?;
            }
            results.extend(done);
        }
        self.journal.sync()?;
        Ok(results)
    }

    /// Begins work on one resource that goes on without this right: in the journal it stays begun until it is finished.
    pub fn start(
        &mut self,
        system: &System,
        resource: Uuid,
        deed: &(dyn Fn(Guard<'_>) -> Result<(), DriverError> + Sync),
    ) -> Result<(), DriveError> {
        self.begun(system, resource, "")?;
        self.journal.sync()?;
        if let Err(fault) = deed(&|what| self.effect(system, resource, what)) {
            self.finish(resource, Event::Failed { fault: error_chain(&fault) })?;
            return Err(fault.into());
        }
        Ok(self.journal.sync()?)
    }

    /// Writes what came of work on a resource.
    pub fn finish(&self, resource: Uuid, event: Event) -> Result<(), JournalError> {
        self.journal.write(Some(resource), event)?;
        self.journal.sync()
    }

    /// Writes that a person's command begins work on a resource.
    fn begun(&self, system: &System, resource: Uuid, path: &str) -> Result<(), JournalError> {
        let token = self.leases.tokens.get(&system.key).copied().unwrap_or_default();
        let (by, why) = (self.by.clone(), "a person's decision".to_owned());
        let (system, path) = (system.key.clone(), path.to_owned());
        self.journal.write(Some(resource), Event::Begun(Begun { system, path, token, by, why, ..Begun::default() }))
    }

    /// Writes an effect before it happens, if the lease is still held.
    fn effect(&self, system: &System, resource: Uuid, what: &str) -> Result<(), DriverError> {
        self.leases.hold(&system.key)?;
        let written = self.journal.write(Some(resource), Event::Effect { what: what.to_owned() });
        written.map_err(|error| DriverError::Stopped(error_chain(&error)))
    }
}

/// Why a person's decision was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] BeginError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DriverError),
}

fn system(config: &SystemConfig, walked: &Walked) -> System {
    let driver = OnDemand::new(config.open.clone(), walked.clone());
    let site = preflight::Site {
        published_root: config.published_root.clone(),
        terabyte: config.terabyte,
        owner_uid: config.owner_uid,
        lowest_id: config.lowest_id,
        modes: config.modes,
        projects: config.project_ids,
    };
    System { key: config.name.clone(), site, driver: Box::new(driver), at_once: config.at_once }
}
