//! Tests that the alerts, the dashboard and the runbook fit the metrics and each other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use provisioner_core::plan::Hold;
use regex::Regex;
use serde_json::Value;

use crate::metrics::METRICS;

const RUNBOOK: &str = "docs/provisioner-runbook.md";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

fn regex(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

fn alerts() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&read("ops/prometheus/provisioner-alerts.yml")).unwrap();
    let groups = file["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// All expressions of the dashboard and of its variables.
fn dashboard() -> Vec<String> {
    let file: Value = serde_json::from_str(&read("ops/grafana/hpc-storage-provisioner.json")).unwrap();
    let targets = file["panels"].as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let variables = file["templating"]["list"].as_array().unwrap().iter().map(|variable| &variable["query"]["query"]);
    targets.map(|target| &target["expr"]).chain(variables).filter_map(Value::as_str).map(str::to_owned).collect()
}

fn expressions() -> Vec<String> {
    alerts().iter().map(|alert| alert["expr"].as_str().unwrap().to_owned()).chain(dashboard()).collect()
}

/// The metric that a series belongs to, with its labels.
fn metric(series: &str) -> Option<(&'static str, &'static [&'static str])> {
    let belongs_to = |name: &str| match series.strip_prefix(name) {
        Some("") => !name.ends_with("duration_seconds"),
        Some("_bucket" | "_sum" | "_count") => name.ends_with("duration_seconds"),
        _ => false,
    };
    METRICS.iter().find(|(name, ..)| belongs_to(name)).map(|(name, labels, _)| (*name, *labels))
}

/// Names of metrics and labels in an expression that do not exist.
fn unknown(expression: &str) -> Vec<String> {
    const KNOWN: [&str; 21] = [
        "sum",
        "max",
        "by",
        "rate",
        "increase",
        "time",
        "histogram_quantile",
        "label_values",
        "or",
        "unless",
        "on",
        "up",
        "job",
        "instance",
        "le",
        "s",
        "m",
        "h",
        "$job",
        "$instance",
        "$__rate_interval",
    ];
    let words = regex(r#""(?:[^"\\]|\\.)*"|[A-Za-z_$][A-Za-z0-9_]*"#);
    let words: Vec<_> =
        words.find_iter(expression).map(|word| word.as_str()).filter(|word| !word.starts_with('"')).collect();
    let labels: BTreeSet<_> = words.iter().filter_map(|word| metric(word)).flat_map(|(_, labels)| labels).collect();
    let is_known = |word: &str| metric(word).is_some() || labels.contains(&word) || KNOWN.contains(&word);
    words.into_iter().filter(|word| !is_known(word)).map(str::to_owned).collect()
}

#[test]
fn expressions_use_existing_metrics_and_labels() {
    let expressions = expressions();
    assert!(expressions.len() > 25, "{}", expressions.len());
    for expression in &expressions {
        assert_eq!(unknown(expression), [""; 0], "{expression}");
    }
    // Tests the test.
    for (expression, found) in [
        ("rate(hpc_storage_provisioner_gone_total[5m])", "hpc_storage_provisioner_gone_total"),
        ("hpc_storage_provisioner_pass_duration_seconds", "hpc_storage_provisioner_pass_duration_seconds"),
        ("hpc_storage_provisioner_held_count", "hpc_storage_provisioner_held_count"),
        (r#"hpc_storage_provisioner_resources{hold="asks"}"#, "hold"),
    ] {
        assert_eq!(unknown(expression), [found], "{expression}");
    }
}

/// A label value that does not exist would never match.
#[test]
fn expressions_use_existing_label_values() {
    let holds: Vec<_> = Hold::ALL.iter().map(|hold| hold.name()).collect();
    let outcomes = ["whole", "failed", "ended", "accepted", "unclear", "refused", "denied"];
    let compared = regex(r#"\b(hold|outcome)(?:=|!=|=~)"([^"]*)""#);
    for expression in expressions() {
        for found in compared.captures_iter(&expression) {
            for value in found[2].split('|') {
                let fits = if &found[1] == "hold" { holds.contains(&value) } else { outcomes.contains(&value) };
                assert!(fits, "{value} in {expression}");
            }
        }
    }
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let all = dashboard().join("\n");
    let named: BTreeSet<_> = regex("[a-z_]+").find_iter(&all).filter_map(|word| metric(word.as_str())).collect();
    for (name, labels, _) in METRICS {
        assert!(named.contains(&(name, labels)), "{name}");
    }
}

#[test]
fn every_alert_is_complete_and_has_a_runbook_section() {
    let runbook = read(RUNBOOK);
    let mut sections: BTreeSet<_> =
        runbook.lines().filter_map(|line| line.strip_prefix("## ")).filter(|title| title.starts_with("Hpc")).collect();
    let kept = regex(r"\bby \(([^)]*)\)");
    let template = regex(r"\$labels\.([a-z_]+)");
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(sections.remove(name), "{name} has no section, or is defined twice");
        let annotations = &alert["annotations"];
        let place = format!("/usr/share/doc/hpc-storage-provisioner/runbook.md#{}", anchor(name));
        assert_eq!(annotations["runbook"], place);
        assert!(["critical", "warning"].contains(&alert["labels"]["severity"].as_str().unwrap()), "{name}");
        assert!(annotations["summary"].as_str().is_some_and(|text| text.len() > 10), "{name}");
        let (expression, description) = (alert["expr"].as_str().unwrap(), annotations["description"].as_str().unwrap());
        for found in template.captures_iter(description) {
            let label = &found[1];
            // An aggregation keeps the labels that it names; without one, all are kept.
            let has = match kept.captures(expression) {
                Some(kept) => kept[1].split(", ").any(|kept| kept == label),
                None => {
                    ["job", "instance"].contains(&label)
                        || regex("[a-z_]+")
                            .find_iter(expression)
                            .filter_map(|word| metric(word.as_str()))
                            .any(|(_, labels)| labels.contains(&label))
                }
            };
            assert!(has, "{name} has no {label}");
        }
    }
    assert!(sections.is_empty(), "the runbook has sections without an alert: {sections:?}");
}

/// The anchor of a heading, as GitHub generates it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn links_in_and_to_the_runbook_exist() {
    let link = regex(r"\]\(([^)#\s]*)(?:#([^)]*))?\)");
    let anchors = |text: &str| -> Vec<_> {
        text.lines()
            .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')))
            .map(anchor)
            .collect()
    };
    let mut to_it = 0;
    for from in [RUNBOOK, "docs/runbook.md", "docs/provisioner.md", "docs/deployment.md", "README.md"] {
        let text = read(from);
        for found in link.captures_iter(&text).filter(|found| !found[1].contains(':')) {
            let target = if found[1].is_empty() { path(from) } else { path(from).with_file_name("").join(&found[1]) };
            assert!(target.exists(), "{from}: {}", &found[0]);
            if let Some(desired) = found.get(2) {
                let there = std::fs::read_to_string(&target).unwrap();
                assert!(anchors(&there).iter().any(|anchor| anchor == desired.as_str()), "{from}: {}", &found[0]);
            }
            to_it += usize::from(from != RUNBOOK && found[1].ends_with("provisioner-runbook.md"));
        }
    }
    assert!(to_it > 2, "hardly anything links to the runbook");
}
