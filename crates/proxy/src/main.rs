//! The command `hpc-storage-proxy`.

use std::process::ExitCode;

use clap::Parser;
use proxy::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
