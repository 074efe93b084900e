//! The metrics, in the format of Prometheus.

#![expect(clippy::float_cmp, reason = "the counts are whole numbers")]

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proxy::metrics::{Kind, TABLE};
use simulator::Fault;

use crate::support::{Proxy, demo, demo_with};

/// The series by name and labels, with their values.
type Series = BTreeMap<String, f64>;

/// Parses the text format as strictly as Prometheus.
fn parse(text: &str) -> Series {
    assert!(text.ends_with('\n'), "the last line ends");
    let (mut series, mut kinds, mut helps) = (Series::new(), HashMap::new(), HashMap::new());
    let mut family = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(helps.insert(name.to_owned(), help).is_none(), "{name} is described twice");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kinds.insert(name.to_owned(), kind).is_none(), "{name} is listed twice");
            name.clone_into(&mut family);
            continue;
        }
        assert!(!line.starts_with('#'), "{line}");
        let (name, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let (bare, labels) = name.split_once('{').map_or((name, None), |(bare, labels)| (bare, Some(labels)));
        let suffix = bare.strip_prefix(&family).unwrap_or_else(|| panic!("{line} is in the family {family}"));
        let allowed: &[&str] = if kinds[&family] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(allowed.contains(&suffix), "{line}");
        let metric = TABLE.iter().find(|metric| metric.name == family);
        let metric = metric.unwrap_or_else(|| panic!("{family} is not in the table"));
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert_eq!(kinds[&family], kind, "{family}");
        assert!(helps.contains_key(&family), "{family} is not described");
        let mut names: Vec<_> = labels.map_or(Vec::new(), |labels| label_names(labels, line));
        if suffix == "_bucket" {
            assert_eq!(names.pop(), Some("le"), "{line}");
        }
        assert_eq!(names, metric.labels, "{line}");
        assert!(series.insert(name.to_owned(), value).is_none(), "{name} is listed twice");
    }
    series
}

/// The names in `a="b",c="d"}`.
fn label_names<'a>(mut labels: &'a str, line: &str) -> Vec<&'a str> {
    let mut names = Vec::new();
    loop {
        let (name, rest) = labels.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
        names.push(name);
        let end = rest.find('"').unwrap();
        assert!(!rest[..end].contains('\\'), "no label value needs an escape: {line}");
        match &rest[end + 1..] {
            "}" => return names,
            more => labels = more.strip_prefix(',').unwrap_or_else(|| panic!("{line}")),
        }
    }
}

async fn scrape(proxy: &Proxy) -> Series {
    let answer = proxy.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    parse(&answer.text)
}

/// The sum of all series with this name whose labels contain `parts`.
fn sum(series: &Series, name: &str, parts: &[&str]) -> f64 {
    let fit = |key: &&String| key.split('{').next() == Some(name) && parts.iter().all(|part| key.contains(part));
    series.keys().filter(fit).map(|key| series[key]).sum()
}

const REQUESTS: &str = "hpc_storage_proxy_request_duration_seconds_count";
const EXCHANGES: &str = "hpc_storage_proxy_upstream_exchange_duration_seconds_count";
const REFRESHES: &str = "hpc_storage_proxy_refresh_duration_seconds_count";

#[tokio::test(flavor = "multi_thread")]
async fn metrics_follow_the_events() {
    let (simulator, proxy) = demo().await;
    let before = scrape(&proxy).await;
    assert_eq!(sum(&before, "hpc_storage_proxy_ready", &[]), 1.0);
    assert_eq!(sum(&before, REFRESHES, &["success"]), 1.0);
    assert_eq!(sum(&before, "hpc_storage_proxy_token_renewals_total", &["success"]), 1.0);
    assert!(sum(&before, "hpc_storage_proxy_gid_cache_misses_total", &[]) > 0.0);
    assert!(sum(&before, "hpc_storage_proxy_gid_cache_entries", &[]) > 0.0);
    assert!(sum(&before, "process_resident_memory_bytes", &[]) > 1e6);

    let listing = proxy.list("?page_size=500").await;
    assert_eq!(listing.status, 200);
    assert_eq!(proxy.get("/api/storage-resources?status=nonsense").await.status, 422);
    assert_eq!(proxy.get("/wp-login.php?a=1").await.status, 404);
    let item = listing.items()[0]["itemId"].as_str().unwrap();
    assert_eq!(proxy.get(&format!("/api/storage-resources/{item}/")).await.status, 200);
    let after = scrape(&proxy).await;
    for (route, status) in [
        ("/api/storage-resources", 200),
        ("/api/storage-resources", 422),
        ("/api/storage-resources/{item_id}", 200),
        ("(no route)", 404),
    ] {
        let parts = [format!("route=\"{route}\""), format!("status=\"{status}\"")];
        assert_eq!(sum(&after, REQUESTS, &[&parts[0], &parts[1]]), 1.0, "{route} {status}");
    }
    assert_eq!(sum(&after, REQUESTS, &[]), 4.0, "probes and scrapes do not count");
    assert_eq!(sum(&after, REFRESHES, &["success"]), 3.0);
    for (phase, count) in [("read", 3.0), ("build", 1.0), ("render", 1.0)] {
        let counted = sum(&after, "hpc_storage_proxy_refresh_phase_duration_seconds_count", &[phase]);
        assert_eq!(counted, count, "{phase}: nothing has changed in Waldur");
    }
    for (kind, count) in [("full", 3.0), ("changes", 0.0), ("unchanged", 2.0)] {
        assert_eq!(sum(&after, "hpc_storage_proxy_readings_total", &[kind]), count, "{kind}");
    }
    assert!(sum(&after, "hpc_storage_proxy_gid_cache_hits_total", &[]) > 0.0);
    assert!(sum(&after, EXCHANGES, &["Waldur", "success"]) > sum(&before, EXCHANGES, &["Waldur", "success"]));

    let items = "hpc_storage_proxy_items";
    #[expect(clippy::cast_precision_loss, reason = "few items")]
    let of = |count: usize| count as f64;
    assert_eq!(sum(&after, items, &[]), of(listing.items().len()));
    for (system, kind, status) in [("capstor", "project", "active"), ("vast", "user", "pending")] {
        let there = listing.items().iter().filter(|item| {
            item["storageSystem"]["key"] == system && item["target"]["targetType"] == kind && item["status"] == status
        });
        let parts = [format!("\"{system}\""), format!("\"{kind}\""), format!("\"{status}\"")];
        assert_eq!(sum(&after, items, &[&parts[0], &parts[1], &parts[2]]), of(there.count()), "{parts:?}");
    }
    let skipped = listing.body["skipped"].as_array().unwrap().len();
    assert_eq!(sum(&after, "hpc_storage_proxy_skipped_resources", &[]), of(skipped));

    simulator.set_fault("GET /api/marketplace-provider-resources/", Fault::status(500));
    for _ in 0..3 {
        assert_eq!(proxy.list("").await.status, 502);
    }
    let down = scrape(&proxy).await;
    assert_eq!(sum(&down, REQUESTS, &["502"]), 3.0);
    assert_eq!(sum(&down, REFRESHES, &["failure"]), 3.0);
    assert!(sum(&down, EXCHANGES, &["Waldur", "failed"]) >= 3.0);
    assert!(sum(&down, "hpc_storage_proxy_upstream_repeats_total", &["Waldur"]) >= 2.0);
    assert_eq!(sum(&down, items, &[]), of(listing.items().len()), "the snapshot stays");
    assert_eq!(sum(&down, "hpc_storage_proxy_upstream_breaker", &["Waldur"]), 1.0, "one state at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_separate_address_they_are_served_only_there() {
    let (_simulator, proxy) = demo_with(&[("SERVER_ADMIN_LISTEN", "127.0.0.1:0")]).await;
    let mut addresses = Vec::new();
    while addresses.len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let log = proxy.log();
        let listening = log.lines().filter(|line| line.contains("listening")).filter_map(crate::support::address);
        addresses = listening.collect();
    }
    let admin = format!("http://{}", addresses[1]);
    for path in ["/health/live", "/health/ready", "/metrics"] {
        assert_eq!(proxy.get_at(&admin, path, &[]).await.status, 200, "{path}");
        assert_eq!(proxy.get(path).await.status, 404, "{path}");
    }
    for path in ["/api/storage-resources/", "/api/version", "/docs", "/"] {
        assert_eq!(proxy.get_at(&admin, path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(proxy.list("").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_must_not_guess_the_content_type() {
    let (_simulator, proxy) = demo().await;
    for path in ["/api/storage-resources/", "/api/storage-resources/?page=0", "/api/version", "/docs", "/x", "/metrics"]
    {
        assert_eq!(proxy.get(path).await.headers["x-content-type-options"], "nosniff", "{path}");
    }
}
