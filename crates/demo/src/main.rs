//! Starts the simulator, the proxy and the provisioner on loopback with demo data.

#![expect(clippy::print_stdout, reason = "an interactive program")]

mod story;
mod world;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::Parser;
use program::{Clock, error_chain};
use provisioner::provisioner::Provisioner;
use proxy::api::{self, Service};
use proxy::config::{Environment, Loaded, Overrides};
use proxy::server::{self, Frontend};
use proxy::{config, metrics, telemetry};
use simulator::{Client, Simulator, TokenSpec, User, World};
use tokio::net::TcpListener;

/// Starts the proxy against a simulated Waldur, HPC User API and Keycloak, all on loopback, and runs the provisioner in a
/// temporary directory, until Ctrl-C.
#[derive(Debug, Parser)]
struct Demo {
    /// Port of the proxy; if it is in use, a free port
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Port of the simulator; if it is in use, a free port
    #[arg(long, default_value_t = 9090)]
    simulator_port: u16,
    /// Log the mapping of each resource and each upstream exchange
    #[arg(long)]
    debug: bool,
}

const PROVISIONER: &str = "storage-provisioner";
const PROVISIONER_SECRET: &str = "provisioner-secret";
/// Role that is required to use the proxy's callbacks and to send reports.
const ROLE: &str = "storage-provisioner";
/// The realm's client for the pages for operators, and its secret.
const DASHBOARD: &str = "storage-dashboard";
const DASHBOARD_SECRET: &str = "dashboard-secret-0123456789";
/// The person who signs in.
const OPERATOR: &str = "operator";
const OPERATOR_ROLE: &str = "storage-operator";

fn main() -> anyhow::Result<()> {
    let demo = Demo::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&demo))
}

async fn run(demo: &Demo) -> anyhow::Result<()> {
    let simulator = match start_simulator(demo.simulator_port).await {
        Ok(simulator) => simulator,
        Err(_) => start_simulator(0).await?,
    };
    simulator.realm().register(Client::new(PROVISIONER, PROVISIONER_SECRET).role(ROLE));
    simulator.realm().register_user(User::new(OPERATOR, &[OPERATOR_ROLE]));
    simulator.realm().sign_in_as(Some(OPERATOR));
    let listener = bind(demo.port).await?;
    let proxy = listener.local_addr()?;
    let dashboard = Client::new(DASHBOARD, DASHBOARD_SECRET).redirect_uri(&format!("http://{proxy}/ui/callback"));
    simulator.realm().register(dashboard);
    let loaded = load(&simulator, proxy, demo.debug)?;
    if !demo.debug {
        // Request logs would bury the demo's output. Initialization fails only if a logger is already set.
        let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).try_init();
    }
    let _telemetry = telemetry::start(&loaded.settings)?;
    let service = Service::new(&loaded.settings, &Clock::system())?;
    tokio::spawn(metrics::run_upkeep());
    tokio::spawn(service.clone().run_in_background());
    let folder = tempfile::tempdir()?;
    let token_url = simulator.token_url();
    let client = [PROVISIONER, PROVISIONER_SECRET];
    let provisioner = story::variables(&format!("http://{proxy}"), &token_url, client, folder.path());
    print_instructions(&simulator, proxy, &provisioner);
    let router = api::router(&service).merge(api::health_router(&service));
    let (stop_provisioner, directory) = (Arc::new(AtomicBool::new(false)), folder.path().to_owned());
    let stopped = Arc::clone(&stop_provisioner);
    // Simulator and provisioner share a thread, because both block.
    let _ = std::thread::spawn(move || {
        let result = story::provisioner(provisioner, &directory)
            .and_then(|provisioner| story::run(&simulator, &Provisioner { stop: stopped, ..provisioner }, &directory));
        if let Err(error) = result {
            println!("\nThe provisioner's demo failed: {error:#}\n");
        }
    });
    server::serve(vec![listener.into()], Frontend::new(router, None), stop(&service)).await?;
    stop_provisioner.store(true, Ordering::Relaxed);
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM; returns a future that waits for the second one.
async fn stop(service: &Service) -> impl Future<Output = ()> + use<> {
    interrupt().await;
    service.waiting().stop();
    interrupt()
}

async fn interrupt() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

async fn start_simulator(port: u16) -> anyhow::Result<Simulator> {
    let mut world = World::demo();
    world::prepare(&mut world, Clock::system().now());
    world.run_clock();
    Simulator::start_on(world, (Ipv4Addr::LOCALHOST, port).into()).await
}

async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port on the loopback interface")
        }
        other => other.with_context(|| format!("cannot listen on port {port}")),
    }
}

/// Environment variables for the simulated upstreams: for the proxy of the demo, and for commands in another shell.
fn variables(simulator: &Simulator) -> Vec<(&'static str, String)> {
    let own = [
        ("STORAGE_SYSTEMS", r#"{"capstor": "capstor", "vast": "vast", "iopsstor": "iopsstor"}"#.to_owned()),
        ("HPC_USER_USER_PATH", "/api/v1/export/cscs/users/{username}".to_owned()),
    ];
    own.into_iter().chain(simulator.proxy_variables()).collect()
}

/// Loads the proxy's settings from environment variables, as in production.
fn load(simulator: &Simulator, proxy: SocketAddr, debug: bool) -> anyhow::Result<Loaded> {
    let more = [
        ("DEBUG", debug.to_string()),
        ("CACHE_MAX_AGE", "0.5".to_owned()),
        ("CACHE_REFRESH_INTERVAL", "0.25".to_owned()),
        ("CALLBACKS_RELAY", "true".to_owned()),
        ("CALLBACKS_REQUIRED_ROLES", ROLE.to_owned()),
        ("PROVISIONERS_REQUIRED_ROLES", ROLE.to_owned()),
        ("SERVER_PUBLIC_URL", format!("http://{proxy}")),
        ("DASHBOARD_ENABLED", "true".to_owned()),
        ("DASHBOARD_CLIENT_ID", DASHBOARD.to_owned()),
        ("DASHBOARD_CLIENT_SECRET", DASHBOARD_SECRET.to_owned()),
        ("DASHBOARD_REQUIRED_ROLES", OPERATOR_ROLE.to_owned()),
    ];
    let environment = variables(simulator).into_iter().chain(more);
    // A directory that does not exist, so that no `.env` is read.
    let nowhere = std::path::PathBuf::from("/nonexistent");
    config::load(&Environment::new(nowhere, environment), &Overrides::default())
        .map_err(|problems| anyhow::anyhow!(error_chain(&problems)))
}

/// Formats variables as `export` lines for a shell.
fn exports(variables: &[(&'static str, String)]) -> String {
    let line = |(name, value): &(&str, String)| format!("export {name}='{}'", value.replace('\'', r"'\''"));
    variables.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn print_instructions(simulator: &Simulator, proxy: SocketAddr, provisioner: &[(&'static str, String)]) {
    let base = simulator.base_url();
    let token = simulator.realm().mint(&TokenSpec::service_account(PROVISIONER).role(ROLE).lifetime(24 * 3600));
    let listing = format!("http://{proxy}/api/storage-resources/");
    let [provisioner, exports] = [exports(provisioner), exports(&variables(simulator))];
    println!(
        "\
Pages for operators:   http://{proxy}/ui/   (the simulated realm signs you in as `{OPERATOR}`; there is no password)
The API's description: http://{proxy}/docs

Something happens every few seconds: reload the page to see it. Stop with Ctrl-C. Everything listens on loopback only. Directories are
real, in a temporary folder; the usage of those that were there before is simulated. Commands to paste into another shell:

# The document; the token is valid for a day. Without it, the answer is 401.
TOKEN={token}
curl -s -H \"Authorization: Bearer $TOKEN\" '{listing}?storage_system=capstor&page_size=3'

# Order storage: the page and the folder have it within a few seconds.
curl -s -X POST '{base}/_simulator/orders' -d '{{\"order\": \"create\", \"offering\": \"capstor\", \"project\": \"demo-story\", \"slug\": \"mine\", \"limits\": {{\"storage\": 5}}}}'

# Waldur fails, and recovers: watch the page Now.
curl -s -X POST '{base}/_simulator/faults' -d '{{\"route\": \"GET /api/*\", \"fault\": {{\"kind\": \"answer\", \"status\": 503}}}}'
curl -s -X DELETE '{base}/_simulator/faults'

# Commands of the proxy, in this directory
{exports}
cargo run --quiet -p hpc-storage-proxy -- check
cargo run --quiet -p hpc-storage-proxy -- tree

# Commands of the provisioner, while the demo's provisioner runs
{provisioner}
cargo run --quiet -p hpc-storage-provisioner -- plan
cargo run --quiet -p hpc-storage-provisioner -- explain /capstor/store/cscs/uni-alpha/demo-story
"
    );
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_the_exports() -> anyhow::Result<()> {
        let simulator = Simulator::start_blocking(World::empty(), (Ipv4Addr::LOCALHOST, 0).into())?;
        for (name, value) in variables(&simulator) {
            let script = format!("{}\nprintf %s \"${name}\"", exports(&variables(&simulator)));
            let result = Command::new("sh").args(["-c", &script]).env_clear().output()?;
            assert_eq!(String::from_utf8(result.stdout)?, value, "{name}");
        }
        let loaded = load(&simulator, (Ipv4Addr::LOCALHOST, 1).into(), true)?;
        assert!(loaded.settings.debug && loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        Ok(())
    }
}
