//! Socket activation and notifications (`sd_listen_fds(3)`, `sd_notify(3)`), without systemd.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use simulator::{Fault, Simulator, World};

use crate::program::{Program, client, settings, token};
use crate::sockets::version;

/// The command with one socket, which is its standard input.
fn activation() -> Command {
    // Only the process itself knows its PID, and passed sockets start at file descriptor 3.
    let serve = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" serve";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", serve, env!("CARGO_BIN_EXE_hpc-storage-proxy")]);
    command
}

/// The program with one passed socket.
fn activated(simulator: &Simulator, socket: OwnedFd) -> Program {
    Program::start_with(activation(), &settings(simulator), Stdio::from(socket))
}

#[tokio::test(flavor = "multi_thread")]
async fn passed_sockets_are_served() {
    let simulator = Simulator::start(World::demo()).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // A client that connects before the program starts waits for it.
    let early = tokio::spawn(client().get(format!("http://{address}/api/version")).send());
    let program = activated(&simulator, listener.into());
    assert_eq!(program.address(), address);
    assert_eq!(early.await.unwrap().unwrap().status(), 200);
    let ended = program.stop();
    assert_eq!(ended.status.code(), Some(0));
    let passed = "using the sockets passed by systemd: server.listen is ignored";
    assert_eq!(ended.with_message(passed)[0]["sockets"], 1);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let program = activated(&simulator, UnixListener::bind(&path).unwrap().into());
    assert_eq!(version(&path).await, 200);
    assert_eq!(program.stop().status.code(), Some(0));
    assert!(path.exists(), "the process that created the socket removes it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_without_authentication_is_not_served_on_a_passed_address_of_the_network() {
    let simulator = Simulator::start(World::empty()).await;
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let open = [("DISABLE_AUTH", "true"), ("DASHBOARD_ENABLED", "true")];
    let mut command = activation();
    command.env_clear().envs(settings(&simulator)).envs(open).stdin(Stdio::from(OwnedFd::from(listener)));
    let ended = command.output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("dashboard.enabled") && stderr.contains("not loopback"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_does_not_open_the_dashboard_to_the_network() {
    let simulator = Simulator::start(World::empty()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("settings.yaml");
    std::fs::write(&path, "server: {listen: \"0.0.0.0:0\"}\n").unwrap();
    let mut settings = settings(&simulator);
    settings.retain(|(name, _)| *name != "SERVER_LISTEN");
    settings.extend([
        ("WALDUR_CSCS_STORAGE_PROXY_CONFIG_PATH", path.display().to_string()),
        ("DISABLE_AUTH", "true".to_owned()),
    ]);
    let mut program = Program::serve(&settings);
    // The address would change only at the next start.
    std::fs::write(&path, "server: {listen: \"127.0.0.1:0\"}\ndashboard: {enabled: true}\n").unwrap();
    program.signal("HUP");
    let line = program.wait_for("invalid change");
    assert!(line.contains("dashboard.enabled") && line.contains("not loopback"), "{line}");
    assert_eq!(program.stop().status.code(), Some(0));
}

/// The notification socket of systemd.
struct Supervisor(UnixDatagram);

impl Supervisor {
    /// The next notification other than watchdog pings.
    fn next(&self) -> String {
        loop {
            let message = self.any();
            if message != "WATCHDOG=1" {
                return message;
            }
        }
    }

    fn any(&self) -> String {
        let mut message = [0; 256];
        let length = self.0.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap().trim_end().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_notified_of_the_state() {
    let simulator = Simulator::start(World::demo()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let supervisor = Supervisor(UnixDatagram::bind(&path).unwrap());
    supervisor.0.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let mut settings = settings(&simulator);
    settings.extend([("NOTIFY_SOCKET", path.display().to_string()), ("WATCHDOG_USEC", "300000".to_owned())]);
    let mut program = Program::serve(&settings);
    assert_eq!(supervisor.next(), "READY=1");
    for _ in 0..3 {
        assert_eq!(supervisor.any(), "WATCHDOG=1");
    }
    program.signal("HUP");
    let reloading = supervisor.next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(supervisor.next(), "READY=1");

    // The watchdog is still pinged while running requests finish.
    simulator.clear_requests();
    simulator.set_fault("GET /api/*", Fault::delay(Duration::from_secs(2)));
    let url = format!("http://{}/api/storage-resources/", program.address());
    let running = tokio::spawn(client().get(url).bearer_auth(token(&simulator)).send());
    while !simulator.requests().iter().any(|request| request.path.starts_with("/api/marketplace")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    program.terminate();
    assert_eq!(supervisor.next(), "STOPPING=1");
    for _ in 0..3 {
        assert_eq!(supervisor.any(), "WATCHDOG=1");
    }
    program.wait_for("stopping: finishing running requests");
    assert_eq!(running.await.unwrap().unwrap().status(), 200);
    assert_eq!(program.end().status.code(), Some(0));
}
