//! A site: the simulated Waldur, HPC User API and Keycloak, a real proxy, and the gateway. Cases use it one after the other.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;
use simulator::world::{OfferingType, Role};
use simulator::{Client, Simulator, World};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::exchange::Front;
use crate::gateway::{Gateway, WALDUR_TOKEN};

pub(crate) const CLIENT: &str = "storage-provisioner";
pub(crate) const CLIENT_SECRET: &str = "secret-of-the-provisioner";
/// The storage system, and the slug of its offering.
pub(crate) const SYSTEM: &str = "capstor";
/// A storage system that the command does not serve, and the slug of its offering.
pub(crate) const OTHER_SYSTEM: &str = "vast";
/// GID of the first project; the others follow.
pub(crate) const FIRST_GID: u32 = 30_500;
/// Number of projects.
pub(crate) const PROJECTS: u32 = 48;
/// Inodes per TB, soft and hard, as the proxy is configured.
pub(crate) const INODES_PER_TB: [u64; 2] = [1_500_000, 2_000_000];
/// Time for the proxy to start.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Site {
    pub(crate) simulator: Arc<Simulator>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) relay: bool,
    program: PathBuf,
    proxy: Option<Child>,
    directory: TempDir,
}

impl Site {
    pub(crate) fn start(runtime: &Runtime, program: &Path, relay: bool) -> anyhow::Result<Self> {
        let simulator = Simulator::start_blocking(world(OfferingType::Slurm), (Ipv4Addr::LOCALHOST, 0).into())?;
        let simulator = Arc::new(simulator);
        let gateway = Gateway::start(runtime, &simulator)?;
        let directory = TempDir::new()?;
        let mut site = Self { simulator, gateway, relay, program: program.to_owned(), proxy: None, directory };
        site.start_proxy()?;
        Ok(site)
    }

    /// Makes the world new.
    pub(crate) fn reset(&self, offering: OfferingType) {
        self.simulator.clear_faults();
        self.simulator.clear_requests();
        self.simulator.world(|all| *all = world(offering));
        self.register(300);
    }

    /// Registers the command's Keycloak client, with this lifetime of its tokens in seconds.
    pub(crate) fn register(&self, lifetime: u64) {
        self.simulator.realm().register(Client::new(CLIENT, CLIENT_SECRET).lifetime(lifetime));
    }

    pub(crate) fn start_proxy(&mut self) -> anyhow::Result<()> {
        let (simulator, gateway) = (&self.simulator, &self.gateway);
        let log = self.directory.path().join("proxy.log");
        let file = File::create(&log)?;
        let environment = [
            ("STORAGE_SYSTEMS", json!({ SYSTEM: SYSTEM, OTHER_SYSTEM: OTHER_SYSTEM }).to_string()),
            ("WALDUR_API_URL", format!("{}/api", gateway.url(Front::Waldur))),
            ("HPC_USER_USER_PATH", "/api/v1/export/cscs/users/{username}".to_owned()),
            ("INODE_BASE_MULTIPLIER", "1000000".to_owned()),
            ("INODE_SOFT_COEFFICIENT", "1.5".to_owned()),
            ("INODE_HARD_COEFFICIENT", "2".to_owned()),
            ("CACHE_MAX_AGE", "0".to_owned()),
            // Resources that cases delete are gone at once.
            ("CACHE_FULL_INTERVAL", "0".to_owned()),
            ("CALLBACKS_RELAY", self.relay.to_string()),
            ("SERVER_PUBLIC_URL", gateway.url(Front::Proxy)),
            ("LOG_FORMAT", "json".to_owned()),
        ];
        let child = Command::new(&self.program)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env_clear()
            .envs(simulator.proxy_variables())
            .envs(environment)
            // Without a file `.env`.
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start the proxy {}; --proxy names it", self.program.display()))?;
        let child = self.proxy.insert(child);
        let begun = Instant::now();
        let address = loop {
            let text = fs::read_to_string(&log)?;
            if let Some(address) = listening(&text) {
                break address.to_owned();
            }
            if let Some(status) = child.try_wait()? {
                bail!("the proxy {} ended with {status}: {}", self.program.display(), text.trim());
            }
            if begun.elapsed() > PATIENCE {
                bail!("the proxy {} does not listen after {PATIENCE:?}: {}", self.program.display(), text.trim());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        self.gateway.set_proxy(format!("http://{address}"));
        Ok(())
    }

    pub(crate) fn stop_proxy(&mut self) {
        if let Some(mut proxy) = self.proxy.take() {
            // Fails if it has ended.
            let _ = proxy.kill();
            let _ = proxy.wait();
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop_proxy();
    }
}

/// The address in the line of the proxy's log that says that it listens.
fn listening(log: &str) -> Option<&str> {
    let line = log.lines().find(|line| line.contains("\"listening\""))?;
    line.split_once("\"address\":\"")?.1.split('"').next()
}

/// One provider with an offering for each storage system, one customer with projects, and no orders.
fn world(offering: OfferingType) -> World {
    let mut world = World::empty();
    let provider = world.add_provider("cscs", "Storage Centre");
    world.add_offering(provider, SYSTEM, "Disks", offering);
    world.add_offering(provider, OTHER_SYSTEM, "Flash", offering);
    let customer = world.add_customer("uni", "University");
    for number in 0..PROJECTS {
        let slug = format!("p{number}");
        world.add_project(customer, &slug, &format!("Project {number}"));
        world.hpc.add_project(&slug, Some(FIRST_GID + number));
    }
    world.grant("storage-proxy", Role::ProviderOwner(provider));
    WALDUR_TOKEN.clone_into(&mut world.add_user("provisioner").token);
    world.grant("provisioner", Role::ProviderOwner(provider));
    world
}

#[cfg(test)]
mod tests {
    use super::listening;

    #[test]
    fn the_address_is_read_from_the_log() {
        let log = "{\"message\":\"starting\"}\n{\"level\":\"INFO\",\"fields\":{\"message\":\"listening\",\"address\":\"127.0.0.1:4711\"}}\n";
        assert_eq!(listening(log), Some("127.0.0.1:4711"));
        assert_eq!(listening("{\"message\":\"starting\"}"), None);
    }
}
