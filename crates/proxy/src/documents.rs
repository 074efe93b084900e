//! Documents that are generated from the code, compared with the committed ones.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use program::documents;

use crate::cli::Cli;
use crate::{config, metrics, openapi};

const COMMAND_LINE: &str = "\
# Command line

<!-- Generated from crates/proxy/src/cli.rs by `just docs`; do not edit. -->
";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn generated() -> [(&'static str, String); 6] {
    [
        ("cli.md", program::command_line::reference(Cli::command(), COMMAND_LINE)),
        ("document.schema.json", openapi::json_schema()),
        ("metrics.md", metrics::reference()),
        ("openapi.json", openapi::json(&[])),
        ("provisioner-report.schema.json", openapi::report_schema()),
        ("settings.md", config::reference()),
    ]
}

#[test]
fn generated_documents_are_up_to_date() {
    documents::check(&folder(), &generated());
}
