//! Items as rows of a table. An item is the JSON of the API, because it may come from a running proxy.

use comfy_table::{Cell, ColumnConstraint};
use serde_json::Value;

use crate::cli::terminal::{self, PADDING, Terminal, Tone, escaped};

/// The columns; those from [`WIDE`] on only with `--wide`.
const HEADER: [&str; 12] =
    ["MOUNT POINT", "STATUS", "TYPE", "MODE", "UID", "GID", "SPACE", "INODES", "ORDER", "SYSTEM", "NAME", "ITEM"];
/// Number of columns without `--wide`.
const WIDE: usize = 9;

/// Columns that are hidden in this order on a narrow terminal. The others are always shown completely.
const OPTIONAL: [&str; 6] = ["MODE", "UID", "INODES", "TYPE", "ORDER", "GID"];

/// One row per item, with its guide before the mount point. `wide` shows all columns, even beyond the terminal's width.
pub(super) fn table<'a>(rows: impl Iterator<Item = (String, &'a Value)>, wide: bool, terminal: Terminal) -> String {
    let mut table = terminal::table(if wide { &HEADER } else { &HEADER[..WIDE] });
    table.add_rows(rows.map(|(guide, item)| cells(item, &guide, wide, terminal)));
    if let Some(width) = terminal.width.filter(|_| !wide) {
        let content = table.column_max_content_widths();
        let needed = |hidden: &[&str]| -> usize {
            let shown = HEADER.iter().zip(&content).filter(|(name, _)| !hidden.contains(name));
            shown.map(|(_, width)| usize::from(width + PADDING)).sum::<usize>() - usize::from(PADDING)
        };
        let fits = (0..OPTIONAL.len()).map(|count| &OPTIONAL[..count]).find(|hidden| needed(hidden) <= width);
        let hidden = fits.unwrap_or(&OPTIONAL);
        for (column, _) in table.column_iter_mut().zip(HEADER).filter(|(_, name)| hidden.contains(name)) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
    table.trim_fmt() + "\n"
}

/// All fields of each item, one per line.
pub(super) fn details(items: &[Value]) -> String {
    let field = |(name, value): (&str, String)| format!("{name:<12} {}\n", escaped(&value));
    let item = |item: &Value| columns(item).map(field).collect::<String>();
    items.iter().map(item).collect::<Vec<_>>().join("\n")
}

/// The columns of an item with their names; `-` stands for nothing.
pub(super) fn columns(item: &Value) -> impl Iterator<Item = (&'static str, String)> {
    let text = |at| or_dash(item.pointer(at).and_then(Value::as_str));
    let integer = |at| item.pointer(at).and_then(Value::as_i64);
    let texts = [
        text("/mountPoint/default"),
        text("/status"),
        text("/target/targetType"),
        text("/permission/value"),
        or_dash(integer("/target/targetItem/unixUid")),
        or_dash(integer("/target/targetItem/unixGid").or(integer("/target/targetItem/primaryProject/unixGid"))),
        quota(item, "space"),
        quota(item, "inodes"),
        order(item).to_owned(),
        format!("{}/{}", text("/storageSystem/key"), text("/storageDataType/key")),
        text("/target/targetItem/name"),
        text("/itemId"),
    ];
    HEADER.into_iter().zip(texts)
}

fn cells(item: &Value, guide: &str, wide: bool, terminal: Terminal) -> Vec<Cell> {
    let cell = |(name, text): (_, String)| match name {
        "MOUNT POINT" => terminal.cell(Tone::Plain, &escaped(&format!("{guide}{text}"))),
        "STATUS" => terminal.cell(tone(item), &escaped(&text)),
        _ => terminal.cell(Tone::Plain, &escaped(&text)),
    };
    columns(item).take(if wide { HEADER.len() } else { WIDE }).map(cell).collect()
}

fn tone(item: &Value) -> Tone {
    match (item["status"].as_str(), item["target"]["targetType"].as_str()) {
        (Some("active"), _) => Tone::Good,
        (Some("error"), _) => Tone::Bad,
        (Some("removed"), _) | (Some("pending"), Some("tenant" | "customer")) => Tone::Plain,
        _ => Tone::Odd,
    }
}

/// The hard limit, and its change by an update in progress.
fn quota(item: &Value, kind: &str) -> String {
    let (shown, unit): (fn(f64) -> String, _) = if kind == "space" { (number, " TB") } else { (inodes, "") };
    let hard = |quotas: &Value| {
        let is_hard = |quota: &&Value| quota["type"] == kind && quota["enforcementType"] == "hard";
        quotas.as_array()?.iter().find(is_hard)?["quota"].as_f64().map(shown)
    };
    match (hard(&item["quotas"]), hard(&item["newQuotas"])) {
        (Some(now), Some(new)) if now != new => format!("{now} → {new}{unit}"),
        (Some(now), _) => format!("{now}{unit}"),
        (None, Some(new)) => format!("- → {new}{unit}"),
        (None, None) => String::from("-"),
    }
}

/// The state of the order in progress, as its callback links show it.
fn order(item: &Value) -> &'static str {
    if item["approve_by_provider_url"].is_string() {
        "to approve"
    } else if item["set_state_done_url"].is_string() {
        "executing"
    } else if item["set_backend_id_url"].is_string() {
        "open"
    } else {
        "-"
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| String::from("-"), |value| value.to_string())
}

/// A quota without meaningless digits.
fn number(quota: f64) -> String {
    if quota >= 1e15 { format!("{quota:e}") } else { quota.to_string() }
}

/// A number of inodes: in millions if that is shorter and still exact.
fn inodes(quota: f64) -> String {
    let (plain, millions) = (number(quota), format!("{}M", number(quota / 1e6)));
    if millions.len() < plain.len() { millions } else { plain }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::terminal::PLAIN;

    fn quotas(space: f64, inodes: f64) -> Value {
        let of = |kind, quota, unit, enforcement| json!({"type": kind, "quota": quota, "unit": unit, "enforcementType": enforcement});
        json!([
            of("space", space - 1.0, "tera", "soft"),
            of("space", space, "tera", "hard"),
            of("inodes", inodes - 1.0, "none", "soft"),
            of("inodes", inodes, "none", "hard"),
        ])
    }

    /// An item with these fields instead of the usual ones.
    fn item(fields: Value) -> Value {
        let mut item = json!({
            "itemId": "00000000-0000-0000-0000-000000000001",
            "status": "active",
            "mountPoint": {"default": "/s/d/t/c/p"},
            "permission": {"value": "2770"},
            "storageSystem": {"key": "s"},
            "storageDataType": {"key": "d"},
            "target": {"targetType": "project", "targetItem": {"name": "p-1", "unixGid": 30_500}},
            "quotas": quotas(10.0, 2e7),
            "newQuotas": null,
            "set_state_done_url": null,
        });
        let Value::Object(fields) = fields else { panic!("no object") };
        item.as_object_mut().unwrap().extend(fields);
        item
    }

    fn shown(item: &Value) -> Vec<String> {
        cells(item, "", false, PLAIN).iter().map(Cell::content).collect()
    }

    #[test]
    fn a_row_shows_the_hard_limits_and_the_identity() {
        let row = ["/s/d/t/c/p", "active", "project", "2770", "-", "30500", "10 TB", "20M", "-"];
        assert_eq!(shown(&item(json!({}))), row);
    }

    #[test]
    fn details_show_every_field_on_its_own_line() {
        let details = details(&[item(json!({}))]);
        assert_eq!(details.lines().count(), HEADER.len());
        assert!(details.contains("MOUNT POINT  /s/d/t/c/p\n") && details.contains("NAME         p-1\n"), "{details}");
    }

    #[test]
    fn a_user_shows_the_gid_of_the_project() {
        let user = json!({"name": null, "unixUid": 23_001, "primaryProject": {"name": "p-1", "unixGid": 30_500}});
        let item = item(json!({"target": {"targetType": "user", "targetItem": user}}));
        assert_eq!(shown(&item)[4..6], ["23001", "30500"]);
    }

    #[test]
    fn an_update_shows_the_new_quota() {
        let item = item(json!({
            "newQuotas": quotas(12.5, 2e7),
            "approve_by_provider_url": "x",
            "set_state_done_url": "x",
        }));
        assert_eq!(shown(&item)[6..], ["10 → 12.5 TB", "20M", "to approve"]);
    }

    #[test]
    fn a_narrow_terminal_hides_columns_and_breaks_no_line() {
        let path = "/capstor/store/cscs/customer/project-1";
        let item = item(json!({
            "mountPoint": {"default": path},
            "newQuotas": quotas(12.5, 2e7),
            "set_state_done_url": "x",
        }));
        let lines = |width, wide| {
            let terminal = Terminal { width: Some(width), ..PLAIN };
            let text = table([(String::from("└── "), &item)].into_iter(), wide, terminal);
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(text.contains(&format!("└── {path}  active")) && text.contains("10 → 12.5 TB"), "{text}");
            let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
            let header = text.lines().next().unwrap().split("  ").map(str::trim).filter(|name| !name.is_empty());
            (header.collect::<Vec<_>>().join(","), longest)
        };
        for (width, shown) in [
            (120, "MOUNT POINT,STATUS,TYPE,MODE,UID,GID,SPACE,INODES,ORDER"),
            (105, "MOUNT POINT,STATUS,TYPE,UID,GID,SPACE,INODES,ORDER"),
            (95, "MOUNT POINT,STATUS,TYPE,GID,SPACE,ORDER"),
            (85, "MOUNT POINT,STATUS,GID,SPACE,ORDER"),
            (75, "MOUNT POINT,STATUS,GID,SPACE"),
            (70, "MOUNT POINT,STATUS,SPACE"),
        ] {
            let (header, longest) = lines(width, false);
            assert_eq!(header, shown, "{width}");
            assert!(longest <= width, "{longest} {width}");
        }
        assert_eq!(lines(20, false).0, "MOUNT POINT,STATUS,SPACE");
        assert!(lines(80, true).0.ends_with("ORDER,SYSTEM,NAME,ITEM"));
    }

    #[test]
    fn inodes_are_never_rounded() {
        let shown = [1_500_000.0, 13_965_000.0, 20_000_001.0, 999.0, 0.0].map(inodes);
        assert_eq!(shown, ["1.5M", "13.965M", "20000001", "999", "0"]);
    }

    #[test]
    fn numbers_stay_short() {
        let numbers = [1e-7, 0.1, 10.0, 1e15, 1e300].map(number);
        assert_eq!(numbers, ["0.0000001", "0.1", "10", "1e15", "1e300"]);
    }
}
