//! The selected resources as CSV and JSON.

use std::borrow::Cow;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use super::filter::hold_name;
use super::story::Row;
use super::text::rfc3339;

/// A value of an exported row.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Text(Cow<'a, str>),
    Number(u64),
    Absent,
}

const COLUMNS: usize = 25;

/// A text, unless it is empty.
fn some(text: Option<&str>) -> Value<'_> {
    text.filter(|text| !text.is_empty()).map_or(Value::Absent, |text| Value::Text(Cow::Borrowed(text)))
}

/// The columns with the values of a row.
fn columns(row: &Row) -> [(&'static str, Value<'_>); COLUMNS] {
    let text = |text: &'static str| Value::Text(Cow::Borrowed(text));
    let optional = |text: Option<Cow<'static, str>>| text.map_or(Value::Absent, Value::Text);
    let non_empty = |text: &str| !text.is_empty();
    let time = |at: Option<OffsetDateTime>| optional(at.map(|at| Cow::Owned(rfc3339(at))));
    let number = |number: Option<u64>| number.map_or(Value::Absent, Value::Number);
    let (order, hold, reported) = (row.order.as_ref(), row.hold(), row.reported());
    let observed = reported.map(|reported| match serde_json::to_value(reported.observed) {
        Ok(serde_json::Value::String(name)) => Cow::Owned(name),
        _ => Cow::Borrowed(""),
    });
    [
        ("id", optional(row.id.map(|id| Cow::Owned(id.to_string())))),
        ("path", some(Some(&row.path))),
        ("system", some(Some(&row.system))),
        ("type", some(Some(&row.data_type))),
        ("customer", some(Some(&row.customer))),
        ("project", some(Some(&row.project))),
        ("slug", some(Some(&row.slug))),
        ("status", row.status.map_or(Value::Absent, |status| text(status.as_str()))),
        ("state", row.state.map_or(Value::Absent, |state| text(state.as_str()))),
        ("order_type", some(order.map(|order| order.kind.as_str()))),
        ("order_state", some(order.map(|order| order.state.as_str()))),
        ("order_created", time(order.and_then(|order| order.created))),
        ("turn", text(row.conclusion.turn.as_str())),
        ("since", time(row.conclusion.since)),
        ("why", some(Some(&*row.conclusion.why))),
        ("next", some(Some(&*row.conclusion.next))),
        ("hold", hold.map_or(Value::Absent, |hold| text(hold_name(hold.kind)))),
        ("observed", optional(observed.filter(|name| non_empty(name)))),
        ("used_bytes", number(row.usage().map(|usage| usage.bytes))),
        ("quota_bytes", number(row.quota().map(|quota| quota.bytes))),
        ("used_inodes", number(row.usage().map(|usage| usage.inodes))),
        ("quota_inodes", number(row.quota().map(|quota| quota.inodes))),
        ("full_at", time(row.full_at())),
        ("provisioner", some(row.received().map(|received| received.name.as_str()))),
        ("reported_at", time(row.received().map(|received| received.received_at))),
    ]
}

/// CSV (RFC 4180) with a header. Every text is quoted. Spreadsheets would run a text that begins like a formula, so such a text
/// begins with an apostrophe. Where columns are separated by semicolons, as in Switzerland, they ignore the quotes, so a part of a text after
/// a separator is treated likewise.
pub(super) fn csv(rows: &[&Row]) -> String {
    let names = columns(&Row::default()).map(|(name, _)| name);
    let mut csv = names.join(",") + "\r\n";
    for row in rows {
        for (position, (_, value)) in columns(row).into_iter().enumerate() {
            if position > 0 {
                csv.push(',');
            }
            match value {
                Value::Text(text) => {
                    csv.push('"');
                    if text.starts_with(SEPARATORS) {
                        csv.push('\'');
                    }
                    for part in text.split_inclusive(SEPARATORS) {
                        if is_formula(part) {
                            csv.push('\'');
                        }
                        csv.push_str(&part.replace('"', "\"\""));
                    }
                    csv.push('"');
                }
                Value::Number(number) => csv.push_str(&number.to_string()),
                Value::Absent => {}
            }
        }
        csv.push_str("\r\n");
    }
    csv
}

/// What may separate columns or rows.
const SEPARATORS: [char; 4] = [';', '\t', '\r', '\n'];

/// Whether a spreadsheet may take the text for a formula. Some ignore quotes and what is invisible at its beginning.
fn is_formula(text: &str) -> bool {
    let is_ignored =
        |letter: char| letter.is_whitespace() || letter.is_control() || matches!(letter, '"' | '\u{feff}' | '\u{200b}');
    text.trim_start_matches(is_ignored).starts_with(['=', '+', '-', '@', '|', '%', '＝', '＋', '－', '＠'])
}

struct Exported<'a>(&'a Row);

impl Serialize for Exported<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(COLUMNS))?;
        for (name, value) in columns(self.0) {
            map.serialize_entry(name, &value)?;
        }
        map.end()
    }
}

struct All<'a>(&'a [&'a Row]);

impl Serialize for All<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for row in self.0 {
            list.serialize_element(&Exported(row))?;
        }
        list.end()
    }
}

/// JSON: a list of objects with the columns of the CSV; `null` for what is absent.
///
/// # Errors
///
/// None in practice: all values can be represented in JSON.
pub(super) fn json(rows: &[&Row]) -> Result<String, serde_json::Error> {
    serde_json::to_string(&All(rows))
}
