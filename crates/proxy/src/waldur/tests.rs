//! Lists with faults, on loopback: each is read completely or not at all.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::*;
use crate::testing::serve;
use program::error_chain;

/// The answer to a request for a page, by path and number of the page.
type Answer = fn(&str, usize) -> (StatusCode, Vec<(&'static str, String)>, String);

#[derive(Clone)]
struct Server {
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// Running requests now, and their maximum.
    running: Arc<(AtomicUsize, AtomicUsize)>,
}

async fn page(State(server): State<Server>, Query(query): Query<Vec<(String, String)>>, request: Request) -> Response {
    let number = query.iter().find(|(key, _)| key == "page").unwrap().1.parse().unwrap();
    let path = request.uri().path().to_owned();
    server.asked.lock().unwrap().push(format!("{path} {number}"));
    let answer = *server.answer.lock().unwrap();
    let (running, most) = &*server.running;
    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    // So that concurrent requests overlap.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    running.fetch_sub(1, Ordering::SeqCst);
    let (status, headers, body) = answer(&path, number);
    let header = |(name, value): (&str, String)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    let headers: HeaderMap = headers.into_iter().map(header).collect();
    (status, headers, body).into_response()
}

/// A client and its server.
async fn waldur(answer: Answer) -> (Waldur, Server) {
    let server = Server { answer: Arc::new(Mutex::new(answer)), asked: Arc::default(), running: Arc::default() };
    let url = serve(Router::new().fallback(page).with_state(server.clone())).await;
    let settings = WaldurApi {
        api_url: url,
        access_token: SecretString::from("0".repeat(40)),
        verify_ssl: true,
        socks_proxy: None,
        agent_header: None,
        timeout: std::time::Duration::from_secs(20),
        pages_at_once: 4,
        push: None,
    };
    (Waldur::new(&settings).unwrap(), server)
}

fn record(number: usize, offering: &str) -> Value {
    json!({
        "uuid": Uuid::from_u128(number as u128), "slug": format!("r{number}"), "state": "OK", "backend_id": "",
        "offering_uuid": Uuid::from_u128(1), "offering_slug": offering, "project_slug": "p", "customer_slug": "c",
        "provider_slug": "cscs", "provider_name": "CSCS", "limits": {"storage": 1},
    })
}

/// Rows of one page of a list of `all` rows.
fn rows(number: usize, size: usize, all: usize) -> String {
    let rows = (1..=all).skip((number - 1) * size).take(size).map(|number| record(number, "capstor"));
    Value::Array(rows.collect()).to_string()
}

fn ok(headers: &[(&'static str, &str)], body: String) -> (StatusCode, Vec<(&'static str, String)>, String) {
    (StatusCode::OK, headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), body)
}

fn missing(status: StatusCode) -> (StatusCode, Vec<(&'static str, String)>, String) {
    (status, Vec::new(), r#"{"detail": "Invalid page."}"#.into())
}

const NEXT: (&str, &str) = ("link", "<http://elsewhere.example.com/x>; rel=\"next\"");
const LAST: (&str, &str) = ("link", "<http://elsewhere.example.com/x>; rel=\"last\"");

async fn read(waldur: &Waldur) -> Result<Listing, String> {
    waldur.resources(&["capstor"], Which::WithOrders, &|_| {}).await.map_err(|error| error_chain(&error))
}

#[tokio::test(start_paused = true)]
async fn lists_without_a_count_are_read_to_their_end() {
    let complete: [Answer; 5] = [
        |_, number| ok(&[if number < 3 { NEXT } else { LAST }], rows(number, 300, 700)),
        // Neither header, and fewer rows per page than requested: the list ends with a missing or an empty page.
        |_, number| if number <= 7 { ok(&[], rows(number, 100, 700)) } else { missing(StatusCode::NOT_FOUND) },
        |_, number| ok(&[], rows(number, 100, 700)),
        // A server that ignores the parameters gives all rows on each page.
        |_, number| ok(&[LAST], rows(number, 1000, 700)),
        |_, _| ok(&[], rows(1, 1000, 700)),
    ];
    for (number, answer) in complete.into_iter().enumerate() {
        let (waldur, _server) = waldur(answer).await;
        assert_eq!(read(&waldur).await.unwrap().resources().count(), 700, "server {number}");
    }
}

/// So that two copies of all resources are never in memory.
#[tokio::test(start_paused = true)]
async fn equal_resources_of_a_page_can_be_shared_before_the_next_page_arrives() {
    let (waldur, _server) = waldur(|_, number| ok(&[("x-result-count", "700")], rows(number, 300, 700))).await;
    let known: Vec<_> = read(&waldur).await.unwrap().resources().cloned().collect();
    let share = |resource: &mut Arc<Resource>| {
        if let Some(known) = known.iter().find(|known| *known == resource) {
            resource.clone_from(known);
        }
    };
    let listing = waldur.resources(&["capstor"], Which::WithOrders, &share).await.unwrap();
    assert_eq!(
        listing.resources().filter(|resource| known.iter().any(|known| Arc::ptr_eq(known, resource))).count(),
        700
    );
}

#[tokio::test(start_paused = true)]
async fn changed_resources_are_read_while_more_of_them_change() {
    // The list grows with each page; its rows may repeat.
    let (waldur, server) = waldur(|_, number| {
        let count = 700 + number;
        ok(&[("x-result-count", &count.to_string())], rows(number, 300, count))
    })
    .await;
    assert!(read(&waldur).await.unwrap_err().contains("changed while it was read"));
    let changed = async || waldur.resources(&["capstor"], Which::ModifiedSince(Stamp(0)), &|_| {}).await;
    server.asked.lock().unwrap().clear();
    let numbers: HashSet<_> = changed().await.unwrap().resources().map(|resource| resource.uuid.as_u128()).collect();
    assert_eq!(numbers, (1..=703).collect());
    let asked: Vec<_> =
        server.asked.lock().unwrap().iter().map(|page| page.rsplit_once(' ').unwrap().1.to_owned()).collect();
    assert_eq!(asked[asked.len() - 3..], ["1", "2", "3"]);
    // A list that announces more than it has is still an error.
    for broken in [
        (|_, number| ok(&[("x-result-count", &(700 + number).to_string())], rows(number, 300, 350))) as Answer,
        |_, number| {
            if number < 3 {
                ok(&[("x-result-count", &(700 + number).to_string())], rows(number, 300, 700))
            } else {
                missing(StatusCode::NOT_FOUND)
            }
        },
    ] {
        *server.answer.lock().unwrap() = broken;
        assert!(matches!(changed().await, Err(WaldurError::Unstable(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_ends_early_is_an_error() {
    let broken: [(Answer, &str); 7] = [
        (
            |_, number| if number == 1 { ok(&[NEXT], rows(1, 300, 700)) } else { missing(StatusCode::NOT_FOUND) },
            "changed while it was read",
        ),
        (
            |_, number| if number == 1 { ok(&[NEXT], rows(1, 300, 700)) } else { missing(StatusCode::FORBIDDEN) },
            "refuses the token (403 Forbidden)",
        ),
        (
            |_, number| ok(&[NEXT], if number == 1 { rows(1, 300, 700) } else { "[]".into() }),
            "changed while it was read",
        ),
        (
            |_, number| {
                if number < 3 {
                    ok(&[("x-result-count", "700")], rows(number, 300, 700))
                } else {
                    missing(StatusCode::NOT_FOUND)
                }
            },
            "changed while it was read",
        ),
        (|_, number| ok(&[("x-result-count", "701")], rows(number, 300, 700)), "changed while it was read"),
        // The same page each time.
        (|_, _| ok(&[NEXT], rows(1, 300, 700)), "changed while it was read"),
        (|_, _| ok(&[("x-result-count", "700")], rows(1, 300, 700)), "changed while it was read"),
    ];
    for (number, (answer, words)) in broken.into_iter().enumerate() {
        let (waldur, _server) = waldur(answer).await;
        let error = read(&waldur).await.unwrap_err();
        assert!(error.contains(words), "server {number}: {error} should say {words}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_count_causes_few_requests() {
    let wrong: [(Answer, &str); 3] = [
        (
            |_, number| ok(&[("x-result-count", "999999")], if number == 1 { rows(1, 300, 300) } else { "[]".into() }),
            "changed while it was read",
        ),
        (|_, number| ok(&[("x-result-count", "999999")], rows(number, 1, 1)), "has 1 of them on a page"),
        (|_, number| ok(&[("x-result-count", "99999999")], rows(number, 300, 700)), "more than 1000000"),
    ];
    for (answer, words) in wrong {
        let (waldur, server) = waldur(answer).await;
        let error = read(&waldur).await.unwrap_err();
        assert!(error.contains(words), "{error} should say {words}");
        let asked = server.asked.lock().unwrap().len();
        assert!(asked <= 3 * 6, "{words}: {asked} requests");
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_are_limited_across_lists() {
    let (mut waldur, server) = waldur(|path, number| {
        let rows = if path == PROVIDER_LIST { rows(number, 10, 100) } else { json!([]).to_string() };
        ok(&[("x-result-count", if path == PROVIDER_LIST { "100" } else { "0" })], rows)
    })
    .await;
    (waldur.pages_at_once, waldur.requests) = (2, Semaphore::new(2));
    let customers = futures::future::join_all((0..9).map(|offering| waldur.customers(Uuid::from_u128(offering))));
    let (listing, customers) = futures::future::join(read(&waldur), customers).await;
    assert_eq!(listing.unwrap().resources().count(), 100);
    assert!(customers.into_iter().all(|customers| customers.is_ok()));
    assert_eq!(server.running.1.load(Ordering::SeqCst), 2);
}

fn nameless(number: usize) -> Value {
    let mut row = record(number, "");
    row.as_object_mut().unwrap().remove("offering_slug");
    row
}

#[tokio::test(start_paused = true)]
async fn a_waldur_is_too_old_when_no_record_has_an_offering_slug() {
    let cases: [(Answer, bool); 4] = [
        (|_, _| ok(&[LAST], json!([nameless(1), nameless(2)]).to_string()), true),
        (|_, _| ok(&[LAST], json!([nameless(1), record(2, "capstor")]).to_string()), false),
        (|_, _| ok(&[LAST], json!([nameless(1), record(2, "foreign")]).to_string()), false),
        (|_, _| ok(&[LAST], "[]".into()), false),
    ];
    for (number, (answer, is_too_old)) in cases.into_iter().enumerate() {
        let (waldur, _server) = waldur(answer).await;
        assert_eq!(read(&waldur).await.unwrap().lacks_offering_slugs, is_too_old, "case {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_of_millions_of_rows_is_refused() {
    let (waldur, _server) = waldur(|_, _| ok(&[], format!("[{}{{}}]", "{},".repeat(1_000_000)))).await;
    let error = read(&waldur).await.unwrap_err();
    assert!(error.contains("a page has more than 20000 rows"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_staff_endpoint_replaces_only_a_provider_endpoint_that_never_existed() {
    let only_staff: Answer = |path, number| {
        if path == STAFF_LIST { ok(&[LAST], rows(number, 300, 7)) } else { missing(StatusCode::NOT_FOUND) }
    };
    let (old_waldur, _server) = waldur(only_staff).await;
    assert_eq!(read(&old_waldur).await.unwrap().resources().count(), 7);
    let (waldur, server) = waldur(|_, number| ok(&[LAST], rows(number, 300, 7))).await;
    assert_eq!(read(&waldur).await.unwrap().resources().count(), 7);
    *server.answer.lock().unwrap() = only_staff;
    assert!(read(&waldur).await.unwrap_err().contains("404"));
}

#[tokio::test(start_paused = true)]
async fn records_of_other_offerings_are_ignored_even_if_malformed() {
    let (waldur, _server) = waldur(|_, _| {
        let mut malformed = record(2, "foreign");
        malformed["limits"] = json!("much");
        let mut ours = record(3, "capstor");
        ours["limits"] = json!("much");
        ok(
            &[LAST],
            json!([record(1, "foreign"), malformed, ours, {"uuid": Uuid::from_u128(5)}, record(4, "capstor")])
                .to_string(),
        )
    })
    .await;
    let listing = read(&waldur).await.unwrap();
    assert_eq!(listing.resources().count(), 1);
    let malformed: Vec<_> = listing.malformed().map(|rejected| rejected.uuid).collect();
    assert_eq!(malformed, [3, 5].map(|id| Some(Uuid::from_u128(id))), "the last one does not name its offering");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_not_a_record_fails_the_list() {
    let bad: [Answer; 9] = [
        |_, _| ok(&[LAST], json!([record(1, "capstor"), 1, 2, null]).to_string()),
        |_, _| ok(&[LAST], "[[[]]]".into()),
        |_, _| ok(&[LAST], r#"[{"uuid": "\ud800"}]"#.into()),
        |_, _| ok(&[LAST], r#"[{"uuid": null}]"#.into()),
        |_, _| ok(&[LAST], r#"[{"uuid": 5}]"#.into()),
        |_, _| ok(&[LAST], r#"[{"uuid": "x", "slug": "r1"}]"#.into()),
        |_, _| ok(&[LAST], "[{}]".into()),
        |_, _| ok(&[LAST], r#"["00000000-0000-0000-0000-000000000001"]"#.into()),
        |_, _| ok(&[LAST], r#"[["00000000-0000-0000-0000-000000000001", "a", "A"]]"#.into()),
    ];
    for answer in bad {
        let (waldur, _server) = waldur(answer).await;
        let error = read(&waldur).await.unwrap_err();
        assert!(error.contains("is not a record"), "{error}");
        let error = error_chain(&waldur.customers(Uuid::nil()).await.unwrap_err());
        assert!(error.contains("cannot be read"), "{error}");
        assert!(waldur.offerings("a").await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_with_a_duplicate_key_is_malformed_but_has_its_uuid() {
    let (waldur, _server) = waldur(|_, _| {
        let row = r#"[{"uuid": "00000000-0000-0000-0000-000000000001", "slug": "a", "slug": "b"}]"#;
        ok(&[LAST], row.into())
    })
    .await;
    let listing = read(&waldur).await.unwrap();
    assert_eq!(listing.malformed().next().unwrap().uuid, Some(Uuid::from_u128(1)));
}

#[tokio::test(start_paused = true)]
async fn a_customer_needs_a_uuid_and_may_lack_the_rest() {
    let (client, _server) = waldur(|_, _| {
        let customers = json!([
            {"uuid": Uuid::from_u128(1), "slug": "a", "name": null},
            {"uuid": Uuid::from_u128(2), "slug": null, "name": "B"},
        ]);
        ok(&[LAST], customers.to_string())
    })
    .await;
    let customers = client.customers(Uuid::nil()).await.unwrap().unwrap();
    assert_eq!(customers.len(), 1);
    assert_eq!(customers["a"].name, None);
    let (client, _server) = waldur(|_, _| ok(&[LAST], json!([{"slug": "a", "name": "A"}]).to_string())).await;
    assert!(error_chain(&client.customers(Uuid::nil()).await.unwrap_err()).contains("a customer's uuid"));
}
