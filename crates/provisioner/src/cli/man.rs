//! `man`: manual pages, made from the definitions of the command line and of the settings.

use std::path::Path;

use clap::CommandFactory;
use program::man;

use super::{Cli, Failure, failure};
use crate::config::SCHEMA;

const FILES: [(&str, &str); 5] = [
    (
        "/etc/hpc-storage-provisioner/settings.yaml",
        "The settings that the packaged service reads, because its unit says --config. The program alone reads no file that \
         is not named.",
    ),
    ("/etc/default/hpc-storage-provisioner", "Variables for the packaged service; it need not be there."),
    ("/var/lib/hpc-storage-provisioner/journal", "What was begun, and what came of it; the older parts beside it."),
    ("/var/lib/hpc-storage-provisioner/ledger.json", "Which directory has which project ID."),
    ("/var/lib/hpc-storage-provisioner/SYSTEM.lease", "Locked by whoever drives the system."),
];

/// Writes a page for the program and one for each of its commands.
pub(super) fn write(folder: &Path) -> Result<(), Failure> {
    man::write(folder, &pages())
        .map_err(|error| failure(format!("the manual pages cannot be written to {}: {error}", folder.display())))
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
        for wanted in [".SH FILES", ".SH \"EXIT STATUS\"", ".SH ENVIRONMENT", r"provisioner\-explain\fR(1)", "ledger"] {
            assert!(main.contains(wanted), "{wanted}: {main}");
        }
        for (name, page) in &pages {
            assert!(!page.contains("**"), "{name}: {page}");
        }
    }
}
