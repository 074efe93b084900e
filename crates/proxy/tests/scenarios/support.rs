//! Runs the program and sends requests to it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use simulator::{PROVIDER_TOKEN, Simulator, World};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use uuid::Uuid;

/// A running proxy. Dropping it kills it.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) base: String,
    log: Arc<Mutex<String>>,
    http: reqwest::Client,
    directory: TempDir,
}

/// A complete response.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

/// The settings of a proxy for this simulator, without authentication.
pub(crate) fn settings(simulator: &Simulator) -> Vec<(String, String)> {
    let pairs = [
        ("STORAGE_SYSTEMS", r#"{"capstor": "capstor", "vast": "vast", "iopsstor": "iopsstor"}"#.into()),
        ("DISABLE_AUTH", "true".into()),
        // Each request is to see the world as it is.
        ("CACHE_MAX_AGE", "0".into()),
        // Changes of the world that no Waldur makes are visible at once.
        ("CACHE_FULL_INTERVAL", "0".into()),
        ("WALDUR_TIMEOUT", "5".into()),
        ("HPC_USER_TIMEOUT", "5".into()),
    ];
    simulator.proxy_variables().into_iter().chain(pairs).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The command, run in `directory` with only `settings` as its environment; later values take precedence.
pub(crate) fn command(directory: &Path, settings: &[(String, String)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hpc-storage-proxy"));
    command.env_clear().envs(settings.iter().cloned()).current_dir(directory).args(arguments);
    command
}

/// Starts a proxy with additional settings.
pub(crate) async fn start_with(simulator: &Simulator, more: &[(&str, &str)]) -> Proxy {
    let mut settings = settings(simulator);
    settings.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    tokio::task::spawn_blocking(move || Proxy::start(&settings)).await.unwrap()
}

/// A simulator with the demo world, and a proxy for it.
pub(crate) async fn demo() -> (Simulator, Proxy) {
    demo_with(&[]).await
}

/// The same with additional settings.
pub(crate) async fn demo_with(more: &[(&str, &str)]) -> (Simulator, Proxy) {
    let simulator = Simulator::start(World::demo()).await;
    let proxy = start_with(&simulator, more).await;
    // Requests share the reading that the start begins; a test's changes are to come after it.
    let is_read = |log: &str| log.contains("the catalogue is read") || log.contains("cannot be read");
    // Not `log()`, whose request would count.
    while !is_read(&proxy.log.lock().unwrap()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (simulator, proxy)
}

/// A TCP forwarder in front of the simulator that can hold back responses.
pub(crate) struct Valve {
    address: SocketAddr,
    open: watch::Sender<bool>,
}

impl Valve {
    pub(crate) async fn start(simulator: &Simulator) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, backend, (open, opened)) =
            (listener.local_addr().unwrap(), simulator.address(), watch::channel(true));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(backend).await else { continue };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut opened = opened.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
                        if opened.wait_for(|open| *open).await.is_err()
                            || to_client.write_all(&buffer[..length]).await.is_err()
                        {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, open }
    }

    /// The URL of Waldur through the valve.
    pub(crate) fn waldur(&self) -> String {
        format!("http://{}/api", self.address)
    }

    /// Holds back responses until [`Self::release`].
    pub(crate) fn hold(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn release(&self) {
        self.open.send_replace(true);
    }
}

/// Waits until `holds` returns true.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_mins(1), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Proxy {
    /// Waits until this number of requests is running.
    pub(crate) async fn wait_for_running(&self, count: usize) {
        let line = format!("\nhpc_storage_proxy_requests_running {count}\n");
        until("the requests run", async || self.get("/metrics").await.text.contains(&line)).await;
    }

    fn start(settings: &[(String, String)]) -> Self {
        Self::start_at("127.0.0.1:0", settings)
    }

    pub(crate) fn start_at(listen: &str, settings: &[(String, String)]) -> Self {
        let directory = TempDir::new().unwrap();
        let mut child = command(directory.path(), settings, &["serve", "--listen", listen])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (sender, receiver) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if line.contains("listening")
                    && let Some(address) = address(&line)
                {
                    // Fails only if the receiver no longer waits.
                    let _ = sender.send(address);
                }
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let Ok(address) = receiver.recv_timeout(Duration::from_mins(1)) else {
            panic!("the proxy does not listen:\n{}", log.lock().unwrap());
        };
        proxy::transport::install_tls_provider();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { child, base: format!("http://{address}"), log, http, directory }
    }

    /// GET with these headers.
    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.get_at(&self.base, path, headers).await
    }

    /// GET at another address of the proxy.
    pub(crate) async fn get_at(&self, base: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        Self::send(self.http.get(format!("{base}{path}")), headers).await
    }

    /// POST with these headers and this body.
    pub(crate) async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: impl Into<String>) -> Answer {
        Self::send(self.http.post(format!("{}{path}", self.base)).body(body.into()), headers).await
    }

    /// PUT with these headers and this body.
    pub(crate) async fn put_with(&self, path: &str, headers: &[(&str, &str)], body: impl Into<String>) -> Answer {
        Self::send(self.http.put(format!("{}{path}", self.base)).body(body.into()), headers).await
    }

    async fn send(mut request: reqwest::RequestBuilder, headers: &[(&str, &str)]) -> Answer {
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::Null), text }
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    /// The listing with a query such as `?page=2`.
    pub(crate) async fn list(&self, query: &str) -> Answer {
        self.get(&format!("/api/storage-resources/{query}")).await
    }

    /// Peak memory of the process so far, in bytes.
    pub(crate) fn most_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        most.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// The working directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The log so far. It is written in batches, so a request of this function marks its end; the lines of such requests are not shown.
    pub(crate) fn log(&self) -> String {
        const MARK: &str = "/end-of-the-log-";
        let path = format!("{MARK}{}", Uuid::new_v4());
        // Fails if the proxy does not serve any more.
        let marked = self.mark(&path).is_ok();
        for _ in 0..1000 {
            if !marked || self.log.lock().unwrap().contains(&path) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let log = self.log.lock().unwrap();
        log.split_inclusive('\n').filter(|line| !line.contains(MARK)).collect()
    }

    fn mark(&self, path: &str) -> io::Result<()> {
        let mut stream = std::net::TcpStream::connect(self.base.trim_start_matches("http://"))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Fails only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reports that a test is skipped because a program is missing.
#[expect(clippy::print_stderr, reason = "a skipped test is reported")]
pub(crate) fn skipped(program: &str) {
    eprintln!("SKIPPED: {program} is not installed");
}

/// An unused address.
pub(crate) async fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

/// The address in a log line.
pub(crate) fn address(line: &str) -> Option<String> {
    let start = line.find("127.0.0.1:")?;
    let address = &line[start..];
    let end = address.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(address.len());
    Some(address[..end].to_owned())
}

impl Answer {
    /// The items of a listing.
    pub(crate) fn items(&self) -> &[Value] {
        self.body["resources"].as_array().unwrap()
    }

    /// Asserts that the response is 502 `UpstreamServiceError` with these words.
    pub(crate) fn assert_upstream_error(&self, words: &str) {
        assert_eq!(self.status, 502, "{}", self.text);
        assert_eq!(self.body["error"], "UpstreamServiceError", "{}", self.text);
        assert_eq!(self.body["message"], "Failed to communicate with an upstream service.");
        let detail = self.body["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{detail:?} should say {words:?}");
        for secret in [PROVIDER_TOKEN, "hpc-secret", "simulated fault", "maintenance"] {
            assert!(!self.text.contains(secret), "{} shows {secret}", self.text);
        }
    }
}
