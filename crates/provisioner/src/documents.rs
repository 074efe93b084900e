//! Documents that are made from the code, and held against it.

use std::path::PathBuf;

use clap::CommandFactory;
use program::documents;

use crate::cli::Cli;
use crate::seen::METRICS;
use crate::settings::SCHEMA;

const WRITE: &str = "cargo test -p hpc-storage-provisioner --lib write_the_documents -- --ignored";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn settings() -> String {
    let head = format!(
        "# Settings of the provisioner\n\n<!-- Generated from crates/provisioner/src/settings/table.rs. Write it anew with\n     \
         {WRITE} -->\n\nThe environment goes before the YAML file (`--config`, or `PROVISIONER_CONFIG`), that before \
         defaults. A file `.env` does not count:\nthe program runs as root, wherever somebody stands. A secret can be in a file: `NAME_FILE`, or `key_file`. \
         What a storage system may\nhave is in [provisioner.md](provisioner.md#systems).\n"
    );
    settings::reference(&SCHEMA, &head)
}

fn commands() -> String {
    let head = format!(
        "# Command line of the provisioner\n\n<!-- Generated from crates/provisioner/src/cli.rs. Write it anew with\n     {WRITE} -->\n"
    );
    program::command_line::reference(Cli::command(), &head)
}

fn generated() -> [(&'static str, String); 2] {
    [("provisioner-settings.md", settings()), ("provisioner-cli.md", commands())]
}

#[test]
fn the_documents_are_up_to_date() {
    documents::assert_committed(&folder(), &generated(), WRITE);
}

#[test]
#[ignore = "writes the documents"]
fn write_the_documents() {
    documents::write(&folder(), &generated());
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
