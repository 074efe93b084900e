//! What a case works with: the site, the command, the storage, and questions about all of them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use simulator::World;
use simulator::world::{NewResource, OfferingType, OrderState, ResourceState};
use tempfile::TempDir;
use uuid::Uuid;

use crate::command::{Running, bound_output, tail};
use crate::exchange::{Exchange, Front, has_read_twice, open_wait};
use crate::gateway::{Effect, Gateway, Listing, ListingChange, Prober, Rule, WALDUR_TOKEN};
use crate::outcome::{Failure, Outcome, seen};
use crate::probe::{Kind, Pair, Probe, Probed};
use crate::site::{CLIENT, CLIENT_SECRET, FIRST_GID, INODES_PER_TB, SYSTEM, Site};

pub(crate) const TERABYTE: u64 = 1_000_000_000_000;
/// How long the command is quiet, when it waits for a change, until it has nothing else to do.
const QUIET: Duration = Duration::from_secs(1);
/// Time between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);
/// By how much space may exceed the quota, in bytes, because it is rounded up to blocks.
pub(crate) const BLOCK: u64 = 1 << 20;

/// What all cases of a run have in common.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) command: Vec<String>,
    pub(crate) probe: Kind,
    /// Number of kills of the case with random ones.
    pub(crate) kills: u32,
    /// Time for each thing that a case waits for.
    pub(crate) timeout: Duration,
    /// Whether the run is to end.
    pub(crate) interrupted: Arc<AtomicBool>,
}

impl Options {
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

/// A resource and an order for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ordered {
    pub(crate) resource: Uuid,
    pub(crate) order: Uuid,
}

/// A directory as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) gid: u64,
    pub(crate) mode: u32,
    /// Soft and hard, in bytes.
    pub(crate) space: [u64; 2],
    /// Soft and hard.
    pub(crate) inodes: [u64; 2],
}

impl Expected {
    /// The directory of project `number` with this many TB.
    pub(crate) fn of(number: u32, terabytes: u64) -> Self {
        Self {
            gid: (FIRST_GID + number).into(),
            mode: 0o2770,
            space: [terabytes * TERABYTE; 2],
            inodes: INODES_PER_TB.map(|inodes| inodes * terabytes),
        }
    }

    /// How the directory differs; empty if it does not, or the probe does not know.
    fn differences(&self, probed: &Probed) -> String {
        let mut text = String::new();
        let mut differs = |what: &str, expected: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
            let _ = write!(text, "{}{what} is {found}, not {expected}", if text.is_empty() { "" } else { "; " });
        };
        if probed.exists == Some(false) {
            return "it does not exist".to_owned();
        }
        if let Some(gid) = probed.gid.filter(|gid| *gid != self.gid) {
            differs("the group", &self.gid, &gid);
        }
        if let Some(mode) = probed.mode.filter(|mode| *mode != self.mode) {
            differs("the mode", &format!("{:o}", self.mode), &format!("{mode:o}"));
        }
        let pairs = [("space", probed.space, self.space, BLOCK), ("inodes", probed.inodes, self.inodes, 0)];
        for (what, found, expected, slack) in pairs {
            let Some(Pair { soft, hard }) = found else { continue };
            for (how, found, expected) in [("soft", soft, expected[0]), ("hard", hard, expected[1])] {
                if found.is_some_and(|found| found < expected || found - expected > slack) {
                    differs(&format!("{what} ({how})"), &expected, &found.unwrap_or_default());
                }
            }
        }
        text
    }
}

/// One case in progress.
pub(crate) struct Bench<'a> {
    pub(crate) site: &'a mut Site,
    pub(crate) options: &'a Options,
    pub(crate) offering: OfferingType,
    directory: TempDir,
    pub(crate) probe: Arc<Probe>,
    command: Option<Running>,
    began: Instant,
    environment: Vec<(&'static str, String)>,
    /// Whether the command may end orders in this case.
    may_refuse: bool,
    /// What the probe could not read.
    pub(crate) unknown: BTreeSet<&'static str>,
    /// The first error of the probe at the arrival of a callback.
    probe_error: Arc<Mutex<Option<Failure>>>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(site: &'a mut Site, options: &'a Options, offering: OfferingType) -> anyhow::Result<Self> {
        site.reset(offering);
        let directory = TempDir::with_prefix("conformance-")?;
        let [root, state] = ["root", "state"].map(|name| directory.path().join(name));
        std::fs::create_dir(&root)?;
        std::fs::create_dir(&state)?;
        let gateway = &site.gateway;
        let mut environment = vec![
            ("STORAGE_PROXY_URL", gateway.url(Front::Proxy)),
            ("STORAGE_TOKEN_URL", site.simulator.token_url()),
            ("STORAGE_CLIENT_ID", CLIENT.to_owned()),
            ("STORAGE_CLIENT_SECRET", CLIENT_SECRET.to_owned()),
            ("WALDUR_API_URL", format!("{}/api/", gateway.url(Front::Waldur))),
            ("WALDUR_API_TOKEN", WALDUR_TOKEN.to_owned()),
            ("STORAGE_SYSTEM", SYSTEM.to_owned()),
            ("STORAGE_ROOT", root.display().to_string()),
            ("STORAGE_STATE_DIRECTORY", state.display().to_string()),
            ("STORAGE_TERABYTE", TERABYTE.to_string()),
            ("STORAGE_INTERVAL", "0.5".to_owned()),
        ];
        if !rustix::process::geteuid().is_root() {
            environment.push(("STORAGE_UNPRIVILEGED", "1".to_owned()));
        }
        let probe = Arc::new(Probe::new(&options.probe, &root, &environment, options.timeout / 4));
        let probe_error = Arc::default();
        gateway.reset(prober(site, &probe, &probe_error));
        Ok(Self {
            site,
            options,
            offering,
            directory,
            probe,
            command: None,
            began: Instant::now(),
            environment,
            may_refuse: false,
            unknown: BTreeSet::new(),
            probe_error,
        })
    }

    // The outside world.

    pub(crate) fn gateway(&self) -> &Gateway {
        &self.site.gateway
    }

    pub(crate) fn world<T>(&self, visit: impl FnOnce(&mut World) -> T) -> T {
        self.site.simulator.world(visit)
    }

    pub(crate) fn is_basic(&self) -> bool {
        self.offering == OfferingType::Basic
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// A customer orders a directory; the order still waits for the customer's approval.
    pub(crate) fn request(&self, number: u32, limits: Value, attributes: Value) -> Ordered {
        self.world(|world| {
            let offering = world.offerings[0].uuid;
            let project = world.projects[number as usize].uuid;
            let slug = format!("r{}", world.resources.len());
            let order = world.order_create(NewResource { offering, project, slug, limits, attributes });
            Ordered { resource: world.orders[&order].resource, order }
        })
    }

    /// A customer orders a directory for project `number`, and approves the order.
    pub(crate) fn order(&self, number: u32, terabytes: u64) -> Ordered {
        let attributes = json!({ "storage_data_type": "store", "permissions": "2770" });
        self.approved(self.request(number, json!({ "storage": terabytes }), attributes))
    }

    /// The customer approves the order.
    pub(crate) fn approved(&self, ordered: Ordered) -> Ordered {
        // It waits for that.
        let _ = self.world(|world| world.consumer_approve(ordered.order));
        ordered
    }

    pub(crate) fn order_size(&self, resource: Uuid, terabytes: u64) -> Ordered {
        self.order_limits(resource, json!({ "storage": terabytes }))
    }

    pub(crate) fn order_limits(&self, resource: Uuid, limits: Value) -> Ordered {
        let order = self.world(|world| world.order_update_limits(resource, limits)).unwrap_or_default();
        self.approved(Ordered { resource, order })
    }

    pub(crate) fn order_options(&self, resource: Uuid, options: &Value) -> Ordered {
        let options = options.as_object().cloned().unwrap_or_default();
        let order = self.world(|world| world.order_update_options(resource, &options)).unwrap_or_default();
        self.approved(Ordered { resource, order })
    }

    pub(crate) fn order_end(&self, resource: Uuid) -> Ordered {
        let order = self.world(|world| world.order_terminate(resource)).unwrap_or_default();
        self.approved(Ordered { resource, order })
    }

    pub(crate) fn order_state(&self, ordered: Ordered) -> Option<OrderState> {
        self.world(|world| world.orders.get(&ordered.order).and_then(simulator::world::Order::state))
    }

    pub(crate) fn resource_state(&self, resource: Uuid) -> Option<ResourceState> {
        self.world(|world| world.resources.get(&resource).and_then(simulator::world::Resource::state))
    }

    /// Sets the state of an order and of its resource, as an operator does.
    pub(crate) fn force(&self, ordered: Ordered, order: OrderState, resource: ResourceState) {
        self.world(|world| {
            world.force_order(ordered.order, order);
            world.change(ordered.resource, "state", resource.as_str().into());
        });
    }

    pub(crate) fn path(&self, resource: Uuid) -> String {
        self.world(|world| mount_point(world, resource)).unwrap_or_default()
    }

    /// Lets the next matching callback have this effect.
    pub(crate) fn on(&self, ordered: Ordered, action: &'static str, effect: Effect) {
        self.gateway().add(Rule { action, ids: [ordered.order, ordered.resource], effect });
    }

    /// Changes the world just before the callback reaches Waldur.
    pub(crate) fn change_before(
        &self,
        ordered: Ordered,
        action: &'static str,
        change: impl FnOnce(&mut World) + Send + 'static,
    ) {
        self.on(ordered, action, Effect::Change(Box::new(change)));
    }

    /// Changes every page of the listing.
    pub(crate) fn edit_listing(&self, edit: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.change_listing(Some(ListingChange::Edit(Arc::new(edit))));
    }

    pub(crate) fn change_listing(&self, change: Option<ListingChange>) {
        self.gateway().change_listing(|listing| listing.change = change);
    }

    /// Shows the proxy's own listing again.
    pub(crate) fn restore_listing(&self) {
        self.gateway().change_listing(|listing| *listing = Listing::default());
    }

    /// From now on, the command may end orders: what they ask for is impossible.
    pub(crate) fn allow_refusal(&mut self) {
        self.may_refuse = true;
    }

    // The command.

    pub(crate) fn start(&mut self) -> Outcome {
        let output = self.output_file();
        let mark = self.directory.path().display().to_string();
        let started = Running::start(&self.options.command, &self.environment, &mark, &output);
        let running =
            started.map_err(|error| Failure::Broken(format!("cannot start {:?}: {error}", self.options.command[0])))?;
        self.gateway().set_victim(Some(running.victim.clone()));
        self.command = Some(running);
        Ok(())
    }

    /// SIGKILL, as in a power failure.
    pub(crate) fn kill(&mut self) {
        self.gateway().set_victim(None);
        self.command = None;
    }

    /// SIGTERM, and SIGKILL if the command does not stop. Returns whether it stopped by itself.
    pub(crate) fn stop(&mut self) -> bool {
        self.gateway().set_victim(None);
        self.command.take().is_none_or(Running::stop)
    }

    /// Starts the command again if a case has killed it. A command that ends by itself fails the case.
    fn keep_running(&mut self) -> Outcome {
        bound_output(&self.output_file());
        let Some(running) = &self.command else { return Ok(()) };
        let ended = running.ended().map_err(|error| Failure::Broken(error.to_string()))?;
        if let Some(how) = ended {
            return seen(format!("the command {how}; it has to run until it gets SIGTERM"));
        }
        if running.was_killed() {
            self.kill();
            return self.start();
        }
        Ok(())
    }

    /// No probe has failed at the arrival of a callback.
    fn probe_works(&self) -> Outcome {
        self.probe_error.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    fn output_file(&self) -> PathBuf {
        self.directory.path().join("output")
    }

    pub(crate) fn output(&self) -> Vec<String> {
        tail(&self.output_file())
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    // What happens.

    /// Waits until the condition holds. `what` completes "never: …".
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> Outcome<bool>) -> Outcome {
        let (begun, taken) = (Instant::now(), self.probe.taken());
        loop {
            if holds(self)? {
                return Ok(());
            }
            self.keep_running()?;
            self.probe_works()?;
            if self.options.is_interrupted() {
                return Err(Failure::Broken("interrupted".into()));
            }
            if begun.elapsed() > self.options.timeout + self.probe.taken().saturating_sub(taken) {
                return seen(format!("never within {} s: {what}", self.options.timeout.as_secs()));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits until the command has seen the present state, and had the time to act on it.
    pub(crate) fn settle(&mut self) -> Outcome {
        let since = Instant::now();
        self.until("the command reads the whole listing (twice, or waits for a change)", |bench| {
            let log = bench.gateway().log();
            if has_read_twice(&log, since) {
                return Ok(true);
            }
            let waits = open_wait(&log).filter(|wait| wait.started.max(since).elapsed() >= QUIET);
            // It waits for a change of what the proxy has now.
            Ok(waits.is_some_and(|wait| wait.known.is_some() && bench.gateway().tag(&wait.target) == wait.known))
        })
    }

    /// Waits until Waldur shows the order as done.
    pub(crate) fn done(&mut self, ordered: Ordered) -> Outcome {
        let mut last = None;
        let outcome = self.until("the order is done", |bench| {
            last = bench.order_state(ordered);
            Ok(last == Some(OrderState::Done))
        });
        match (outcome, last) {
            (Err(Failure::Seen(text)), Some(state)) => {
                seen(format!("{text}; the order for {} is {}", self.path(ordered.resource), state.as_str()))
            }
            (Ok(()), _) => self.until("the gateway knows the answer of Waldur", |bench| {
                let is_open = |exchange: &Exchange| {
                    let ours = exchange.callback.as_ref().is_some_and(|callback| callback.id == ordered.order);
                    ours && exchange.effect.is_none() && exchange.ended.is_none()
                };
                Ok(!bench.gateway().log().iter().any(is_open))
            }),
            (outcome, _) => outcome,
        }
    }

    /// An order that nobody has approved yet changes nothing.
    pub(crate) fn waits_for_approval(&mut self, order: impl Fn(&Self, Uuid) -> Ordered) -> Outcome {
        let made = self.create(3)?;
        self.stop();
        let pending = [OrderState::PendingConsumer, OrderState::PendingProject, OrderState::PendingStartDate];
        let mut orders = Vec::new();
        for (made, state) in made.iter().zip(pending) {
            let ordered = order(self, made.resource);
            self.world(|world| world.force_order(ordered.order, state));
            orders.push(ordered);
        }
        self.start()?;
        self.settle()?;
        for (number, ordered) in (0..).zip(orders) {
            self.is(ordered, &Expected::of(number, 10))?;
            self.no_calls_of(ordered, |action| action != "set_backend_id")?;
        }
        Ok(())
    }

    /// Orders directories of 10 TB for the first `count` projects, and waits until they exist.
    pub(crate) fn create(&mut self, count: u32) -> Outcome<Vec<Ordered>> {
        let all: Vec<Ordered> = (0..count).map(|number| self.order(number, 10)).collect();
        if self.command.is_none() {
            self.start()?;
        }
        for (number, ordered) in (0..).zip(&all) {
            self.done(*ordered)?;
            self.is(*ordered, &Expected::of(number, 10))?;
        }
        Ok(all)
    }

    pub(crate) fn read(&mut self, resource: Uuid) -> Outcome<Probed> {
        let path = self.path(resource);
        let probed = self.probe.read(&path, &resource.to_string()).map_err(|error| self.probe.failure(&error))?;
        if probed.exists == Some(true) {
            self.unknown.extend(probed.unknown());
        }
        Ok(probed)
    }

    /// The directory is as it should be now.
    pub(crate) fn is(&mut self, ordered: Ordered, expected: &Expected) -> Outcome {
        let probed = self.read(ordered.resource)?;
        self.matches(ordered, expected, &probed, "")
    }

    pub(crate) fn matches(&self, ordered: Ordered, expected: &Expected, probed: &Probed, when: &str) -> Outcome {
        let differences = expected.differences(probed);
        if differences.is_empty() {
            Ok(())
        } else {
            seen(format!("{}{when}: {differences}", self.path(ordered.resource)))
        }
    }

    /// The directory becomes as it should be.
    pub(crate) fn becomes(&mut self, ordered: Ordered, expected: &Expected) -> Outcome {
        let mut differences = String::new();
        let outcome = self.until("the directory is as in the document", |bench| {
            differences = expected.differences(&bench.read(ordered.resource)?);
            Ok(differences.is_empty())
        });
        match outcome {
            Err(Failure::Seen(text)) => seen(format!("{text}; {}: {differences}", self.path(ordered.resource))),
            outcome => outcome,
        }
    }

    /// There is no directory at the path.
    pub(crate) fn is_absent(&mut self, ordered: Ordered) -> Outcome {
        match self.read(ordered.resource)?.exists {
            Some(true) => seen(format!("{} exists", self.path(ordered.resource))),
            _ => Ok(()),
        }
    }

    /// The directory is gone from its path, and its data is in the trash.
    pub(crate) fn is_in_trash(&mut self, ordered: Ordered) -> Outcome {
        let (path, probed) = (self.path(ordered.resource), self.read(ordered.resource)?);
        match (probed.exists, probed.trash) {
            (Some(true), _) => seen(format!("{path} still exists")),
            (_, Some(false)) => seen(format!("{path} is not in the trash: its data is lost")),
            _ => Ok(()),
        }
    }

    // What the command has called.

    /// The callbacks for this order and its resource that Waldur accepted.
    pub(crate) fn accepted(&self, ordered: Ordered) -> Vec<Exchange> {
        let ours = |exchange: &Exchange| {
            exchange.callback.as_ref().is_some_and(|callback| [ordered.order, ordered.resource].contains(&callback.id))
        };
        self.gateway().log().into_iter().filter(|exchange| exchange.is_accepted() && ours(exchange)).collect()
    }

    /// The first accepted callback with this action.
    pub(crate) fn call(&self, ordered: Ordered, action: &str) -> Outcome<Exchange> {
        match self.accepted(ordered).into_iter().find(|exchange| exchange.action() == Some(action)) {
            Some(exchange) => Ok(exchange),
            None => seen(format!("{action} was not called for {}", self.path(ordered.resource))),
        }
    }

    /// The callbacks were accepted in this order.
    pub(crate) fn order_of_calls(&self, ordered: Ordered, actions: &[&str]) -> Outcome {
        let accepted = self.accepted(ordered);
        let called: Vec<&str> = accepted.iter().filter_map(Exchange::action).collect();
        let mut rest = actions.iter().peekable();
        for action in &called {
            rest.next_if(|next| *next == action);
        }
        if rest.peek().is_none() {
            Ok(())
        } else {
            seen(format!("the calls were {}, not {}", listed(&called), listed(actions)))
        }
    }

    /// The directory was as it should be when this callback arrived.
    pub(crate) fn was(&self, ordered: Ordered, action: &str, expected: &Expected) -> Outcome {
        match self.call(ordered, action)?.probed {
            Some(probed) => self.matches(ordered, expected, &probed, &format!(" when {action} was called")),
            None => Ok(()),
        }
    }

    /// No callback was sent for this order and its resource since the case began.
    pub(crate) fn no_calls(&self, ordered: Ordered) -> Outcome {
        self.no_calls_of(ordered, |_| true)
    }

    /// No such callback was sent, accepted or not.
    pub(crate) fn no_calls_of(&self, ordered: Ordered, matches: impl Fn(&str) -> bool) -> Outcome {
        let ids = [ordered.order, ordered.resource];
        let log = self.gateway().log();
        let sent = log
            .iter()
            .filter_map(|exchange| exchange.callback.as_ref())
            .find(|callback| ids.contains(&callback.id) && matches(&callback.action));
        match sent {
            Some(callback) => seen(format!("{} was called for {}", callback.action, self.path(ordered.resource))),
            None => Ok(()),
        }
    }

    /// Rules that hold in every case.
    pub(crate) fn invariants(&mut self) -> Outcome {
        self.keep_running()?;
        self.probe_works()?;
        for exchange in self.gateway().log() {
            if let Some(leak) = exchange.leak {
                return seen(format!(
                    "8.2: Send a credential only to the origin that it belongs to. {leak}: {} {}",
                    exchange.method, exchange.target
                ));
            }
            if let Some(action) = exchange.action() {
                if let Some(fault) = fault_of_body(action, &exchange.body) {
                    return seen(format!("8.2: {fault}. The body of {action} was {:?}", exchange.body));
                }
                if !self.may_refuse && matches!(action, "set_state_erred" | "reject_by_provider") {
                    return seen(format!(
                        "8.3: Never report erred for a temporary error; never reject a paid order because something is absent or unreadable. {action} was called"
                    ));
                }
            }
        }
        let escapes = self.probe.escapes().map_err(|error| self.probe.failure(&error))?;
        let entries = std::fs::read_dir(self.directory.path()).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let strange = names.filter(|name| !["root", "state", "output", "away"].contains(&name.as_str()));
        match escapes.into_iter().chain(strange).next() {
            Some(name) => seen(format!("it made {name}, which is outside of STORAGE_ROOT")),
            None => Ok(()),
        }
    }
}

fn listed(actions: &[&str]) -> String {
    if actions.is_empty() { "none".to_owned() } else { actions.join(", ") }
}

/// Why Waldur refuses this body, or cannot use it.
fn fault_of_body(action: &str, body: &str) -> Option<&'static str> {
    let body: Value = if body.is_empty() { json!({}) } else { serde_json::from_str(body).unwrap_or(Value::Null) };
    let text = |key: &str| body[key].as_str().is_some_and(|text| !text.is_empty());
    let is_right = match action {
        "set_state_erred" => body["error_message"].is_string() && body["error_traceback"].is_string(),
        "reject_by_provider" => text("provider_rejection_comment"),
        "set_backend_id" => {
            text("backend_id") && body["backend_id"].as_str().is_some_and(|id| id.chars().count() <= 255)
        }
        "approve_by_provider" => body.is_object() && matches!(body.get("attributes"), None | Some(Value::Object(_))),
        _ => true,
    };
    let rule = match action {
        "set_state_erred" => "Waldur requires both error_message and error_traceback",
        "reject_by_provider" => "A rejection has a provider_rejection_comment",
        "set_backend_id" => "The backend_id is the path, of at most 255 characters",
        _ => "The body is empty or has attributes",
    };
    (!is_right).then_some(rule)
}

fn prober(site: &Site, probe: &Arc<Probe>, error: &Arc<Mutex<Option<Failure>>>) -> Prober {
    let (simulator, probe, error) = (Arc::clone(&site.simulator), Arc::clone(probe), Arc::clone(error));
    Arc::new(move |id| {
        let (resource, path) = simulator.world(|world| {
            let resource = world.orders.get(&id).map_or(id, |order| order.resource);
            mount_point(world, resource).map(|path| (resource, path))
        })?;
        match probe.read(&path, &resource.to_string()) {
            Ok(probed) => Some(probed),
            Err(failed) => {
                error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(probe.failure(&failed));
                None
            }
        }
    })
}

/// The path in the document.
fn mount_point(world: &World, resource: Uuid) -> Option<String> {
    let row = world.resources.get(&resource)?;
    let given = row.text("backend_id");
    if !given.is_empty() {
        return Some(given.to_owned());
    }
    let data_type = row.record["attributes"]["storage_data_type"].as_str().unwrap_or("store");
    Some(format!("/{SYSTEM}/{data_type}/cscs/uni/{}", world.projects[&row.project].slug))
}

#[cfg(test)]
mod tests {
    use super::{Expected, TERABYTE, fault_of_body};
    use crate::probe::{Pair, Probed};

    #[test]
    fn differences_are_named() {
        let expected = Expected::of(0, 10);
        let [space, inodes] =
            [expected.space, expected.inodes].map(|[soft, hard]| Some(Pair { soft: Some(soft), hard: Some(hard) }));
        let probed = Probed { exists: Some(true), gid: Some(30_500), mode: Some(0o2770), space, inodes, trash: None };
        assert_eq!(expected.differences(&probed), "");
        let block = Some(Pair { soft: Some(10 * TERABYTE + 4096), hard: None });
        assert_eq!(expected.differences(&Probed { space: block, ..probed.clone() }), "");
        let less = Some(Pair { soft: Some(10 * TERABYTE - 1), hard: None });
        let differences = expected.differences(&Probed { space: less, gid: Some(0), ..probed });
        assert_eq!(differences, "the group is 0, not 30500; space (soft) is 9999999999999, not 10000000000000");
        assert_eq!(expected.differences(&Probed { exists: Some(false), ..Probed::default() }), "it does not exist");
        assert_eq!(expected.differences(&Probed::default()), "");
    }

    #[test]
    fn bodies_of_callbacks_are_checked() {
        for (action, body) in [
            ("set_state_erred", r#"{"error_message": "a", "error_traceback": ""}"#),
            ("reject_by_provider", r#"{"provider_rejection_comment": "a"}"#),
            ("set_backend_id", r#"{"backend_id": "/a"}"#),
            ("approve_by_provider", ""),
            ("approve_by_provider", r#"{"attributes": {"new_options": {}}}"#),
            ("set_state_done", ""),
        ] {
            assert_eq!(fault_of_body(action, body), None, "{action} {body}");
        }
        for (action, body) in [
            ("set_state_erred", ""),
            ("set_state_erred", r#"{"error_message": "a"}"#),
            ("reject_by_provider", "{}"),
            ("set_backend_id", r#"{"backend_id": ""}"#),
            ("approve_by_provider", r#"{"attributes": []}"#),
        ] {
            assert!(fault_of_body(action, body).is_some(), "{action} {body}");
        }
    }
}
