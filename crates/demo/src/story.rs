//! The provisioner's part of the demo: a user orders storage, enlarges it and terminates it, and the provisioner carries out
//! the orders. After that, users go on with other projects.
//!
//! It runs in its own thread, because the provisioner blocks.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use program::{Clock, error_chain};
use provisioner::config::SCHEMA;
use provisioner::journal::{self, Begun, Event};
use provisioner::provisioner::Provisioner;
use provisioner::report::{Complete, Reporter};
use provisioner::source::Waited;
use provisioner_core::document::Status;
use provisioner_core::plan::{Case, Plan, Step, Task};
use serde_json::json;
use settings::{Environment, Overrides};
use simulator::Simulator;
use simulator::world::OrderState;
use storage_driver::Observed;
use storage_driver::limits::{Bytes, Inodes, QuotaLimits, Usage};
use uuid::Uuid;

use crate::world::{self, FIRST, PROJECTS};

/// The systems of the demo's provisioner. Nobody reports about the third one.
const SYSTEMS: [&str; 2] = ["capstor", "vast"];
/// Time between passes if nothing changes.
pub(crate) const INTERVAL: Duration = Duration::from_mins(1);
/// Time from one approval to the next order, after the first ones.
const PAUSE: Duration = Duration::from_secs(15);
/// How long a customer takes to approve such an order.
const APPROVAL: Duration = Duration::from_secs(5);
/// How many resources are created and terminated after the first one. With more removals in a day, the provisioner would ask for
/// confirmation.
const ROUNDS: usize = 16;

/// Environment variables of the provisioner: for the demo's own passes, and for commands in another shell.
pub(crate) fn variables(proxy: &str, token_url: &str, client: [&str; 2], folder: &Path) -> Vec<(&'static str, String)> {
    let system = |name: &str| {
        let root = folder.join(name);
        let system = json!({
            "driver": "posix", "terabyte": "TB", "root": root, "must_be_mounted": false, "change_owner": false,
            "project_ids": {"from": 1000}, "at_once": 1,
        });
        (name.to_owned(), system)
    };
    let systems: serde_json::Map<_, _> = SYSTEMS.into_iter().map(system).collect();
    vec![
        ("PROVISIONER_PROXY_URL", proxy.to_owned()),
        ("PROVISIONER_TOKEN_URL", token_url.to_owned()),
        ("PROVISIONER_CLIENT_ID", client[0].to_owned()),
        ("PROVISIONER_CLIENT_SECRET", client[1].to_owned()),
        ("PROVISIONER_STATE_DIRECTORY", folder.join("state").display().to_string()),
        ("PROVISIONER_PURGE_ENABLED", "true".to_owned()),
        ("PROVISIONER_SYSTEMS", json!(systems).to_string()),
    ]
}

/// Loads the provisioner's settings from `variables`.
pub(crate) fn provisioner(variables: Vec<(&'static str, String)>, folder: &Path) -> anyhow::Result<Provisioner> {
    for system in SYSTEMS {
        fs::create_dir_all(folder.join(system))?;
    }
    world::create_by_hand(&folder.join("vast"))?;
    let environment = Environment::new("/nonexistent", variables);
    let loaded =
        settings::load(&SCHEMA, &environment, &Overrides::default()).map_err(|problems| anyhow!("{problems}"))?;
    Ok(Provisioner::new(loaded.settings, Clock::system())?)
}

/// Places and carries out the first orders, then runs a pass whenever the document changes, until the provisioner is stopped.
pub(crate) fn run(simulator: &Simulator, provisioner: &Provisioner, folder: &Path) -> anyhow::Result<()> {
    let passes =
        Passes { provisioner, reporter: Reporter::start(&provisioner.clock), existing: create_existing(provisioner)? };
    println!("The provisioner, with storage in {}:\n", folder.display());
    let order = |what: &str, order: Uuid| -> anyhow::Result<()> {
        simulator.world(|world| world.consumer_approve(order)).map_err(|refusal| anyhow!("{refusal}"))?;
        print("a user", what);
        print("Waldur", &format!("order {order} is {}", state(simulator, order)));
        let ordered = Instant::now();
        while state(simulator, order) != "done" {
            wait_for_change(provisioner);
            passes.run()?;
        }
        let after = ordered.elapsed().as_secs_f64();
        print("Waldur", &format!("order {order} is done, after {after:.1} s"));
        Ok(())
    };
    let create = simulator.world(|world| world::order(world, "capstor", FIRST.slug, 10));
    let create = create.context("the demo's world has no offering capstor")?;
    let resource = simulator.world(|world| world.orders[&create].resource);
    order("orders 10 TB on capstor", create)?;
    show(provisioner, resource)?;
    let update = simulator.world(|world| world.order_update_limits(resource, json!({"storage": 20})));
    order("orders an increase to 20 TB", update.context("no resource")?)?;
    show(provisioner, resource)?;
    let terminate = simulator.world(|world| world.order_terminate(resource));
    order("terminates the resource", terminate.context("no resource")?)?;
    let trash = provisioner.systems[0].driver.trash()?;
    print("storage", &format!("{} directory in the trash, where it is kept", trash.len()));
    println!(
        "\nThe provisioner continues with a pass whenever the document changes, and every {} seconds. Every {} seconds, a user \
         orders something.\n",
        INTERVAL.as_secs(),
        (PAUSE + APPROVAL).as_secs()
    );
    std::thread::scope(|scope| {
        scope.spawn(|| keep_ordering(simulator, provisioner));
        let mut last = Instant::now();
        while !provisioner.stop.load(Ordering::Relaxed) {
            if !wait_for_change(provisioner) && last.elapsed() < INTERVAL {
                continue;
            }
            last = Instant::now();
            // The report has the error.
            let _ = passes.run();
        }
    });
    Ok(())
}

/// Places an order from time to time, until the provisioner is stopped.
fn keep_ordering(simulator: &Simulator, provisioner: &Provisioner) {
    let mut resource = Uuid::nil();
    for number in 0.. {
        std::thread::sleep(PAUSE);
        let (round, slug) = (number / 3, PROJECTS[number / 3 % PROJECTS.len()].slug);
        let terabytes = if number % 2 == 0 { 30 } else { 20 };
        let (order, what) = simulator.world(|world| match number % 3 {
            0 if round < ROUNDS => (world::order(world, "capstor", slug, 10), format!("orders 10 TB for {slug}")),
            2 if round + 1 < ROUNDS => (world.order_terminate(resource), format!("terminates the storage of {slug}")),
            _ => {
                let limits = json!({ "storage": terabytes });
                (world.order_update_limits(resource, limits), format!("orders a change to {terabytes} TB"))
            }
        });
        let Some(order) = order else { continue };
        resource = simulator.world(|world| world.orders[&order].resource);
        print("a user", &what);
        std::thread::sleep(APPROVAL);
        if provisioner.stop.load(Ordering::Relaxed) {
            return;
        }
        // Somebody may have cancelled it.
        if simulator.world(|world| world.consumer_approve(order)).is_ok() {
            print("Waldur", &format!("order {order} is approved by the customer"));
        }
    }
}

/// Waits until the document changes; returns whether it did.
fn wait_for_change(provisioner: &Provisioner) -> bool {
    if let Ok(waited) = provisioner.source.wait_for_change() {
        return waited == Waited::Changed;
    }
    std::thread::sleep(Duration::from_secs(1));
    false
}

/// Creates the directories of resources that are already in use in the demo's world, and changes one of them as somebody might do
/// by hand. Returns their resources.
fn create_existing(provisioner: &Provisioner) -> anyhow::Result<BTreeSet<Uuid>> {
    let mut session = provisioner.begin("demo", Duration::ZERO)?;
    let (survey, _) = session.plan(false)?;
    let task = |case: &Case| match (&case.desired, &case.observed, case.resource.status) {
        (Ok(desired), Ok(Observed::Absent), Status::Active | Status::Updating | Status::Removing) => {
            Some(Task::manual(case, Step::Ensure(desired.clone())))
        }
        _ => None,
    };
    let tasks: Vec<_> = survey.cases.iter().filter_map(task).collect();
    let existing = tasks.iter().map(|task| task.id).collect();
    session.perform(&survey, Plan { tasks, held: Vec::new() }, true)?;
    let (survey, plan) = session.plan(false)?;
    session.carry_out(&survey, plan, false)?;
    let in_use = |case: &&Case| case.resource.system == SYSTEMS[0] && case.resource.status == Status::Active;
    let desired = survey.cases.iter().filter(in_use).find_map(|case| case.desired.as_ref().ok());
    let desired = desired.context("no directory is in use")?;
    let path = provisioner.settings.systems[0].root.join(desired.place.to_string());
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    Ok(existing)
}

/// Runs passes, prints their events and reports them.
struct Passes<'a> {
    provisioner: &'a Provisioner,
    reporter: Reporter,
    /// Resources with a simulated usage.
    existing: BTreeSet<Uuid>,
}

impl Passes<'_> {
    fn run(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        match self.pass() {
            Ok(complete) => {
                let failed = format!("{:?}", complete.report.failed);
                let is_good = complete.report.failed.is_empty();
                self.reporter.completed(self.provisioner, complete, began.elapsed());
                if is_good { Ok(()) } else { Err(anyhow!(failed)) }
            }
            Err(error) => {
                self.reporter.failed(self.provisioner, error_chain(&*error), began.elapsed());
                Err(error)
            }
        }
    }

    fn pass(&self) -> anyhow::Result<Complete> {
        let provisioner = self.provisioner;
        let events = |id| journal::history(&provisioner.journal_path(), id).map_or(0, |history| history.len());
        let mut session = provisioner.begin("demo", Duration::from_secs(10))?;
        let (mut survey, plan) = session.plan(false)?;
        let before: Vec<_> = plan.tasks.iter().map(|task| (task.id, events(task.id))).collect();
        let report = session.carry_out(&survey, plan, false)?;
        for (id, before) in before {
            for (_, event) in journal::history(&provisioner.journal_path(), id)?.into_iter().skip(before) {
                print_event(event);
            }
        }
        survey.cases.iter_mut().for_each(|case| self.measure(case));
        Ok(Complete { survey, report })
    }

    /// Adds the usage, which this driver does not report: simulated for directories that were there before, real for new ones.
    fn measure(&self, case: &mut Case) {
        let (Ok(desired), Ok(Observed::Ours(present))) = (&case.desired, &mut case.observed) else { return };
        present.usage = if self.existing.contains(&desired.id) {
            present.limits.map(|limits| simulated_usage(desired.id, &limits))
        } else {
            let system = self.provisioner.systems.iter().find(|system| system.key == case.resource.system);
            system.and_then(|system| system.driver.usage(&[desired]).pop()?.ok()?)
        };
    }
}

/// Between 2 and 99 % of the quota, always the same for a resource.
fn simulated_usage(id: Uuid, limits: &QuotaLimits) -> Usage {
    let percent = 2 + u64::from(id.as_bytes()[15]) * 97 / 255;
    let [space, inodes] = [limits.space_hard().0, limits.inodes_hard().0].map(|limit| limit / 100 * percent);
    Usage { space: Bytes(space), inodes: Inodes(inodes / 2) }
}

fn print_event(event: Event) {
    match event {
        Event::Begun(Begun { why, path, .. }) => print("provisioner", &format!("{path}: {why}")),
        Event::Effect { what } => print("", &what),
        Event::Callback { call, outcome, .. } if outcome != "sent" => print("", &format!("{call}: {outcome}")),
        Event::Callback { .. } | Event::Ended | Event::Heartbeat | Event::Continues { .. } => {}
        Event::Failed { fault } => print("", &format!("failed: {fault}")),
    }
}

/// Prints the state of the directory on disk.
fn show(provisioner: &Provisioner, resource: Uuid) -> anyhow::Result<()> {
    let (survey, _) = provisioner.look(true)?;
    let case = survey.cases.iter().find(|case| case.resource.id == resource).context("not in the document")?;
    let desired = case.desired.as_ref().map_err(|refusal| anyhow!(refusal.reason.clone()))?;
    let path = provisioner.settings.systems[0].root.join(desired.place.to_string());
    let mode = fs::metadata(&path)?.permissions().mode() & 0o7777;
    let Ok(Observed::Ours(present)) = &case.observed else { return Err(anyhow!("{:?}", case.observed)) };
    let limits = present.limits.map(|limits| limits.to_string()).unwrap_or_default();
    print("storage", &format!("{}, mode {mode:o}, {limits}", path.display()));
    Ok(())
}

fn state(simulator: &Simulator, order: Uuid) -> &'static str {
    match simulator.world(|world| world.orders[&order].state()) {
        Some(OrderState::PendingProvider) => "pending-provider",
        Some(OrderState::Executing) => "executing",
        Some(OrderState::Done) => "done",
        _ => "in an unexpected state",
    }
}

fn print(who: &str, what: &str) {
    println!("{who:>12}  {what}");
}
