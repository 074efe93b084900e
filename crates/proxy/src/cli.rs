//! The command line.

mod serve;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::settings::{self, Environment, Loaded, Overrides};

/// Settings that cannot be used (`EX_CONFIG`).
pub const EXIT_SETTINGS: u8 = 78;
/// Anything else that failed.
pub const EXIT_FAILURE: u8 = 1;

/// Publishes Waldur's storage resources as the document that storage provisioners follow.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  hpc-storage-proxy check --config /etc/hpc-storage-proxy.yaml
  hpc-storage-proxy serve --config /etc/hpc-storage-proxy.yaml --listen 0.0.0.0:8000

Settings come from the environment, a file .env in the working directory, a YAML file and defaults, in this order.
Exit codes: 0 success, 1 failure, 2 wrong usage, 78 settings that cannot be used.";

#[derive(Debug, Args)]
struct Global {
    /// YAML file with settings [default: $WALDUR_CSCS_STORAGE_PROXY_CONFIG_PATH]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API until SIGTERM or SIGINT
    Serve(ServeArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Address to listen on; may be given several times [default: the setting server.listen]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
}

/// Runs a command to its end.
pub fn run(cli: Cli) -> ExitCode {
    let environment = Environment::of_process();
    let Cli { global, command } = cli;
    match command {
        Command::Serve(args) => with_settings(&environment, global, args.listen, serve::run),
    }
}

/// Runs `command` with the settings, or tells all their faults.
fn with_settings(
    environment: &Environment,
    global: Global,
    listen: Vec<SocketAddr>,
    command: impl FnOnce(Loaded) -> Result<(), Failure>,
) -> ExitCode {
    let loaded = match settings::load(environment, &Overrides { config: global.config, listen }) {
        Ok(loaded) => loaded,
        Err(faults) => return complain(&faults, EXIT_SETTINGS),
    };
    match command(loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => complain(&failure, EXIT_FAILURE),
    }
}

/// Why a command failed, in a sentence for people.
type Failure = String;

#[expect(clippy::print_stderr, reason = "the command line talks to people")]
fn complain(what: &dyn Display, code: u8) -> ExitCode {
    eprintln!("hpc-storage-proxy: {what}");
    ExitCode::from(code)
}
