//! The command line, and running the cases.

use std::env;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::bench::{Bench, Options};
use crate::case::Case;
use crate::cases;
use crate::outcome::Failure;
use crate::probe::Kind;
use crate::report::{self, Report, Verdict};
use crate::site::Site;

/// A case of the level `must` failed.
const MUST_FAILED: u8 = 1;
/// Wrong usage, or the suite itself cannot run.
pub(crate) const CANNOT_RUN: u8 = 2;
/// Only cases of the levels `should` and `may` failed.
const SHOULD_FAILED: u8 = 3;
/// Name of the proxy's program.
const PROXY: &str = "hpc-storage-proxy";

/// Tests a provisioner in any language
///
/// Starts a simulated Waldur, HPC User API and Keycloak, a real hpc-storage-proxy, and the provisioner; acts as users and operators; and
/// checks what the provisioner did to Waldur and to the storage. docs/conformance.md describes the environment of the provisioner.
///
/// Exit codes: 0 every case passed, 1 a case of the level must failed, 2 wrong usage or the suite cannot run, 3 only cases of the levels
/// should and may failed.
#[derive(Debug, Parser)]
#[command(name = "hpc-storage-conformance", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the cases
    Run(Run),
    /// Lists the cases, with what the specification says
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Run {
    /// How to read a directory: json, posix, xfs, or a program
    ///
    /// json: the file storage.json in STORAGE_ROOT. posix: directories below STORAGE_ROOT, with limits in the extended attribute
    /// hpc-storage.limits. xfs: the same with project quotas of XFS or ext4. A program gets the mount point and the itemId as arguments, and
    /// prints JSON.
    #[arg(long, default_value = "json")]
    probe: String,
    /// Run only cases whose name begins with this, or matches it if it has `*`; can be repeated
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write the results as JUnit XML, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// How often kills/random kills the command
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// Let callbacks go through the proxy, with the Keycloak token
    #[arg(long)]
    relay: bool,
    /// The proxy's program [default: hpc-storage-proxy beside this program, else on PATH]
    #[arg(long, value_name = "PROGRAM")]
    proxy: Option<PathBuf>,
    /// Number of cases that run at the same time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Seconds for each thing that a case waits for
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// The provisioner, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::List { json } => {
            let cases = cases::all();
            print(&if json { report::list_json(&cases) } else { report::list(&cases) })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(run) => run.all(),
    }
}

impl Run {
    fn all(self) -> anyhow::Result<ExitCode> {
        let all = cases::all();
        if let Some(pattern) = self.only.iter().find(|pattern| !all.iter().any(|case| case.matches(pattern))) {
            bail!("no case matches --only {pattern:?}; `list` shows them");
        }
        let is_selected = |case: &Case| self.only.is_empty() || self.only.iter().any(|pattern| case.matches(pattern));
        let cases: Vec<Case> = all.into_iter().filter(is_selected).collect();
        find(&self.command[0])
            .with_context(|| format!("there is no program {:?} that can be executed", self.command[0]))?;
        let probe = Kind::from(&*self.probe);
        if let Kind::Program(_) = probe {
            find(&self.probe)
                .with_context(|| format!("--probe {:?} is neither json, posix, xfs nor a program", self.probe))?;
        }
        let proxy = self.proxy.clone().or_else(beside).or_else(|| find(PROXY));
        let proxy = proxy.with_context(|| {
            format!("{PROXY} is neither beside this program nor on PATH: build it (cargo build -p {PROXY}), or name it with --proxy")
        })?;
        // Before the cases run, not after it.
        let cannot_write = |file: &Path| format!("cannot write {}", file.display());
        if let Some(file) = &self.junit {
            std::fs::write(file, "").with_context(|| cannot_write(file))?;
        }
        // Fails if another part of the process has set one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let options = Options {
            command: self.command,
            probe,
            kills: self.kills,
            timeout: Duration::from_secs(self.timeout),
            interrupted: Arc::default(),
        };
        let runtime = Runtime::new()?;
        watch_signals(&runtime, &options.interrupted)?;
        let (next, begun) = (AtomicUsize::new(0), Instant::now());
        let reports: Vec<Mutex<Option<Report>>> = cases.iter().map(|_| Mutex::default()).collect();
        let work = || -> anyhow::Result<()> {
            let mut site = Site::start(&runtime, &proxy, self.relay)?;
            while let Some((case, report)) = {
                let number = next.fetch_add(1, Ordering::Relaxed);
                cases.get(number).zip(reports.get(number)).filter(|_| !options.is_interrupted())
            } {
                *report.lock().unwrap_or_else(PoisonError::into_inner) = Some(perform(&mut site, &options, case));
                show_progress(&reports);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let jobs = usize::from(self.jobs).min(cases.len());
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(outcome) => outcome,
                Err(_) => bail!("a case panicked: this is a bug of the suite"),
            })
        })?;
        if options.is_interrupted() {
            bail!("interrupted");
        }
        let take = |report: Mutex<Option<Report>>| report.into_inner().unwrap_or_else(PoisonError::into_inner);
        let reports: Vec<Report> = reports.into_iter().filter_map(take).collect();
        let all: Vec<(&Case, &Report)> = cases.iter().zip(&reports).collect();
        if let Some(file) = &self.junit {
            std::fs::write(file, report::junit(&all)).with_context(|| cannot_write(file))?;
        }
        print(&if self.json { report::json(&all) } else { report::table(&all, begun.elapsed()) })?;
        Ok(ExitCode::from(exit_code(&all)))
    }
}

/// Ends the run at SIGINT, SIGTERM and SIGHUP, so that nothing that it has started is left.
fn watch_signals(runtime: &Runtime, interrupted: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let _entered = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let (mut signals, interrupted) = (signal(kind)?, Arc::clone(interrupted));
        runtime.spawn(async move {
            signals.recv().await;
            interrupted.store(true, Ordering::Relaxed);
        });
    }
    Ok(())
}

/// Runs one case.
fn perform(site: &mut Site, options: &Options, case: &Case) -> Report {
    let begun = Instant::now();
    let mut bench = match Bench::new(site, options, case.offering) {
        Ok(bench) => bench,
        Err(error) => return Report::of(Verdict::Broken(format!("{error:#}")), begun.elapsed()),
    };
    let outcome = (case.run)(&mut bench);
    // A violation of a rule for all cases explains more than what came of it.
    let outcome = match (bench.invariants(), outcome) {
        (Err(Failure::Seen(rule)), Err(Failure::Seen(text))) if text.starts_with(&rule) => Err(Failure::Seen(text)),
        (Err(Failure::Seen(rule)), Err(Failure::Seen(text))) => Err(Failure::Seen(format!("{rule}\n{text}"))),
        (Err(failure), _) | (Ok(()), Err(failure)) => Err(failure),
        (Ok(()), Ok(())) => Ok(()),
    };
    if options.is_interrupted() {
        bench.kill();
    }
    bench.stop();
    let verdict = match outcome {
        Ok(()) => Verdict::Passed,
        Err(Failure::Seen(text)) => Verdict::Failed(text),
        Err(Failure::Skipped(why)) => Verdict::Skipped(why),
        Err(Failure::Broken(why)) => Verdict::Broken(why),
    };
    Report {
        verdict,
        took: begun.elapsed(),
        began: bench.began(),
        exchanges: bench.gateway().log(),
        output: bench.output(),
        unknown: std::mem::take(&mut bench.unknown),
    }
}

fn exit_code(all: &[(&Case, &Report)]) -> u8 {
    use crate::case::Level;
    let failed = |level: Level| all.iter().any(|(case, report)| case.level == level && report.verdict.is_failed());
    if failed(Level::Must) {
        MUST_FAILED
    } else if all.iter().any(|(_, report)| matches!(report.verdict, Verdict::Broken(_))) {
        CANNOT_RUN
    } else if failed(Level::Should) || failed(Level::May) {
        SHOULD_FAILED
    } else {
        0
    }
}

/// The number of finished cases, on a terminal.
fn show_progress(reports: &[Mutex<Option<Report>>]) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let done = |report: &&Mutex<Option<Report>>| report.try_lock().is_ok_and(|report| report.is_some());
        // A terminal that is gone does not matter.
        let _ = write!(terminal, "\r{} of {} cases ", reports.iter().filter(done).count(), reports.len());
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

/// The proxy beside this program.
fn beside() -> Option<PathBuf> {
    let program = env::current_exe().ok()?.with_file_name(PROXY);
    is_program(&program).then_some(program)
}

/// The executable file of a program: a path, or a name on PATH.
fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        let path = PathBuf::from(program);
        return is_program(&path).then_some(path);
    }
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(program)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
