//! `man`: manual pages, made from the definitions of the command line and of the settings.

use std::path::Path;

use clap::CommandFactory;
use program::man;

use super::{Cli, Failure};
use crate::api::VERSION;
use crate::config::SCHEMA;

const FILES: [(&str, &str); 3] = [
    (
        "/etc/hpc-storage-proxy/settings.yaml",
        "The settings that the packaged service reads, because its unit says --config. The program alone reads no file that \
         is not named.",
    ),
    ("/etc/default/hpc-storage-proxy", "Variables for the packaged service; it need not be there."),
    (".env", "Variables, read from the working directory."),
];

/// Writes a page for the program and one for each of its commands.
pub(super) fn run(folder: &Path) -> Result<(), Failure> {
    man::write(folder, &pages())
        .map_err(|error| format!("the manual pages cannot be written to {}: {error}", folder.display()))
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
    fn every_command_has_a_page_which_the_main_page_names() {
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
    fn the_main_page_tells_exit_codes_files_and_every_variable() {
        let main = page("hpc-storage-proxy.1");
        for wanted in [".SH FILES", ".SH \"EXIT STATUS\"", "78 settings that cannot be used", "settings.yaml"] {
            assert!(main.contains(wanted), "{wanted}: {main}");
        }
        for setting in SCHEMA.table {
            let name = setting.variables[0].replace('-', r"\-");
            assert!(main.contains(&format!(r"\fB{name}")), "{name}");
        }
    }

    #[test]
    fn marks_of_markdown_do_not_show() {
        for (name, page) in pages() {
            assert!(!page.contains("**") && !page.contains('`'), "{name}: {page}");
        }
    }
}
