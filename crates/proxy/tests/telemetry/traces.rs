//! What an OpenTelemetry collector gets, and what upstreams are told of traces.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use simulator::{Fault, PROVIDER_TOKEN, Simulator, World};

use crate::collector::{Collector, Span};
use crate::program::{Program, client, settings, token};

const LISTING: &str = "/api/storage-resources/?storage_system=capstor";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// The same of a caller who records nothing.
const UNRECORDED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn tracing(simulator: &Simulator, endpoint: &str) -> Vec<(&'static str, String)> {
    let mut settings = settings(simulator);
    settings.extend([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20collector-secret".to_owned()),
        // Nothing of the environment but our own settings counts.
        ("OTEL_TRACES_SAMPLER", "always_off".to_owned()),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=somebody".to_owned()),
    ]);
    settings
}

/// The listing, for a caller whose trace this is.
async fn listing(program: &Program, token: &str, parent: &str) -> u16 {
    let url = format!("http://{}{LISTING}", program.address());
    let request = client().get(url).bearer_auth(token).header("x-request-id", "scenario-1");
    request.header("traceparent", parent).header("tracestate", "vendor=state").send().await.unwrap().status().as_u16()
}

/// The one span of these.
fn one<'a>(spans: &'a [Span], what: &str, is_it: impl Fn(&Span) -> bool) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| is_it(span)).collect();
    assert_eq!(found.len(), 1, "{what} in {spans:#?}");
    found[0]
}

/// The value of this header in each exchange with an upstream.
fn sent(simulator: &Simulator, name: &str) -> Vec<Option<String>> {
    simulator.requests().iter().map(|request| request.header(name).map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_trace_goes_on_through_the_proxy_to_the_upstreams() {
    let simulator = Simulator::start(World::demo()).await;
    let collector = Collector::start().await;
    let program = Program::serve(&tracing(&simulator, &collector.endpoint()));
    simulator.clear_requests();
    assert_eq!(listing(&program, &token(&simulator), PARENT).await, 200);
    let parents: Vec<_> = sent(&simulator, "traceparent").into_iter().flatten().collect();
    let states = sent(&simulator, "tracestate");
    // What is left is sent at the end.
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
    let read = one(&ours, "the reading", |span| span.name == "read");
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
    // Each exchange tells the upstream its own span.
    let mut told: Vec<_> = exchanges.iter().map(|span| format!("00-{TRACE}-{}-01", span.id)).collect();
    told.sort();
    let mut parents = parents;
    parents.sort();
    assert_eq!(parents, told);
    assert!(states.iter().all(|state| state.as_deref() == Some("vendor=state")), "{states:?}");
    // The reading that the start begins is a trace of its own, and so is what nobody traced.
    one(&spans, "the first reading", |span| span.name == "refresh" && span.trace != TRACE && span.parent.is_empty());
    // Lines of the log say whose they are.
    assert_eq!(ended.with_message("answered")[0]["spans"][0]["trace_id"], TRACE);
    // The collector learns who sends, and gets the header that it asks for.
    let service = (String::from("service.name"), String::from("hpc-storage-proxy"));
    assert!(collector.resources().iter().all(|resource| resource.contains(&service)));
    assert!(collector.headers("authorization").iter().all(|value| value == "Bearer collector-secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_and_failures_are_told_and_no_secret() {
    let simulator = Simulator::start(World::demo()).await;
    let collector = Collector::start().await;
    let mut settings = tracing(&simulator, &collector.endpoint());
    settings.push(("DEBUG", "true".to_owned()));
    let program = Program::serve(&settings);
    let caller = token(&simulator);
    simulator.set_fault("GET /api/*", Fault::status(503));
    assert_eq!(listing(&program, &caller, PARENT).await, 502);
    // What a caller mistakes for an id, a path or a query is not told either.
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
    assert!(everything.contains("GET Waldur"), "texts can be found");
    let machine_tokens: Vec<_> = simulator
        .requests()
        .iter()
        .filter_map(|request| request.header("authorization")?.strip_prefix("Bearer ").map(str::to_owned))
        .collect();
    assert!(!machine_tokens.is_empty());
    let private = [PROVIDER_TOKEN, "hpc-secret", &caller, "jdoe", "hunter2", "Bearer", "storage_system=", "private"];
    for text in private.into_iter().chain(machine_tokens.iter().map(String::as_str)) {
        assert!(!everything.contains(text), "{text} is in\n{everything}");
    }
    assert!(!log.contains("collector-secret"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_a_callers_trace_is_passed_on_as_it_is() {
    let simulator = Simulator::start(World::demo()).await;
    let program = Program::serve(&settings(&simulator));
    assert!(sent(&simulator, "traceparent").iter().all(Option::is_none), "nobody traced the first reading");
    simulator.clear_requests();
    assert_eq!(listing(&program, &token(&simulator), PARENT).await, 200);
    let parents = sent(&simulator, "traceparent");
    assert!(!parents.is_empty() && parents.iter().all(|parent| parent.as_deref() == Some(PARENT)), "{parents:?}");
    program.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_decides_for_its_own_trace_and_the_rate_for_the_others() {
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
    // It takes connections, and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let program = Program::serve(&tracing(&simulator, &endpoint));
    let client = client();
    let url = format!("http://{}/api/version", program.address());
    let begin = Instant::now();
    // More spans than the queue and a batch hold.
    for _ in 0..3000 {
        assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    }
    let served = begin.elapsed();
    let begin = Instant::now();
    let ended = program.stop();
    let stopped = begin.elapsed();
    assert_eq!(ended.status.code(), Some(0));
    // One batch occupies the queue for 10 seconds. A request that waited for room, or an end that did, would take longer.
    assert!(served < Duration::from_mins(1), "{served:?}");
    assert!(stopped < Duration::from_secs(6), "{stopped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_is_told_of_and_changes_nothing() {
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
        // Once, however often it fails.
        let told = ended.log.iter().filter(|line| line.contains("cannot send traces")).count();
        assert_eq!(told, 1);
    }
}
