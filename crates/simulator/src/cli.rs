//! Command-line options: world, address and latency.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use simulator::world::Release;
use simulator::{Latency, Simulator, TokenSpec, World};

const EXAMPLES: &str = r#"Examples:
  simulator --listen 127.0.0.1:9090
  simulator --world large:10000 --latency-page-ms 40 --concurrency 4
  simulator --world case.json --release 7.0

While it runs, from another shell:
  S=127.0.0.1:9090/_simulator
  curl $S/faults -d '{"route": "GET /api/*", "times": 3,
    "fault": {"kind": "answer", "status": 503, "headers": [["Retry-After", "2"]]}}'
  curl $S/faults -X DELETE
  curl $S/requests
  curl $S/costs
  curl $S/orders -d '{"order": "update_limits", "resource": "capstor-store-0",
    "limits": {"storage": 50}}'
  curl $S/changes -d '{"change": "gid", "project": "mch-p1", "gid": 30999}'
  curl $S/world
  curl $S/sessions -X DELETE
  curl -X POST "$S/rotate-keys?keep=true"

Costs: requests, bytes and rows of Waldur's answers, with modelled SQL queries and
seconds, by path; -X DELETE resets them.
Events: orders and changes of resources are announced by STOMP over WebSocket at
/rmqws-stomp on the same address, where a proxy with waldur_api.push looks for it.
Faults: answer (status, headers, body), delay (millis), silence, reset,
dribble (millis), cut_off (after), endless_body, endless_pages, lose_rows (rows).
A route is `[METHOD ]PATH[?QUERY]`, `*` matches anything.
Orders: create (offering, project, slug, limits, attributes), terminate (resource),
update_limits (resource, limits), update_options (resource, options), restore
(resource); they wait for the provider, with "pending_consumer": true for the
consumer. cancel (resource) cancels the open order.
Changes: new_project (customer, slug, gid), gid (project, gid), slug (project,
slug), project (resource, project), state (resource, state), expired (project,
expired), blocked (customer, blocked), worker_lags (lags), clocks (date_ahead, in
seconds: by how much `Date` is ahead of the times of rows).
Offerings, customers, projects and resources are named by slug."#;

/// Waldur, the HPC User API and a Keycloak realm, in memory, for demos and experiments
#[derive(Parser)]
#[command(name = "simulator", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Address to listen on; port 0 selects a free port
    #[arg(long, default_value = "127.0.0.1:9090")]
    listen: SocketAddr,
    /// `demo`, `empty`, `large:N` (N resources, of which a twentieth has an open order), `large:N:K` (at most K open orders), or a JSON file with marketplace_resources, offering_customers and hpc_projects
    #[arg(long, default_value = "demo")]
    world: String,
    /// Waldur release to simulate
    #[arg(long, value_enum, default_value = "newer")]
    release: ReleaseArgument,
    /// Latency of each page of a list, in milliseconds
    #[arg(long, default_value_t = 0)]
    latency_page_ms: u64,
    /// Additional latency of each row of a page, in microseconds
    #[arg(long, default_value_t = 0)]
    latency_item_us: u64,
    /// Maximum number of pages processed at the same time, unlimited by default; applies only with a latency
    #[arg(long)]
    concurrency: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ReleaseArgument {
    /// 2025 and later
    Newer,
    /// 7.0.7 of October 2024
    #[value(name = "7.0")]
    V7_0,
}

/// Serves until interrupted.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut world = world(&arguments.world)?;
    world.release = match arguments.release {
        ReleaseArgument::Newer => Release::Newer,
        ReleaseArgument::V7_0 => Release::V7_0,
    };
    world.run_clock();
    if arguments.concurrency == Some(0) {
        bail!("--concurrency must be at least 1; omit it for no limit");
    }
    let simulator = Simulator::start_blocking(world, arguments.listen)?;
    simulator.set_latency(Latency {
        page: Duration::from_millis(arguments.latency_page_ms),
        item: Duration::from_micros(arguments.latency_item_us),
        concurrency: arguments.concurrency,
    });
    introduce(&simulator);
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    waiting.block_on(tokio::signal::ctrl_c()).context("cannot wait for an interrupt")
}

fn world(name: &str) -> anyhow::Result<World> {
    if let Some(number) = name.strip_prefix("large:") {
        let parse = |text: &str| text.parse().with_context(|| format!("--world {name}: N and K must be numbers"));
        return Ok(match number.split_once(':') {
            Some((resources, orders)) => World::large_with_orders(parse(resources)?, parse(orders)?),
            None => World::large(parse(number)?),
        });
    }
    match name {
        "demo" => Ok(World::demo()),
        "empty" => Ok(World::empty()),
        file => {
            let text = std::fs::read_to_string(Path::new(file))
                .with_context(|| format!("--world {file}: not demo, empty, large:N or a readable file"))?;
            let case = serde_json::from_str(&text).with_context(|| format!("--world {file}: invalid JSON"))?;
            Ok(World::from_golden(&case))
        }
    }
}

/// Prints the URLs and the credentials. All secrets here exist only in the simulator.
#[expect(clippy::print_stdout, reason = "this is the output of the command")]
fn introduce(simulator: &Simulator) {
    let (resources, users) = simulator.world(|world| (world.resources.len(), world.users.clone()));
    println!("Waldur         {}/api/   ({resources} resources)", simulator.base_url());
    println!("HPC User API   {}", simulator.hpc_url());
    println!("Keycloak       {}   realm {}", simulator.keycloak_url(), simulator::REALM);
    println!("Token endpoint {}", simulator.token_url());
    println!(
        "For a shell    {}/_simulator/   (faults, requests, costs, orders, changes, world, sessions, rotate-keys)",
        simulator.base_url()
    );
    println!();
    println!("Waldur tokens:");
    for user in users {
        println!("  {:<16} {}", user.username, user.token);
    }
    println!();
    println!("Clients: hpc-client / hpc-secret, storage-provisioner / provisioner-secret,");
    println!(
        "  storage-lightweight / lightweight-secret (lightweight tokens), hpc-storage-proxy / proxy-secret (introspection)"
    );
    println!("  storage-dashboard / dashboard-secret-0123456789 (sign-in, always as `operator`)");
    let token = simulator.realm().mint(&TokenSpec::user("demo-user").lifetime(86_400));
    println!("Access token of a user, valid for a day:\n  {token}");
}
