//! Listening on a Unix socket.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use simulator::{Simulator, World};

use crate::program::{Program, settings};

/// The settings of a proxy that listens only on this socket.
fn listening(simulator: &Simulator, path: &Path) -> Vec<(&'static str, String)> {
    let mut settings = settings(simulator);
    settings.retain(|(name, _)| *name != "SERVER_LISTEN");
    settings.push(("SERVER_LISTEN", format!("unix:{}", path.display())));
    settings
}

/// The status of a request through the socket.
pub(crate) async fn version(path: &Path) -> u16 {
    proxy::transport::install_tls_provider();
    let client = reqwest::Client::builder().no_proxy().unix_socket(path).build().unwrap();
    client.get("http://localhost/api/version").send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_works_and_is_removed_at_the_end() {
    let simulator = Simulator::start(World::demo()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    // A process that was killed has left its socket.
    drop(UnixListener::bind(&path).unwrap());
    let program = Program::serve(&listening(&simulator, &path));
    let made = path.metadata().unwrap();
    assert!(made.file_type().is_socket());
    assert_eq!(made.mode() & 0o777, 0o660, "for owner and group");
    assert_eq!(version(&path).await, 200);
    assert_eq!(program.stop().status.code(), Some(0));
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_in_use_by_another_process_is_not_replaced() {
    let simulator = Simulator::start(World::demo()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let settings = listening(&simulator, &path);
    let first = Program::serve(&settings);
    let mut second = Command::new(env!("CARGO_BIN_EXE_hpc-storage-proxy"));
    let second = second.arg("serve").env_clear().envs(settings).current_dir(&directory).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let stderr = String::from_utf8(second.stderr).unwrap();
    assert!(stderr.contains(&format!("cannot listen on unix:{}", path.display())), "{stderr}");
    assert!(stderr.contains("another program uses it: stop that program, or choose another --listen"), "{stderr}");
    assert_eq!(version(&path).await, 200, "the first process still serves it");
    assert_eq!(first.stop().status.code(), Some(0));
}
