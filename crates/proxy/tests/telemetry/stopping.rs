//! Shutting down.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Response;
use simulator::{Fault, Simulator, World};
use tokio::task::JoinHandle;

use crate::program::{Program, client, settings, token};

/// A running request: Waldur has received the proxy's request and responds with this fault.
async fn running(simulator: &Simulator, program: &Program, fault: Fault) -> JoinHandle<reqwest::Result<Response>> {
    running_with(client(), simulator, program, fault).await
}

/// The same with another client.
async fn running_with(
    client: reqwest::Client,
    simulator: &Simulator,
    program: &Program,
    fault: Fault,
) -> JoinHandle<reqwest::Result<Response>> {
    simulator.clear_requests();
    simulator.set_fault("GET /api/*", fault);
    let url = format!("http://{}/api/storage-resources/", program.address());
    let running = tokio::spawn(client.get(url).bearer_auth(token(simulator)).send());
    while !simulator.requests().iter().any(|request| request.path.starts_with("/api/marketplace")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn running_requests_finish_and_new_ones_are_refused() {
    let simulator = Simulator::start(World::demo()).await;
    let mut program = Program::serve(&settings(&simulator));
    let address = program.address().to_owned();
    let running = running(&simulator, &program, Fault::delay(Duration::from_secs(1))).await;
    program.terminate();
    program.wait_for("stopping: finishing running requests");
    assert_eq!(running.await.unwrap().unwrap().status(), 200);
    let ended = program.end();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.with_message("stopped").len(), 1);
    assert!(std::net::TcpStream::connect(&address).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_aborts_running_requests() {
    let simulator = Simulator::start(World::demo()).await;
    let mut program = Program::serve(&settings(&simulator));
    let running = running(&simulator, &program, Fault::Silence).await;
    program.terminate();
    program.wait_for("stopping: finishing running requests");
    program.terminate();
    let ended = program.end();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.with_message("stopping immediately: running requests are aborted").len(), 1);
    assert!(running.await.unwrap().is_err(), "the request was aborted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_request_is_logged() {
    let simulator = Simulator::start(World::demo()).await;
    let mut program = Program::serve(&settings(&simulator));
    // With HTTP/1 a closed connection cannot be distinguished from a closed sending side.
    proxy::transport::install_tls_provider();
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let running = running_with(http2, &simulator, &program, Fault::Silence).await;
    running.abort();
    let line: serde_json::Value = serde_json::from_str(&program.wait_for("cancelled by the client")).unwrap();
    assert_eq!(line["caller"], "jdoe");
    assert!(line["spans"][0]["request_id"].is_string());
    assert_eq!(program.stop().status.code(), Some(0));
}

/// A reader of the log that hangs must not block the program.
#[tokio::test(flavor = "multi_thread")]
async fn an_unread_log_blocks_no_request() {
    let simulator = Simulator::start(World::demo()).await;
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_hpc-storage-proxy"))
        .arg("serve")
        .env_clear()
        .envs(settings(&simulator))
        .current_dir(&directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0);
    }
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = line["address"].as_str().unwrap();
    // More lines than the pipe and the program can buffer.
    let (requests, pipelined) = (20_000, 100);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let mut served = 0;
    for _ in 0..requests / pipelined {
        stream.write_all(&b"GET /api/version HTTP/1.1\r\nhost: x\r\n\r\n".repeat(pipelined)).unwrap();
        let mut answers = String::new();
        while answers.matches("\r\n\r\n{\"version\":\"").count() < pipelined || !answers.ends_with('}') {
            let mut buffer = [0; 1 << 14];
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0);
            answers.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        served += answers.matches("HTTP/1.1 200 OK").count();
    }
    assert_eq!(served, requests);
    let numbers = client().get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap();
    let lost = numbers.lines().find_map(|line| line.strip_prefix("hpc_storage_proxy_log_lines_lost_total "));
    assert!(lost.unwrap().parse::<u64>().unwrap() > 0, "{lost:?}");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let stopping = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if stopping.elapsed() > Duration::from_mins(1) {
            child.kill().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(status.code(), Some(0));
    drop(log);
}
