use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use driver_rest::simulated::{Reply, serve};
use provisioner_core::document::{Document, OrderState};
use provisioner_core::last_order::LastOrder;
use provisioner_core::plan::Policy;
use provisioner_core::preflight;
use serde_json::json;
use settings::{Environment, Overrides, load};
use storage_driver::memory::Memory;
use storage_driver::{Desired, Driver};
use url::Url;

use super::*;
use crate::cli::Cli;
use crate::config::SCHEMA;
use crate::ledger::Ledger;
use crate::pass::{harness, model};

fn provisioner(proxy: &Url, more: &[(&'static str, &str)]) -> Provisioner {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut variables = HashMap::from([
        ("PROVISIONER_PROXY_URL", proxy.as_str()),
        ("PROVISIONER_SYSTEMS", r#"{"capstor": {"driver": "memory", "terabyte": "TB"}}"#),
        ("PROVISIONER_STATE_DIRECTORY", "/nonexistent"),
        ("PROVISIONER_TIMEOUT", "1"),
    ]);
    variables.extend(more.iter().copied());
    let loaded = load(&SCHEMA, &Environment::new("/", variables), &Overrides::default()).unwrap();
    Provisioner::new(loaded.settings, Clock::system()).unwrap()
}

fn site(proxy: &Url) -> Site {
    let provisioner = provisioner(proxy, &[]);
    Site {
        name: default_name(&provisioner),
        source: Arc::clone(&provisioner.source),
        systems: vec![("capstor".to_owned(), limits::Terabyte::Decimal)],
        journal: provisioner.journal_path(),
        retention: Some(86_400),
        next_within: Duration::from_mins(16),
    }
}

fn ended() -> Ended {
    Ended { at: OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap(), took: Duration::from_secs(1) }
}

fn failed_pass(proxy: &Url) -> Pending {
    Pending { failed: Some(("down".to_owned(), ended())), site: Some(site(proxy)), complete: None }
}

#[test]
fn each_failure_of_the_proxy_is_a_problem_and_success_ends_it() {
    for (status, problem) in [
        (401, "the proxy answers 401"),
        (403, "the proxy answers 403"),
        (404, "an older version"),
        (409, "the proxy answers 409"),
        (413, "the proxy answers 413"),
        (500, "the proxy answers 500"),
        (204, ""),
    ] {
        let proxy = serve(move |_| Reply::Json(status, "", json!({"detail": "why"})));
        let mut sender = Sender::default();
        sender.send(failed_pass(&proxy));
        let found = sender.problem.clone().unwrap_or_default();
        assert_eq!(found.contains(problem), status != 204 || found.is_empty(), "{status}: {found}");
        assert_eq!(sender.paused_until.is_some(), status == 404);
    }
    let mut sender = Sender::default();
    sender.send(failed_pass(&serve(|_| Reply::Lost)));
    assert!(sender.problem.as_ref().unwrap().contains("cannot be reached"), "{:?}", sender.problem);
    sender.send(failed_pass(&"http://127.0.0.1:1".parse().unwrap()));
    assert!(sender.problem.is_some());
    sender.send(failed_pass(&serve(|_| Reply::Json(204, "", json!(null)))));
    assert_eq!(sender.problem, None);
}

#[test]
fn an_older_proxy_is_not_asked_again_at_each_pass() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let proxy = serve(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Reply::Json(404, "", json!({"detail": "Not Found"}))
    });
    let mut sender = Sender::default();
    for _ in 0..3 {
        sender.send(failed_pass(&proxy));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn a_proxy_that_hangs_does_not_delay_a_pass() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let provisioner = provisioner(&proxy, &[]);
    let reporter = Reporter::start(&provisioner.clock);
    let began = Instant::now();
    for _ in 0..100 {
        reporter.failed(&provisioner, "down".to_owned(), Duration::ZERO);
    }
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    // The exchange ends by itself.
    let mut sender = Sender::default();
    sender.send(failed_pass(&proxy));
    assert!(sender.problem.is_some() && began.elapsed() < Duration::from_secs(10));
}

/// Puts a directory into the storage.
type Put = fn(&Memory, &Desired);

/// Everything that is planned for resources in each state, without an order and with each order.
fn surveyed(put: Put) -> Complete {
    use OrderKind::{Create, Restore, Terminate, Update};
    let resources = model::with_each_status(&[Create, Restore, Update, Terminate]);
    let (model, memory) = (model::Model::new(resources), Memory::default());
    let systems = harness::system(Box::new(memory.clone()), 1000);
    let document = model.document();
    let listed: Vec<_> = document.resources.iter().collect();
    for desired in preflight::check(&listed, &Document::default(), "capstor", &systems[0].rules, &|_| false) {
        put(&memory, &desired.unwrap().with_project(Some(1001)));
    }
    let read = || Ok(model.document());
    let mut survey = pass::survey(&systems, &read, &journal::Past::default(), &mut Ledger::default()).unwrap();
    let refused = survey
        .cases
        .iter_mut()
        .find(|case| case.resource.order.as_ref().is_some_and(|order| order.state == OrderState::PendingProvider));
    let refused = refused.unwrap();
    let mut last = LastOrder::new(refused.resource.order.as_ref().unwrap().id, OrderKind::Create, 0);
    for call in ["approve_by_provider", "set_backend_id"] {
        last.note(1, call, "Project 'x' is expired.", true);
    }
    last.refused.as_mut().unwrap().backs_off = true;
    refused.last_order = Some(last);
    let plan = pass::planned(&survey, Policy::default(), false);
    Complete { survey, report: pass::Report { plan, ..pass::Report::default() } }
}

#[test]
fn the_proxy_accepts_what_is_reported_and_the_commands_exist() {
    let storages: [Put; 4] = [
        |_, _| {},
        |memory, desired| memory.ensure(desired, &|_| Ok(())).unwrap(),
        |memory, desired| {
            memory.ensure(desired, &|_| Ok(())).unwrap();
            memory.retire(desired, 1_700_000_000, &|_| Ok(())).unwrap();
        },
        |memory, desired| memory.put_unmarked(&desired.place),
    ];
    let mut verbs = BTreeSet::new();
    for put in storages {
        let complete = surveyed(put);
        let held = complete.report.plan.held.len();
        let mut since = Since::new();
        let report = build(&site(&"http://127.0.0.1:1".parse().unwrap()), complete, ended(), &mut since);
        assert_eq!(report.resources.iter().filter(|it| it.hold.is_some()).count(), held);
        // A removal that asks for confirmation is among the changes.
        let asks =
            |it: &&provisioner_report::Resource| it.hold.as_ref().is_some_and(|hold| hold.kind == HoldKind::Asks);
        for it in report.resources.iter().filter(asks).filter(|it| it.observed == Observed::Present) {
            assert!(it.hold.as_ref().unwrap().changes.iter().any(|change| change.new == "in the trash"), "{it:?}");
        }
        let json = rendered(&report).unwrap();
        assert_eq!(Report::parse(&json).unwrap(), report);
        for hold in report.resources.iter().filter_map(|it| it.hold.as_ref()) {
            for command in &hold.commands {
                // Words as a shell splits them: quotes are only around reasons.
                let (words, quoted) = command
                    .split_once(" --reason '")
                    .map_or((&**command, None), |(words, rest)| (words, Some(rest.strip_suffix("' --yes").unwrap())));
                let reason = quoted.iter().flat_map(|reason| ["--reason", reason, "--yes"]);
                let words: Vec<_> = words.split(' ').chain(reason).collect();
                verbs.insert(words[1].to_owned());
                if let Err(error) = Cli::try_parse_from(&words) {
                    panic!("{command}: {error}");
                }
            }
        }
        for trashed in &report.trash {
            assert_eq!(trashed.expires.unwrap() - trashed.since, time::Duration::days(1));
        }
    }
    let all = ["adopt", "apply", "plan", "reject", "restore", "retire"].map(str::to_owned);
    assert_eq!(verbs, BTreeSet::from(all));
}

#[test]
fn a_hold_keeps_its_time_while_it_lasts() {
    let site = site(&"http://127.0.0.1:1".parse().unwrap());
    let mut since = Since::new();
    let first = build(&site, surveyed(|_, _| {}), ended(), &mut since);
    let later = Ended { at: ended().at + Duration::from_hours(1), ..ended() };
    let second = build(&site, surveyed(|_, _| {}), later, &mut since);
    let times = |report: &Report| report.resources.iter().filter_map(|it| it.hold.as_ref()?.since).collect::<Vec<_>>();
    assert_eq!(times(&first), times(&second));
    assert!(times(&first).iter().all(|at| *at == ended().at));
    let resolved =
        build(&site, surveyed(|memory, desired| memory.ensure(desired, &|_| Ok(())).unwrap()), later, &mut since);
    assert!(times(&resolved).contains(&later.at));
}

#[test]
fn a_report_that_is_too_large_loses_its_details() {
    let site = site(&"http://127.0.0.1:1".parse().unwrap());
    let mut report = build(&site, surveyed(|_, _| {}), ended(), &mut Since::new());
    let event = Event { at: ended().at, text: "x".repeat(MAX_BYTES / 2) };
    report.resources[0].history = vec![event.clone(), event];
    assert!(rendered(&report).unwrap().len() < MAX_BYTES);
    report.program = "x".repeat(MAX_BYTES);
    assert!(rendered(&report).is_err());
}
