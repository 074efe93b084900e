//! The command `hpc-storage-provisioner`.

use std::process::ExitCode;

use clap::Parser;
use provisioner::cli::{self, Cli};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn main() -> ExitCode {
    take_all_handles();
    cli::run(Cli::parse())
}

/// Lets the process have as many open files as it may. Walks hold some for each level of a tree, and several go on at a time:
/// with the 1024 that are usual a deep tree would take them from the others.
fn take_all_handles() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused, what was allowed before has to do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_may_open_as_many_files_as_the_hard_limit_says() {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(512), ..limit }).unwrap();
        take_all_handles();
        assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: limit.maximum, ..limit });
    }
}
