//! Spans sent to an OpenTelemetry collector, and trace headers sent to upstreams.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use simulator::{Fault, PROVIDER_TOKEN, Simulator, World};

use crate::collector::{Collector, Span};
use crate::program::{Program, client, machine_tokens, settings, token};
use crate::sink::SilentServer;

const LISTING: &str = "/api/storage-resources/?storage_system=capstor";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// The same for a caller that does not record the trace.
const UNRECORDED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn tracing(simulator: &Simulator, endpoint: &str) -> Vec<(&'static str, String)> {
    let mut settings = settings(simulator);
    settings.extend([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20collector-secret".to_owned()),
        // Variables that are not settings of the proxy have no effect.
        ("OTEL_TRACES_SAMPLER", "always_off".to_owned()),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=somebody".to_owned()),
    ]);
    settings
}

/// Requests the listing within the caller's trace.
async fn listing(program: &Program, token: &str, parent: &str) -> u16 {
    let url = format!("http://{}{LISTING}", program.address());
    let request = client().get(url).bearer_auth(token).header("x-request-id", "scenario-1");
    request.header("traceparent", parent).header("tracestate", "vendor=state").send().await.unwrap().status().as_u16()
}

/// The only span that matches.
fn one<'a>(spans: &'a [Span], what: &str, is_it: impl Fn(&Span) -> bool) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| is_it(span)).collect();
    assert_eq!(found.len(), 1, "{what} in {spans:#?}");
    found[0]
}

/// The value of a header in each request to an upstream.
fn sent(simulator: &Simulator, name: &str) -> Vec<Option<String>> {
    simulator.requests().iter().map(|request| request.header(name).map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_trace_continues_through_the_proxy_to_the_upstreams() {
    let simulator = Simulator::start(World::demo()).await;
    let collector = Collector::start().await;
    let program = Program::serve(&tracing(&simulator, &collector.endpoint()));
    simulator.clear_requests();
    // So that there is something to build and render.
    simulator.world(|world| world.resource_by_slug_mut("capstor-store-1").unwrap().set("backend_id", "/elsewhere"));
    assert_eq!(listing(&program, &token(&simulator), PARENT).await, 200);
    let parents: Vec<_> = sent(&simulator, "traceparent").into_iter().flatten().collect();
    let states = sent(&simulator, "tracestate");
    // The queued spans are sent at the end.
    let ended = program.stop();
    assert_eq!(ended.status.code(), Some(0));

    let spans = collector.spans();
    let ours: Vec<_> = spans.iter().filter(|span| span.trace == TRACE).cloned().collect();
    let request = one(&ours, "the request", |span| span.kind == SpanKind::Server);
    assert_eq!(request.name, "GET /api/storage-resources/");
    assert_eq!(request.parent, "b7ad6b7169203331");
    assert!(!request.failed);
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/api/storage-resources/"),
        ("http.response.status_code", "200"),
        ("request_id", "scenario-1"),
    ] {
        assert_eq!(request.attribute(name), Some(value), "{name}");
    }
    let refresh = one(&ours, "the refresh", |span| span.name == "refresh");
    assert_eq!(refresh.parent, request.id);
    for phase in ["read", "build", "render"] {
        assert_eq!(one(&ours, phase, |span| span.name == phase).parent, refresh.id);
    }
    let read = one(&ours, "the read phase", |span| span.name == "read");
    let exchanges: Vec<_> = ours.iter().filter(|span| span.kind == SpanKind::Client).collect();
    let waldur: Vec<_> = exchanges.iter().filter(|span| span.name == "GET Waldur").collect();
    assert!(!waldur.is_empty());
    for exchange in waldur {
        assert_eq!(exchange.parent, read.id);
        assert_eq!(exchange.attribute("server.address"), Some("127.0.0.1"));
        assert_eq!(exchange.attribute("http.response.status_code"), Some("200"));
        let names = ["http.request.method", "peer.service", "server.address", "server.port"];
        assert_eq!(exchange.names()[..4], names);
        assert_eq!(exchange.names()[4..], ["http.response.status_code"]);
    }
    // Each request to an upstream has the ID of its span.
    let mut expected: Vec<_> = exchanges.iter().map(|span| format!("00-{TRACE}-{}-01", span.id)).collect();
    expected.sort();
    let mut parents = parents;
    parents.sort();
    assert_eq!(parents, expected);
    assert!(states.iter().all(|state| state.as_deref() == Some("vendor=state")), "{states:?}");
    // The refresh at the start has its own trace.
    one(&spans, "the first refresh", |span| span.name == "refresh" && span.trace != TRACE && span.parent.is_empty());
    // Log lines have the trace ID.
    assert_eq!(ended.with_message("answered")[0]["spans"][0]["trace_id"], TRACE);
    // The collector gets the service name and the configured header.
    let service = (String::from("service.name"), String::from("hpc-storage-proxy"));
    assert!(collector.resources().iter().all(|resource| resource.contains(&service)));
    assert!(collector.headers("authorization").iter().all(|value| value == "Bearer collector-secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_and_failures_are_recorded_without_secrets() {
    let simulator = Simulator::start(World::demo()).await;
    let collector = Collector::start().await;
    let mut settings = tracing(&simulator, &collector.endpoint());
    settings.push(("DEBUG", "true".to_owned()));
    let program = Program::serve(&settings);
    let caller = token(&simulator);
    simulator.set_fault("GET /api/*", Fault::status(503));
    assert_eq!(listing(&program, &caller, PARENT).await, 502);
    // Secrets in a request ID, path or query are not recorded either.
    let url = format!("http://{}/private/jdoe?access_token=hunter2", program.address());
    let mistaken = client().get(url).header("x-request-id", PROVIDER_TOKEN).send().await.unwrap();
    assert_eq!(mistaken.status(), 404);
    let log = program.stop().log.join("\n");

    let spans = collector.spans();
    let ours: Vec<_> = spans.iter().filter(|span| span.trace == TRACE).cloned().collect();
    let request = one(&ours, "the request", |span| span.kind == SpanKind::Server);
    assert!(request.failed);
    assert_eq!(request.attribute("http.response.status_code"), Some("502"));
    let again = one(&ours, "the second repetition of the first page", |span| {
        span.attribute("http.request.resend_count") == Some("2")
    });
    assert!(again.failed);
    assert_eq!(again.attribute("http.response.status_code"), Some("503"));
    assert_eq!(again.attribute("error.type"), Some("failed"));
    let nowhere = one(&spans, "the mistake", |span| span.name == "GET (no route)");
    assert_eq!(nowhere.attribute("request_id"), Some("[redacted]"));

    let everything = collector.everything();
    assert!(everything.contains("GET Waldur"), "texts are searchable");
    let machine_tokens = machine_tokens(&simulator);
    assert!(!machine_tokens.is_empty());
    let private = [PROVIDER_TOKEN, "hpc-secret", &caller, "jdoe", "hunter2", "Bearer", "storage_system=", "private"];
    for text in private.into_iter().chain(machine_tokens.iter().map(String::as_str)) {
        assert!(!everything.contains(text), "{text} is in\n{everything}");
    }
    assert!(!log.contains("collector-secret"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_a_callers_trace_is_passed_on_unchanged() {
    let simulator = Simulator::start(World::demo()).await;
    let program = Program::serve(&settings(&simulator));
    assert!(sent(&simulator, "traceparent").iter().all(Option::is_none), "the first refresh has no trace");
    simulator.clear_requests();
    assert_eq!(listing(&program, &token(&simulator), PARENT).await, 200);
    let parents = sent(&simulator, "traceparent");
    assert!(!parents.is_empty() && parents.iter().all(|parent| parent.as_deref() == Some(PARENT)), "{parents:?}");
    program.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_rate_applies_only_without_a_callers_trace() {
    let simulator = Simulator::start(World::demo()).await;
    let caller = token(&simulator);
    for (rate, parent, recorded) in [("0", PARENT, true), ("1", UNRECORDED, false)] {
        let collector = Collector::start().await;
        let mut settings = tracing(&simulator, &collector.endpoint());
        settings.push(("OTLP_SAMPLE_RATE", rate.to_owned()));
        let program = Program::serve(&settings);
        assert_eq!(listing(&program, &caller, parent).await, 200);
        assert_eq!(program.get(LISTING, &caller).await.status(), 200);
        program.stop();
        let spans = collector.spans();
        let theirs = spans.iter().filter(|span| span.trace == TRACE).count();
        assert_eq!((theirs > 0, spans.len() > theirs), (recorded, !recorded), "{rate}: {spans:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_delays_nothing() {
    let simulator = Simulator::start(World::demo()).await;
    let silent = SilentServer::start().await;
    let program = Program::serve(&tracing(&simulator, &format!("http://{}", silent.address)));
    let client = client();
    let url = format!("http://{}/api/version", program.address());
    // Each attempt to send a batch occupies 512 spans for 10 seconds, and the queue holds 2048. If requests waited for room in
    // the queue, their number could not exceed both.
    let mut served = 0;
    while served <= 2048 + 512 * (silent.connections() + 1) {
        assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
        served += 1;
    }
    // Sending the queue at the end would take as long for each batch, longer than supervisors wait.
    let begin = Instant::now();
    assert_eq!(program.stop().status.code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_collector_is_logged_once_and_changes_nothing() {
    let simulator = Simulator::start(World::demo()).await;
    for endpoint in ["http://127.0.0.1:1", "https://collector.invalid"] {
        let mut program = Program::serve(&tracing(&simulator, endpoint));
        assert_eq!(program.get(LISTING, &token(&simulator)).await.status(), 200);
        let line = program.wait_for("cannot send traces");
        assert!(
            line.contains("WARN") && line.contains("network error") && !line.contains("collector-secret"),
            "{line}"
        );
        let ended = program.stop();
        assert_eq!(ended.status.code(), Some(0));
        // Logged only once.
        let count = ended.log.iter().filter(|line| line.contains("cannot send traces")).count();
        assert_eq!(count, 1);
    }
}
