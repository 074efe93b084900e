//! Simulated upstreams with the settings for them.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use simulator::{Simulator, World};
use tempfile::TempDir;

/// Secret of the client `hpc-client`.
pub(crate) const SECRET: &str = "hpc-secret";

pub(crate) struct Site {
    pub(crate) simulator: Simulator,
    variables: BTreeMap<&'static str, String>,
    directory: TempDir,
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Site {
    /// A valid setup with the systems `capstor`, `vast` and `iopsstor`.
    pub(crate) fn new(world: World) -> Self {
        let simulator = Simulator::start_blocking(world, ([127, 0, 0, 1], 0).into()).unwrap();
        let systems = r#"{"capstor": "capstor", "vast": "vast", "iopsstor": "iopsstor"}"#;
        let systems = ("STORAGE_SYSTEMS", systems.to_owned());
        let variables = simulator.proxy_variables().into_iter().chain([systems]).collect();
        Self { simulator, variables, directory: tempfile::tempdir().unwrap() }
    }

    /// A setup whose upstreams have the data recorded in `contract/golden`.
    pub(crate) fn golden(case: &str) -> Self {
        Self::new(World::from_golden(&golden(case, "upstream.json")))
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.insert(name, value.into());
        self
    }

    pub(crate) fn without(mut self, names: &[&str]) -> Self {
        self.variables.retain(|name, _| !names.contains(name));
        self
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hpc-storage-proxy"));
        command.args(arguments).env_clear().envs(&self.variables).current_dir(&self.directory).stdin(Stdio::null());
        command
    }

    /// Runs a command.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        let Output { status, stdout, stderr } = output;
        Self {
            code: status.code(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// The output, which must be a single JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A file of a golden case.
pub(crate) fn golden(case: &str, file: &str) -> Value {
    let path = format!("{}/../../contract/golden/{case}/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
