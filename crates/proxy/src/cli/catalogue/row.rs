//! The items of the document as a table for people.

use comfy_table::{Cell, ColumnConstraint};
use serde::Deserialize;
use uuid::Uuid;

use crate::cli::terminal::{self, PADDING, Terminal, Tone, escaped};

/// The columns; those from [`WIDE`] on with `--wide` only.
const HEADER: [&str; 12] =
    ["MOUNT POINT", "STATUS", "TYPE", "MODE", "UID", "GID", "SPACE", "INODES", "ORDER", "SYSTEM", "NAME", "ITEM"];
/// Columns that are shown without `--wide`.
const WIDE: usize = 9;

/// What a narrow terminal does without, in this order. What is left is shown whole, however narrow it is.
const DISPENSABLE: [&str; 6] = ["MODE", "UID", "INODES", "TYPE", "ORDER", "GID"];

/// Each item in a row, its guide before the mount point. `wide` shows every column, also beyond the terminal's width.
pub(super) fn table<'a>(rows: impl Iterator<Item = (String, &'a Item)>, wide: bool, terminal: Terminal) -> String {
    let mut table = terminal::table(if wide { &HEADER } else { &HEADER[..WIDE] });
    table.add_rows(rows.map(|(guide, item)| item.cells(&guide, wide, terminal)));
    if let Some(width) = terminal.width.filter(|_| !wide) {
        let content = table.column_max_content_widths();
        let needed = |hidden: &[&str]| -> usize {
            let shown = HEADER.iter().zip(&content).filter(|(name, _)| !hidden.contains(name));
            shown.map(|(_, width)| usize::from(width + PADDING)).sum::<usize>() - usize::from(PADDING)
        };
        let fits = (0..DISPENSABLE.len()).map(|count| &DISPENSABLE[..count]).find(|hidden| needed(hidden) <= width);
        let hidden = fits.unwrap_or(&DISPENSABLE);
        for (column, _) in table.column_iter_mut().zip(HEADER).filter(|(_, name)| hidden.contains(name)) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
    table.trim_fmt() + "\n"
}

/// What the commands show of an item.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    #[serde(rename = "itemId")]
    pub(super) id: Uuid,
    pub(super) status: String,
    mount_point: MountPoint,
    permission: Permission,
    storage_system: Named,
    storage_data_type: Named,
    target: Target,
    quotas: Option<Vec<Quota>>,
    new_quotas: Option<Vec<Quota>>,
    pub(super) parent_item_id: Option<Uuid>,
    #[serde(rename = "approve_by_provider_url")]
    approve_by_provider_url: Option<String>,
    #[serde(rename = "set_state_done_url")]
    set_state_done_url: Option<String>,
    #[serde(rename = "set_backend_id_url")]
    set_backend_id_url: Option<String>,
}

#[derive(Debug, Deserialize)]
struct MountPoint {
    default: String,
}

#[derive(Debug, Deserialize)]
struct Permission {
    value: String,
}

#[derive(Debug, Deserialize)]
struct Named {
    key: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    target_type: String,
    target_item: TargetItem,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TargetItem {
    name: Option<String>,
    unix_gid: Option<i64>,
    unix_uid: Option<i64>,
    primary_project: Option<PrimaryProject>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PrimaryProject {
    unix_gid: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Quota {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "quota")]
    limit: f64,
    enforcement_type: String,
}

/// Where an item stands in the hierarchy; each stands below one of a lower rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Tenant,
    Customer,
    Leaf,
}

/// What tells nodes with one id apart: storage system and data type.
pub(super) type Branch<'a> = (&'a str, &'a str);

impl Item {
    pub(super) fn mount_point(&self) -> &str {
        &self.mount_point.default
    }

    pub(super) fn branch(&self) -> Branch<'_> {
        (&self.storage_system.key, &self.storage_data_type.key)
    }

    pub(super) fn rank(&self) -> Rank {
        match self.target.target_type.as_str() {
            "tenant" => Rank::Tenant,
            "customer" => Rank::Customer,
            _ => Rank::Leaf,
        }
    }

    /// The cells of [`HEADER`]; `guide` goes before the mount point.
    fn cells(&self, guide: &str, wide: bool, terminal: Terminal) -> Vec<Cell> {
        let target = &self.target.target_item;
        let gid = target.unix_gid.or_else(|| target.primary_project.as_ref().map(|project| project.unix_gid));
        let system = format!("{}/{}", self.storage_system.key, self.storage_data_type.key);
        let texts = [
            format!("{guide}{}", self.mount_point()),
            self.status.clone(),
            self.target.target_type.clone(),
            self.permission.value.clone(),
            or_dash(target.unix_uid),
            or_dash(gid),
            self.quota("space", " TB"),
            self.quota("inodes", ""),
            self.order().to_owned(),
            system,
            target.name.clone().unwrap_or_else(|| String::from("-")),
            self.id.to_string(),
        ];
        let shown = if wide { HEADER.len() } else { WIDE };
        let tone = |column: usize| if HEADER[column] == "STATUS" { self.tone() } else { Tone::Plain };
        let texts = texts.iter().take(shown).enumerate();
        texts.map(|(column, text)| terminal.cell(tone(column), &escaped(text))).collect()
    }

    fn tone(&self) -> Tone {
        match self.status.as_str() {
            "active" => Tone::Good,
            "error" => Tone::Bad,
            "pending" if self.rank() != Rank::Leaf => Tone::Plain,
            "removed" => Tone::Plain,
            _ => Tone::Odd,
        }
    }

    /// The hard limit, and what an update in progress makes of it.
    fn quota(&self, kind: &str, unit: &str) -> String {
        let hard = |quotas: &Option<Vec<Quota>>| {
            let quotas = quotas.as_deref().unwrap_or_default();
            quotas.iter().find(|quota| quota.kind == kind && quota.enforcement_type == "hard").map(|quota| quota.limit)
        };
        let shown = if kind == "inodes" { inodes } else { number };
        let (now, new) = (hard(&self.quotas).map(shown), hard(&self.new_quotas).map(shown));
        match (now, new) {
            (Some(now), Some(new)) if now != new => format!("{now} → {new}{unit}"),
            (Some(now), _) => format!("{now}{unit}"),
            (None, Some(new)) => format!("- → {new}{unit}"),
            (None, None) => String::from("-"),
        }
    }

    /// What the callback links say about the order in progress.
    fn order(&self) -> &'static str {
        if self.approve_by_provider_url.is_some() {
            "to approve"
        } else if self.set_state_done_url.is_some() {
            "executing"
        } else if self.set_backend_id_url.is_some() {
            "open"
        } else {
            "-"
        }
    }
}

fn or_dash(number: Option<i64>) -> String {
    number.map_or_else(|| String::from("-"), |number| number.to_string())
}

/// A quota without digits that say nothing.
fn number(quota: f64) -> String {
    if quota >= 1e15 { format!("{quota:e}") } else { quota.to_string() }
}

/// A number of inodes: in millions where that is shorter and just as exact.
fn inodes(quota: f64) -> String {
    let (plain, millions) = (number(quota), format!("{}M", number(quota / 1e6)));
    if millions.len() < plain.len() { millions } else { plain }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::terminal::PLAIN;

    fn item(changes: &Value) -> Item {
        let mut record = json!({
            "itemId": Uuid::from_u128(1), "status": "active", "mountPoint": {"default": "/s/d/t/c/p"},
            "permission": {"value": "2770", "permissionType": "octal"}, "storageSystem": {"key": "s"},
            "storageDataType": {"key": "d"},
            "target": {"targetType": "project", "targetItem": {"name": "p-1", "unixGid": 30500}},
            "quotas": [{"type": "space", "quota": 9.0, "enforcementType": "soft"},
                {"type": "space", "quota": 10.0, "enforcementType": "hard"},
                {"type": "inodes", "quota": 2e7, "enforcementType": "hard"}],
            "newQuotas": null, "parentItemId": null,
        });
        record.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        serde_json::from_value(record).unwrap()
    }

    fn shown(item: &Item) -> Vec<String> {
        item.cells("", false, PLAIN).iter().map(Cell::content).collect()
    }

    #[test]
    fn a_row_shows_the_hard_limits_and_the_identity() {
        let row = ["/s/d/t/c/p", "active", "project", "2770", "-", "30500", "10 TB", "20M", "-"];
        assert_eq!(shown(&item(&json!({}))), row);
    }

    #[test]
    fn a_user_shows_the_gid_of_the_project() {
        let target = json!({"unixUid": 23001, "primaryProject": {"unixGid": 30500}});
        let user = item(&json!({"target": {"targetType": "user", "targetItem": target}}));
        assert_eq!(shown(&user)[4..6], ["23001", "30500"]);
    }

    #[test]
    fn an_update_shows_where_it_goes() {
        let new = json!([{"type": "space", "quota": 12.5, "enforcementType": "hard"},
            {"type": "inodes", "quota": 2e7, "enforcementType": "hard"}]);
        let row = shown(&item(&json!({"newQuotas": new, "approve_by_provider_url": "x", "set_state_done_url": "x"})));
        assert_eq!(row[6..], ["10 → 12.5 TB", "20M", "to approve"]);
    }

    #[test]
    fn a_narrow_terminal_does_without_some_columns_and_breaks_none() {
        let path = "/capstor/store/cscs/customer/project-1";
        let new = json!([{"type": "space", "quota": 12.5, "enforcementType": "hard"}]);
        let item = item(&json!({"mountPoint": {"default": path}, "newQuotas": new, "set_state_done_url": "x"}));
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
