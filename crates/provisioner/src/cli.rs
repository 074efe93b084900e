//! The command line.

mod actions;
mod apply;
mod check;
#[cfg(feature = "exec")]
mod check_driver;
mod explain;
mod man;
mod orphans;
mod out;
mod plans;
mod progress;
mod purge;
mod run;
mod saved;
mod status;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use settings::{Environment, Loaded, Overrides, load};

use crate::config::{SCHEMA, Settings};
use crate::provisioner::Provisioner;
use program::Clock;
use program::error_chain;

/// Exit code: the command failed, or failed for some resources.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code: wrong usage, as in clap.
pub const EXIT_USAGE: u8 = 2;
/// Exit code of `apply FILE`: something that the plan depends on has changed. Nothing was done.
pub const EXIT_MOVED: u8 = 3;
/// Exit code: another provisioner holds the lease. Nothing was done.
pub const EXIT_HELD: u8 = 4;

#[derive(Debug, Parser)]
#[command(name = "hpc-storage-provisioner", version, about, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    /// YAML file with settings [default: $PROVISIONER_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only this storage system; may be given more than once [default: all in the settings]
    #[arg(long, global = true, value_name = "NAME")]
    system: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  hpc-storage-provisioner check --config provisioner.yaml
  hpc-storage-provisioner plan --config provisioner.yaml
  hpc-storage-provisioner run --config provisioner.yaml

Environment variables take precedence over the YAML file, which takes precedence over defaults. A file .env is not read.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 something changed since the plan was made, 4 another provisioner \
holds the lease, 78 invalid settings.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the settings, the proxy, the storage and the state directory
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner check\n  hpc-storage-provisioner check --json --system capstor"
    )]
    Check(Json),
    /// Check a program for `driver: exec` with the conformance suite, on an empty storage system
    #[cfg(feature = "exec")]
    #[command(after_help = check_driver::EXAMPLES)]
    CheckDriver(check_driver::Arguments),
    /// Show what would be done, and why; changes nothing
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner plan\n  hpc-storage-provisioner plan --hold conflict --limit 0\n  hpc-storage-provisioner plan --action resize --out plan.json && hpc-storage-provisioner apply plan.json"
    )]
    Plan {
        #[command(flatten)]
        json: Json,
        /// Write the plan to this file, for `apply`; with --action only those tasks
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        filter: plans::Filter,
        #[command(flatten)]
        limit: plans::Limit,
        #[command(flatten)]
        fresh: Fresh,
    },
    /// Run one pass, or carry out exactly the tasks of a plan file
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner apply\n  hpc-storage-provisioner apply plan.json --yes-to-many"
    )]
    Apply {
        /// A file that `plan --out` wrote: its tasks are carried out, or none if something that they depend on has changed
        file: Option<PathBuf>,
        /// Also carry out removals and changes that are held because there are so many
        #[arg(long)]
        yes_to_many: bool,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        limit: plans::Limit,
    },
    /// Run passes until SIGTERM or SIGINT; SIGUSR1 starts a pass at once, SIGHUP reloads the settings
    Run,
    /// Show what is held and why, what is in the trash, and what is unfinished
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner status\n  hpc-storage-provisioner status --orphans\n  hpc-storage-provisioner status --json --fresh"
    )]
    Status {
        /// Only show marked directories and trash that are not in the proxy's list; searches the upper levels
        #[arg(long)]
        orphans: bool,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        limit: plans::Limit,
        #[command(flatten)]
        fresh: Fresh,
    },
    /// Show everything about one resource: Waldur, proxy, storage, next step, history
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner explain e9a462ce-0fa0-40a0-b210-d3dbe88f40a2\n  hpc-storage-provisioner explain /capstor/store/cscs/customer/project"
    )]
    Explain {
        /// UUID, path, or slug of the resource in Waldur
        resource: String,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        fresh: Fresh,
    },
    /// Mark existing directories as those of their resources
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner adopt /capstor/store/cscs/customer/project\n  hpc-storage-provisioner adopt --all --system capstor\n  hpc-storage-provisioner adopt --hold conflict --yes"
    )]
    Adopt {
        #[command(flatten)]
        selection: actions::Selection,
    },
    /// Bring directories of resources that are in use in Waldur back from the trash, or create missing ones
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner restore /capstor/store/cscs/customer/project\n  hpc-storage-provisioner restore --make --hold drift --system capstor"
    )]
    Restore {
        #[command(flatten)]
        selection: actions::Selection,
        /// Create an empty directory for each resource that has none in the trash
        #[arg(long)]
        make: bool,
    },
    /// Move the directory of a resource that is terminated in Waldur to the trash, if no order does
    #[command(after_help = "Examples:\n  hpc-storage-provisioner retire e9a462ce-0fa0-40a0-b210-d3dbe88f40a2")]
    Retire {
        /// UUID, path or slug
        resource: String,
    },
    /// End an order without carrying it out: reject it, or set it erred after its approval
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner reject /capstor/store/cscs/customer/project --reason 'The quota exceeds the contract' --yes"
    )]
    Reject {
        /// UUID, path or slug of the resource, or UUID of the order
        resource: String,
        /// The reason, which Waldur shows to the customer
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Do it; without it, only show what would be done
        #[arg(long)]
        yes: bool,
    },
    /// Permanently delete trash that is older than the retention and terminated in Waldur
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner purge\n  hpc-storage-provisioner purge --json | jq .refused\n  hpc-storage-provisioner purge --yes"
    )]
    Purge {
        /// Delete; without it, only show what would be deleted
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Show the usage of each resource and of the trash, with sums
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner usage --sort percent\n  hpc-storage-provisioner usage --json | jq 'map(select(.in_trash_since)) | map(.usage.space) | add'\n  hpc-storage-provisioner usage --report"
    )]
    Usage {
        #[command(flatten)]
        json: Json,
        /// Also report the usage to Waldur, without the trash
        #[arg(long)]
        report: bool,
        /// Sort by this key [default: system by system, in the order of the proxy's list]
        #[arg(long, value_name = "KEY")]
        sort: Option<usage::Sort>,
        #[command(flatten)]
        fresh: Fresh,
    },
    /// Show the settings in force and the source of each; secrets are masked
    Config,
    /// Print completions for your shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages to a directory
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner man ~/.local/share/man/man1 && man hpc-storage-provisioner"
    )]
    Man {
        /// Directory for the pages; created if it does not exist
        folder: PathBuf,
    },
}

#[derive(Debug, Args, Clone, Copy)]
struct Json {
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args, Clone, Copy)]
struct Fresh {
    /// Make the proxy read Waldur now, instead of using its newest snapshot
    #[arg(long)]
    fresh: bool,
}

/// A message for the user, and the exit code.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: EXIT_FAILURE, text: error_chain(&error) }
    }
}

fn failure(text: impl Into<String>) -> Failure {
    Failure { code: EXIT_FAILURE, text: text.into() }
}

/// Runs a command, and returns its exit code.
pub fn run(cli: Cli) -> ExitCode {
    if let Command::Completions { shell } = cli.command {
        return exit_code(out::print(&program::command_line::completions(Cli::command(), shell)));
    }
    if let Command::Man { folder } = &cli.command {
        return exit_code(man::write(folder));
    }
    #[cfg(feature = "exec")]
    if let Command::CheckDriver(arguments) = &cli.command {
        return exit_code(check_driver::check(arguments));
    }
    // Fails only if the process has a provider already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let overrides = Overrides { config: cli.config, options: Vec::new() };
    let read = || load(&SCHEMA, &Environment::of_process(), &overrides);
    let mut loaded = match read() {
        Ok(loaded) => loaded,
        Err(faults) => {
            faults.to_string().lines().for_each(out::eprint_error);
            return ExitCode::from(settings::EXIT_CODE);
        }
    };
    for warning in &loaded.warnings {
        out::eprint(&format!("warning: {warning}"));
    }
    if matches!(cli.command, Command::Config) {
        return exit_code(show_settings(&loaded));
    }
    if let Err(failure) = only(&mut loaded.settings, &cli.system) {
        return exit_code(Err(failure));
    }
    let reread = || {
        let mut loaded = read().map_err(|faults| {
            let warnings = faults.warnings.iter().map(ToString::to_string);
            faults.problems.iter().map(ToString::to_string).chain(warnings).collect::<Vec<_>>()
        })?;
        only(&mut loaded.settings, &cli.system).map_err(|failure| vec![failure.text])?;
        Ok(loaded)
    };
    exit_code(dispatch(cli.command, loaded, &reread))
}

/// Prints a table, or a line for each setting on a terminal that is too narrow for the table.
fn show_settings(loaded: &Loaded<Settings>) -> Result<(), Failure> {
    let mut table = out::table(&["KEY", "VALUE", "SOURCE"]);
    let mut page = out::Page::new();
    for (key, value, source) in loaded.report() {
        table.add_row([key, &out::escaped(value), &out::escaped(&source)]);
        page.hanging(&format!("{key} = {value} ({source})"));
    }
    let text = table.trim_fmt() + "\n";
    if page.fits(&text) { out::print(&text) } else { page.print() }
}

/// Removes all systems but these; none if no name is given.
fn only(settings: &mut Settings, names: &[String]) -> Result<(), Failure> {
    let is_known = |name: &&String| settings.systems.iter().any(|system| system.name == name.to_lowercase());
    if let Some(name) = names.iter().find(|name| !is_known(name)) {
        let known: Vec<_> = settings.systems.iter().map(|system| system.name.as_str()).collect();
        let text = format!("--system {name}: the settings have no such system; they have {}", known.join(", "));
        return Err(Failure { code: EXIT_USAGE, text });
    }
    let is_selected = |name: &str| names.is_empty() || names.iter().any(|selected| selected.to_lowercase() == name);
    settings.systems.retain(|system| is_selected(&system.name));
    Ok(())
}

/// `reread` reads the settings again.
fn dispatch(command: Command, loaded: Loaded<Settings>, reread: run::Load<'_>) -> Result<(), Failure> {
    log(&loaded.settings, matches!(command, Command::Run));
    let provisioner = Provisioner::new(loaded.settings.clone(), Clock::system())?;
    match command {
        Command::Run => run::run(provisioner, loaded, reread),
        Command::Check(json) => check::check(&provisioner, json.json),
        Command::Plan { json, out, filter, limit, fresh } => {
            plans::plan(&provisioner, json.json, out.as_deref(), &filter, limit, fresh.fresh)
        }
        Command::Apply { file, yes_to_many, json, limit } => {
            apply::apply(&provisioner, file.as_deref(), yes_to_many, json.json, limit)
        }
        Command::Status { orphans, json, limit, fresh } => {
            status::status(&provisioner, orphans, json.json, limit, fresh.fresh)
        }
        Command::Explain { resource, json, fresh } => explain::explain(&provisioner, &resource, json.json, fresh.fresh),
        Command::Adopt { selection } => actions::adopt(&provisioner, &selection),
        Command::Restore { selection, make } => actions::restore(&provisioner, &selection, make),
        Command::Retire { resource } => actions::retire(&provisioner, &resource),
        Command::Reject { resource, reason, yes } => actions::reject(&provisioner, &resource, &reason, yes),
        Command::Purge { yes, json } => purge::purge(&provisioner, yes, json.json),
        Command::Usage { json, report, sort, fresh } => {
            usage::usage(&provisioner, json.json, report, sort, fresh.fresh)
        }
        #[cfg(feature = "exec")]
        Command::CheckDriver(_) => Ok(()),
        Command::Config | Command::Completions { .. } | Command::Man { .. } => Ok(()),
    }
}

/// Sets up the log: on standard output for `run`, on standard error for every other command.
fn log(settings: &Settings, is_run: bool) {
    use program::journal::Prioritized;
    use tracing::level_filters::LevelFilter;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::fmt::writer::BoxMakeWriter;
    use tracing_subscriber::layer::{Layer, SubscriberExt};
    use tracing_subscriber::util::SubscriberInitExt;
    let level = match (settings.debug, is_run) {
        (true, _) => LevelFilter::DEBUG,
        (false, true) => LevelFilter::INFO,
        (false, false) => LevelFilter::WARN,
    };
    let filter = Targets::new().with_default(LevelFilter::WARN).with_target("provisioner", level);
    let writer = match (settings.json_log, is_run) {
        // JSON escapes control characters itself.
        (true, true) => BoxMakeWriter::new(Prioritized::new(std::io::stdout, std::io::stdout())),
        (true, false) => BoxMakeWriter::new(Prioritized::new(std::io::stderr, std::io::stderr())),
        (false, true) => BoxMakeWriter::new(Prioritized::new(|| out::Escaped(std::io::stdout()), std::io::stdout())),
        (false, false) => BoxMakeWriter::new(Prioritized::new(|| out::Escaped(std::io::stderr()), std::io::stderr())),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let layer = if settings.json_log {
        lines.json().flatten_event(true).with_filter(filter).boxed()
    } else {
        lines.with_filter(filter).boxed()
    };
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

fn exit_code(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                out::eprint_error(&format!("error: {}", failure.text));
            }
            ExitCode::from(failure.code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_valid() {
        Cli::command().debug_assert();
    }
}
