//! One pass of the posix driver over many resources, and a bare loop of the same system calls.
//!
//! `cargo bench --package hpc-storage-provisioner --bench pass -- FOLDER RESOURCES AT_ONCE KIND WHAT ROUNDS`: KIND is `pending`
//! (all must be created) or `settled` (all are in the desired state), WHAT is `pass`, `bare`, `both`, alternating, or `exec`: a pass
//! of the driver exec with `examples/drivers/directories.py`, as root. Prints each measurement as a line of JSON, in seconds.

mod bare;
mod world;

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use provisioner::journal::Journal;
use provisioner::ledger::Ledger;
use provisioner::pass::{self, Answer, Call, External, Progress, Protocol, System};
use serde_json::json;

use driver_exec::{Command, Exec, Timeouts};
use driver_posix::quotas::declared::Declared;
use driver_posix::tree::{Rules, Tree};
use program::Clock;
use provisioner_core::document::Document;
use provisioner_core::plan::Policy;
use provisioner_core::preflight::{Modes, SystemRules};
use storage_driver::limits::Terabyte;
use storage_driver::{Driver, DriverError};
use world::World;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Parameters of the benchmark.
struct Bench {
    folder: PathBuf,
    world: World,
    at_once: usize,
}

/// Duration of a pass and of its two halves, in seconds.
struct Took {
    survey: f64,
    all: f64,
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    // `cargo bench` and `cargo test --benches` run every benchmark: without a directory there is nothing to do.
    if arguments.is_empty() {
        return Ok(());
    }
    let [folder, resources, at_once, kind, what, rounds] = arguments.as_slice() else {
        return Err("give FOLDER RESOURCES AT_ONCE KIND WHAT ROUNDS".into());
    };
    let bench = Bench { folder: folder.into(), world: World::new(resources.parse()?), at_once: at_once.parse()? };
    for round in 0..rounds.parse::<usize>()? {
        let mut parts = match what.as_str() {
            "both" => vec!["pass", "bare"],
            one => vec![one],
        };
        if round % 2 == 1 {
            parts.reverse();
        }
        for part in parts {
            let took = bench.round(kind, part)?;
            writeln!(std::io::stdout(), "{}", json!({"part": part, "survey": took.survey, "all": took.all}))?;
        }
    }
    Ok(())
}

impl Bench {
    /// Runs one measurement in its own temporary directory.
    fn round(&self, kind: &str, part: &str) -> Result<Took> {
        let folder = self.folder.join("round");
        let exec = part == "exec";
        std::fs::create_dir_all(folder.join("root"))?;
        std::fs::create_dir_all(folder.join("state"))?;
        if kind == "settled" {
            self.pass(&folder, [self.world.pending(), self.world.executing()].into(), exec)?;
        }
        // Do not measure the writing of earlier data.
        rustix::fs::sync();
        let took = match (part, kind) {
            ("pass" | "exec", "pending") => {
                self.pass(&folder, [self.world.pending(), self.world.executing()].into(), exec)?
            }
            ("pass" | "exec", "settled") => self.pass(&folder, [self.world.active()].into(), exec)?,
            ("bare", "pending") => bare::pending(&self.world, &folder)?,
            ("bare", "settled") => bare::settled(&self.world, &folder)?,
            _ => return Err(format!("no part {part} of {kind}").into()),
        };
        std::fs::remove_dir_all(&folder)?;
        Ok(took)
    }

    /// Runs a whole pass of a running program, which reads the documents in order.
    fn pass(&self, folder: &Path, documents: Vec<Document>, exec: bool) -> Result<Took> {
        let pending = documents.len() > 1;
        let clock = Clock::system();
        let journal = Journal::open(&folder.join("state/journal"), &clock)?;
        let mut ledger = Ledger::open(&folder.join("state/ledger.json"))?;
        let systems = [self.system(&folder.join("root"), exec)?];
        let documents = Mutex::new(documents.into_iter());
        let read = || {
            let next = documents.lock().ok().and_then(|mut documents| documents.next());
            next.ok_or_else(|| DriverError::temporary("no more documents"))
        };
        let (call, permitted) = (|_: &Call| Answer::Accepted, |_: &str| Ok(()));
        let tokens = [("capstor".to_owned(), 1)].into();
        let external = External {
            read: &read,
            call: &call,
            reaches: &|_| Ok(()),
            protocol: Protocol { journal: &journal, permitted: &permitted, tokens: &tokens, by: "run" },
            confirmed: false,
            progress: &Progress::default(),
        };
        let began = Instant::now();
        let mut survey = pass::survey(&systems, &read, &journal.past(), &mut ledger)?;
        pass::save(&mut survey, &systems, &mut ledger, &permitted);
        let survey_took = began.elapsed();
        let plan = pass::planned(&survey, Policy::default(), false);
        let report = pass::carry_out(plan, &survey.document, &systems, external, &clock)?;
        let took = Took { survey: survey_took.as_secs_f64(), all: began.elapsed().as_secs_f64() };
        let expected = if pending { self.world.count } else { 0 };
        if report.ended.len() != expected || !report.failed.is_empty() || !report.plan.held.is_empty() {
            let (failed, held) = (report.failed.values().next(), report.plan.held.first());
            return Err(format!("{} of {expected} ended; {failed:?}; {held:?}", report.ended.len()).into());
        }
        Ok(took)
    }

    fn system(&self, root: &Path, exec: bool) -> Result<System> {
        let rules = SystemRules {
            published_root: "/capstor".into(),
            terabyte: Terabyte::Decimal,
            owner_uid: 0,
            lowest_id: 1000,
            modes: Modes::default(),
        };
        let driver: Box<dyn Driver> = if exec {
            let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/drivers/directories.py");
            let program = program.canonicalize()?.display().to_string();
            let command = Command::new(&[program]).ok_or("the path of the program is not absolute")?;
            Box::new(Exec::open(command, root.canonicalize()?, Vec::new(), Timeouts::default())?)
        } else {
            let tree = Rules { must_be_mounted: false, change_owner: false, acl: None };
            Box::new(Tree::new(root.to_owned(), Declared::new("user"), tree))
        };
        Ok(System { key: "capstor".into(), rules, project_ids: None, driver, at_once: self.at_once })
    }
}
