//! Documents that are generated from the code, compared with the committed ones.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use program::documents;

use crate::cli::Cli;
use crate::{config, metrics, openapi};

const COMMAND: &str = "cargo test -p hpc-storage-proxy --lib write_the_documents -- --ignored";

const COMMAND_LINE: &str = "\
# Command line

<!-- Generated from crates/proxy/src/cli.rs. Regenerate it with
     cargo test -p hpc-storage-proxy --lib write_the_documents -- --ignored -->
";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn generated() -> [(&'static str, String); 4] {
    [
        ("cli.md", program::command_line::reference(Cli::command(), COMMAND_LINE)),
        ("metrics.md", metrics::reference()),
        ("openapi.json", openapi::json().to_owned()),
        ("settings.md", config::reference()),
    ]
}

#[test]
fn the_documents_are_up_to_date() {
    documents::assert_committed(&folder(), &generated(), COMMAND);
}

#[test]
#[ignore = "writes the documents"]
fn write_the_documents() {
    documents::write(&folder(), &generated());
}
