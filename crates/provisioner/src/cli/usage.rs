//! `usage`: shows the usage, and reports it to Waldur.

use std::cmp::Reverse;

use clap::ValueEnum;
use program::error_chain;
use provisioner_core::document::{Resource, Status};
use provisioner_core::plan::Case;
use serde::Serialize;
use storage_driver::limits::{Bytes, Inodes, QuotaLimits, Terabyte, Usage};
use storage_driver::{DriverError, Observed};
use uuid::Uuid;

use super::out::{self, Page};
use super::{EXIT_FAILURE, Failure, failure, progress};
use crate::ledger::Ledger;
use crate::pass::{Survey, System};
use crate::provisioner::Provisioner;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// By path
    Path,
    /// The most space first
    Space,
    /// The most inodes first
    Inodes,
    /// The fullest quota first, of space or of inodes
    Percent,
}

/// The usage of one directory.
#[derive(Debug, Serialize)]
struct Row<'a> {
    system: &'a str,
    resource: Uuid,
    path: &'a str,
    usage: Option<Usage>,
    /// `None` in the trash, where quotas are frozen at the usage.
    limits: Option<QuotaLimits>,
    /// Percent of the hard quotas.
    percent: Option<Percent>,
    /// Since when it is in the trash, in seconds since 1970.
    in_trash_since: Option<u64>,
    #[serde(skip)]
    terabyte: Terabyte,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Percent {
    space: f64,
    inodes: f64,
}

/// Shows the usage of each resource, and reports it to Waldur with `report`. Unknown usage is shown as unknown, never as 0.
pub(super) fn usage(
    provisioner: &Provisioner,
    json: bool,
    report: bool,
    sort: Option<Sort>,
    fresh: bool,
) -> Result<(), Failure> {
    if report && provisioner.settings.waldur.is_none() {
        return Err(failure("--report needs waldur.api_url and waldur.api_token"));
    }
    // Waldur refuses usage of resources that ended since the newest snapshot.
    let (survey, notes) = provisioner.look(fresh || report)?;
    out::notes(&notes);
    let (mut rows, mut reported, mut failed) = (Vec::new(), 0, 0);
    for system in &provisioner.systems {
        for (row, status) in in_use(provisioner, &survey, system, &mut failed) {
            // In other states Waldur refuses usage (400).
            let reportable = matches!(status, Status::Active | Status::Updating | Status::Removing);
            if let (true, true, Some(usage)) = (report, reportable, row.usage) {
                let amount = hundredths(usage.space.0, row.terabyte.bytes());
                match provisioner.source.report_usage(row.resource, &provisioner.settings.usage_component, amount) {
                    Ok(()) => reported += 1,
                    Err(fault) => {
                        out::eprint(&format!("{}: {fault}", row.path));
                        failed += 1;
                    }
                }
            }
            rows.push(row);
        }
        if !report {
            rows.extend(in_trash(provisioner, &survey, system, &mut failed));
        }
    }
    if let Some(sort) = sort {
        order(&mut rows, sort);
    }
    if json {
        out::print_json(&rows)?;
    } else {
        let mut page = page(&rows, &provisioner.systems);
        if report {
            page.line(0, &format!("{reported} reported to Waldur."));
        }
        page.print()?;
    }
    if failed == 0 {
        Ok(())
    } else {
        Err(Failure { code: EXIT_FAILURE, text: format!("{failed} could not be read or reported") })
    }
}

/// The usage of resources that are in use, with their status.
fn in_use<'a>(
    provisioner: &Provisioner,
    survey: &'a Survey,
    system: &'a System,
    failed: &mut usize,
) -> Vec<(Row<'a>, Status)> {
    let in_use = |status| !matches!(status, Status::Removed | Status::Pending);
    let ours = survey.cases.iter().filter(|case| case.resource.system == system.key && in_use(case.resource.status));
    let cases: Vec<_> =
        ours.filter_map(|case| Some((&case.resource, case.desired.as_ref().ok()?, read(case)))).collect();
    let unread: Vec<_> = cases.iter().filter(|(_, _, read)| read.is_none()).map(|(_, desired, _)| *desired).collect();
    let mut walked = progress::during(&provisioner.walked, || system.driver.usage(&unread)).into_iter();
    let one = |(resource, desired, read): (&'a Resource, &storage_driver::Desired, Option<Usage>)| {
        let usage = read.map_or_else(|| walked.next().unwrap_or(Ok(None)), |usage| Ok(Some(usage)));
        let usage = known(usage, &resource.path, failed);
        let limits = desired.limits;
        let percent = usage.map(|usage| Percent {
            space: percent(usage.space.0, limits.space_hard().0),
            inodes: percent(usage.inodes.0, limits.inodes_hard().0),
        });
        let row = Row {
            system: &system.key,
            resource: resource.id,
            path: &resource.path,
            usage,
            limits: Some(limits),
            percent,
            in_trash_since: None,
            terabyte: system.rules.terabyte,
        };
        (row, resource.status)
    };
    cases.into_iter().map(one).collect()
}

/// The usage of trees in the trash.
fn in_trash<'a>(provisioner: &Provisioner, survey: &'a Survey, system: &'a System, failed: &mut usize) -> Vec<Row<'a>> {
    let trash = match system.driver.ready().and_then(|()| system.driver.trash()) {
        Ok(trash) => trash,
        Err(fault) => {
            out::eprint(&format!("the trash of {}: {}", system.key, error_chain(&fault)));
            *failed += 1;
            return Vec::new();
        }
    };
    // If the project IDs cannot be read, a note says so, and trees are counted file by file.
    let mut ledger = Ledger::open(&provisioner.ledger_path()).unwrap_or_default();
    let _ = ledger.load(&system.key, &*system.driver);
    let trash: Vec<_> = trash
        .into_iter()
        .map(|trashed| (ledger.known(&system.key, trashed.id), trashed))
        .map(|(id, it)| (it, id))
        .collect();
    let usages = progress::during(&provisioner.walked, || system.driver.trash_usage(&trash));
    let one = |((trashed, _), usage): (_, Result<Option<Usage>, DriverError>)| {
        let trashed: storage_driver::Trashed = trashed;
        let resource = survey.document.resources.iter().find(|resource| resource.id == trashed.id);
        let usage = known(usage, &format!("{} in the trash of {}", trashed.id, system.key), failed);
        Row {
            system: &system.key,
            resource: trashed.id,
            path: resource.map_or("", |resource| &resource.path),
            usage,
            limits: None,
            percent: None,
            in_trash_since: Some(trashed.since),
            terabyte: system.rules.terabyte,
        }
    };
    trash.into_iter().zip(usages).map(one).collect()
}

/// The usage, if known. Prints and counts errors.
fn known(usage: Result<Option<Usage>, DriverError>, name: &str, failed: &mut usize) -> Option<Usage> {
    usage.unwrap_or_else(|fault| {
        out::eprint(&format!("{name}: {}", error_chain(&fault)));
        *failed += 1;
        None
    })
}

fn order(rows: &mut [Row<'_>], sort: Sort) {
    let usage = |row: &Row<'_>| row.usage.map(|usage| (usage.space, usage.inodes));
    match sort {
        Sort::Path => rows.sort_by(|a, b| (a.path, a.in_trash_since).cmp(&(b.path, b.in_trash_since))),
        Sort::Space => rows.sort_by_key(|row| Reverse(usage(row).map(|(space, _)| space))),
        Sort::Inodes => rows.sort_by_key(|row| Reverse(usage(row).map(|(_, inodes)| inodes))),
        Sort::Percent => {
            let fullest = |row: &Row<'_>| row.percent.map_or(-1.0, |percent| percent.space.max(percent.inodes));
            rows.sort_by(|a, b| fullest(b).total_cmp(&fullest(a)));
        }
    }
}

/// Percent with one decimal, rounded down, so that only a full quota is shown as full.
#[expect(clippy::cast_precision_loss, reason = "thousandths of a quota")]
fn percent(used: u64, hard: u64) -> f64 {
    (u128::from(used) * 1000 / u128::from(hard.max(1))) as f64 / 10.0
}

/// The usage of each resource, and the sums of each system.
fn page(rows: &[Row<'_>], systems: &[System]) -> Page {
    let mut page = Page::new();
    for row in rows {
        match row.in_trash_since {
            None => page.line(0, row.path),
            Some(since) => {
                let name = if row.path.is_empty() { row.resource.to_string() } else { row.path.to_owned() };
                page.line(0, &name);
                page.line(4, &format!("in the trash of {} since {}", row.system, out::date(since)));
            }
        }
        page.line(4, &amounts(row));
    }
    if !rows.is_empty() {
        page.blank();
    }
    for system in systems {
        for in_trash in [false, true] {
            let of_system = |row: &&Row<'_>| row.system == system.key && row.in_trash_since.is_some() == in_trash;
            let ours: Vec<_> = rows.iter().filter(of_system).collect();
            if !ours.is_empty() {
                let what = if in_trash { "in the trash" } else { "in use" };
                page.line(
                    0,
                    &format!("{} {what} on {}: {}", ours.len(), system.key, sum(&ours, system.rules.terabyte)),
                );
            }
        }
    }
    page
}

fn amounts(row: &Row<'_>) -> String {
    let size = |bytes: Bytes| out::size(bytes, row.terabyte);
    match (row.usage, row.limits, row.percent) {
        (Some(usage), Some(limits), Some(percent)) => format!(
            "{} of {} ({} %), {} of {} inodes ({} %)",
            size(usage.space),
            size(limits.space_hard()),
            percent.space,
            usage.inodes.0,
            limits.inodes_hard().0,
            percent.inodes
        ),
        (Some(usage), ..) => format!("{}, {} inodes", size(usage.space), usage.inodes.0),
        (None, Some(limits), _) => {
            format!("unknown of {}, unknown of {} inodes", size(limits.space_hard()), limits.inodes_hard().0)
        }
        (None, ..) => "unknown".into(),
    }
}

/// The sums of the known usage and of the quotas.
fn sum(rows: &[&Row<'_>], terabyte: Terabyte) -> String {
    let (mut space, mut inodes, mut quota) = (0_u64, 0_u64, 0_u64);
    for row in rows {
        let usage = row.usage.unwrap_or(Usage { space: Bytes(0), inodes: Inodes(0) });
        space = space.saturating_add(usage.space.0);
        inodes = inodes.saturating_add(usage.inodes.0);
        quota = quota.saturating_add(row.limits.map_or(0, |limits| limits.space_hard().0));
    }
    let size = |bytes| out::size(Bytes(bytes), terabyte);
    let of = if quota == 0 { String::new() } else { format!(" of {} ({} %)", size(quota), percent(space, quota)) };
    let unknown = rows.iter().filter(|row| row.usage.is_none()).count();
    let unknown = if unknown == 0 { String::new() } else { format!(", and {unknown} unknown") };
    format!("{}{of}, {inodes} inodes{unknown}", size(space))
}

/// Bytes in units of `terabyte` bytes with the two decimals that Waldur accepts, rounded up: used space is never reported as 0.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53 hundredths")]
fn hundredths(bytes: u64, terabyte: u64) -> f64 {
    (u128::from(bytes) * 100).div_ceil(u128::from(terabyte)) as f64 / 100.0
}

/// The usage that was observed already, if it counts under the directory's own project ID.
fn read(case: &Case) -> Option<Usage> {
    match (&case.observed, &case.desired) {
        (Ok(Observed::Ours(present)), Ok(desired))
            if present.project.is_none() || present.project == desired.project =>
        {
            present.usage
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &str, space: u64, hard: u64) -> Row<'_> {
        let usage = Usage { space: Bytes(space), inodes: Inodes(7) };
        let limits = QuotaLimits::new([Bytes(hard); 2], [Inodes(1000); 2]).unwrap();
        let percent = Percent { space: percent(space, hard), inodes: percent(7, 1000) };
        Row {
            system: "capstor",
            resource: Uuid::from_u128(7),
            path,
            usage: Some(usage),
            limits: Some(limits),
            percent: Some(percent),
            in_trash_since: None,
            terabyte: Terabyte::Decimal,
        }
    }

    #[test]
    fn resources_are_sorted_and_summed() {
        const TB: u64 = 1_000_000_000_000;
        let mut rows = [row("/a", 2 * TB, 100 * TB), row("/c", TB - TB / 1000, TB), row("/b", 3 * TB, 10 * TB)];
        rows[0].usage = None;
        rows[0].percent = None;
        for (sort, paths) in
            [(Sort::Path, ["/a", "/b", "/c"]), (Sort::Space, ["/b", "/c", "/a"]), (Sort::Percent, ["/c", "/b", "/a"])]
        {
            order(&mut rows, sort);
            assert_eq!(rows.each_ref().map(|row| row.path), paths, "{sort:?}");
        }
        assert_eq!(amounts(&rows[0]), "999 GB of 1 TB (99.9 %), 7 of 1000 inodes (0.7 %)");
        let all: Vec<_> = rows.iter().collect();
        let text = sum(&all, Terabyte::Decimal);
        assert_eq!(text, "4 TB of 111 TB (3.6 %), 14 inodes, and 1 unknown");
    }

    #[test]
    fn usage_is_rounded_up_to_two_decimals() {
        for (bytes, amount) in [
            (0, "0"),
            (1, "0.01"),
            (1_234_567, "0.01"),
            (10_000_000_000, "0.01"),
            (10_000_000_001, "0.02"),
            (7_250_000_000_000, "7.25"),
        ] {
            assert_eq!(hundredths(bytes, 1_000_000_000_000).to_string(), amount, "{bytes}");
        }
    }
}
