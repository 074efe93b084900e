use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::simulated::{FAST, Reply, serve};
use super::*;

fn api(url: &str) -> Api {
    Api { url: url.parse().unwrap(), ca_file: None, timeout_seconds: 5, patience_seconds: 5 }
}

fn request(method: Method) -> ApiRequest<'static> {
    ApiRequest { method, path: &["a", "b/c"], query: &[("k", "v w")], body: None, authorization: None }
}

/// A client of a server that sends `replies` one after the other, then 200; and the number of requests received.
fn server(replies: Vec<Reply>) -> (RestClient, Arc<AtomicUsize>) {
    let replies = Mutex::new(replies.into_iter());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let url = serve(move |request| {
        counter.fetch_add(1, Ordering::Relaxed);
        assert_eq!((&*request.path, request.query("k")), (&["a".to_owned(), "b/c".to_owned()][..], Some("v w")));
        replies.lock().unwrap().next().unwrap_or(Reply::Json(200, "", json!({"ok": true})))
    });
    (RestClient::new(&api(url.as_str()), FAST).unwrap(), count)
}

#[test]
fn reads_are_retried() {
    let busy = Reply::Json(429, "retry-after: 1\r\n", json!(null));
    let (client, count) = server(vec![busy, Reply::Lost, Reply::Json(503, "", json!(null))]);
    let started = Instant::now();
    let outcome = client.send("look", &request(Method::GET));
    assert!(started.elapsed() >= Duration::from_secs(1), "it waits for Retry-After");
    assert!(outcome.is_err(), "the third attempt failed");
    assert_eq!(count.load(Ordering::Relaxed), 3);
    assert_eq!(client.send("look", &request(Method::GET)).unwrap().status, 200);
}

#[test]
fn changes_are_sent_again_only_if_they_were_not_accepted() {
    for (reply, sent) in [(Reply::Lost, 1), (Reply::Json(503, "", json!(null)), 1)] {
        let (client, count) = server(vec![reply]);
        assert!(client.send("change", &request(Method::POST)).is_err());
        assert_eq!(count.load(Ordering::Relaxed), sent);
    }
    let (client, count) = server((0..6).map(|_| Reply::Json(429, "", json!(null))).collect());
    assert_eq!(client.send("change", &request(Method::POST)).unwrap().status, 200);
    assert_eq!(count.load(Ordering::Relaxed), 7);
}

#[test]
fn redirects_are_not_followed() {
    let (client, count) = server(vec![Reply::Json(302, "location: http://127.0.0.1:1/\r\n", json!(null))]);
    let error = client.send("look", &request(Method::GET)).unwrap_err();
    assert!(error.to_string().contains("redirect"), "{error}");
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn a_retry_after_beyond_the_patience_fails_immediately() {
    let (client, _) = server(vec![Reply::Json(429, "retry-after: 3600\r\n", json!(null))]);
    let started = Instant::now();
    assert!(client.send("look", &request(Method::GET)).is_err());
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn urls_that_would_expose_credentials_are_rejected() {
    for url in [
        "http://gui.example.org",
        "https://u:hush@gui.example.org",
        "https://gui.example.org/?a=hush",
        "ftp://localhost",
    ] {
        let error = RestClient::new(&api(url), FAST).unwrap_err();
        assert!(error.to_string().contains("`api.url`") && !error.to_string().contains("hush"), "{error}");
    }
    assert!(RestClient::new(&api("https://gui.example.org:47443/base/"), FAST).is_ok());
}

#[test]
fn credentials_are_not_printed() {
    let header = basic_authorization("user", &"hush".into()).unwrap();
    assert_eq!(header, "Basic dXNlcjpodXNo");
    assert!(!format!("{header:?}").contains("dXNl"));
    let error = authorization("Api-Token", &"hu\nsh".into(), "token").unwrap_err();
    assert!(error.to_string().contains("`token`") && !error.to_string().contains("hu"), "{error}");
}

#[test]
fn messages_of_servers_become_a_single_line() {
    assert_eq!(single_line("EFSSG0072C \n\t Command\u{1b}[0m failed."), "EFSSG0072C Command [0m failed.");
}

#[test]
fn whole_numbers_are_read_in_every_notation() {
    for (value, number) in [
        (json!(7), 7),
        (json!(-7), -7),
        (json!(12.0), 12),
        (json!(1e12), 1_000_000_000_000),
        (json!("1000000000000"), 1_000_000_000_000),
        (json!(u64::MAX), i128::from(u64::MAX)),
    ] {
        assert_eq!(whole_number(&value), Some(number), "{value}");
    }
    for invalid in
        [json!(1.5), json!(1e30), json!(""), json!("1.0"), json!("-1"), json!("1 TB"), json!(true), json!([1])]
    {
        assert_eq!(whole_number(&invalid), None, "{invalid}");
    }
}
