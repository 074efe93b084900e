//! A site: a simulated Waldur, the proxy, a directory for each storage system, and the binary.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use program::Clock;
use proxy::api::{self, Service};
use proxy::config::{Environment, Overrides};
use proxy::reports::{Received, Reports};
use proxy::server::{self, Frontend};
use serde_json::{Value, json};
use simulator::world::{NewResource, OfferingType, OrderState, ResourceState, Role};
use simulator::{Client, PROVIDER_TOKEN, Simulator, World};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;

const CLIENT: &str = "storage-provisioner";
pub(crate) const CLIENT_SECRET: &str = "s3cret-of-the-client";
/// The Waldur token of the provisioner's own user, which the proxy does not have.
pub(crate) const WALDUR_TOKEN: &str = "fedcba9876543210fedcba9876543210fedcba98";
/// The system whose offering is of the type Marketplace.Slurm.
pub(crate) const SLURM: &str = "capstor";
/// The system whose offering is of the type Marketplace.Basic.
pub(crate) const BASIC: &str = "tape";

/// A simulated Waldur, the proxy, and two empty storage systems.
pub(crate) struct Site {
    pub(crate) simulator: Simulator,
    address: SocketAddr,
    proxy: Option<Runtime>,
    /// The reports that the proxy has received since its start.
    pub(crate) reports: Option<Arc<Reports>>,
    relays: bool,
    /// Maximum age of the proxy's snapshot in seconds.
    pub(crate) max_age: u32,
    /// Whether the proxy refreshes its snapshot in the background.
    pub(crate) refreshes: bool,
    /// Directory with the roots of the systems.
    base: PathBuf,
    pub(crate) directory: TempDir,
    settings: Vec<(String, String)>,
}

/// The exit code and output of a command.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A resource and an order for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ordered {
    pub(crate) resource: Uuid,
    pub(crate) order: Uuid,
}

impl Site {
    /// A site whose proxy relays callbacks: the provisioner has only its Keycloak client.
    pub(crate) fn new() -> Self {
        Self::start(true, &[], None, &unprivileged())
    }

    /// A site whose links lead to Waldur. The provisioner has no Waldur token.
    pub(crate) fn without_relay() -> Self {
        Self::start(false, &[], None, &unprivileged())
    }

    /// A site that relays, with additional settings of the provisioner.
    pub(crate) fn with(more: &[(&str, &str)]) -> Self {
        Self::start(true, more, None, &unprivileged())
    }

    /// A site that relays, whose systems have their roots in `base` and the settings `system`.
    pub(crate) fn below(base: &Path, system: &Value) -> Self {
        Self::start(true, &[], Some(base), system)
    }

    fn start(relays: bool, more: &[(&str, &str)], base: Option<&Path>, system: &Value) -> Self {
        let simulator = Simulator::start_blocking(world(), (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        simulator.realm().register(Client::new(CLIENT, CLIENT_SECRET));
        let directory = TempDir::new().unwrap();
        let base = base.unwrap_or(directory.path()).to_owned();
        let systems = [SLURM, BASIC].map(|name| {
            let root = base.join(name);
            fs::create_dir(&root).unwrap();
            let mut system = system.clone();
            system["root"] = json!(root);
            (name.to_owned(), system)
        });
        let systems: serde_json::Map<_, _> = systems.into_iter().collect();
        let mut site = Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            proxy: None,
            reports: None,
            relays,
            max_age: 0,
            refreshes: false,
            base,
            settings: vec![
                ("PROVISIONER_TOKEN_URL".into(), simulator.token_url()),
                ("PROVISIONER_CLIENT_ID".into(), CLIENT.into()),
                ("PROVISIONER_CLIENT_SECRET".into(), CLIENT_SECRET.into()),
                ("PROVISIONER_SYSTEMS".into(), Value::Object(systems).to_string()),
                ("PROVISIONER_STATE_DIRECTORY".into(), directory.path().join("state").display().to_string()),
                ("PROVISIONER_TIMEOUT".into(), "20".into()),
            ],
            directory,
            simulator,
        };
        site.start_proxy();
        site.set("PROVISIONER_PROXY_URL", &format!("http://{}", site.address));
        for (key, value) in more {
            site.set(key, value);
        }
        site
    }

    /// Starts the proxy, at the same address as before.
    pub(crate) fn start_proxy(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        let simulator = &self.simulator;
        let variables = [
            ("STORAGE_SYSTEMS", json!({SLURM: SLURM, BASIC: BASIC}).to_string()),
            // 0 makes orders visible at once, even without --fresh.
            ("CACHE_MAX_AGE", self.max_age.to_string()),
            // Resources that tests delete are gone at once.
            ("CACHE_FULL_INTERVAL", "0".to_owned()),
            ("CALLBACKS_RELAY", self.relays.to_string()),
            ("SERVER_PUBLIC_URL", format!("http://{}", self.address)),
        ];
        let variables = simulator.proxy_variables().into_iter().chain(variables);
        let environment = Environment::new(self.directory.path().to_owned(), variables);
        let loaded = proxy::config::load(&environment, &Overrides::default()).unwrap();
        let service = runtime.block_on(async { Service::new(&loaded.settings, &Clock::system()).unwrap() });
        self.reports = Some(Arc::clone(&service.reports));
        runtime.block_on(async {
            if self.refreshes {
                tokio::spawn(service.clone().run_in_background());
            }
            let router = api::router(&service).merge(api::health_router(&service));
            let never = std::future::pending::<std::future::Pending<()>>();
            tokio::spawn(server::serve(vec![listener.into()], Frontend::new(router, None), never));
        });
        self.proxy = Some(runtime);
    }

    /// The report that the proxy has.
    pub(crate) fn report(&self) -> Option<Arc<Received>> {
        self.reports.as_ref()?.all().pop()
    }

    /// Stops the proxy, and closes its connections.
    pub(crate) fn stop_proxy(&mut self) {
        if let Some(runtime) = self.proxy.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }

    /// Sets an environment variable of the provisioner.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    /// Lets the provisioner call Waldur itself.
    pub(crate) fn use_waldur_token(&mut self) {
        self.set("PROVISIONER_WALDUR_API_URL", &format!("{}/api/", self.simulator.base_url()));
        self.set("PROVISIONER_WALDUR_API_TOKEN", WALDUR_TOKEN);
    }

    /// An environment variable of the provisioner; empty if not set.
    pub(crate) fn setting(&self, key: &str) -> String {
        self.settings.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone()).unwrap_or_default()
    }

    pub(crate) fn unset(&mut self, key: &str) {
        self.settings.retain(|(known, _)| known != key);
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hpc-storage-provisioner"));
        command.env_clear().envs(self.settings.iter().cloned()).current_dir(self.directory.path()).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command. Asserts that it prints no secrets and does not panic.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let ended = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let output = Output { code: ended.status.code(), out: text(ended.stdout), err: text(ended.stderr) };
        assert_harmless(&output.out);
        assert_harmless(&output.err);
        output
    }

    /// Runs `apply`, which must succeed.
    pub(crate) fn apply(&self) -> Output {
        self.run(&["apply"]).exits_with(0)
    }

    /// The output of a command with `--json`, which must succeed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat()).exits_with(0);
        serde_json::from_str(&output.out).unwrap()
    }

    /// Starts a command.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Running {
        let log = self.directory.path().join(format!("output-{}", Uuid::new_v4()));
        let file = fs::File::create(&log).unwrap();
        let mut command = self.command(arguments);
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Running { child, log }
    }

    pub(crate) fn root(&self, system: &str) -> PathBuf {
        self.base.join(system)
    }

    /// The directory of a published path.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.base.join(path.trim_start_matches('/'))
    }

    /// A file in the state directory.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.directory.path().join("state").join(name)
    }

    /// File names in the trash of a system.
    pub(crate) fn trash(&self, system: &str) -> Vec<String> {
        names(&self.root(system).join(".trash"))
    }

    /// A customer orders a directory for project `number`, 0 to 19, and approves the order.
    pub(crate) fn order(&self, system: &str, number: usize, terabytes: usize) -> Ordered {
        self.simulator.world(|world| {
            let offering = world.offering_by_slug(system).unwrap().uuid;
            let project = world.projects[number].uuid;
            let order = world.order_create(NewResource {
                offering,
                project,
                slug: format!("{system}-{number}"),
                limits: json!({ "storage": terabytes }),
                attributes: json!({ "storage_data_type": "store", "permissions": "2770" }),
            });
            world.consumer_approve(order).unwrap();
            Ordered { resource: world.orders[&order].resource, order }
        })
    }

    /// A customer orders another size.
    pub(crate) fn order_size(&self, resource: Uuid, terabytes: usize) -> Ordered {
        self.simulator.world(|world| {
            let order = world.order_update_limits(resource, json!({ "storage": terabytes })).unwrap();
            world.consumer_approve(order).unwrap();
            Ordered { resource, order }
        })
    }

    /// A customer orders the termination of a resource.
    pub(crate) fn order_end(&self, resource: Uuid) -> Ordered {
        self.simulator.world(|world| {
            let order = world.order_terminate(resource).unwrap();
            world.consumer_approve(order).unwrap();
            Ordered { resource, order }
        })
    }

    /// The states of an order and its resource in Waldur.
    pub(crate) fn states(&self, ordered: Ordered) -> (OrderState, ResourceState) {
        self.simulator.world(|world| {
            (world.orders[&ordered.order].state().unwrap(), world.resources[&ordered.resource].state().unwrap())
        })
    }

    /// The reason of a rejection, as Waldur shows it.
    pub(crate) fn comment(&self, ordered: Ordered) -> String {
        self.simulator.world(|world| world.orders[&ordered.order].text("provider_rejection_comment").to_owned())
    }

    pub(crate) fn backend_id(&self, resource: Uuid) -> String {
        self.simulator.world(|world| world.resources[&resource].text("backend_id").to_owned())
    }

    /// Paths of the POST requests that Waldur has received.
    pub(crate) fn calls(&self) -> Vec<String> {
        let is_post = |request: &simulator::Received| request.method == "POST" && request.path.starts_with("/api/");
        self.simulator.requests().into_iter().filter(is_post).map(|request| request.path).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop_proxy();
    }
}

impl Output {
    /// Asserts the exit code.
    pub(crate) fn exits_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    /// Asserts that standard error contains the text.
    pub(crate) fn stderr_has(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{text:?} is missing:\n{}\n{}", self.out, self.err);
        self
    }

    /// Asserts that standard output contains the text.
    pub(crate) fn stdout_has(self, text: &str) -> Self {
        assert!(self.out.contains(text), "{text:?} is missing:\n{}\n{}", self.out, self.err);
        self
    }
}

/// A running command. Dropping it kills it.
pub(crate) struct Running {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Running {
    /// The output so far.
    pub(crate) fn output(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap();
        assert_harmless(&text);
        text
    }

    /// Waits for the exit code, at most this long.
    pub(crate) fn wait(&mut self, within: Duration) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < within, "it does not exit:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if it has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the condition holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The permission bits of a file or directory.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The sorted file names in a directory; none if it does not exist.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn assert_harmless(text: &str) {
    for secret in [CLIENT_SECRET, WALDUR_TOKEN, PROVIDER_TOKEN, "pa55"] {
        assert!(!text.contains(secret), "it prints {secret}:\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "it prints control characters:\n{text:?}");
}

/// Settings of systems in a temporary directory, which need no privileges.
fn unprivileged() -> Value {
    json!({
        "driver": "posix", "terabyte": "TB", "must_be_mounted": false, "change_owner": false,
        "project_ids": {"from": 1000},
    })
}

/// One provider with an offering of each type, one customer with twenty projects, and no orders.
fn world() -> World {
    let mut world = World::empty();
    let provider = world.add_provider("cscs", "Storage Centre");
    world.add_offering(provider, SLURM, "Disks", OfferingType::Slurm);
    world.add_offering(provider, BASIC, "Tape", OfferingType::Basic);
    let customer = world.add_customer("uni", "University");
    for number in 0..20 {
        let slug = format!("p{number}");
        world.add_project(customer, &slug, &format!("Project {number}"));
        world.hpc.add_project(&slug, Some(30_500 + number));
    }
    world.grant("storage-proxy", Role::ProviderOwner(provider));
    WALDUR_TOKEN.clone_into(&mut world.add_user("provisioner").token);
    world.grant("provisioner", Role::ProviderOwner(provider));
    world
}
