//! The end of the process.

use std::time::Duration;

use reqwest::Response;
use simulator::{Fault, Simulator, World};
use tokio::task::JoinHandle;

use crate::program::{Program, client, settings, token};

/// A request that runs: Waldur has been asked for it, and answers with this fault.
async fn running(simulator: &Simulator, program: &Program, fault: Fault) -> JoinHandle<reqwest::Result<Response>> {
    simulator.clear_requests();
    simulator.set_fault("GET /api/*", fault);
    let url = format!("http://{}/api/storage-resources/", program.address());
    let running = tokio::spawn(client().get(url).bearer_auth(token(simulator)).send());
    while !simulator.requests().iter().any(|request| request.path.starts_with("/api/marketplace")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_request_is_finished_and_new_ones_are_refused() {
    let simulator = Simulator::start(World::demo()).await;
    let mut program = Program::serve(&settings(&simulator));
    let address = program.address().to_owned();
    let running = running(&simulator, &program, Fault::delay(Duration::from_secs(1))).await;
    program.terminate();
    program.wait_for("stopping: running requests are finished");
    assert_eq!(running.await.unwrap().unwrap().status(), 200);
    let ended = program.end();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.with_message("stopped").len(), 1);
    assert!(std::net::TcpStream::connect(&address).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let simulator = Simulator::start(World::demo()).await;
    let mut program = Program::serve(&settings(&simulator));
    let running = running(&simulator, &program, Fault::Silence).await;
    program.terminate();
    program.wait_for("stopping: running requests are finished");
    program.terminate();
    let ended = program.end();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.with_message("stopping at once: running requests are cut off").len(), 1);
    assert!(running.await.unwrap().is_err(), "the request was cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_is_in_the_log() {
    let simulator = Simulator::start(World::demo()).await;
    let mut program = Program::serve(&settings(&simulator));
    let running = running(&simulator, &program, Fault::Silence).await;
    running.abort();
    let line: serde_json::Value = serde_json::from_str(&program.wait_for("the caller went away")).unwrap();
    assert_eq!(line["caller"], "jdoe");
    assert!(line["spans"][0]["request_id"].is_string());
    assert_eq!(program.stop().status.code(), Some(0));
}
