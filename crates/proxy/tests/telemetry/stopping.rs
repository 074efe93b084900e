//! The end of the process.

use simulator::{Fault, Simulator, World};

use crate::program::{Program, settings, token};

#[tokio::test(flavor = "multi_thread")]
async fn a_running_request_is_finished_and_new_ones_are_refused() {
    let simulator = Simulator::start(World::demo()).await;
    let mut program = Program::serve(&settings(&simulator));
    simulator.clear_requests();
    simulator.set_fault("GET /api/*", Fault::delay(std::time::Duration::from_secs(1)));
    let address = program.address().to_owned();
    let (url, token) = (format!("http://{address}/api/storage-resources/"), token(&simulator));
    let request = crate::program::client().get(url).bearer_auth(token).send();
    let running = tokio::spawn(request);
    // Waldur has been asked, so the request runs.
    while !simulator.requests().iter().any(|request| request.path.starts_with("/api/marketplace")) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
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
    simulator.clear_requests();
    simulator.set_fault("GET /api/*", Fault::Silence);
    let url = format!("http://{}/api/storage-resources/", program.address());
    let running = tokio::spawn(crate::program::client().get(url).bearer_auth(token(&simulator)).send());
    while !simulator.requests().iter().any(|request| request.path.starts_with("/api/marketplace")) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
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
    simulator.clear_requests();
    simulator.set_fault("GET /api/*", Fault::Silence);
    let url = format!("http://{}/api/storage-resources/", program.address());
    let running = tokio::spawn(crate::program::client().get(url).bearer_auth(token(&simulator)).send());
    while !simulator.requests().iter().any(|request| request.path.starts_with("/api/marketplace")) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    running.abort();
    let line: serde_json::Value = serde_json::from_str(&program.wait_for("the caller went away")).unwrap();
    assert_eq!(line["caller"], "jdoe");
    assert!(line["spans"][0]["request_id"].is_string());
    assert_eq!(program.stop().status.code(), Some(0));
}
