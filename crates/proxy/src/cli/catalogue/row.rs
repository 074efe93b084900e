//! Items as rows of a table.

use catalog::{Enforcement, Item, Quota, QuotaType, Status, TargetItem, TargetOf, TargetType};
use comfy_table::{Cell, ColumnConstraint};

use crate::cli::terminal::{self, PADDING, Terminal, Tone, escaped};

/// The columns; those from [`WIDE`] on only with `--wide`.
const HEADER: [&str; 12] =
    ["MOUNT POINT", "STATUS", "TYPE", "MODE", "UID", "GID", "SPACE", "INODES", "ORDER", "SYSTEM", "NAME", "ITEM"];
/// Number of columns without `--wide`.
const WIDE: usize = 9;

/// Columns that are hidden in this order on a narrow terminal. The others are always shown completely.
const OPTIONAL: [&str; 6] = ["MODE", "UID", "INODES", "TYPE", "ORDER", "GID"];

/// One row per item, with its guide before the mount point. `wide` shows all columns, even beyond the terminal's width.
pub(super) fn table<'a>(rows: impl Iterator<Item = (String, &'a Item<'a>)>, wide: bool, terminal: Terminal) -> String {
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
pub(super) fn details(items: &[Item<'_>]) -> String {
    let field = |(name, value): (&str, String)| format!("{name:<12} {}\n", escaped(&value));
    let item = |item: &Item<'_>| HEADER.into_iter().zip(texts(item, "")).map(field).collect::<String>();
    items.iter().map(item).collect::<Vec<_>>().join("\n")
}

/// The texts for the columns of [`HEADER`]; `guide` precedes the mount point.
fn texts(item: &Item<'_>, guide: &str) -> [String; HEADER.len()] {
    let (name, uid, gid) = target(item);
    [
        format!("{guide}{}", item.mount_point.default),
        item.status.as_str().to_owned(),
        item.target.target_type.as_str().to_owned(),
        item.permission.value.to_owned(),
        or_dash(uid),
        or_dash(gid),
        quota(item, QuotaType::Space),
        quota(item, QuotaType::Inodes),
        order(item).to_owned(),
        format!("{}/{}", item.storage_system.key, item.storage_data_type.key),
        or_dash(name),
        item.item_id.to_string(),
    ]
}

fn cells(item: &Item<'_>, guide: &str, wide: bool, terminal: Terminal) -> Vec<Cell> {
    let tone = |name| if name == "STATUS" { tone(item) } else { Tone::Plain };
    let columns = HEADER.into_iter().zip(texts(item, guide)).take(if wide { HEADER.len() } else { WIDE });
    columns.map(|(name, text)| terminal.cell(tone(name), &escaped(&text))).collect()
}

/// Name, UID and GID of the target.
fn target<'a>(item: &'a Item<'_>) -> (Option<&'a str>, Option<i64>, Option<i64>) {
    let target = match &item.target.target_item {
        TargetOf::Node(node) => return (node.name.as_deref(), None, None),
        TargetOf::Built(target) => target,
        TargetOf::FromMetadata(target) => target,
    };
    match target {
        TargetItem::Project(project) => (project.name.as_deref(), None, project.unix_gid),
        TargetItem::User(user) => {
            let gid = user.primary_project.as_ref().map(|project| project.unix_gid);
            (user.name.as_deref(), user.unix_uid, gid)
        }
    }
}

fn tone(item: &Item<'_>) -> Tone {
    match (item.status, item.target.target_type) {
        (Status::Active, _) => Tone::Good,
        (Status::Error, _) => Tone::Bad,
        (Status::Removed, _) | (Status::Pending, TargetType::Tenant | TargetType::Customer) => Tone::Plain,
        _ => Tone::Odd,
    }
}

/// The hard limit, and its change by an update in progress.
fn quota(item: &Item<'_>, kind: QuotaType) -> String {
    let (shown, unit): (fn(f64) -> String, _) = match kind {
        QuotaType::Space => (number, " TB"),
        QuotaType::Inodes => (inodes, ""),
    };
    let hard = |quotas: &Option<[Quota; 4]>| {
        let is_hard = |quota: &&Quota| quota.kind == kind && quota.enforcement == Enforcement::Hard;
        quotas.iter().flatten().find(is_hard).map(|quota| shown(quota.quota))
    };
    match (hard(&item.quotas), hard(&item.new_quotas)) {
        (Some(now), Some(new)) if now != new => format!("{now} → {new}{unit}"),
        (Some(now), _) => format!("{now}{unit}"),
        (None, Some(new)) => format!("- → {new}{unit}"),
        (None, None) => String::from("-"),
    }
}

/// The state of the order in progress, as its callback links show it.
fn order(item: &Item<'_>) -> &'static str {
    if item.approve_by_provider_url.is_some() {
        "to approve"
    } else if item.set_state_done_url.is_some() {
        "executing"
    } else if item.set_backend_id_url.is_some() {
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
    use std::sync::Arc;

    use catalog::{MountPoint, Named, Permission, PrimaryProject, ProjectTarget, Target, Unit, UserTarget};
    use uuid::Uuid;

    use super::*;
    use crate::cli::terminal::PLAIN;

    fn quotas(space: f64, inodes: f64) -> [Quota; 4] {
        let of = |kind, quota, unit, enforcement| Quota { kind, quota, unit, enforcement };
        [
            of(QuotaType::Space, space - 1.0, Unit::Tera, Enforcement::Soft),
            of(QuotaType::Space, space, Unit::Tera, Enforcement::Hard),
            of(QuotaType::Inodes, inodes - 1.0, Unit::None, Enforcement::Soft),
            of(QuotaType::Inodes, inodes, Unit::None, Enforcement::Hard),
        ]
    }

    fn item() -> Item<'static> {
        let target = ProjectTarget {
            item_id: Uuid::from_u128(2),
            key: None,
            name: Some("p-1".into()),
            status: None,
            unix_gid: Some(30_500),
            active: None,
        };
        Item {
            item_id: Uuid::from_u128(1),
            status: Status::Active,
            mount_point: MountPoint { default: "/s/d/t/c/p".into() },
            permission: Permission { value: "2770", permission_type: "octal" },
            storage_system: Arc::new(Named::new("storage_system", "s")),
            storage_file_system: Arc::new(Named::new("storage_file_system", "lustre")),
            storage_data_type: Arc::new(Named::new("storage_data_type", "d")),
            target: Target {
                target_type: TargetType::Project,
                target_item: TargetOf::Built(TargetItem::Project(target)),
            },
            quotas: Some(quotas(10.0, 2e7)),
            old_quotas: None,
            new_quotas: None,
            parent_item_id: None,
            approve_by_provider_url: None,
            reject_by_provider_url: None,
            set_state_done_url: None,
            set_state_erred_url: None,
            set_backend_id_url: None,
            update_resource_options_url: None,
            set_state_ok_url: None,
        }
    }

    fn shown(item: &Item<'_>) -> Vec<String> {
        cells(item, "", false, PLAIN).iter().map(Cell::content).collect()
    }

    #[test]
    fn a_row_shows_the_hard_limits_and_the_identity() {
        let row = ["/s/d/t/c/p", "active", "project", "2770", "-", "30500", "10 TB", "20M", "-"];
        assert_eq!(shown(&item()), row);
    }

    #[test]
    fn details_show_every_field_on_its_own_line() {
        let details = details(&[item()]);
        assert_eq!(details.lines().count(), HEADER.len());
        assert!(details.contains("MOUNT POINT  /s/d/t/c/p\n") && details.contains("NAME         p-1\n"), "{details}");
    }

    #[test]
    fn a_user_shows_the_gid_of_the_project() {
        let user = UserTarget {
            item_id: Uuid::from_u128(2),
            key: None,
            name: None,
            status: None,
            email: None,
            unix_uid: Some(23_001),
            primary_project: Some(PrimaryProject { name: "p-1".into(), unix_gid: 30_500, active: true }),
            active: None,
        };
        let target = Target { target_type: TargetType::User, target_item: TargetOf::Built(TargetItem::User(user)) };
        assert_eq!(shown(&Item { target, ..item() })[4..6], ["23001", "30500"]);
    }

    #[test]
    fn an_update_shows_the_new_quota() {
        let item = Item {
            new_quotas: Some(quotas(12.5, 2e7)),
            approve_by_provider_url: Some("x".into()),
            set_state_done_url: Some("x".into()),
            ..item()
        };
        assert_eq!(shown(&item)[6..], ["10 → 12.5 TB", "20M", "to approve"]);
    }

    #[test]
    fn a_narrow_terminal_hides_columns_and_breaks_no_line() {
        let path = "/capstor/store/cscs/customer/project-1";
        let item = Item {
            mount_point: MountPoint { default: path.into() },
            new_quotas: Some(quotas(12.5, 2e7)),
            set_state_done_url: Some("x".into()),
            ..item()
        };
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
