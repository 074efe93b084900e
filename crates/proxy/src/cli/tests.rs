//! The reference of the command line.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::CommandFactory;

use super::*;

const HEAD: &str = "\
# Command line

<!-- Generated from crates/proxy/src/cli.rs. Write it anew with
     cargo test -p hpc-storage-proxy --lib write_the_command_line -- --ignored -->
";

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md")
}

fn reference() -> String {
    let mut cli = Cli::command().term_width(100);
    cli.build();
    let mut out = HEAD.to_owned();
    let mut section = |title: &str, command: &mut clap::Command| {
        let help = command.render_long_help().to_string();
        let lines: Vec<_> = help.trim_end().lines().map(str::trim_end).collect();
        write!(out, "\n## `{title}`\n\n```text\n{}\n```\n", lines.join("\n")).unwrap();
    };
    section("hpc-storage-proxy", &mut cli);
    for command in cli.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        section(&format!("hpc-storage-proxy {}", command.get_name()), command);
    }
    out
}

#[test]
fn the_reference_of_the_command_line_is_up_to_date() {
    let committed = std::fs::read_to_string(path()).unwrap_or_default();
    assert!(
        committed == reference(),
        "docs/cli.md is out of date; write it anew with\n  \
         cargo test -p hpc-storage-proxy --lib write_the_command_line -- --ignored"
    );
}

#[test]
#[ignore = "writes docs/cli.md"]
fn write_the_command_line() {
    std::fs::write(path(), reference()).unwrap();
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_an_example() {
    for command in Cli::command().get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.starts_with("Examples:\n  hpc-storage-proxy "), "{}", command.get_name());
    }
}

#[test]
fn no_example_is_broken_on_a_usual_terminal() {
    let cli = Cli::command();
    for command in cli.get_subcommands().chain([&cli]) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for example in help.lines().filter(|line| line.starts_with("  ")) {
            assert!(example.chars().count() <= 80, "{example}");
        }
    }
}
