//! Tests a provisioner in any language: starts it against a simulated site, acts as users and operators, and checks what it
//! did to Waldur and to the storage.

mod bench;
mod case;
mod cases;
mod cli;
mod command;
mod exchange;
mod gateway;
mod outcome;
mod probe;
mod report;
mod site;

use std::process::ExitCode;

use clap::Parser;

#[expect(clippy::print_stderr, reason = "the command prints its error")]
fn main() -> ExitCode {
    match cli::run(cli::Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(cli::CANNOT_RUN)
        }
    }
}
