//! The command `hpc-storage-provisioner`.

use std::process::ExitCode;

use clap::Parser;
use provisioner::cli::{self, Cli};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn main() -> ExitCode {
    raise_file_limit();
    cli::run(Cli::parse())
}

/// Raises the limit of open files to the hard limit. Each walk holds files open for every level of a tree, and several walks run
/// at a time; the usual limit of 1024 is too low for deep trees.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // If this fails, the old limit stays in force.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_limit_is_raised_to_the_hard_limit() {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(512), ..limit }).unwrap();
        raise_file_limit();
        assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: limit.maximum, ..limit });
    }
}
