//! A panic in a request handler. The program has no route that panics, so a test program with the same telemetry,
//! middleware and server stands in for it.

use std::process::Command;

use axum::Router;
use axum::routing::get;
use proxy::config::{self, Environment, Overrides};
use proxy::{api, server, telemetry};
use serde_json::{Value, json};
use simulator::{PROVIDER_TOKEN, Simulator, World};

use crate::program::{Program, settings};
use crate::sink::Sink;

/// The test program. It ends when its standard input is closed.
#[test]
#[ignore = "a program that the test below runs, not a test"]
fn panicking_service() {
    let loaded = config::load(&Environment::of_process(), &Overrides::default()).unwrap();
    let _telemetry = telemetry::start(&loaded.settings).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let routes = Router::new()
            .route("/fine", get(|| async { "fine" }))
            .route("/panics/{id}", get(|| async { panic!("a bug with {PROVIDER_TOKEN}") as &str }));
        let listeners = server::bind(&loaded.settings.server.listen).await.unwrap();
        // Running requests have no deadline.
        #[expect(clippy::async_yields_async, reason = "`serve` takes such a future")]
        let stop = async {
            let input = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
            input.await.unwrap().unwrap();
            std::future::pending::<()>()
        };
        let limits = api::layers::RequestLimits::new(std::time::Duration::from_mins(1), 10, 10);
        server::serve(listeners, server::Frontend::new(api::layers::wrap(routes, limits), None), stop).await.unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_causes_status_500_one_log_line_and_one_event() {
    let simulator = Simulator::start(World::empty()).await;
    let sink = Sink::start().await;
    let mut settings = settings(&simulator);
    settings.push(("SENTRY_DSN", sink.dsn()));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "panics::panicking_service", "--nocapture"]);
    let program = Program::start(command, &settings);
    for _ in 0..2 {
        let answer = program.get("/panics/7", "none").await;
        assert_eq!(answer.status(), 500);
        assert_eq!(answer.headers()["x-request-id"], "scenario-1");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body, json!({"detail": "An error occurred.", "error": "InternalServerError"}));
        assert_eq!(program.get("/fine", "none").await.status(), 200);
    }
    let ended = program.end();

    // The test harness around the program writes lines too.
    let lines: Vec<Value> = ended.log.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let lines: Vec<_> = lines.iter().filter(|line| line["message"] == "panicked").collect();
    let [line, _] = lines.as_slice() else { panic!("{:#?}", ended.log) };
    assert_eq!(line["level"], "ERROR");
    assert_eq!(line["reason"], "a bug with [redacted]");
    assert!(line["location"].as_str().unwrap().contains("panics.rs:"));
    assert_eq!(line["spans"][0]["request_id"], "scenario-1");

    // Two panics of the same kind within a minute are one event.
    let events = sink.events();
    let [event] = events.as_slice() else { panic!("{events:#?}") };
    assert_eq!(event["level"], "fatal");
    let exception = &event["exception"]["values"][0];
    assert_eq!(exception["value"], "a bug with [redacted]");
    assert!(!exception["stacktrace"]["frames"].as_array().unwrap().is_empty());
    assert_eq!(event["transaction"], "GET /panics/{id}");
    assert_eq!(event["tags"]["request_id"], "scenario-1");
    assert!(!sink.everything().contains(PROVIDER_TOKEN));
}
