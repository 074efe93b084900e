//! Runs the matrix in lanes of a few cells. Each lane has its own simulator.

use std::sync::Arc;
use std::time::Duration;

use simulator::{Simulator, TokenSpec, World};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::bench::{Bench, large_world};
use crate::gate::Certificates;
use crate::support::{Answer, Proxy};
use crate::table::{MATRIX, Outcome, Trouble, UPSTREAMS, Upstream};

/// Lanes that run concurrently.
const LANES: usize = 12;
/// How long the log may lag behind the answer.
const LAG: Duration = Duration::from_mins(1);

type Cell = (Upstream, Trouble, Outcome);

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_every_upstream_has_its_outcome_and_can_end() {
    let certificates = Arc::new(Certificates::new());
    let thief = Simulator::start(World::demo()).await;
    let elsewhere: Arc<str> = format!("{}/api/marketplace-provider-resources/", thief.base_url()).into();
    let permits = Arc::new(Semaphore::new(LANES));
    let mut running = JoinSet::new();
    for cells in lanes() {
        let (certificates, elsewhere, permits) = (certificates.clone(), elsewhere.clone(), permits.clone());
        running.spawn(async move {
            let _permit = permits.acquire().await;
            lane(&cells, &certificates, &elsewhere).await
        });
    }
    let faults: Vec<String> = running.join_all().await.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{} cells are wrong:\n{}", faults.len(), faults.join("\n"));
    assert!(thief.requests().is_empty(), "a redirect was followed: {:?}", thief.requests());
}

/// Groups the cells by the simulator that they share.
fn lanes() -> Vec<Vec<Cell>> {
    let mut lanes = Vec::new();
    for (column, upstream) in UPSTREAMS.into_iter().enumerate() {
        let cells = MATRIX.iter().map(|(trouble, outcomes)| (upstream, *trouble, outcomes[column]));
        let cells = cells.filter(|(.., outcome)| !matches!(outcome, Outcome::Absent(_)));
        let (at_start, running): (Vec<_>, Vec<_>) = cells.partition(|cell| starts_with_fault(*cell));
        let (moving, running): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|(_, trouble, _)| *trouble == Trouble::MovingPages);
        let (slow, running): (Vec<_>, Vec<_>) = running.into_iter().partition(|cell| is_slow(*cell));
        // The slowest lane first.
        lanes.push(slow);
        lanes.extend(moving.into_iter().map(|cell| vec![cell]));
        lanes.extend(at_start.chunks(4).map(<[Cell]>::to_vec));
        lanes.extend(running.chunks(6).map(<[Cell]>::to_vec));
    }
    lanes.retain(|cells| !cells.is_empty());
    lanes
}

/// Whether only a timeout ends the exchange.
fn is_slow((_, trouble, _): Cell) -> bool {
    matches!(trouble, Trouble::Silent | Trouble::Dripping | Trouble::EndlessBody)
}

/// Whether the fault must begin before the proxy starts, because the proxy caches what it has read.
fn starts_with_fault((upstream, trouble, _): Cell) -> bool {
    let is_cached = upstream == Upstream::Gids && matches!(trouble, Trouble::BadRecord | Trouble::BadMembers);
    upstream.is_realm() || trouble == Trouble::NoSuchName || is_cached
}

/// Runs the cells and describes those with a wrong outcome.
async fn lane(cells: &[Cell], certificates: &Arc<Certificates>, elsewhere: &str) -> Vec<String> {
    let moving = cells.iter().any(|(_, trouble, _)| *trouble == Trouble::MovingPages);
    let bench = Bench::start(if moving { large_world() } else { World::demo() }, certificates).await;
    let seconds = if cells.iter().all(|cell| is_slow(*cell)) { "5" } else { "30" };
    let strict = bench.proxy(seconds, &[]).await;
    let right = bench.list(&strict).await;
    let lenient = if cells.iter().all(|cell| starts_with_fault(*cell)) {
        None
    } else {
        Some(bench.proxy(seconds, &[("CACHE_MAX_STALE", "3600"), ("DEBUG", "false")]).await)
    };
    let mut wrong = Vec::new();
    if right.status != 200 {
        return vec![format!("{cells:?}: no listing without a fault: {}\n{}", right.text, strict.log())];
    }
    for cell in cells {
        let outcome = if starts_with_fault(*cell) {
            from_the_start(&bench, *cell, &right, elsewhere).await
        } else {
            while_running(&bench, *cell, &right, &strict, lenient.as_ref(), elsewhere).await
        };
        let (upstream, trouble, _) = cell;
        wrong.extend(outcome.err().map(|what| format!("- {}, {}: {what}", upstream.title(), trouble.title())));
    }
    if cells.iter().any(|(upstream, ..)| *upstream == Upstream::Sentry) && !bench.sentry_was_called() {
        wrong.push(String::from("- Sentry was never called"));
    }
    for log in [Some(&strict), lenient.as_ref()].into_iter().flatten().map(Proxy::log) {
        wrong.extend(secret_in(&bench, &log));
    }
    wrong
}

/// Runs a cell whose fault begins while the proxy is running.
async fn while_running(
    bench: &Bench,
    cell: Cell,
    right: &Answer,
    strict: &Proxy,
    lenient: Option<&Proxy>,
    elsewhere: &str,
) -> Result<(), String> {
    let (upstream, trouble, outcome) = cell;
    let resources = bench.simulator.world(|world| world.resources.clone());
    let log_start = strict.log().len();
    bench.begin(upstream, trouble, elsewhere).await;
    let stale = async {
        match lenient {
            Some(lenient) => Some(bench.list(lenient).await),
            None => None,
        }
    };
    let (answer, stale) = futures::future::join(bench.list(strict), stale).await;
    bench.end(upstream).await;
    bench.simulator.world(|world| world.resources = resources);
    check(bench, cell, &answer, right, strict, log_start).await?;
    if let (Some(stale), Outcome::Fails(_)) = (stale, outcome) {
        let warned = stale.headers.get("warning").is_some_and(|text| text.to_str().unwrap().starts_with("110 "));
        ensure(stale.status == 200 && warned, || format!("no stale answer: {}", stale.text))?;
        ensure(stale.items() == right.items(), || String::from("the stale answer is not whole"))?;
    }
    let after = bench.list(strict).await;
    whole(&after, right).map_err(|what| format!("afterwards {what}"))?;
    if let Some(lenient) = lenient {
        let after = bench.list(lenient).await;
        whole(&after, right).map_err(|what| format!("afterwards, with cache.max_stale, {what}"))?;
        ensure(!after.headers.contains_key("warning"), || String::from("still stale afterwards"))?;
    }
    Ok(())
}

/// Runs a cell whose fault begins before the proxy starts, and ends while it is running if it can.
async fn from_the_start(bench: &Bench, cell: Cell, right: &Answer, elsewhere: &str) -> Result<(), String> {
    let (upstream, trouble, _) = cell;
    bench.begin(upstream, trouble, elsewhere).await;
    let nowhere = if trouble == Trouble::NoSuchName { Some(nowhere(upstream)) } else { None };
    let home = bench.simulator.realm().issuer();
    if nowhere.is_some() && upstream.is_realm() {
        bench.simulator.realm().set_base("https://nowhere.invalid");
    }
    let proxy = bench.proxy("30", nowhere.as_slice()).await;
    let token = if (upstream, trouble) == (Upstream::Keys, Trouble::ClockOff) {
        let ahead = seconds(right) + 3600;
        bench.simulator.realm().mint(&TokenSpec::service_account("provisioner").claim("iat", ahead).lifetime(7200))
    } else {
        bench.caller()
    };
    let answer = bench.list_as(&proxy, &token).await;
    bench.end(upstream).await;
    bench.simulator.realm().set_base(home.strip_suffix("/auth/realms/cscs").unwrap_or(&home));
    check(bench, cell, &answer, right, &proxy, 0).await.map_err(|what| format!("{what}\n{}", warnings(&proxy)))?;
    if nowhere.is_none() {
        whole(&bench.list(&proxy).await, right).map_err(|what| format!("afterwards {what}"))?;
    }
    secret_in(bench, &proxy.log()).map_or(Ok(()), Err)
}

/// The setting that gives the upstream a host name that does not exist.
fn nowhere(upstream: Upstream) -> (&'static str, &'static str) {
    match upstream {
        Upstream::Resources | Upstream::Customers => ("WALDUR_API_URL", "https://nowhere.invalid/api"),
        Upstream::Gids => ("HPC_USER_API_URL", "https://nowhere.invalid/hpc"),
        Upstream::Tokens => ("HPC_USER_OIDC_TOKEN_URL", "https://nowhere.invalid/token"),
        Upstream::Discovery | Upstream::Keys => ("CSCS_KEYCLOAK_URL", "https://nowhere.invalid/auth/"),
        Upstream::Sentry => ("SENTRY_DSN", "https://publickey@nowhere.invalid/7"),
    }
}

/// The `Date` of an answer, in seconds since 1970.
fn seconds(answer: &Answer) -> u64 {
    let date = httpdate::parse_http_date(answer.headers["date"].to_str().unwrap()).unwrap();
    date.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// Compares the answer and the log with the expected outcome.
async fn check(
    bench: &Bench,
    (upstream, _, outcome): Cell,
    answer: &Answer,
    right: &Answer,
    proxy: &Proxy,
    log_start: usize,
) -> Result<(), String> {
    if let Some(secret) = secret_in(bench, &answer.text) {
        return Err(secret);
    }
    let words: Vec<&str> = match outcome {
        Outcome::Whole => {
            whole(answer, right)?;
            vec![]
        }
        Outcome::WholeBut(_) => {
            whole(answer, right)?;
            match upstream {
                Upstream::Discovery => vec!["Keycloak's fixed paths are used"],
                Upstream::Customers => vec!["Waldur does not report the offering's customers"],
                _ => vec![],
            }
        }
        Outcome::Skipped(words) => {
            ensure(answer.status == 200, || format!("{} {}", answer.status, answer.text))?;
            ensure(answer.body["skipped"].to_string().contains(words), || answer.body["skipped"].to_string())?;
            let (now, before) = (answer.items(), right.items());
            ensure(now.len() < before.len(), || String::from("nothing is skipped"))?;
            ensure(now.iter().all(|item| before.contains(item)), || String::from("other items have changed"))?;
            vec!["a resource is skipped"]
        }
        Outcome::Fails(words) => {
            ensure(answer.status == 502, || format!("{} {}", answer.status, answer.text))?;
            ensure(answer.body["error"] == "UpstreamServiceError", || answer.text.clone())?;
            if upstream.is_realm() {
                // The client is not authenticated and learns nothing about the realm.
                ensure(answer.text.contains("the token cannot be checked"), || answer.text.clone())?;
                vec!["the realm's keys cannot be fetched", words]
            } else {
                ensure(says(&answer.text, words), || answer.text.clone())?;
                vec!["an upstream cannot be read", words]
            }
        }
        Outcome::Denied(words) => {
            ensure(answer.status == 401, || format!("{} {}", answer.status, answer.text))?;
            ensure(answer.text.contains(words), || answer.text.clone())?;
            vec!["caller refused", words]
        }
        Outcome::Absent(why) => return Err(format!("not a test case: {why}")),
    };
    let complete = || words.iter().all(|words| says(&proxy.log()[log_start..], words));
    let patience = tokio::time::Instant::now() + LAG;
    while !complete() {
        if tokio::time::Instant::now() > patience {
            return Err(format!("the log should say {words:?}:\n{}", &proxy.log()[log_start..]));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// The warnings and errors in the log.
fn warnings(proxy: &Proxy) -> String {
    let log = proxy.log();
    let lines = log.lines().filter(|line| [" WARN ", " ERROR ", "failed"].iter().any(|word| line.contains(word)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether the text contains one of the alternatives.
fn says(text: &str, words: &str) -> bool {
    words.split('|').any(|words| text.contains(words))
}

fn whole(answer: &Answer, right: &Answer) -> Result<(), String> {
    ensure(answer.status == 200, || format!("{} {}", answer.status, answer.text))?;
    ensure(answer.items() == right.items(), || String::from("the items are not those without the fault"))?;
    ensure(answer.body["skipped"] == right.body["skipped"], || answer.body["skipped"].to_string())
}

fn secret_in(bench: &Bench, text: &str) -> Option<String> {
    bench.secrets().iter().find(|secret| text.contains(secret.as_str())).map(|secret| format!("{secret} is shown"))
}

fn ensure(is_so: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(otherwise()) }
}
