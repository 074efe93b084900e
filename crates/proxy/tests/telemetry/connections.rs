//! Many clients and a low limit on open files.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use simulator::{Simulator, World};

use crate::program::{Program, settings};

/// Requests the version on a new connection.
fn version(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /api/version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Sends an incomplete request head.
fn half_sent(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nX").unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn more_clients_than_connections_are_logged_and_do_no_harm() {
    let simulator = Simulator::start(World::demo()).await;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("ulimit -n 100; exec {} serve", env!("CARGO_BIN_EXE_hpc-storage-proxy"))]);
    let mut program = Program::start(command, &settings(&simulator));
    let address = program.address().to_owned();
    let clients: Vec<TcpStream> = (0..90).map(|_| half_sent(&address)).collect();
    let line = program.wait_for("the limit on connections is reached");
    assert!(line.contains(r#""connections":75"#), "{line}");
    drop(clients);
    assert!(version(&address).starts_with("HTTP/1.1 200 OK\r\n"));
    let ended = program.stop();
    assert_eq!(ended.status.code(), Some(0));
    assert!(
        !ended.log.iter().any(|line| line.contains("cannot accept a connection")),
        "each client had a file descriptor"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_leave_no_file_descriptor_open() {
    let simulator = Simulator::start(World::demo()).await;
    let program = Program::serve(&settings(&simulator));
    version(program.address());
    let (before, memory) = (program.open_files(), program.memory());
    for n in 0..1000 {
        match n % 3 {
            0 => drop(TcpStream::connect(program.address()).unwrap()),
            1 => drop(half_sent(program.address())),
            _ => drop(version(program.address())),
        }
    }
    // The last connections may not be closed yet, and the proxy has connections of its own.
    let grown = program.memory().saturating_sub(memory) >> 20;
    assert!(grown < 32, "{grown} MiB are held for clients that have gone");
    for _ in 0..6000 {
        if program.open_files() <= before + 5 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} files are open, {before} were before", program.open_files());
}

#[tokio::test(flavor = "multi_thread")]
async fn incomplete_requests_do_not_delay_the_end() {
    let simulator = Simulator::start(World::demo()).await;
    let program = Program::serve(&settings(&simulator));
    let clients: Vec<TcpStream> = (0..10).map(|_| half_sent(program.address())).collect();
    version(program.address());
    let ended = program.stop();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.with_message("stopping: requests that are still running are aborted").is_empty());
    drop(clients);
}
