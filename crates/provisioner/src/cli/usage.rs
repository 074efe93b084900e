//! `usage`: what is used, for people, dashboards and Waldur.

use serde_json::json;

use super::{EXIT_FAILURE, Failure, failure, out, progress};
use crate::document::Status;
use crate::driver::Seen;
use crate::limits::{Limits, Usage};
use crate::plan::Case;
use crate::site::Site;

/// Shows what each resource uses, and tells Waldur if asked to. What is not known is told as unknown, never as 0.
pub(super) fn usage(site: &Site, json: bool, report: bool, fresh: bool) -> Result<(), Failure> {
    if report && site.settings.waldur.is_none() {
        return Err(failure("--report needs waldur.api_url and waldur.api_token"));
    }
    let (survey, notes) = site.look(fresh)?;
    out::notes(&notes);
    let (mut rows, mut failed) = (Vec::new(), 0);
    for system in &site.systems {
        let in_use = |status| !matches!(status, Status::Removed | Status::Pending);
        let cases: Vec<_> = survey
            .cases
            .iter()
            .filter(|case| case.resource.system == system.key && in_use(case.resource.status))
            .filter_map(|case| Some((&case.resource, case.wanted.as_ref().ok()?, read(case))))
            .collect();
        let unread: Vec<_> = cases.iter().filter(|(_, _, read)| read.is_none()).map(|(_, wanted, _)| *wanted).collect();
        let terabyte = system.site.terabyte;
        let mut walked = progress::during(&site.walked, || system.driver.usage(&unread)).into_iter();
        for (resource, wanted, read) in cases {
            let usage = read.map_or_else(|| walked.next().unwrap_or(Ok(None)), |usage| Ok(Some(usage)));
            let known = match usage {
                Ok(usage) => usage,
                Err(fault) => {
                    out::tell(&format!(
                        "{}: {}",
                        out::harmless(&resource.path),
                        out::harmless(&crate::pass::told(&fault))
                    ));
                    failed += 1;
                    None
                }
            };
            // Waldur takes usage in these states alone (400).
            let reportable = matches!(resource.status, Status::Active | Status::Updating | Status::Removing);
            if let (true, true, Some(usage)) = (report, reportable, known) {
                let amount = hundredths(usage.space.0, terabyte.bytes());
                if let Err(fault) = site.source.report_usage(resource.id, &site.settings.usage_component, amount) {
                    out::tell(&format!("{}: {}", out::harmless(&resource.path), out::harmless(&fault)));
                    failed += 1;
                }
            }
            rows.push((resource.id, resource.path.clone(), known, wanted.limits));
        }
    }
    if json {
        let row = |(id, path, usage, limits): &(_, _, Option<Usage>, Limits)| json!({"resource": id, "path": path, "usage": usage, "limits": limits});
        out::print_json(&rows.iter().map(row).collect::<Vec<_>>())?;
    } else {
        let mut table = out::table(&["PATH", "USED", "QUOTA", "INODES", "QUOTA"]);
        for (_, path, usage, limits) in &rows {
            let [space, inodes] = usage.map_or(["unknown".into(), "unknown".into()], |usage| {
                [out::bytes(usage.space.0), usage.inodes.0.to_string()]
            });
            table.add_row([
                out::harmless(path),
                space,
                out::bytes(limits.space_hard().0),
                inodes,
                limits.inodes_hard().0.to_string(),
            ]);
        }
        out::print(&(table.trim_fmt() + "\n"))?;
    }
    if failed == 0 {
        Ok(())
    } else {
        Err(Failure { code: EXIT_FAILURE, text: format!("{failed} could not be read or told") })
    }
}

/// Bytes in units of `terabyte` bytes with the two decimals that Waldur takes, rounded up: used space is never reported as 0.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53 hundredths")]
fn hundredths(bytes: u64, terabyte: u64) -> f64 {
    (u128::from(bytes) * 100).div_ceil(u128::from(terabyte)) as f64 / 100.0
}

/// What a look has told already, if it is the directory's own number under which it counts.
fn read(case: &Case) -> Option<Usage> {
    match (&case.seen, &case.wanted) {
        (Ok(Seen::Ours(present)), Ok(wanted)) if present.project.is_none_or(|project| project == wanted.project) => {
            present.usage
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::hundredths;

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
