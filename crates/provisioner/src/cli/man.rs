//! `man`: manual pages, generated from the command line and the settings.

use std::path::Path;

use clap::CommandFactory;
use program::man;

use super::{Cli, Failure, failure};
use crate::config::SCHEMA;

const FILES: [(&str, &str); 5] = [
    (
        "/etc/hpc-storage-provisioner/settings.yaml",
        "The settings of the packaged service, whose unit passes --config. The program reads no file that is not \
         given.",
    ),
    ("/etc/default/hpc-storage-provisioner", "Environment variables of the packaged service; optional."),
    (
        "/var/lib/hpc-storage-provisioner/journal",
        "The journal: the work that began, and its outcome. Older parts are in the same directory.",
    ),
    (
        "ROOT/.hpc-storage-record",
        "The record of a storage system, below its root: the project ID of each directory, and interrupted work.",
    ),
    ("/var/lib/hpc-storage-provisioner/SYSTEM.lease", "The lease: locked by the process that works on the system."),
];

/// Writes a page for the program and one for each of its commands.
pub(super) fn write(folder: &Path) -> Result<(), Failure> {
    man::write(folder, &pages())
        .map_err(|error| failure(format!("cannot write the manual pages to {}: {error}", folder.display())))
}

fn pages() -> Vec<(String, String)> {
    man::pages(Cli::command(), env!("CARGO_PKG_VERSION"), SCHEMA.manual(), &FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_the_main_one_names_it() {
        let pages = pages();
        let main = &pages[0].1;
        assert_eq!(pages.len(), 1 + Cli::command().get_subcommands().count());
        for wanted in
            [".SH FILES", ".SH \"EXIT STATUS\"", ".SH ENVIRONMENT", r"provisioner\-explain\fR(1)", "storage\\-record"]
        {
            assert!(main.contains(wanted), "{wanted}: {main}");
        }
        for (name, page) in &pages {
            assert!(!page.contains("**"), "{name}: {page}");
        }
    }
}
