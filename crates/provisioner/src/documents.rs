//! Documents that are generated from the code, compared with the committed ones.

use std::path::PathBuf;

use clap::CommandFactory;
use program::documents;
use provisioner_core::plan::Hold;

use crate::cli::Cli;
use crate::config::SCHEMA;
use crate::metrics::METRICS;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

const SETTINGS: &str = "\
# Settings of the provisioner

<!-- Generated from crates/provisioner/src/config/table.rs by `just docs`; do not edit. -->

Variables take precedence over the YAML file (`--config`, or `PROVISIONER_CONFIG`), which takes precedence over defaults. A file `.env` is not
read, because the program runs as root in any directory. A secret can be in a file: `NAME_FILE`, or `key_file`. The settings of a storage
system are in [provisioner.md](provisioner.md#systems).
";

const COMMAND_LINE: &str = "\
# Command line of the provisioner

<!-- Generated from crates/provisioner/src/cli.rs by `just docs`; do not edit. -->
";

fn generated() -> [(&'static str, String); 2] {
    [
        ("provisioner-settings.md", settings::reference(&SCHEMA, SETTINGS)),
        ("provisioner-cli.md", program::command_line::reference(Cli::command(), COMMAND_LINE)),
    ]
}

#[test]
fn generated_documents_are_up_to_date() {
    documents::check(&folder(), &generated());
}

#[test]
fn the_manual_lists_all_metrics_drivers_and_holds() {
    let manual = std::fs::read_to_string(folder().join("provisioner.md")).unwrap();
    for (name, labels, text) in METRICS {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
        let row = format!("| `{name}` | {labels} | {text} |\n");
        assert!(manual.contains(&row), "docs/provisioner.md does not have the row\n{row}");
    }
    for driver in ["posix", "xfs", "ext4", "lustre", "cephfs", "scale", "vast", "exec", "memory"] {
        assert!(manual.contains(&format!("`{driver}`")), "{driver}");
    }
    for hold in Hold::ALL {
        assert!(manual.contains(&format!("\n| {} |", hold.name())), "{hold:?}");
    }
}
