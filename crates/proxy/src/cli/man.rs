//! `man`: writes manual pages, generated from the definitions of the command line and of the settings.

use std::path::Path;

use clap::CommandFactory;
use program::man;

use super::{Cli, Failure};
use crate::api::VERSION;
use crate::config::SCHEMA;

const FILES: [(&str, &str); 3] = [
    (
        "/etc/hpc-storage-proxy/settings.yaml",
        "The settings of the packaged service, whose unit passes --config. The program itself has no default settings file.",
    ),
    ("/etc/default/hpc-storage-proxy", "Environment variables of the packaged service; optional."),
    (".env", "Environment variables, read from the working directory."),
];

/// Writes a page for the program and one for each of its commands.
pub(super) fn run(folder: &Path) -> Result<(), Failure> {
    man::write(folder, &pages())
        .map_err(|error| format!("cannot write the manual pages to {}: {error}", folder.display()))
}

fn pages() -> Vec<(String, String)> {
    man::pages(Cli::command(), VERSION, SCHEMA.manual(), &FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(of: &str) -> String {
        let found = pages().into_iter().find(|(name, _)| name == of);
        found.unwrap_or_else(|| panic!("no page {of}")).1
    }

    #[test]
    fn every_command_has_a_page_and_is_listed_on_the_main_page() {
        let main = page("hpc-storage-proxy.1");
        let cli = Cli::command();
        assert_eq!(pages().len(), 1 + cli.get_subcommands().count());
        for command in cli.get_subcommands() {
            let name = format!("hpc-storage-proxy-{}", command.get_name());
            let own = page(&format!("{name}.1"));
            assert!(own.contains(".SH EXAMPLES") && own.contains(r"\fBhpc\-storage\-proxy\fR(1)"), "{own}");
            assert!(main.contains(&format!(r"\fB{}\fR(1)", name.replace('-', r"\-"))), "{name}");
        }
    }

    #[test]
    fn the_main_page_lists_exit_codes_files_and_all_variables() {
        let main = page("hpc-storage-proxy.1");
        for expected in [".SH FILES", ".SH \"EXIT STATUS\"", "78 invalid settings", "settings.yaml"] {
            assert!(main.contains(expected), "{expected}: {main}");
        }
        for setting in SCHEMA.table() {
            let name = setting.variables[0].replace('-', r"\-");
            assert!(main.contains(&format!(r"\fB{name}")), "{name}");
        }
    }

    #[test]
    fn the_pages_contain_no_markdown() {
        for (name, page) in pages() {
            assert!(!page.contains("**") && !page.contains('`'), "{name}: {page}");
        }
    }
}
