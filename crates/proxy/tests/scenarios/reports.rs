//! Reports of provisioners.

use std::time::Instant;

use serde_json::{Value, json};
use simulator::{Client, TokenSpec};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::support::{Answer, Proxy, demo_with};

const STATUS: &str = "/api/provisioners/alps/status";

pub(crate) fn report(ago: i64) -> Value {
    let at = (OffsetDateTime::now_utc() - time::Duration::seconds(ago)).format(&Rfc3339).unwrap();
    json!({
        "program": "test 1", "reportedAt": at, "nextWithinSeconds": 600,
        "pass": {"endedAt": at, "durationSeconds": 1}, "systems": [], "resources": [],
    })
}

pub(crate) async fn put(proxy: &Proxy, path: &str, body: impl Into<String>) -> Answer {
    proxy.put_with(path, &[], body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_kept_and_shows_in_the_metrics() {
    let (_simulator, proxy) = demo_with(&[]).await;
    assert_eq!(put(&proxy, STATUS, report(0).to_string()).await.status, 204);
    assert_eq!(put(&proxy, "/api/provisioners/tape/status/", report(0).to_string()).await.status, 204);
    let metrics = proxy.get("/metrics").await.text;
    for name in ["alps", "tape"] {
        assert!(
            metrics.contains(&format!("hpc_storage_proxy_provisioner_silent{{provisioner=\"{name}\"}} 0")),
            "{metrics}"
        );
    }
    let older = put(&proxy, STATUS, report(5).to_string()).await;
    assert_eq!(older.status, 409);
    assert!(older.body["detail"].as_str().unwrap().contains("a name of its own"), "{}", older.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_reports_are_rejected_with_the_reason() {
    let (_simulator, proxy) = demo_with(&[]).await;
    let with = |key: &str, value: Value| {
        let mut report = report(0);
        report[key] = value;
        report.to_string()
    };
    let id = Uuid::new_v4();
    let entry = json!({"id": id, "system": "a", "path": "/a", "observed": "present"});
    let mut commands = entry.clone();
    commands["hold"] = json!({"kind": "drift", "turn": "operator", "reason": "", "commands": ["true\nreboot"]});
    let trashed = json!({"id": id, "system": "a", "since": "9999-12-31T23:59:59-23:59"});
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for (body, status, words) in [
        ("{".to_owned(), 400, "EOF"),
        (String::new(), 400, "EOF"),
        (deep, 422, "missing field"),
        ("[]".to_owned(), 422, "invalid length"),
        (with("nextWithinSeconds", json!(-1)), 422, "invalid value"),
        (with("nextWithinSeconds", json!(1e300)), 422, "invalid"),
        (with("resources", json!([entry, entry])), 422, "occurs twice"),
        (with("resources", json!([commands])), 422, "control character"),
        (with("systems", json!(vec![json!({"name": "a", "terabyte": "TB"}); 65])), 422, "at most 64"),
        (with("program", json!("x".repeat(5000))), 422, "too long"),
        (report(-3600).to_string(), 422, "set the clock"),
        (with("trash", json!([trashed])), 422, "out of range in UTC"),
        (" ".repeat((32 << 20) + 1), 413, "larger than"),
    ] {
        let start = body.chars().take(60).collect::<String>();
        let answer = put(&proxy, STATUS, body).await;
        assert_eq!(answer.status, status, "{start}: {}", answer.text);
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{start}: {detail}");
    }
    for name in ["A", "-a", "a%2fb", "%ff", &"a".repeat(64)] {
        let answer = put(&proxy, &format!("/api/provisioners/{name}/status"), report(0).to_string()).await;
        assert_eq!(answer.status, 422, "{name}: {}", answer.text);
    }
    let read = proxy.get(STATUS).await;
    assert_eq!((read.status, read.headers["allow"].to_str().unwrap()), (405, "PUT"));
    assert!(!proxy.get("/metrics").await.text.contains("hpc_storage_proxy_provisioner_silent{"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_needs_a_token_and_the_roles() {
    let settings = [("DISABLE_AUTH", "false"), ("PROVISIONERS_REQUIRED_ROLES", "reporter")];
    let (simulator, proxy) = demo_with(&settings).await;
    simulator.realm().register(Client::new("provisioner", "secret"));
    assert_eq!(put(&proxy, STATUS, report(0).to_string()).await.status, 401);
    for (spec, status) in [(TokenSpec::user("x"), 403), (TokenSpec::user("x").role("reporter"), 204)] {
        let bearer = format!("Bearer {}", simulator.realm().mint(&spec));
        let headers = [("Authorization", &*bearer)];
        let answer = proxy.put_with(STATUS, &headers, report(0).to_string()).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        // Reading needs no such role.
        assert_eq!(proxy.get_with("/api/storage-resources/", &headers).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_resources_are_accepted() {
    let (_simulator, proxy) = demo_with(&[]).await;
    proxy.list("").await;
    let before = proxy.most_memory();
    let resource = |number: usize| {
        json!({
            "id": Uuid::from_u128(number as u128), "system": "capstor",
            "path": format!("/capstor/store/cscs/customer-{}/project-{number:06}", number / 100),
            "observed": "present", "detail": "mode 2770, owner 0:30000",
            "usage": {"bytes": 1_234_567_890_123_u64, "inodes": 123_456},
            "quota": {"bytes": 10_000_000_000_000_u64, "inodes": 1_000_000},
        })
    };
    let mut report = report(0);
    report["resources"] = (0..100_000).map(resource).collect();
    let body = report.to_string();
    let (size, began) = (body.len(), Instant::now());
    let answer = put(&proxy, STATUS, body).await;
    let took = began.elapsed();
    assert_eq!(answer.status, 204, "{}", answer.text);
    let more = proxy.most_memory() - before;
    assert!(more < 400 << 20, "{size} bytes, {took:?}, {more} bytes of memory");
}
