//! Runs the program as a process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::Value;
use simulator::{Simulator, TokenSpec};
use tempfile::TempDir;

/// Timeout for events that are certain to happen.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A running process. Dropping it kills it.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    address: String,
    _directory: TempDir,
}

/// The result of a process.
pub(crate) struct Ended {
    /// Its exit status.
    pub(crate) status: ExitStatus,
    /// All lines of its standard output.
    pub(crate) log: Vec<String>,
}

/// The settings of a proxy for the simulator, with a JSON log and without Sentry.
pub(crate) fn settings(simulator: &Simulator) -> Vec<(&'static str, String)> {
    let own = [
        ("STORAGE_SYSTEMS", r#"{"capstor": "capstor", "vast": "vast"}"#.to_owned()),
        // The proxy appends `/api`.
        ("WALDUR_API_URL", simulator.base_url()),
        ("SERVER_LISTEN", "127.0.0.1:0".to_owned()),
        ("LOG_FORMAT", "json".to_owned()),
        // Each request sees the current world.
        ("CACHE_MAX_AGE", "0".to_owned()),
        ("CACHE_FULL_INTERVAL", "0".to_owned()),
    ];
    simulator.proxy_variables().into_iter().chain(own).collect()
}

/// A token that the proxy accepts.
pub(crate) fn token(simulator: &Simulator) -> String {
    simulator.realm().mint(&TokenSpec::user("jdoe"))
}

/// The machine tokens with which the proxy has called the simulator.
pub(crate) fn machine_tokens(simulator: &Simulator) -> Vec<String> {
    let token =
        |request: &simulator::Received| request.header("authorization")?.strip_prefix("Bearer ").map(str::to_owned);
    simulator.requests().iter().filter_map(token).collect()
}

impl Program {
    /// Runs `hpc-storage-proxy serve` with only these settings.
    pub(crate) fn serve(settings: &[(&str, String)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hpc-storage-proxy"));
        command.arg("serve");
        let mut program = Self::start(command, settings);
        // Wait for the refresh at the start, because requests share it: changes of a test must come after it.
        let read = |line: &String| line.contains("the catalogue is read") || line.contains("upstream cannot be read");
        if !program.seen.iter().any(&read) {
            program.wait_until("the first refresh", read);
        }
        program
    }

    /// Runs any program that logs like `serve`; returns when it listens.
    pub(crate) fn start(command: Command, settings: &[(&str, String)]) -> Self {
        Self::start_with(command, settings, Stdio::piped())
    }

    /// The same with another standard input.
    pub(crate) fn start_with(mut command: Command, settings: &[(&str, String)], input: Stdio) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let child = command
            .env_clear()
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .current_dir(&directory)
            .stdin(input)
            .stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut program = Self { child, lines, seen: Vec::new(), address: String::new(), _directory: directory };
        let listening = program.wait_for("listening");
        // A text log has `address=127.0.0.1:4711`, a JSON log has a field.
        program.address = match serde_json::from_str::<Value>(&listening) {
            Ok(line) => line["address"].as_str().unwrap().to_owned(),
            Err(_) => listening.rsplit_once("address=").unwrap().1.to_owned(),
        };
        program
    }

    /// Waits for the next line that contains this text.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        self.wait_until(text, |line| line.contains(text))
    }

    fn wait_until(&mut self, what: &str, is_it: impl Fn(&String) -> bool) -> String {
        loop {
            let line = self.lines.recv_timeout(TIMEOUT);
            let line = line.unwrap_or_else(|_| panic!("no line with {what:?} after\n{}", self.seen.join("\n")));
            self.seen.push(line.clone());
            if is_it(&line) {
                return line;
            }
        }
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A GET request with this token.
    pub(crate) async fn get(&self, path: &str, token: &str) -> Response {
        let url = format!("http://{}{path}", self.address);
        client().get(url).bearer_auth(token).header("x-request-id", "scenario-1").send().await.unwrap()
    }

    /// Number of open file descriptors of the process.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Resident memory of the process, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let held = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        held.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends the signal of this name.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn stop(self) -> Ended {
        self.terminate();
        self.end()
    }

    /// Closes standard input and waits for the end.
    pub(crate) fn end(mut self) -> Ended {
        drop(self.child.stdin.take());
        // Standard output ends with the process.
        loop {
            match self.lines.recv_timeout(TIMEOUT) {
                Ok(line) => self.seen.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("no end after\n{}", self.seen.join("\n")),
            }
        }
        let status = self.child.wait().unwrap();
        Ended { status, log: std::mem::take(&mut self.seen) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The lines of a JSON log with this message.
    pub(crate) fn with_message(&self, message: &str) -> Vec<Value> {
        self.json().into_iter().filter(|line| line["message"] == message).collect()
    }

    /// All lines of a JSON log.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.log.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }
}

/// A client without a proxy and without compression.
pub(crate) fn client() -> Client {
    proxy::transport::install_tls_provider();
    Client::builder().no_proxy().no_gzip().no_zstd().build().unwrap()
}
