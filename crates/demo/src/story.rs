//! The provisioner's part of the demo: a user orders storage, enlarges it and terminates it, and the provisioner carries out
//! the orders.
//!
//! It runs in its own thread, because the provisioner blocks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use program::Clock;
use provisioner::config::SCHEMA;
use provisioner::journal::{self, Begun, Event};
use provisioner::provisioner::Provisioner;
use provisioner::source::Waited;
use provisioner_core::document::Status;
use provisioner_core::plan::{Case, Plan, Step, Task};
use serde_json::json;
use settings::{Environment, Overrides};
use simulator::world::{NewResource, OrderState};
use simulator::{Simulator, World};
use storage_driver::Observed;
use uuid::Uuid;

/// Project of the demo's orders; it has its own GID.
const PROJECT: &str = "demo-story";
const GID: u32 = 31_999;
/// Time between passes if nothing changes.
pub(crate) const INTERVAL: Duration = Duration::from_mins(1);

/// Adds the project to the world.
pub(crate) fn prepare(world: &mut World) {
    if let Some(customer) = world.customers.values().next().map(|customer| customer.uuid) {
        world.add_project(customer, PROJECT, "The demo's project");
    }
    world.hpc.add_project(PROJECT, Some(GID));
}

/// Environment variables of the provisioner: for the demo's own passes, and for commands in another shell.
pub(crate) fn variables(proxy: &str, token_url: &str, client: [&str; 2], folder: &Path) -> Vec<(&'static str, String)> {
    let root = folder.join("capstor");
    let systems = json!({"capstor": {
        "driver": "posix", "terabyte": "TB", "root": root, "must_be_mounted": false, "change_owner": false,
        "project_ids": {"from": 1000}, "at_once": 1,
    }});
    vec![
        ("PROVISIONER_PROXY_URL", proxy.to_owned()),
        ("PROVISIONER_TOKEN_URL", token_url.to_owned()),
        ("PROVISIONER_CLIENT_ID", client[0].to_owned()),
        ("PROVISIONER_CLIENT_SECRET", client[1].to_owned()),
        ("PROVISIONER_STATE_DIRECTORY", folder.join("state").display().to_string()),
        ("PROVISIONER_SYSTEMS", systems.to_string()),
    ]
}

/// Loads the provisioner's settings from `variables`.
pub(crate) fn provisioner(variables: Vec<(&'static str, String)>, folder: &Path) -> anyhow::Result<Provisioner> {
    fs::create_dir_all(folder.join("capstor"))?;
    let environment = Environment::new("/nonexistent", variables);
    let loaded =
        settings::load(&SCHEMA, &environment, &Overrides::default()).map_err(|problems| anyhow!("{problems}"))?;
    Ok(Provisioner::new(loaded.settings, Clock::system())?)
}

/// Places and carries out the orders, then runs a pass whenever the document changes, until the provisioner is stopped.
pub(crate) fn run(simulator: &Simulator, provisioner: &Provisioner) -> anyhow::Result<()> {
    create_existing(provisioner)?;
    println!("The provisioner, with storage in {}:\n", provisioner.settings.systems[0].root.display());
    let order = |what: &str, order: Uuid| -> anyhow::Result<()> {
        simulator.world(|world| world.consumer_approve(order)).map_err(|refusal| anyhow!("{refusal}"))?;
        print("a user", what);
        print("Waldur", &format!("order {order} is {}", state(simulator, order)));
        let ordered = Instant::now();
        while state(simulator, order) != "done" {
            wait_for_change(provisioner);
            pass(provisioner)?;
        }
        let after = ordered.elapsed().as_secs_f64();
        print("Waldur", &format!("order {order} is done, after {after:.1} s"));
        Ok(())
    };
    let create = simulator.world(|world| {
        let offering = world.offering_by_slug("capstor").map(|offering| offering.uuid)?;
        let project = world.projects.values().find(|project| project.slug == PROJECT)?.uuid;
        let (slug, limits) = ("demo-story-storage".to_owned(), json!({"storage": 10}));
        let attributes = json!({"storage_data_type": "store", "permissions": "2770"});
        Some(world.order_create(NewResource { offering, project, slug, limits, attributes }))
    });
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
        "\nThe provisioner continues with a pass whenever the document changes, and every {} seconds.\n",
        INTERVAL.as_secs()
    );
    let mut last = Instant::now();
    while !provisioner.stop.load(Ordering::Relaxed) {
        if !wait_for_change(provisioner) && last.elapsed() < INTERVAL {
            continue;
        }
        last = Instant::now();
        // A pass prints its own errors.
        let _ = pass(provisioner);
    }
    Ok(())
}

/// Waits until the document changes; returns whether it did.
fn wait_for_change(provisioner: &Provisioner) -> bool {
    if let Ok(waited) = provisioner.source.wait_for_change() {
        return waited == Waited::Changed;
    }
    std::thread::sleep(Duration::from_secs(1));
    false
}

/// Creates the directories of resources that are already in use in the demo's world.
fn create_existing(provisioner: &Provisioner) -> anyhow::Result<()> {
    let mut session = provisioner.begin("demo", Duration::ZERO)?;
    let (survey, _) = session.plan(false)?;
    let task = |case: &Case| match (&case.desired, &case.observed, case.resource.status) {
        (Ok(desired), Ok(Observed::Absent), Status::Active | Status::Updating) => {
            Some(Task::manual(case, Step::Ensure(desired.clone())))
        }
        _ => None,
    };
    let tasks = survey.cases.iter().filter_map(task).collect();
    session.perform(&survey, Plan { tasks, held: Vec::new() }, true)?;
    let (survey, plan) = session.plan(false)?;
    session.carry_out(&survey, plan, false)?;
    Ok(())
}

/// Runs a pass and prints its events.
fn pass(provisioner: &Provisioner) -> anyhow::Result<()> {
    let events = |id| journal::history(&provisioner.journal_path(), id).map_or(0, |history| history.len());
    let mut session = provisioner.begin("demo", Duration::from_secs(10))?;
    let (survey, plan) = session.plan(false)?;
    let before: Vec<_> = plan.tasks.iter().map(|task| (task.id, events(task.id))).collect();
    let report = session.carry_out(&survey, plan, false)?;
    for (id, before) in before {
        for (_, event) in journal::history(&provisioner.journal_path(), id)?.into_iter().skip(before) {
            match event {
                Event::Begun(Begun { why, path, .. }) => print("provisioner", &format!("{path}: {why}")),
                Event::Effect { what } => print("", &what),
                Event::Callback { call, outcome, .. } if outcome != "sent" => print("", &format!("{call}: {outcome}")),
                Event::Callback { .. } | Event::Ended | Event::Heartbeat | Event::Continues { .. } => {}
                Event::Failed { fault } => print("", &format!("failed: {fault}")),
            }
        }
    }
    if report.failed.is_empty() { Ok(()) } else { Err(anyhow!("{:?}", report.failed)) }
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
