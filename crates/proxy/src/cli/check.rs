//! `check`: validates the settings, then contacts each upstream as the proxy does.

mod remedy;
mod upstreams;

use futures::StreamExt;
use futures::future::FutureExt;
use futures::stream;
use serde::Serialize;
use tokio::sync::oneshot;

use super::terminal::{self, Terminal, Tone, escaped};
use super::{EXIT_SETTINGS, Failure, progress};
use crate::config::{Loaded, Problems, Settings};

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was checked.
    check: String,
    outcome: Outcome,
    detail: String,
    /// What to do about it; null if nothing is to be done or `detail` says it.
    remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    Warning,
    Failed,
}

/// The report for scripts.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether nothing failed; warnings are ignored.
    ok: bool,
    checks: &'a [Finding],
}

impl Finding {
    fn new(check: impl Into<String>, outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { check: check.into(), outcome, detail: detail.into(), remedy: None }
    }

    fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(check, Outcome::Ok, detail)
    }

    fn warning(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(check, Outcome::Warning, detail)
    }

    fn failed(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(check, Outcome::Failed, detail)
    }

    fn with_remedy(self, remedy: impl Into<Option<String>>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }

    fn line(&self, terminal: Terminal) -> String {
        let (word, tone) = match self.outcome {
            Outcome::Ok => ("ok     ", Tone::Good),
            Outcome::Warning => ("warning", Tone::Odd),
            Outcome::Failed => ("FAILED ", Tone::Bad),
        };
        let indent = word.len() + 2;
        let finding = terminal.wrap(&escaped(&format!("{}: {}", self.check, self.detail)), indent);
        let remedy = self.remedy.as_ref().map(|remedy| {
            let remedy = terminal.wrap(&escaped(remedy), indent + 2);
            format!("{:indent$}→ {remedy}\n", "")
        });
        format!("{}  {finding}\n{}", terminal.paint(tone, word), remedy.unwrap_or_default())
    }
}

/// Runs all checks and reports them in a fixed order. Returns whether nothing failed.
pub(super) async fn run(loaded: &Loaded, json: bool, terminal: Terminal) -> Result<bool, Failure> {
    let mut findings = settings(loaded);
    if !json {
        print(&findings, terminal)?;
    }
    let settings = &loaded.settings;
    let (sender, listing) = oneshot::channel();
    let upstreams = [
        ("Waldur", upstreams::waldur(settings, sender).boxed()),
        ("the HPC User API", upstreams::hpc_user(settings, listing).boxed()),
        ("Keycloak", upstreams::keycloak(settings).boxed()),
        ("the shared cache", upstreams::shared_cache(settings).boxed()),
    ];
    let (names, checks): (Vec<_>, Vec<_>) = upstreams.into_iter().unzip();
    // All run concurrently; the results arrive in the order of the list.
    let mut results = stream::iter(checks).buffered(names.len());
    for name in names {
        let found = progress::wait(terminal, &format!("checking {name}"), results.next()).await.unwrap_or_default();
        if !json {
            print(&found, terminal)?;
        }
        findings.extend(found);
    }
    let ok = findings.iter().all(|finding| finding.outcome != Outcome::Failed);
    if json {
        terminal::print_json(&Report { ok, checks: &findings })?;
    }
    Ok(ok)
}

/// Reports invalid settings as JSON.
pub(super) fn faults(faults: &Problems) -> Result<u8, Failure> {
    let finding = |fault: &crate::config::Problem| {
        let source = fault.source.as_ref().map(|source| format!(" ({source})")).unwrap_or_default();
        Finding::failed("settings", format!("{}{source}: {}", fault.key, fault.what)).with_remedy(fault.remedy.clone())
    };
    let warning = |warning: &crate::config::Warning| Finding::warning("settings", warning.to_string());
    let findings: Vec<_> = faults.problems.iter().map(finding).chain(faults.warnings.iter().map(warning)).collect();
    terminal::print_json(&Report { ok: false, checks: &findings })?;
    Ok(EXIT_SETTINGS)
}

fn print(findings: &[Finding], terminal: Terminal) -> Result<(), Failure> {
    terminal::print(&findings.iter().map(|finding| finding.line(terminal)).collect::<String>())
}

fn settings(loaded: &Loaded) -> Vec<Finding> {
    let from = match &loaded.config {
        Some(path) => format!("valid, with the file {}", path.display()),
        None => String::from("valid, without a YAML file"),
    };
    let warning = |text: String| Finding::warning("settings", text);
    let mut findings = vec![Finding::ok("settings", from)];
    findings.extend(loaded.warnings.iter().map(|found| warning(found.to_string())));
    findings.extend(unsuitable(&loaded.settings).map(warning));
    findings
}

/// Settings that are valid but unsuitable for production.
fn unsuitable(settings: &Settings) -> impl Iterator<Item = String> {
    let Settings { waldur_api, auth, hpc_user_api: hpc, .. } = settings;
    let unverified = [
        ("waldur_api", !waldur_api.verify_ssl),
        ("hpc_user_api", !hpc.verify_ssl && hpc.api_url.is_some()),
        ("auth", !auth.verify_ssl && !auth.disable_auth),
    ];
    let unverified = unverified.into_iter().filter(|(_, odd)| *odd).map(|(section, _)| {
        format!("{section}.verify_ssl is false: an attacker on the network can read and change the traffic")
    });
    let development = hpc.development_mode.then(|| {
        String::from("hpc_user_api.development_mode is true: missing identities are invented; not for production")
    });
    let open = auth.disable_auth.then(|| {
        String::from("auth.disable_auth is true: anyone who can reach the port can read everything; not for production")
    });
    unverified.chain(development).chain(open)
}
