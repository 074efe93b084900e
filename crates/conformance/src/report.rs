//! Results as a table, as JSON and as JUnit XML.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::case::{Case, Level};
use crate::exchange::Exchange;

/// Columns of the table.
const WIDTH: usize = 80;
/// Most exchanges that are shown for a failed case, the last ones.
const EXCHANGES: usize = 40;

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// With what was seen.
    Failed(String),
    /// With the reason.
    Skipped(String),
    /// The suite has a problem.
    Broken(String),
}

impl Verdict {
    fn name(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "skipped",
            Self::Broken(_) => "BROKEN",
        }
    }

    pub(crate) fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    fn text(&self) -> &str {
        match self {
            Self::Passed => "",
            Self::Failed(text) | Self::Skipped(text) | Self::Broken(text) => text,
        }
    }
}

/// A finished case.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
    pub(crate) began: Instant,
    pub(crate) exchanges: Vec<Exchange>,
    /// The last lines of the command's output.
    pub(crate) output: Vec<String>,
    /// What the probe could not read.
    pub(crate) unknown: BTreeSet<&'static str>,
}

impl Report {
    pub(crate) fn of(verdict: Verdict, took: Duration) -> Self {
        let (exchanges, output, unknown) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { verdict, took, began: Instant::now(), exchanges, output, unknown }
    }
}

/// Passed and counted cases of a level.
fn score(all: &[(&Case, &Report)], level: Level) -> (usize, usize) {
    let counted = all.iter().filter(|(case, report)| {
        case.level == level && !matches!(report.verdict, Verdict::Skipped(_) | Verdict::Broken(_))
    });
    let passed = counted.clone().filter(|(_, report)| report.verdict == Verdict::Passed);
    (passed.count(), counted.count())
}

fn wrapped(text: &str, first: &str, next: &str) -> String {
    let options = textwrap::Options::new(WIDTH)
        .initial_indent(first)
        .subsequent_indent(next)
        // So that URLs and UUIDs can be copied and searched for.
        .break_words(false)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    text.lines().map(|line| textwrap::fill(line, &options) + "\n").collect()
}

pub(crate) fn table(all: &[(&Case, &Report)], took: Duration) -> String {
    let mut text = format!("{:<8}{:<50}{:<9}{:>8}\n", "level", "case", "result", "seconds");
    let row = |(case, report): &(&Case, &Report)| {
        let (level, result) = (case.level.as_str(), report.verdict.name());
        format!("{level:<8}{:<50}{result:<9}{:>8.1}\n", case.name, report.took.as_secs_f64())
    };
    text.extend(all.iter().map(row));
    for (case, report) in all.iter().filter(|(_, report)| report.verdict != Verdict::Passed) {
        let _ = write!(text, "\n{} {} ({})\n", report.verdict.name(), case.name, case.level.as_str());
        if let Verdict::Skipped(why) | Verdict::Broken(why) = &report.verdict {
            text += &wrapped(why, "  ", "  ");
            continue;
        }
        text += "  The specification says:\n";
        text += &wrapped(case.rule, "    ", "    ");
        text += "  Seen:\n";
        text += &wrapped(report.verdict.text(), "    ", "    ");
        let skipped = report.exchanges.len().saturating_sub(EXCHANGES);
        let which =
            if skipped > 0 { format!(", the last {EXCHANGES} of {}", report.exchanges.len()) } else { String::new() };
        let _ = writeln!(text, "  Exchanges (seconds since the begin of the case{which}):");
        for exchange in &report.exchanges[skipped..] {
            text += &wrapped(&exchange.line(report.began), "    ", "            ");
        }
        text +=
            if report.output.is_empty() { "  The command printed nothing.\n" } else { "  Output of the command:\n" };
        for line in &report.output {
            text += &wrapped(&line.replace(char::is_control, " "), "    ", "      ");
        }
    }
    let unknown: BTreeSet<&str> = all.iter().flat_map(|(_, report)| report.unknown.iter().copied()).collect();
    if !unknown.is_empty() {
        let names: Vec<&str> = unknown.into_iter().collect();
        text += &wrapped(&format!("\nNot checked, because the probe does not know it: {}.", names.join(", ")), "", "");
    }
    text += "\n";
    for level in Level::ALL {
        let (passed, counted) = score(all, level);
        let _ = writeln!(text, "{:<8}{passed} of {counted} passed", level.as_str());
    }
    let _ = writeln!(text, "{:.0} s", took.as_secs_f64());
    text
}

pub(crate) fn json(all: &[(&Case, &Report)]) -> String {
    let score: serde_json::Map<String, Value> = Level::ALL
        .into_iter()
        .map(|level| {
            let (passed, counted) = score(all, level);
            (level.as_str().to_owned(), json!({ "passed": passed, "of": counted }))
        })
        .collect();
    let case = |(case, report): &(&Case, &Report)| {
        let mut entry = json!({
            "name": case.name, "level": case.level.as_str(), "rule": case.rule,
            "result": report.verdict.name().to_lowercase(), "seconds": report.took.as_secs_f64(),
        });
        if report.verdict != Verdict::Passed {
            entry["seen"] = report.verdict.text().into();
            entry["exchanges"] = report.exchanges.iter().map(|exchange| exchange.json(report.began)).collect();
            entry["output"] = report.output.clone().into();
        }
        if !report.unknown.is_empty() {
            entry["not_checked"] = json!(report.unknown);
        }
        entry
    };
    let cases: Vec<Value> = all.iter().map(case).collect();
    format!("{:#}\n", json!({ "score": score, "cases": cases }))
}

pub(crate) fn junit(all: &[(&Case, &Report)]) -> String {
    let count = |is: fn(&Verdict) -> bool| all.iter().filter(|(_, report)| is(&report.verdict)).count();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"conformance\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">\n",
        all.len(),
        count(Verdict::is_failed),
        count(|verdict| matches!(verdict, Verdict::Broken(_))),
        count(|verdict| matches!(verdict, Verdict::Skipped(_))),
    );
    for (case, report) in all {
        let [name, rule, seen] = [&case.name, case.rule, report.verdict.text()].map(escaped);
        let inside = match report.verdict {
            Verdict::Passed => String::new(),
            Verdict::Skipped(_) => format!("<skipped message=\"{seen}\"/>"),
            Verdict::Broken(_) => format!("<error message=\"{seen}\"/>"),
            Verdict::Failed(_) => {
                let exchanges = report.exchanges.iter().map(|exchange| exchange.line(report.began));
                let log: Vec<String> = exchanges.chain(report.output.iter().cloned()).collect();
                format!("<failure message=\"{seen}\">{rule}\n{}</failure>", escaped(&log.join("\n")))
            }
        };
        let (level, seconds) = (case.level.as_str(), report.took.as_secs_f64());
        let _ =
            writeln!(text, "<testcase classname=\"{level}\" name=\"{name}\" time=\"{seconds:.3}\">{inside}</testcase>");
    }
    text + "</testsuite>\n</testsuites>\n"
}

/// Text for XML, without characters that it cannot have.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\n' => out += "&#10;",
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

pub(crate) fn list(cases: &[Case]) -> String {
    let mut text = String::new();
    for case in cases {
        let _ = writeln!(text, "{:<8}{}", case.level.as_str(), case.name);
        text += &wrapped(case.rule, "          ", "          ");
    }
    text
}

pub(crate) fn list_json(cases: &[Case]) -> String {
    let entry = |case: &Case| json!({ "name": case.name, "level": case.level.as_str(), "rule": case.rule });
    format!("{:#}\n", Value::from(cases.iter().map(entry).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Report, Verdict, json, junit, table};
    use crate::case::{Case, Level};

    fn all() -> Vec<(Case, Report)> {
        let case = |name: &str, level| Case::new(name, level, "8.1: approve & wait", |_| Ok(()));
        let seconds = Duration::from_secs(1);
        vec![
            (case("a/passes", Level::Must), Report::of(Verdict::Passed, seconds)),
            (case("a/fails", Level::Must), Report::of(Verdict::Failed("<1> \"is\" 2\u{1b}".into()), seconds)),
            (case("a/skipped", Level::May), Report::of(Verdict::Skipped("not here".into()), seconds)),
        ]
    }

    #[test]
    fn a_failed_case_shows_its_rule_and_what_was_seen() {
        let all = all();
        let all: Vec<(&Case, &Report)> = all.iter().map(|(case, report)| (case, report)).collect();
        let text = table(&all, Duration::from_secs(3));
        for part in [
            "FAILED a/fails (must)",
            "8.1: approve & wait",
            "<1> \"is\" 2",
            "Exchanges (seconds since the begin of the case):",
            "The command printed nothing.",
            "must    1 of 2 passed",
            "may     0 of 0 passed",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let value: serde_json::Value = serde_json::from_str(&json(&all)).unwrap();
        assert_eq!(value["score"]["must"]["passed"], 1);
        assert_eq!(value["cases"][1]["result"], "failed");
    }

    #[test]
    fn links_are_not_broken() {
        let link = format!("/api/marketplace-orders/{}/approve_by_provider/{}", "0".repeat(32), "x".repeat(40));
        let text = super::wrapped(&format!("0.913 Waldur POST {link} → 200"), "    ", "      ");
        assert!(text.lines().any(|line| line.trim() == link), "{text}");
    }

    #[test]
    fn junit_has_no_markup_from_outside() {
        let all = all();
        let all: Vec<(&Case, &Report)> = all.iter().map(|(case, report)| (case, report)).collect();
        let text = junit(&all);
        assert!(text.contains("failures=\"1\" errors=\"0\" skipped=\"1\""), "{text}");
        assert!(text.contains("message=\"&lt;1&gt; &quot;is&quot; 2\u{fffd}\""), "{text}");
    }
}
