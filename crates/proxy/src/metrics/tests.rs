//! Compares the metrics, and the alerts and dashboard of `ops`, with the table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use regex::Regex;
use serde_json::Value;

use super::*;

fn read(path: &str) -> String {
    std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

/// The rules of `ops/prometheus/alerts.yml`.
fn alerts() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&read("ops/prometheus/alerts.yml")).unwrap();
    let groups = file["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// Every expression of the dashboard, including its variables.
fn dashboard_expressions() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match value {
                        Value::String(text) if key == "expr" || (key == "query" && text.contains('(')) => {
                            found.push(text.clone());
                        }
                        _ => collect(value, found),
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(&read("ops/grafana/hpc-storage-proxy.json")).unwrap();
    let mut found = Vec::new();
    collect(&dashboard, &mut found);
    found
}

/// Metric names and labels in an expression that are not in the table.
fn unknown(expression: &str) -> Vec<String> {
    let words = Regex::new(r#""(?:[^"\\]|\\.)*"|[A-Za-z_$][A-Za-z0-9_]*"#).unwrap();
    let known = [
        "sum",
        "max",
        "min",
        "count",
        "rate",
        "increase",
        "changes",
        "time",
        "avg_over_time",
        "histogram_quantile",
        "label_values",
        "by",
        "and",
        "offset",
        "up",
        "job",
        "instance",
        "le",
        "s",
        "m",
        "h",
        "$__rate_interval",
    ];
    let mut unknown = Vec::new();
    let mut labels: BTreeSet<&str> = BTreeSet::new();
    let mut others = Vec::new();
    // Durations such as `15m` leave their unit as a word.
    for word in words.find_iter(expression).map(|found| found.as_str()).filter(|word| !word.starts_with('"')) {
        if let Some(metric) = TABLE.iter().find(|metric| metric.is_called(word)) {
            labels.extend(metric.labels);
        } else if word.starts_with("hpc_storage_proxy_") || word.starts_with("process_") {
            unknown.push(word.to_owned());
        } else {
            others.push(word);
        }
    }
    unknown.extend(others.into_iter().filter(|word| !known.contains(word) && !labels.contains(word)).map(String::from));
    unknown
}

impl Metric {
    /// Whether a series of this metric has this name.
    fn is_called(&self, name: &str) -> bool {
        matches!(
            (self.kind, name.strip_prefix(self.name)),
            (Kind::Histogram, Some("_bucket" | "_sum" | "_count")) | (Kind::Counter | Kind::Gauge, Some(""))
        )
    }
}

#[test]
fn expressions_use_only_published_metrics_and_labels() {
    let alerts = alerts();
    let expressions = alerts.iter().map(|alert| alert["expr"].as_str().unwrap().to_owned());
    let expressions: Vec<_> = expressions.chain(dashboard_expressions()).collect();
    assert!(expressions.len() > 40, "{}", expressions.len());
    for expression in &expressions {
        assert_eq!(unknown(expression), [""; 0], "{expression}");
    }
    // The check itself finds mistakes.
    for (expression, found) in [
        ("rate(hpc_storage_proxy_gone_total[5m])", "hpc_storage_proxy_gone_total"),
        ("hpc_storage_proxy_request_duration_seconds", "hpc_storage_proxy_request_duration_seconds"),
        ("hpc_storage_proxy_ready_count", "hpc_storage_proxy_ready_count"),
        ("sum by (upstream) (hpc_storage_proxy_ready)", "upstream"),
        (r#"hpc_storage_proxy_items{system="a"}"#, "system"),
    ] {
        assert_eq!(unknown(expression), [found], "{expression}");
    }
}

#[test]
fn every_metric_is_on_the_dashboard_or_in_an_alert() {
    let all = dashboard_expressions().into_iter().chain(alerts().into_iter().map(|alert| alert["expr"].to_string()));
    let all = all.collect::<Vec<_>>().join("\n");
    let words = Regex::new("[a-z_]+").unwrap();
    let named: BTreeSet<_> = words.find_iter(&all).map(|word| word.as_str()).collect();
    for metric in TABLE.iter().filter(|metric| metric.name.starts_with("hpc_storage_proxy_")) {
        assert!(named.iter().any(|word| metric.is_called(word)), "{}", metric.name);
    }
}

#[test]
fn every_alert_is_complete_and_has_a_section_in_the_runbook() {
    let runbook = read("docs/runbook.md");
    let mut sections: BTreeSet<_> = runbook.lines().filter_map(|line| line.strip_prefix("## Hpc")).collect();
    let kept = Regex::new(r"\bby \(([^)]*)\)").unwrap();
    let template = Regex::new(r"\$labels\.([a-z_]+)").unwrap();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(sections.remove(name.strip_prefix("Hpc").unwrap()), "{name} has no section, or is listed twice");
        let annotations = &alert["annotations"];
        assert_eq!(
            annotations["runbook"],
            format!("/usr/share/doc/hpc-storage-proxy/runbook.md#{}", name.to_lowercase())
        );
        assert!(["critical", "warning"].contains(&alert["labels"]["severity"].as_str().unwrap()), "{name}");
        assert!(annotations["summary"].as_str().is_some_and(|text| text.len() > 10), "{name}");
        let description = annotations["description"].as_str().unwrap();
        for label in template.captures_iter(description).map(|found| found[1].to_owned()) {
            let expression = alert["expr"].as_str().unwrap();
            // An aggregation keeps the labels that it names; without aggregation all are kept.
            let outer = kept.captures(expression).map(|found| found[1].to_owned());
            assert!(outer.is_none_or(|kept| kept.split(", ").any(|kept| kept == label)), "{name} has no {label}");
        }
    }
    assert!(sections.is_empty(), "the runbook has sections without an alert: {sections:?}");
    // Links within the runbook have a target.
    let anchors: BTreeSet<_> =
        runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_lowercase).collect();
    let links = Regex::new(r"\]\(#([^)]*)\)").unwrap();
    for link in links.captures_iter(&runbook) {
        assert!(anchors.contains(&link[1]), "{}", &link[1]);
    }
}

#[test]
fn events_are_counted() {
    let recorder = new_recorder().unwrap();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        describe();
        request("/api/storage-resources/", Some(StatusCode::OK), Duration::from_millis(3));
        request("/api/storage-resources", Some(StatusCode::OK), Duration::from_millis(300));
        request("(no route)", None, Duration::from_millis(3));
        refresh(false, Duration::from_secs(2));
        phase("build", Duration::from_millis(1));
        gids(3, 2);
        gids(1, 0);
        token_renewal(true);
        key_renewal(false);
        exchange("Waldur", "timed_out", Duration::from_secs(5));
        repeat("Waldur");
    });
    let text = handle.render();
    let lines: BTreeMap<_, _> = text.lines().filter_map(|line| line.rsplit_once(' ')).collect();
    for (series, value) in [
        (r#"hpc_storage_proxy_request_duration_seconds_count{route="/api/storage-resources",status="200"}"#, "2"),
        (
            r#"hpc_storage_proxy_request_duration_seconds_bucket{route="/api/storage-resources",status="200",le="0.005"}"#,
            "1",
        ),
        (r#"hpc_storage_proxy_request_duration_seconds_count{route="(no route)",status="gone"}"#, "1"),
        (r#"hpc_storage_proxy_refresh_duration_seconds_sum{outcome="failure"}"#, "2"),
        (r#"hpc_storage_proxy_refresh_phase_duration_seconds_count{phase="build"}"#, "1"),
        ("hpc_storage_proxy_gid_cache_hits_total", "4"),
        ("hpc_storage_proxy_gid_cache_misses_total", "2"),
        (r#"hpc_storage_proxy_token_renewals_total{outcome="success"}"#, "1"),
        (r#"hpc_storage_proxy_token_renewals_total{outcome="failure"}"#, "0"),
        (r#"hpc_storage_proxy_key_renewals_total{outcome="failure"}"#, "1"),
        (r#"hpc_storage_proxy_upstream_exchange_duration_seconds_count{upstream="Waldur",outcome="timed_out"}"#, "1"),
        (r#"hpc_storage_proxy_upstream_repeats_total{upstream="Waldur"}"#, "1"),
    ] {
        assert_eq!(lines.get(series), Some(&value), "{series}\n{text}");
    }
}
