//! What the answered requests would cost a real Waldur: requests, bytes and rows are counted, SQL queries and seconds are modelled.
//!
//! The model is linear: a constant per answer, and a constant per row, which depends on what is read of a resource. It was
//! fitted to measurements with release 7.0.7 and the fields of newer releases, on one machine with two cores:
//!
//! | measured | SQL queries | model | seconds | model |
//! |---|---|---|---|---|
//! | 100 resources without orders | 7 | 7 | | |
//! | 100 resources, `order_in_progress` | 275 | 227 (−17 %) | | |
//! | 100 resources, all fields | 2,898 | 2,897 | | |
//! | 1,057 resources without orders, 11 pages | | | 3.4 | 2.86 (−16 %) |
//! | 1,057 resources, `order_in_progress`, 11 pages | | | 6.7 | 6.88 (+3 %) |
//! | 1,057 resources, all fields, 11 pages | | | 41.5 | 41.4 |
//! | 64 resources without orders | | | 0.16 | 0.18 (+12 %) |
//! | 64 resources, `order_in_progress` | | | 0.44 | 0.42 (−4 %) |
//! | 32 orders from their own list | | | 0.11 | 0.10 (−9 %) |
//! | another, slower machine: 300 resources without orders | 5 | 7 (+40 %) | 2.2 to 2.6 | 0.77 (−68 %) |
//! | another, slower machine: 300 resources, `order_in_progress` | 586 | 667 (+14 %) | 6 to 9 | 1.91 (−75 %) |
//!
//! The slower machine needs 3 to 5 times as long, but the ratio with and without orders is about the same: 2.3 to 4.1
//! measured, 2.5 modelled. So seconds of the model are for comparisons.
//!
//! Not measured: an answer without rows, so the constant per answer is an estimate (7 queries, and 20 ms, with which the
//! measurements of resources without orders have the smallest error); answers other than these lists, which count like a
//! list without orders, or like one row; failed requests, which count like an answer without rows.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::{Call, Reply};

const QUERIES_PER_ANSWER: f64 = 7.0;
const QUERIES_PER_ROW_WITH_ORDER: f64 = 2.2;
const QUERIES_PER_ROW_WITH_ALL_FIELDS: f64 = 28.9;
const SECONDS_PER_ANSWER: f64 = 0.020;
const SECONDS_PER_ROW: f64 = 0.0025;
const SECONDS_PER_ROW_WITH_ORDER: f64 = 0.0063;
const SECONDS_PER_ROW_WITH_ALL_FIELDS: f64 = 0.039;

/// What was counted.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    requests: u32,
    bytes: u64,
    /// Rows without orders.
    plain: u32,
    /// Resources with `order_in_progress`.
    with_order: u32,
    /// Resources with all fields.
    with_all_fields: u32,
}

impl Counts {
    fn of(call: &Call, reply: &Reply) -> Self {
        let rows = if reply.status.is_success() { reply.items.unwrap_or(1) } else { 0 };
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        let bytes = u64::try_from(reply.body.len()).unwrap_or(u64::MAX);
        let counts = Self { requests: 1, bytes, ..Self::default() };
        let is_resource = call.method == Method::GET && call.path.split('/').nth(2).is_some_and(is_family_of_resources);
        let mut fields = call.all("field").peekable();
        if is_resource && fields.peek().is_none() {
            Self { with_all_fields: rows, ..counts }
        } else if is_resource && fields.any(|field| field == "order_in_progress") {
            Self { with_order: rows, ..counts }
        } else {
            Self { plain: rows, ..counts }
        }
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.plain += other.plain;
        self.with_order += other.with_order;
        self.with_all_fields += other.with_all_fields;
    }

    fn queries(self) -> f64 {
        QUERIES_PER_ANSWER * f64::from(self.requests)
            + QUERIES_PER_ROW_WITH_ORDER * f64::from(self.with_order)
            + QUERIES_PER_ROW_WITH_ALL_FIELDS * f64::from(self.with_all_fields)
    }

    fn seconds(self) -> f64 {
        SECONDS_PER_ANSWER * f64::from(self.requests)
            + SECONDS_PER_ROW * f64::from(self.plain)
            + SECONDS_PER_ROW_WITH_ORDER * f64::from(self.with_order)
            + SECONDS_PER_ROW_WITH_ALL_FIELDS * f64::from(self.with_all_fields)
    }

    fn shown(self) -> Value {
        let rows = self.plain + self.with_order + self.with_all_fields;
        json!({
            "requests": self.requests, "bytes": self.bytes, "rows": rows,
            "queries": self.queries().round(), "seconds": (self.seconds() * 1e4).round() / 1e4,
        })
    }
}

fn is_family_of_resources(family: &str) -> bool {
    matches!(family, "marketplace-resources" | "marketplace-provider-resources")
}

/// The costs by method and path, in which identifiers are `{uuid}`.
#[derive(Default)]
pub(crate) struct Costs(Mutex<BTreeMap<String, Counts>>);

impl Costs {
    /// Adds an answer of Waldur.
    pub(crate) fn add(&self, call: &Call, reply: &Reply) {
        let segment = |text: &str| if Uuid::try_parse(text).is_ok() { "{uuid}" } else { text }.to_owned();
        let path = call.path.split('/').map(segment).collect::<Vec<_>>().join("/");
        let mut costs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        costs.entry(format!("{} {path}", call.method)).or_default().add(Counts::of(call, reply));
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The costs by path, as JSON.
    pub(crate) fn shown(&self) -> Value {
        let costs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        costs.iter().map(|(path, counts)| (path.clone(), counts.shown())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    /// Answers and rows: without orders, with orders, with all fields.
    fn counts(requests: u32, [plain, with_order, with_all_fields]: [u32; 3]) -> Counts {
        Counts { requests, bytes: 0, plain, with_order, with_all_fields }
    }

    /// Difference of the model from the measurement, in percent.
    fn error(model: f64, measured: f64) -> String {
        format!("{:+.0}", (model / measured - 1.0) * 100.0)
    }

    #[test]
    fn the_model_differs_from_the_measured_queries_as_documented() {
        for (rows, measured, difference) in [
            ([100, 0, 0], 7.0, "+0"),
            ([0, 100, 0], 275.0, "-17"),
            ([0, 0, 100], 2898.0, "-0"),
            ([300, 0, 0], 5.0, "+40"),
            ([0, 300, 0], 586.0, "+14"),
        ] {
            assert_eq!(error(counts(1, rows).queries(), measured), difference, "{rows:?}");
        }
    }

    #[test]
    fn the_model_differs_from_the_measured_seconds_as_documented() {
        for (answers, rows, measured, difference) in [
            (11, [1057, 0, 0], 3.4, "-16"),
            (11, [0, 1057, 0], 6.7, "+3"),
            (11, [0, 0, 1057], 41.5, "-0"),
            (1, [64, 0, 0], 0.16, "+12"),
            (1, [0, 64, 0], 0.44, "-4"),
            (1, [32, 0, 0], 0.11, "-9"),
            // The middle of the measured ranges.
            (1, [300, 0, 0], 2.4, "-68"),
            (1, [0, 300, 0], 7.5, "-75"),
        ] {
            assert_eq!(error(counts(answers, rows).seconds(), measured), difference, "{rows:?}");
        }
    }
}
