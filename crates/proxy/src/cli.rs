//! The command line.

mod access;
mod catalogue;
mod check;
mod compare;
mod config;
mod log;
mod man;
mod progress;
mod serve;
mod terminal;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use catalog::Filter;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use uuid::Uuid;

use crate::config::{Environment, Listen, Loaded, Overrides, Problems};
use crate::openapi;
use crate::server::TlsIdentity;
use access::Access;
use catalogue::{Filters, list, tree, watch};
use terminal::Terminal;

/// Invalid settings (`EX_CONFIG`).
pub const EXIT_SETTINGS: u8 = settings::EXIT_CODE;
/// Invalid usage, as clap has it.
pub const EXIT_USAGE: u8 = 2;
/// Any other failure.
pub const EXIT_FAILURE: u8 = 1;
/// One of the two listings cannot be read, so they cannot be compared.
pub const EXIT_UNREADABLE: u8 = 3;

/// Publishes Waldur's storage resources as the document that storage provisioners follow.
#[derive(Debug, Parser)]
#[command(name = "hpc-storage-proxy", version, about, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  hpc-storage-proxy check --config settings.yaml
  hpc-storage-proxy serve --config settings.yaml --listen 0.0.0.0:8000

Settings come from the environment, the file .env in the working directory, a YAML file and defaults, in this order.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 a listing cannot be read (compare), 78 invalid settings.";

#[derive(Debug, Args)]
struct Global {
    /// YAML file with settings [default: $WALDUR_CSCS_STORAGE_PROXY_CONFIG_PATH]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(after_help = SERVE)]
    /// Serve the API until SIGTERM or SIGINT
    Serve(ServeArgs),
    #[command(after_help = CHECK)]
    /// Check the settings and each upstream
    Check(Json),
    #[command(after_help = LIST)]
    /// Read the upstreams and show the catalogue as a table
    List(ListArgs),
    #[command(after_help = TREE)]
    /// Read the upstreams and show the catalogue as a tree
    Tree(TreeArgs),
    #[command(after_help = COMPARE)]
    /// Compare the catalogue with the listing of another proxy, before migrating from one to the other
    Compare(compare::CompareArgs),
    #[command(after_help = CONFIG)]
    /// Show the settings in force with their sources; secrets are masked
    Config(Json),
    #[command(after_help = OPENAPI)]
    /// Print the OpenAPI document of the API
    Openapi,
    #[command(after_help = COMPLETIONS)]
    /// Print completions for a shell
    Completions {
        /// Shell to generate completions for
        shell: Shell,
    },
    #[command(after_help = MAN)]
    /// Write the manual pages to a folder
    Man {
        /// Folder for the pages; created if it does not exist
        folder: PathBuf,
    },
}

const SERVE: &str = "\
Examples:
  hpc-storage-proxy serve --listen 0.0.0.0:8000
  hpc-storage-proxy serve --listen 10.0.0.1:8000 --listen [::1]:8000
  hpc-storage-proxy serve --listen unix:/run/hpc-storage-proxy/api.sock

SIGHUP reloads all settings except the listen addresses, the format and level of the log, Sentry and OpenTelemetry. \
SIGTERM and SIGINT stop the proxy after running requests have finished.";

const CHECK: &str = "\
Examples:
  hpc-storage-proxy check
  hpc-storage-proxy check --json | jq '.checks[] | select(.remedy)'

Prints one line per check: ok, warning or FAILED, the finding, and the remedy. All checks run even if some fail; a check \
that depends on a failed one is reported as not checked.

Exit codes: 0 nothing failed, 1 an upstream failed, 78 invalid settings.";

const LIST: &str = "\
Examples:
  hpc-storage-proxy list --storage-system capstor --status pending
  hpc-storage-proxy list --id e9a462ce0fa040a0b210d3dbe88f40a2
  hpc-storage-proxy list --wide | grep proj-1
  hpc-storage-proxy list --json | jq '.resources[].mountPoint.default'
  hpc-storage-proxy list --watch https://proxy.example.org --token-file token

SPACE and INODES (M: millions) are hard limits; an arrow leads to the limit after an update in progress. ORDER is \
`to approve` (by the provider), `executing`, or `open` (for example not yet approved by the customer). On a narrow \
terminal MODE, UID, INODES, TYPE, ORDER and GID are hidden, in this order; the other columns are never truncated.

Skipped resources are listed on standard error, each with the reason. --id shows only this resource; if it is neither an \
item nor skipped, the exit code is 1.

--json prints the complete listing of the API on one page, without `pagination` and `filters_applied`.

--watch reads a running proxy instead of the upstreams, needs no settings, and prints one line for each item that is new, \
gone or different. With --json it prints the listing again after each change, one per line. It tries again while the proxy \
cannot be reached, and ends if the token is rejected. A token is read from a file or from $COMPARE_TOKEN, or fetched with \
client credentials.";

const TREE: &str = "\
Examples:
  hpc-storage-proxy tree --data-type store
  hpc-storage-proxy tree --status error

Tenants and customers are shown above the selected items, whatever their own status. Skipped resources are listed on \
standard error, each with the reason.

--json prints {\"tree\": [{\"item\": …, \"children\": […]}], \"skipped\": […]}.";

const COMPARE: &str = "\
Examples:
  hpc-storage-proxy compare https://storage-proxy.example.org --token-file token
  hpc-storage-proxy compare http://10.0.0.1:8000 --json | jq .differences
  hpc-storage-proxy compare http://10.0.0.1:8000 --with http://10.0.0.2:8000

The other proxy may be the Python proxy or another instance of this one. Every field of every item is compared. `HERE` \
is read from the upstreams with the settings in force, as `list` does, or from the proxy given by --with. If it changes \
during the comparison, both are read again.

Differences with a known reason (docs/migration.md) are counted and explained, but not listed; --json lists all of them. \
Known differences and a different order of items affect the exit code only with --strict.

A token is read from a file or from $COMPARE_TOKEN (for the proxy of --with: $COMPARE_WITH_TOKEN), or fetched with \
client credentials. It is sent only to that proxy, and redirects are not followed.

Exit codes: 0 no relevant difference, 1 differences, 2 wrong usage, 3 a listing cannot be read, 78 invalid settings.";

const CONFIG: &str = "\
Examples:
  hpc-storage-proxy config
  hpc-storage-proxy config --json | jq '.settings[] | select(.value)'

Exit codes: 0 the settings are valid, 78 invalid settings; all problems are listed.";

const OPENAPI: &str = "\
Examples:
  hpc-storage-proxy openapi > openapi.json

No settings are needed. The API serves the same document at /openapi.json, but lists the configured storage systems as \
values of the filter storage_system.";

const COMPLETIONS: &str = "\
Examples:
  hpc-storage-proxy completions bash > ~/.hpc-storage-proxy.bash
  hpc-storage-proxy completions zsh > ~/.zfunc/_hpc-storage-proxy

For bash, `source` the file in ~/.bashrc. For zsh, add its folder to $fpath.";

const MAN: &str = "\
Examples:
  hpc-storage-proxy man ~/.local/share/man/man1

Writes one page for the program and one for each command: `man hpc-storage-proxy-serve`.";

#[derive(Debug, Args)]
struct ServeArgs {
    /// Address to listen on, or unix:PATH; may be repeated [default: the setting server.listen]
    #[arg(long, value_name = "ADDR:PORT", value_parser = crate::config::listen_address)]
    listen: Vec<Listen>,
}

#[derive(Debug, Args)]
struct Json {
    /// Print JSON for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(mut_group("Access", |access| access.requires("watch")))]
struct ListArgs {
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    format: Json,
    /// Only the items with this ID, or why the resource is skipped; with or without dashes. Shows all columns
    #[arg(long, value_name = "UUID", conflicts_with = "Filters")]
    id: Option<Uuid>,
    /// Also show system, name and item ID, whatever the width of the terminal
    #[arg(long)]
    wide: bool,
    /// Show the listing of the proxy at this base URL, and each change in it, until interrupted
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    watch: Option<String>,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
struct TreeArgs {
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    format: Json,
}

/// Runs a command; returns its exit code.
pub fn run(cli: Cli) -> ExitCode {
    let Cli { global, command } = cli;
    let environment = Environment::of_process();
    let terminal = Terminal::of_process(&environment);
    let overrides = |listen: Vec<Listen>| Overrides {
        config: global.config.clone(),
        options: crate::config::listen_option(&listen).into_iter().collect(),
    };
    let load = |listen| crate::config::load(&environment, &overrides(listen));
    let code = match command {
        Command::Serve(ServeArgs { listen }) => {
            let (environment, overrides) = (environment.clone(), overrides(listen));
            let load = move || crate::config::load(&environment, &overrides);
            with_settings(load(), |loaded| serve::run(loaded, load))
        }
        Command::Check(Json { json }) => match with_valid_certificate(load(Vec::new())) {
            Err(faults) if json => check::faults(&faults),
            loaded => with_settings(loaded, |loaded| run_async(check::run(&loaded, json, terminal), &loaded, terminal)),
        },
        Command::List(ListArgs { filters, format: Json { json }, id, wide, watch: Some(url), access }) => {
            let format = list::Format { json, wide };
            log::to_stderr(false, terminal);
            match access.peer(&url, &environment) {
                Ok(mut peer) => {
                    peer.select(&filters.unchecked());
                    block_on(watch::run(&peer, id, format, terminal)).flatten().map(|()| 0)
                }
                Err(misuse) => Ok(report_error(&misuse, EXIT_USAGE)),
            }
        }
        Command::List(ListArgs { filters, format: Json { json }, id, wide, watch: None, access: _ }) => {
            with_settings(load(Vec::new()), |loaded| {
                let format = list::Format { json, wide };
                with_filter(filters, &loaded, |filter| {
                    run_async(list::run(&loaded, filter, id, format, terminal), &loaded, terminal)
                })
            })
        }
        Command::Tree(TreeArgs { filters, format: Json { json } }) => with_settings(load(Vec::new()), |loaded| {
            with_filter(filters, &loaded, |filter| {
                run_async(tree::run(&loaded, filter, json, terminal), &loaded, terminal)
            })
        }),
        Command::Compare(arguments) => compare::run(&arguments, &environment, terminal, || load(Vec::new())),
        Command::Config(Json { json }) => with_settings(with_valid_certificate(load(Vec::new())), |loaded| {
            config::run(&loaded, json, terminal).map(|()| 0)
        }),
        Command::Openapi => terminal::print(&openapi::json(&[])).map(|()| 0),
        Command::Completions { shell } => {
            terminal::print(&program::command_line::completions(Cli::command(), shell)).map(|()| 0)
        }
        Command::Man { folder } => man::run(&folder).map(|()| 0),
    };
    ExitCode::from(code.unwrap_or_else(|failure| report_error(&failure, EXIT_FAILURE)))
}

/// Validates the certificate and its key as well, as `serve` does.
fn with_valid_certificate(loaded: Result<Loaded, Problems>) -> Result<Loaded, Problems> {
    let loaded = loaded?;
    TlsIdentity::read(&loaded)?;
    Ok(loaded)
}

/// Runs a command with the settings, or reports all their problems.
fn with_settings(
    loaded: Result<Loaded, Problems>,
    command: impl FnOnce(Loaded) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    loaded.map_or_else(|faults| Ok(report_error(&faults, EXIT_SETTINGS)), command)
}

/// Runs a command with the filter, or reports why it is invalid.
fn with_filter(
    filters: Filters,
    loaded: &Loaded,
    command: impl FnOnce(&Filter) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    match filters.check(loaded) {
        Ok(filter) => command(&filter),
        Err(misuse) => Ok(report_error(&misuse, EXIT_USAGE)),
    }
}

/// Runs a command that contacts upstreams and returns whether it succeeded.
fn run_async(
    command: impl Future<Output = Result<bool, Failure>>,
    loaded: &Loaded,
    terminal: Terminal,
) -> Result<u8, Failure> {
    log::to_stderr(loaded.settings.debug, terminal);
    block_on(command)?.map(|succeeded| if succeeded { 0 } else { EXIT_FAILURE })
}

fn block_on<T>(command: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    Ok(runtime.block_on(command))
}

/// Why a command failed, for people.
type Failure = String;

/// `1 item`, `2 items`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn report_error(what: &dyn Display, code: u8) -> u8 {
    program::journal::write_error(&format!("hpc-storage-proxy: {what}"));
    code
}
