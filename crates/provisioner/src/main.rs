//! The command `hpc-storage-provisioner`.

use std::process::ExitCode;

use clap::Parser;
use provisioner::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
