//! The reference of all metrics, generated from the table.

use std::fmt::Write as _;

use super::table::{Kind, Metric, TABLE, Unit};

const HEAD: &str = include_str!("reference.md");

/// The text of `docs/metrics.md`.
pub fn reference() -> String {
    let mut out = HEAD.to_owned();
    for metric in TABLE {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}", row(metric));
    }
    out
}

fn row(Metric { name, kind, unit, labels, help }: &Metric) -> String {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let unit = match unit {
        Unit::Count => "–",
        Unit::Seconds => "seconds",
        Unit::Bytes => "bytes",
    };
    let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
    let labels = if labels.is_empty() { String::from("–") } else { labels.join(", ") };
    format!("| `{name}` | {kind} | {unit} | {labels} | {help} |")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut names = HashSet::new();
        for metric @ Metric { name, kind, unit, .. } in TABLE {
            assert!(names.insert(name), "{name} is listed twice");
            assert!(row(metric).matches('|').count() == 6 && !row(metric).contains('\n'), "{name}");
            assert!(name.starts_with("hpc_storage_proxy_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            let plain = name.trim_end_matches("_total");
            assert_eq!(plain.ends_with("_seconds"), *unit == Unit::Seconds, "{name}");
            assert_eq!(plain.ends_with("_bytes"), *unit == Unit::Bytes, "{name}");
            assert!(*kind != Kind::Histogram || *unit == Unit::Seconds, "{name}: the buckets are in seconds");
        }
    }
}
