//! The command line.

mod actions;
mod apply;
mod check;
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

/// Something failed, or some resources did.
pub const EXIT_FAILURE: u8 = 1;
/// Wrong usage, as clap has it.
pub const EXIT_USAGE: u8 = 2;
/// `apply FILE`: the world is not as it was when the plan was made. Nothing was done.
pub const EXIT_MOVED: u8 = 3;
/// Another provisioner drives the systems. Nothing was done.
pub const EXIT_HELD: u8 = 4;

/// Makes directories and quotas of what the HPC storage proxy publishes, and reports back to Waldur.
#[derive(Debug, Parser)]
#[command(name = "hpc-storage-provisioner", version, about, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    /// YAML file with settings [default: $PROVISIONER_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only this storage system of the settings; may be given more than once [default: all of them]
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

Settings come from the environment, a YAML file and defaults, in this order. A file .env does not count.

Exit codes: 0 success, 1 something failed, 2 wrong usage, 3 the world moved since the plan was made, 4 another provisioner \
drives the systems, 78 settings that cannot be used.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the settings, the proxy, the storage and the state directory
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner check\n  hpc-storage-provisioner check --json --system capstor"
    )]
    Check(Json),
    /// Show what would be done, and why; changes nothing
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner plan\n  hpc-storage-provisioner plan --hold conflict --limit 0\n  hpc-storage-provisioner plan --action resize --out plan.json && hpc-storage-provisioner apply plan.json"
    )]
    Plan {
        #[command(flatten)]
        json: Json,
        /// Write the plan into this file, for `apply`; with --action only those tasks
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        filter: plans::Filter,
        #[command(flatten)]
        limit: plans::Limit,
        #[command(flatten)]
        fresh: Fresh,
    },
    /// Carry out what is to be done now, or exactly what a file says
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner apply\n  hpc-storage-provisioner apply plan.json --yes-to-many"
    )]
    Apply {
        /// A plan that `plan --out` wrote: just its tasks, or none if what they depend on has changed
        file: Option<PathBuf>,
        /// Also carry out so many removals or changes at once that they are held otherwise
        #[arg(long)]
        yes_to_many: bool,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        limit: plans::Limit,
    },
    /// Carry out what is to be done, again and again, until SIGTERM or SIGINT; SIGUSR1 begins a pass at once, SIGHUP reloads
    /// the settings
    Run,
    /// Show what waits and for what, what is in the trash, and what was begun
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner status\n  hpc-storage-provisioner status --orphans\n  hpc-storage-provisioner status --json --fresh"
    )]
    Status {
        /// Only show directories and trash that bear a mark and are not in the proxy's list; walks the upper levels
        #[arg(long)]
        orphans: bool,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        limit: plans::Limit,
        #[command(flatten)]
        fresh: Fresh,
    },
    /// Tell the whole story of one resource: Waldur, proxy, disk, next step, history
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
    /// Mark directories that are there as their resources' own
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner adopt /capstor/store/cscs/customer/project\n  hpc-storage-provisioner adopt --all --system capstor\n  hpc-storage-provisioner adopt --hold conflict --yes"
    )]
    Adopt {
        #[command(flatten)]
        selection: actions::Selection,
    },
    /// Bring directories of resources that are in use in Waldur back from the trash, or make those that are missing
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner restore /capstor/store/cscs/customer/project\n  hpc-storage-provisioner restore --make --hold drift --system capstor"
    )]
    Restore {
        #[command(flatten)]
        selection: actions::Selection,
        /// Make empty directories where there are none in the trash
        #[arg(long)]
        make: bool,
    },
    /// Put the directory of a resource that is terminated in Waldur into the trash, where no order does
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
        /// Why; Waldur shows it to the customer
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Do it; without it, only show what would be done
        #[arg(long)]
        yes: bool,
    },
    /// Delete for good what is in the trash for longer than the retention and terminated in Waldur
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
    /// Show what is used, of each resource and in the trash, with sums
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner usage --sort percent\n  hpc-storage-provisioner usage --json | jq 'map(select(.in_trash_since)) | map(.usage.space) | add'\n  hpc-storage-provisioner usage --report"
    )]
    Usage {
        #[command(flatten)]
        json: Json,
        /// Report it to Waldur, too; the trash is left out
        #[arg(long)]
        report: bool,
        /// Sort by this [default: as in the proxy's list, system by system]
        #[arg(long, value_name = "KEY")]
        sort: Option<usage::Sort>,
        #[command(flatten)]
        fresh: Fresh,
    },
    /// Show the settings in force, secrets masked, each with its source
    Config,
    /// Print completions for your shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a folder
    #[command(
        after_help = "Examples:\n  hpc-storage-provisioner man ~/.local/share/man/man1 && man hpc-storage-provisioner"
    )]
    Man {
        /// Folder for the pages; made if it is not there
        folder: PathBuf,
    },
}

#[derive(Debug, Args, Clone, Copy)]
struct Json {
    /// JSON, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args, Clone, Copy)]
struct Fresh {
    /// Have the proxy read Waldur now, instead of taking its newest reading
    #[arg(long)]
    fresh: bool,
}

/// What failed, for people, with the code to exit with.
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

/// Runs a command to its end.
pub fn run(cli: Cli) -> ExitCode {
    if let Command::Completions { shell } = cli.command {
        return ended(out::print(&program::command_line::completions(Cli::command(), shell)));
    }
    if let Command::Man { folder } = &cli.command {
        return ended(man::write(folder));
    }
    // An error says that the process has a provider already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let overrides = Overrides { config: cli.config, options: Vec::new() };
    let read = || load(&SCHEMA, &Environment::of_process(), &overrides);
    let mut loaded = match read() {
        Ok(loaded) => loaded,
        Err(faults) => {
            faults.to_string().lines().for_each(out::tell);
            return ExitCode::from(settings::EXIT_CODE);
        }
    };
    for warning in &loaded.warnings {
        out::tell(&format!("warning: {warning}"));
    }
    if matches!(cli.command, Command::Config) {
        let mut table = out::table(&["KEY", "VALUE", "SOURCE"]);
        for (key, value, source) in loaded.report() {
            table.add_row([key, &out::escaped(value), &out::escaped(&source)]);
        }
        return ended(out::print(&(table.trim_fmt() + "\n")));
    }
    if let Err(failure) = only(&mut loaded.settings, &cli.system) {
        return ended(Err(failure));
    }
    let reread = || {
        let mut loaded = read().map_err(|faults| {
            let warnings = faults.warnings.iter().map(ToString::to_string);
            faults.problems.iter().map(ToString::to_string).chain(warnings).collect::<Vec<_>>()
        })?;
        only(&mut loaded.settings, &cli.system).map_err(|failure| vec![failure.text])?;
        Ok(loaded)
    };
    ended(dispatch(cli.command, loaded, &reread))
}

/// Keeps these systems alone; all of them if none is named.
fn only(settings: &mut Settings, names: &[String]) -> Result<(), Failure> {
    let is_known = |name: &&String| settings.systems.iter().any(|system| system.name == name.to_lowercase());
    if let Some(name) = names.iter().find(|name| !is_known(name)) {
        let known: Vec<_> = settings.systems.iter().map(|system| system.name.as_str()).collect();
        let text = format!("--system {name}: the settings have no such system, but {}", known.join(", "));
        return Err(Failure { code: EXIT_USAGE, text });
    }
    let is_wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted.to_lowercase() == name);
    settings.systems.retain(|system| is_wanted(&system.name));
    Ok(())
}

/// `reread` reads the settings again.
fn dispatch(command: Command, loaded: Loaded<Settings>, reread: run::Load<'_>) -> Result<(), Failure> {
    let serves = matches!(command, Command::Run);
    log(&loaded.settings, serves);
    let site = Provisioner::new(loaded.settings.clone(), Clock::system())?;
    match command {
        Command::Run => run::run(site, loaded, reread),
        Command::Check(json) => check::check(&site, json.json),
        Command::Plan { json, out, filter, limit, fresh } => {
            plans::plan(&site, json.json, out.as_deref(), &filter, limit, fresh.fresh)
        }
        Command::Apply { file, yes_to_many, json, limit } => {
            apply::apply(&site, file.as_deref(), yes_to_many, json.json, limit)
        }
        Command::Status { orphans, json, limit, fresh } => {
            status::status(&site, orphans, json.json, limit, fresh.fresh)
        }
        Command::Explain { resource, json, fresh } => explain::explain(&site, &resource, json.json, fresh.fresh),
        Command::Adopt { selection } => actions::adopt(&site, &selection),
        Command::Restore { selection, make } => actions::restore(&site, &selection, make),
        Command::Retire { resource } => actions::retire(&site, &resource),
        Command::Reject { resource, reason, yes } => actions::reject(&site, &resource, &reason, yes),
        Command::Purge { yes, json } => purge::purge(&site, yes, json.json),
        Command::Usage { json, report, sort, fresh } => usage::usage(&site, json.json, report, sort, fresh.fresh),
        Command::Config | Command::Completions { .. } | Command::Man { .. } => Ok(()),
    }
}

/// The log: on standard output for the loop, beside the answer for every other command.
fn log(settings: &Settings, serves: bool) {
    use tracing::level_filters::LevelFilter;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::fmt::writer::BoxMakeWriter;
    use tracing_subscriber::layer::{Layer, SubscriberExt};
    use tracing_subscriber::util::SubscriberInitExt;
    let level = match (settings.debug, serves) {
        (true, _) => LevelFilter::DEBUG,
        (false, true) => LevelFilter::INFO,
        (false, false) => LevelFilter::WARN,
    };
    let filter = Targets::new().with_default(LevelFilter::WARN).with_target("provisioner", level);
    let writer = match (settings.json_log, serves) {
        // JSON has its own escapes.
        (true, true) => BoxMakeWriter::new(std::io::stdout),
        (true, false) => BoxMakeWriter::new(std::io::stderr),
        (false, true) => BoxMakeWriter::new(|| out::Escaped(std::io::stdout())),
        (false, false) => BoxMakeWriter::new(|| out::Escaped(std::io::stderr())),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let layer = if settings.json_log {
        lines.json().flatten_event(true).with_filter(filter).boxed()
    } else {
        lines.with_filter(filter).boxed()
    };
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                out::tell(&format!("error: {}", failure.text));
            }
            ExitCode::from(failure.code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
