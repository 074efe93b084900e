//! Documents that are generated from the code, compared with the committed ones.

use std::path::PathBuf;

use clap::CommandFactory;
use program::documents;

use crate::cli::Cli;
use crate::seen::METRICS;
use crate::settings::SCHEMA;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

const SETTINGS: &str = "\
# Settings of the provisioner

<!-- Generated from crates/provisioner/src/settings/table.rs by `just docs`; do not edit. -->

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
fn the_handbook_names_every_metric_driver_and_hold() {
    let handbook = std::fs::read_to_string(folder().join("provisioner.md")).unwrap();
    for (name, labels, text) in METRICS {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
        let row = format!("| `{name}` | {labels} | {text} |\n");
        assert!(handbook.contains(&row), "the handbook does not have\n{row}");
    }
    for driver in ["posix", "xfs", "ext4", "lustre", "cephfs", "scale", "vast", "memory"] {
        assert!(handbook.contains(&format!("`{driver}`")), "{driver}");
    }
}
