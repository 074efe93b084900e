//! `check-driver`: runs the conformance suite on a program for `driver: exec`.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use clap::Args;
use driver_exec::suite::{Calls, run};
use driver_exec::{Command, Exec, Timeouts, environment};
use program::lock;
use storage_driver::conformance::Bench;
use storage_driver::place::Place;

use super::out::{self, Page};
use super::{EXIT_USAGE, Failure, failure};

pub(super) const EXAMPLES: &str = "\
Examples:
  hpc-storage-provisioner check-driver --root /mnt/test -- /usr/local/lib/storage/mydriver
  hpc-storage-provisioner check-driver --root /tank/test --unmarked /root/make-dataset -- /usr/local/lib/storage/zfs";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Root of an empty storage system for tests; the suite creates and deletes directories there
    #[arg(long, value_name = "DIRECTORY")]
    root: PathBuf,
    /// How often each verb with side effects is killed before it is called twice
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    kills: u32,
    /// A variable for the command, like an entry of the setting `environment`; may be given more than once
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    environment: Vec<(String, String)>,
    /// Timeout of each verb in seconds, like the setting `timeout_seconds`
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// A program that creates a directory without a mark, and is called with its path [default: mkdir with all parents]
    #[arg(long, value_name = "PROGRAM")]
    unmarked: Option<PathBuf>,
    /// The command, beginning with an absolute path
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    environment(text).ok_or("write NAME=VALUE")
}

/// Runs the suite twice, and prints the result of each check.
pub(super) fn check(arguments: &Arguments) -> Result<(), Failure> {
    let usage = |text: &str| Failure { code: EXIT_USAGE, text: text.into() };
    let Arguments { root, kills, environment, .. } = arguments;
    let command = Command::new(&arguments.command).ok_or_else(|| {
        usage("the command does not begin with an absolute path: give the absolute path of the program")
    })?;
    if !root.is_absolute() || root.as_os_str() == "/" {
        return Err(usage("--root is not an absolute path below /: give the root of an empty storage system"));
    }
    // As in the packaged service, so that a program that relies on another one fails here.
    rustix::process::umask(rustix::fs::Mode::from(0o077));
    let timeouts = Timeouts { usual: Duration::from_secs(arguments.timeout), ..Timeouts::default() };
    let exec = Exec::open(command, root.clone(), environment.clone(), timeouts)?;
    let not_made = Mutex::new(None);
    let make_unmarked = |place: &Place| {
        let path = root.join(place.to_string());
        let made = match &arguments.unmarked {
            None => DirBuilder::new().recursive(true).mode(0o755).create(&path).map_err(|error| error.to_string()),
            Some(program) => match std::process::Command::new(program).arg(&path).status() {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(format!("{} failed with {status}", program.display())),
                Err(error) => Err(format!("{} cannot be run: {error}", program.display())),
            },
        };
        if let Err(error) = made {
            *lock(&not_made) = Some(format!("{} cannot be created without a mark: {error}", path.display()));
        }
    };
    // Only root can give directories away.
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let ids = if uid.is_root() { (20_000, 30_500) } else { (uid.as_raw(), gid.as_raw()) };
    let bench = Bench { driver: &exec, ids, make_unmarked: &make_unmarked };
    let (mut checks, mut failed, mut left_over) = (0, 0, None);
    for (title, calls) in [
        ("Each verb once:".to_owned(), Calls::Once),
        (format!("Each verb with side effects killed {kills} times, then called twice:"), Calls::Killed(*kills)),
    ] {
        out::print(&format!("{title}\n"))?;
        let mut printed = Ok(());
        let ended = run(&bench, &exec, calls, &mut |check, promise, failure| {
            checks += 1;
            let mut page = Page::new();
            match failure {
                None => page.marked("ok", &format!("{check}: {promise}")),
                Some(failure) => {
                    failed += 1;
                    let storage_driver::conformance::Failure { step, expected, observed, .. } = failure;
                    page.marked("FAILED", &format!("{check}: {promise}"));
                    page.line(8, &format!("{step}: expected {expected}, observed {observed}"));
                }
            }
            if printed.is_ok() {
                printed = page.print();
            }
        });
        printed?;
        out::print("\n")?;
        match ended {
            Ok(0) => {}
            Ok(killed) => out::print(&format!("{killed} runs of the command were killed before they ended\n"))?,
            Err(error) => {
                left_over = Some(program::error_chain(&error));
                break;
            }
        }
    }
    if let Some(error) = lock(&not_made).take() {
        return Err(failure(error));
    }
    if let Some(error) = left_over {
        let summary =
            if failed > 0 { format!("the driver fails {failed} of {checks} checks, and ") } else { String::new() };
        return Err(failure(format!("{summary}the test system cannot be emptied: {error}")));
    }
    if failed > 0 {
        return Err(failure(format!("the driver fails {failed} of {checks} checks; begin with the first")));
    }
    out::print(&format!("the driver passes all {checks} checks\n"))
}
