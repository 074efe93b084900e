//! Events and transactions sent to Sentry.

use serde_json::Value;
use simulator::{Fault, PROVIDER_TOKEN, Simulator, World};

use crate::program::{Program, machine_tokens, settings, token};
use crate::sink::{SilentServer, Sink};

const LISTING: &str = "/api/storage-resources/?storage_system=capstor";

fn reporting(simulator: &Simulator, dsn: &str, rate: &str) -> Vec<(&'static str, String)> {
    let mut settings = settings(simulator);
    settings.extend([
        ("SENTRY_DSN", dsn.to_owned()),
        ("SENTRY_ENVIRONMENT", "scenario".to_owned()),
        ("SENTRY_TRACES_SAMPLE_RATE", rate.to_owned()),
    ]);
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_failure_is_one_event_without_any_secret() {
    let simulator = Simulator::start(World::demo()).await;
    let sink = Sink::start().await;
    let mut settings = reporting(&simulator, &sink.dsn(), "1.0");
    settings.push(("DEBUG", "true".to_owned()));
    let program = Program::serve(&settings);
    let caller = token(&simulator);
    // A successful request first, so that every secret has been used.
    assert_eq!(program.get(LISTING, &caller).await.status(), 200);
    simulator.set_fault("GET /api/*", Fault::status(503));
    // Repeated failures of the same kind are one event.
    for _ in 0..20 {
        assert_eq!(program.get(LISTING, &caller).await.status(), 502);
    }
    let ended = program.stop();
    assert_eq!(ended.with_message("an upstream cannot be read").len(), 20);

    let events = sink.events();
    let [event] = events.as_slice() else { panic!("{events:#?}") };
    // The level `error` is the default and omitted.
    assert_eq!(event.get("level"), None);
    assert_eq!(event["environment"], "scenario");
    assert_eq!(event["release"], concat!("hpc-storage-proxy@", env!("CARGO_PKG_VERSION")));
    assert_eq!(event["transaction"], "GET /api/storage-resources/");
    assert_eq!(event["tags"]["request_id"], "scenario-1");
    assert_eq!(event["message"], "an upstream cannot be read");
    let chain = event["contexts"]["Rust Tracing Fields"]["error"].as_str().unwrap();
    assert!(chain.contains("it answered 503"), "{chain}");
    assert_eq!(event.get("request"), None);
    assert_eq!(event.get("user"), None);

    let everything = sink.everything();
    let machine_tokens = machine_tokens(&simulator);
    assert!(!machine_tokens.is_empty());
    let private = [PROVIDER_TOKEN, "hpc-secret", &caller, "jdoe", "Bearer", "storage_system=", "authorization"];
    for text in private.into_iter().chain(machine_tokens.iter().map(String::as_str)) {
        assert!(!everything.contains(text), "{text} is in\n{everything}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_realm_is_an_event() {
    let simulator = Simulator::start(World::demo()).await;
    simulator.set_fault("GET /auth/*", Fault::status(503));
    let sink = Sink::start().await;
    let program = Program::serve(&reporting(&simulator, &sink.dsn(), "0.0"));
    assert_eq!(program.get(LISTING, &token(&simulator)).await.status(), 502);
    program.stop();
    let events = sink.events();
    let [event] = events.as_slice() else { panic!("{events:#?}") };
    assert_eq!(event["message"], "cannot authenticate a caller");
    assert!(!sink.everything().contains("jdoe"), "{event:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_callers_are_no_events() {
    let simulator = Simulator::start(World::demo()).await;
    let sink = Sink::start().await;
    let program = Program::serve(&reporting(&simulator, &sink.dsn(), "0.0"));
    let caller = token(&simulator);
    for (path, token, status) in [
        (LISTING, "bad", 401),
        ("/nowhere", &caller, 404),
        ("/api/storage-resources/?page=0", &caller, 422),
        (LISTING, &caller, 200),
    ] {
        assert_eq!(program.get(path, token).await.status(), status);
    }
    // One event at the end shows that events are sent, and that a sample rate of 0 traces nothing.
    simulator.set_fault("GET /api/*", Fault::status(503));
    assert_eq!(program.get(LISTING, &caller).await.status(), 502);
    program.stop();
    let events = sink.events();
    let messages: Vec<_> = events.iter().map(|event| &event["message"]).collect();
    assert_eq!(messages, ["an upstream cannot be read"]);
    assert_eq!(sink.transactions(), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traced_request_is_named_by_its_route_and_contains_the_exchanges() {
    let simulator = Simulator::start(World::demo()).await;
    let sink = Sink::start().await;
    let program = Program::serve(&reporting(&simulator, &sink.dsn(), "1.0"));
    let caller = token(&simulator);
    assert_eq!(program.get(LISTING, &caller).await.status(), 200);
    let one = "/api/storage-resources/5b0a7a5e-0000-0000-0000-000000000000/";
    assert_eq!(program.get(one, &caller).await.status(), 404);
    assert_eq!(program.get("/wp-admin/private", &caller).await.status(), 404);
    program.stop();

    let transactions = sink.transactions();
    let named = |name: &str| {
        let found: Vec<_> = transactions.iter().filter(|transaction| transaction["transaction"] == name).collect();
        assert_eq!(found.len(), 1, "{name} in {transactions:#?}");
        found[0]
    };
    let listing = named("GET /api/storage-resources/");
    assert_eq!(listing["contexts"]["trace"]["op"], "http.server");
    assert_eq!(listing["contexts"]["trace"]["status"], "ok");
    assert_eq!(listing["contexts"]["trace"]["data"]["http.response.status_code"], 200);
    assert_eq!(listing["environment"], "scenario");
    let spans = listing["spans"].as_array().unwrap();
    let waldur = spans.iter().find(|span| span["data"]["upstream"] == "Waldur").unwrap();
    assert_eq!(waldur["op"], "http.client");
    assert_eq!(waldur["data"]["status"], 200);
    assert_eq!(waldur["description"], "GET Waldur");
    assert_eq!(named("GET /api/storage-resources/{item_id}/")["contexts"]["trace"]["status"], "not_found");
    named("GET (no route)");
    assert!(!sink.everything().contains("wp-admin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentry_that_hangs_delays_nothing() {
    let simulator = Simulator::start(World::demo()).await;
    // A status that is not retried.
    simulator.set_fault("GET /api/*", Fault::status(403));
    let silent = SilentServer::start().await;
    let dsn = format!("http://key@{}/7", silent.address);
    let program = Program::serve(&reporting(&simulator, &dsn, "1.0"));
    let caller = token(&simulator);
    // Each attempt to send an envelope occupies one for 10 seconds, and the queue holds 30. If requests waited for room in the
    // queue, their number could never exceed both by this much.
    let mut served = 0;
    while served <= 60 + silent.connections() {
        assert_eq!(program.get(LISTING, &caller).await.status(), 502);
        served += 1;
    }
    // Sending the queue at the end would take minutes, longer than `stop` waits.
    assert_eq!(program.stop().status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_sentry_changes_nothing() {
    let simulator = Simulator::start(World::demo()).await;
    simulator.set_fault("GET /api/*", Fault::status(503));
    for dsn in ["http://key@127.0.0.1:1/7", "https://key@sentry.invalid/7"] {
        let program = Program::serve(&reporting(&simulator, dsn, "1.0"));
        assert_eq!(program.get(LISTING, &token(&simulator)).await.status(), 502);
        assert_eq!(program.stop().status.code(), Some(0));
    }
}
