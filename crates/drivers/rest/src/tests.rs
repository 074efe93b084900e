use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::simulated::{FAST, Reply, serve};
use super::*;

fn api(url: &str) -> Api {
    Api { url: url.parse().unwrap(), ca_file: None, timeout_seconds: 5, patience_seconds: 5 }
}

fn ask(method: Method) -> Ask<'static> {
    Ask { method, path: &["a", "b/c"], query: &[("k", "v w")], body: None, authorization: None }
}

/// A server that answers `replies` one after the other, then 200; with the number of requests it had.
fn server(replies: Vec<Reply>) -> (Rest, Arc<AtomicUsize>) {
    let replies = Mutex::new(replies.into_iter());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let url = serve(move |request| {
        counter.fetch_add(1, Ordering::Relaxed);
        assert_eq!((&*request.path, request.query("k")), (&["a".to_owned(), "b/c".to_owned()][..], Some("v w")));
        replies.lock().unwrap().next().unwrap_or(Reply::Json(200, "", json!({"ok": true})))
    });
    (Rest::new(&api(url.as_str()), FAST).unwrap(), count)
}

#[test]
fn what_is_asked_for_is_asked_again() {
    let busy = Reply::Json(429, "retry-after: 1\r\n", json!(null));
    let (rest, count) = server(vec![busy, Reply::Lost, Reply::Json(503, "", json!(null))]);
    let began = Instant::now();
    let outcome = rest.ask("look", &ask(Method::GET));
    assert!(began.elapsed() >= Duration::from_secs(1), "Retry-After is obeyed");
    assert!(outcome.is_err(), "the third attempt failed");
    assert_eq!(count.load(Ordering::Relaxed), 3);
    assert_eq!(rest.ask("look", &ask(Method::GET)).unwrap().status, 200);
}

#[test]
fn what_changes_something_is_sent_again_only_when_it_was_not_taken() {
    for (reply, sent) in [(Reply::Lost, 1), (Reply::Json(503, "", json!(null)), 1)] {
        let (rest, count) = server(vec![reply]);
        assert!(rest.ask("change", &ask(Method::POST)).is_err());
        assert_eq!(count.load(Ordering::Relaxed), sent);
    }
    let (rest, count) = server((0..6).map(|_| Reply::Json(429, "", json!(null))).collect());
    assert_eq!(rest.ask("change", &ask(Method::POST)).unwrap().status, 200);
    assert_eq!(count.load(Ordering::Relaxed), 7);
}

#[test]
fn no_redirect_is_followed() {
    let (rest, count) = server(vec![Reply::Json(302, "location: http://127.0.0.1:1/\r\n", json!(null))]);
    let fault = rest.ask("look", &ask(Method::GET)).unwrap_err();
    assert!(fault.to_string().contains("redirect"), "{fault}");
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn a_wait_beyond_patience_is_a_fault_at_once() {
    let (rest, _) = server(vec![Reply::Json(429, "retry-after: 3600\r\n", json!(null))]);
    let began = Instant::now();
    assert!(rest.ask("look", &ask(Method::GET)).is_err());
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn addresses_that_would_give_credentials_away_are_refused() {
    for url in [
        "http://gui.example.org",
        "https://u:hush@gui.example.org",
        "https://gui.example.org/?a=hush",
        "ftp://localhost",
    ] {
        let error = Rest::new(&api(url), FAST).unwrap_err();
        assert!(error.to_string().contains("`api.url`") && !error.to_string().contains("hush"), "{error}");
    }
    assert!(Rest::new(&api("https://gui.example.org:47443/base/"), FAST).is_ok());
}

#[test]
fn no_credential_is_shown() {
    let header = basic("user", &"hush".into()).unwrap();
    assert_eq!(header, "Basic dXNlcjpodXNo");
    assert!(!format!("{header:?}").contains("dXNl"));
    let error = secret("Api-Token", &"hu\nsh".into(), "token").unwrap_err();
    assert!(error.to_string().contains("`token`") && !error.to_string().contains("hu"), "{error}");
}

#[test]
fn what_a_server_says_becomes_one_line() {
    assert_eq!(quoted("EFSSG0072C \n\t Command\u{1b}[0m failed."), "EFSSG0072C Command [0m failed.");
}

#[test]
fn whole_numbers_are_read_however_they_are_written() {
    for (value, number) in [
        (json!(7), 7),
        (json!(-7), -7),
        (json!(12.0), 12),
        (json!(1e12), 1_000_000_000_000),
        (json!("1000000000000"), 1_000_000_000_000),
        (json!(u64::MAX), i128::from(u64::MAX)),
    ] {
        assert_eq!(whole(&value), Some(number), "{value}");
    }
    for odd in [json!(1.5), json!(1e30), json!(""), json!("1.0"), json!("-1"), json!("1 TB"), json!(true), json!([1])] {
        assert_eq!(whole(&odd), None, "{odd}");
    }
}
