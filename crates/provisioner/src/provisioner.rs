//! What the settings describe: the systems with their drivers, the clients of the proxy and of Waldur, the state
//! directory.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BlockingRetryable, ConstantBuilder};
use program::{Clock, error_chain};
use provisioner_core::document::Document;
use provisioner_core::plan::Plan;
use provisioner_core::preflight::SystemRules;
use storage_driver::DriverError;
use storage_driver::walked::Walked;

use crate::config::{Settings, SystemConfig};
use crate::drivers::on_demand::OnDemand;
use crate::journal::{self, Journal, JournalError, Past};
use crate::lease::{LeaseError, LeaseStore, Leases, StateLock};
use crate::ledger::Ledger;
use crate::metrics;
use crate::pass::{self, External, PassError, Progress, Protocol, Report, Survey, System};
use crate::source::Source;

/// What the loop is called in the journal.
pub const LOOP: &str = "run";
/// How often to try whether a lease is free.
const LOOK: Duration = Duration::from_millis(200);
/// Age from which on a document is old.
const OLD: Duration = Duration::from_mins(1);
/// The same for a pass of the loop, which nobody watches.
const OLD_FOR_PASS: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub struct Provisioner {
    pub settings: Settings,
    pub systems: Vec<System>,
    /// Client of the proxy and of Waldur.
    pub source: Arc<Source>,
    pub leases: LeaseStore,
    pub clock: Clock,
    /// Counts the files that the drivers have walked.
    pub walked: Walked,
    /// Counts the tasks of the current pass.
    pub progress: Progress,
    /// If set, everything stops before the next side effect.
    pub stop: Arc<AtomicBool>,
}

impl Provisioner {
    /// Opens what is needed for reading.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, DriverError> {
        Self::open(settings, clock, Walked::default(), Arc::default())
    }

    /// The same provisioner with other settings. Everything is opened again, so that new secrets are used.
    pub fn with(&self, settings: Settings) -> Result<Self, DriverError> {
        Self::open(settings, self.clock.clone(), self.walked.clone(), Arc::clone(&self.stop))
    }

    fn open(settings: Settings, clock: Clock, walked: Walked, stop: Arc<AtomicBool>) -> Result<Self, DriverError> {
        let source = Arc::new(Source::new(&settings, &stop)?);
        let systems = settings.systems.iter().map(|config| system(config, &walked)).collect();
        let leases = LeaseStore::new(&settings.lease, &clock);
        Ok(Self { settings, systems, source, leases, clock, walked, progress: Progress::new(), stop })
    }

    pub fn journal_path(&self) -> PathBuf {
        self.settings.state_directory.join("journal")
    }

    /// The ledger of versions that kept project IDs in the state directory. It is read, and never written.
    pub fn ledger_path(&self) -> PathBuf {
        self.settings.state_directory.join("ledger.json")
    }

    /// Reads the document and observes the storage without write access. `fresh` makes the proxy read Waldur now. Also
    /// returns notes: what could not be read in the state directory, and whether the document is old.
    pub fn look(&self, fresh: bool) -> Result<(Survey, Vec<String>), PassError> {
        let mut notes = Vec::new();
        let past = journal::past(&self.journal_path(), &self.clock).unwrap_or_else(|error| {
            notes.push(format!("{}: unfinished work is not shown", error_chain(&error)));
            Past::default()
        });
        let mut ledger = Ledger::open(&self.ledger_path()).unwrap_or_else(|error| {
            notes.push(format!("the ledger cannot be read ({error}): the project IDs shown are guesses"));
            Ledger::default()
        });
        let read = || if fresh { self.source.read() } else { self.source.newest() };
        let survey = pass::survey(&self.systems, &read, &past, &mut ledger)?;
        let age = survey.document.age;
        if age >= OLD {
            notes.push(format!("the document is {} s old; --fresh has the proxy read Waldur now", age.as_secs()));
        }
        Ok((survey, notes))
    }

    /// Takes the exclusive rights to the state directory and the systems. Waits for another holder, at most for
    /// `patience`. `by`: the command and its user, for the journal.
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
            self.leases.take(&names, directory).map(|leases| (lock, leases))
        };
        let waits = usize::try_from(patience.as_millis() / LOOK.as_millis()).unwrap_or_default();
        let (lock, leases) = take
            .retry(ConstantBuilder::default().with_delay(LOOK).with_max_times(waits))
            .sleep(std::thread::sleep)
            .when(LeaseError::is_held)
            .call()?;
        let journal = Journal::open(&self.journal_path(), &self.clock)?;
        journal.heartbeat()?;
        let ledger = Ledger::open(&self.ledger_path())
            .map_err(|source| BeginError::State { path: self.ledger_path(), source })?;
        Ok(Session { provisioner: self, leases, journal, ledger, by: by.to_owned(), _lock: lock })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{path} cannot be used: `state_directory` must be writable")]
    State {
        /// The file or directory.
        path: PathBuf,
        source: std::io::Error,
    },
}

/// The exclusive right to change the systems, until it is dropped.
#[derive(Debug)]
pub struct Session<'a> {
    pub provisioner: &'a Provisioner,
    leases: Leases,
    pub journal: Journal,
    pub ledger: Ledger,
    by: String,
    _lock: StateLock,
}

impl Session<'_> {
    /// Has the proxy read Waldur now, and makes a plan.
    pub fn plan(&mut self, confirmed: bool) -> Result<(Survey, Plan), PassError> {
        self.plan_from(&|| self.provisioner.source.read(), confirmed)
    }

    /// Makes a plan from the document that the proxy has (see [`Source::recent`]).
    pub fn plan_recent(&mut self) -> Result<(Survey, Plan), PassError> {
        self.plan_from(&|| self.provisioner.source.recent(OLD_FOR_PASS), false)
    }

    fn plan_from(
        &mut self,
        read: &dyn Fn() -> Result<Document, DriverError>,
        confirmed: bool,
    ) -> Result<(Survey, Plan), PassError> {
        let survey = self.survey(read)?;
        let plan = pass::planned(&survey, self.provisioner.settings.policy, confirmed);
        Ok((survey, plan))
    }

    /// Like [`Session::plan`] without the plan, for a command that names resources: the proxy's latest snapshot is
    /// enough unless it is old.
    pub fn look(&mut self) -> Result<Survey, PassError> {
        let source = &self.provisioner.source;
        self.survey(&|| source.recent(OLD))
    }

    fn survey(&mut self, read: &dyn Fn() -> Result<Document, DriverError>) -> Result<Survey, PassError> {
        let past = self.journal.past();
        let Self { provisioner, leases, ledger, .. } = self;
        let mut survey = pass::survey(&provisioner.systems, read, &past, ledger)?;
        pass::save(&mut survey, &provisioner.systems, ledger, &|system| provisioner.permitted(leases, system));
        Ok(if self.by == LOOP { survey } else { survey.retried() })
    }

    /// Carries out the whole plan that was just made from a survey, and journals the end of unfinished work that needs
    /// nothing more. `confirmed`: a person has confirmed the amount of work.
    pub fn carry_out(&mut self, survey: &Survey, plan: Plan, confirmed: bool) -> Result<Report, PassError> {
        let Self { provisioner, leases, journal, ledger, by, .. } = self;
        let permitted = |system: &str| provisioner.permitted(leases, system);
        let protocol = Protocol { journal, permitted: &permitted, tokens: &leases.tokens, by };
        pass::end_what_needs_nothing(survey, &plan, &provisioner.systems, protocol, ledger)?;
        self.perform(survey, plan, confirmed)
    }

    /// Carries out these tasks of a survey, and no others.
    pub fn perform(&mut self, survey: &Survey, plan: Plan, confirmed: bool) -> Result<Report, PassError> {
        let Self { provisioner, leases, journal, by, .. } = self;
        let Provisioner { source, systems, clock, progress, .. } = provisioner;
        let call = |call: &pass::Call| {
            let answer = source.call(call);
            metrics::callback(call.action, &answer);
            answer
        };
        let external = External {
            read: &|| source.read(),
            call: &call,
            reaches: &|call| source.reaches(call),
            protocol: Protocol {
                journal,
                permitted: &|system| provisioner.permitted(leases, system),
                tokens: &leases.tokens,
                by,
            },
            confirmed,
            progress,
        };
        pass::carry_out(plan, &survey.document, systems, external, clock)
    }

    /// Does something by the protocol of changes that is not a task.
    pub fn with_protocol<T>(&self, work: impl FnOnce(Protocol<'_>) -> T) -> T {
        let permitted = |system: &str| self.provisioner.permitted(&self.leases, system);
        let Self { journal, leases: Leases { tokens, .. }, by, .. } = self;
        work(Protocol { journal, permitted: &permitted, tokens, by })
    }
}

impl Provisioner {
    /// Fails if work on a system must stop: `leases` lost the one of this name, or the program received a stop signal.
    pub fn permitted(&self, leases: &Leases, name: &str) -> Result<(), DriverError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(DriverError::Stopped("the program received a stop signal".into()));
        }
        leases.hold(name)
    }
}

fn system(config: &SystemConfig, walked: &Walked) -> System {
    let driver = OnDemand::new(config.open.clone(), walked.clone());
    let rules = SystemRules {
        published_root: config.published_root.clone(),
        terabyte: config.terabyte,
        owner_uid: config.owner_uid,
        lowest_id: config.lowest_id,
        modes: config.modes,
    };
    let (key, project_ids) = (config.name.clone(), config.project_ids);
    System { key, rules, project_ids, driver: Box::new(driver), at_once: config.at_once }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use settings::{Environment, Overrides, load};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn after_a_signal_commands_have_no_further_side_effects() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let state = tempfile::tempdir().unwrap();
        let variables = HashMap::from([
            ("PROVISIONER_PROXY_URL", "https://proxy.example.org"),
            ("PROVISIONER_SYSTEMS", r#"{"capstor": {"driver": "memory", "terabyte": "TB"}}"#),
            ("PROVISIONER_STATE_DIRECTORY", state.path().to_str().unwrap()),
        ]);
        let environment = Environment::new("/", variables);
        let loaded = load(&crate::config::SCHEMA, &environment, &Overrides::default()).unwrap();
        let provisioner = Provisioner::new(loaded.settings, Clock::system()).unwrap();
        let session = provisioner.begin("adopt by user 0", Duration::ZERO).unwrap();
        session.with_protocol(|protocol| {
            let guard = protocol.guard_of("capstor", Uuid::nil());
            assert!(guard("mark it").is_ok());
            // The same side effect goes on, for example with the next file of a tree.
            assert!(guard("mark it").is_ok());
            provisioner.stop.store(true, Ordering::Relaxed);
            assert!(matches!(guard("mark it"), Err(DriverError::Stopped(_))));
            assert!(matches!(guard("move it"), Err(DriverError::Stopped(_))));
        });
        let history = journal::history(&provisioner.journal_path(), Uuid::nil()).unwrap();
        assert_eq!(history.len(), 1, "{history:?}");
    }
}
