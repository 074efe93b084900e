//! Documents that are made from the code, and held against it.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::seen::METRICS;
use crate::settings::SCHEMA;

const WRITE: &str = "cargo test -p hpc-storage-provisioner --lib write_the_documents -- --ignored";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
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
    let mut cli = Cli::command().term_width(100);
    cli.build();
    let mut out = format!(
        "# Command line of the provisioner\n\n<!-- Generated from crates/provisioner/src/cli.rs. Write it anew with\n     {WRITE} -->\n"
    );
    let mut section = |title: &str, command: &mut clap::Command| {
        let help = command.render_long_help().to_string();
        let lines: Vec<_> = help.trim_end().lines().map(str::trim_end).collect();
        write!(out, "\n## `{title}`\n\n```text\n{}\n```\n", lines.join("\n")).unwrap();
    };
    section("hpc-storage-provisioner", &mut cli);
    for command in cli.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        section(&format!("hpc-storage-provisioner {}", command.get_name()), command);
    }
    out
}

fn documents() -> [(&'static str, String); 2] {
    [("provisioner-settings.md", settings()), ("provisioner-cli.md", commands())]
}

#[test]
fn the_documents_are_up_to_date() {
    for (name, text) in documents() {
        let committed = std::fs::read_to_string(path(name)).unwrap_or_default();
        assert!(committed == text, "docs/{name} is out of date; write it anew with\n  {WRITE}");
    }
}

#[test]
#[ignore = "writes the documents"]
fn write_the_documents() {
    for (name, text) in documents() {
        std::fs::write(path(name), text).unwrap();
    }
}

#[test]
fn the_handbook_names_every_metric_driver_and_hold() {
    let handbook = std::fs::read_to_string(path("provisioner.md")).unwrap();
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
