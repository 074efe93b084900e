//! A story in the terminal: somebody orders storage, enlarges it and gives it up again; the provisioner follows.
//!
//! It runs in a thread of its own: the provisioner blocks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, anyhow};
use provisioner::clock::Clock;
use provisioner::document::Status;
use provisioner::driver::Seen;
use provisioner::journal::{self, Event};
use provisioner::settings::SCHEMA;
use provisioner::site::Site;
use serde_json::json;
use settings::{Environment, Overrides};
use simulator::world::{NewResource, OrderState};
use simulator::{Simulator, World};
use uuid::Uuid;

/// Project of the story, with a GID of its own.
const PROJECT: &str = "demo-story";
const GID: u32 = 31_999;
/// How long the loop waits from pass to pass.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);

/// Adds the project of the story to the world.
pub(crate) fn prepare(world: &mut World) {
    if let Some(customer) = world.customers.values().next().map(|customer| customer.uuid) {
        world.add_project(customer, PROJECT, "The demo's project");
    }
    world.hpc.add_project(PROJECT, Some(GID));
}

/// What leads the provisioner to the demo's proxy: for the loop here, and for commands in another shell.
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

/// The provisioner with these settings.
pub(crate) fn site(variables: Vec<(&'static str, String)>, folder: &Path) -> anyhow::Result<Site> {
    fs::create_dir_all(folder.join("capstor"))?;
    let environment = Environment::new("/nonexistent", variables);
    let loaded = settings::load(&SCHEMA, &environment, &Overrides::default()).map_err(|faults| anyhow!("{faults}"))?;
    Ok(Site::new(loaded.settings, Clock::system())?)
}

/// Tells the story, then goes on with a pass every now and then, until the site is told to stop.
pub(crate) fn tell(simulator: &Simulator, site: &Site) -> anyhow::Result<()> {
    furnish(site)?;
    println!("The provisioner at work, on {}:\n", site.settings.systems[0].root().display());
    let order = |what: &str, order: Uuid| -> anyhow::Result<()> {
        simulator.world(|world| world.consumer_approve(order)).map_err(|refusal| anyhow!("{refusal}"))?;
        say("a user", what);
        say("Waldur", &format!("order {order} is {}", state(simulator, order)));
        pass(site)?;
        say("Waldur", &format!("order {order} is {}", state(simulator, order)));
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
    look(site, resource)?;
    let update = simulator.world(|world| world.order_update_limits(resource, json!({"storage": 20})));
    order("orders 20 TB instead", update.context("no resource")?)?;
    look(site, resource)?;
    let terminate = simulator.world(|world| world.order_terminate(resource));
    order("gives it up again", terminate.context("no resource")?)?;
    let trash = site.systems[0].driver.trash()?;
    say("storage", &format!("{} directory in the trash, where it stays", trash.len()));
    println!("\nIt goes on with a pass every {} seconds.\n", INTERVAL.as_secs());
    while !site.stop.load(Ordering::Relaxed) {
        std::thread::sleep(INTERVAL);
        // What a pass says of itself is said already.
        let _ = pass(site);
    }
    Ok(())
}

/// Makes what is in use in the demo's world from the start.
fn furnish(site: &Site) -> anyhow::Result<()> {
    let mut work = site.begin("demo", Duration::ZERO)?;
    let (survey, _) = work.plan(false)?;
    let system = &site.systems[0];
    for case in survey.cases.iter().filter(|case| matches!(case.resource.status, Status::Active | Status::Updating)) {
        if let (Ok(wanted), Ok(Seen::Absent)) = (&case.wanted, &case.seen) {
            let deed = |before: provisioner::driver::Before<'_>| system.driver.ensure(wanted, before);
            work.drive(system, case.resource.id, &case.resource.path, &deed)?;
        }
    }
    let (survey, plan) = work.plan(false)?;
    work.carry_out(&survey, plan, false)?;
    Ok(())
}

/// One pass; says what was done.
fn pass(site: &Site) -> anyhow::Result<()> {
    let told = |id| journal::story(&site.journal_path(), id).map_or(0, |story| story.len());
    let mut work = site.begin("demo", Duration::from_secs(10))?;
    let (survey, plan) = work.plan(false)?;
    let before: Vec<_> = plan.tasks.iter().map(|task| (task.id, told(task.id))).collect();
    let report = work.carry_out(&survey, plan, false)?;
    for (id, before) in before {
        for (_, event) in journal::story(&site.journal_path(), id)?.into_iter().skip(before) {
            match event {
                Event::Begun { why, path, .. } => say("provisioner", &format!("{path}: {why}")),
                Event::Effect { what } => say("", &what),
                Event::Callback { call, outcome, .. } if outcome != "sent" => say("", &format!("{call}: {outcome}")),
                Event::Callback { .. } | Event::Ended | Event::Heartbeat | Event::Continues { .. } => {}
                Event::Failed { fault } => say("", &format!("not brought to its end: {fault}")),
            }
        }
    }
    if report.failed.is_empty() { Ok(()) } else { Err(anyhow!("{:?}", report.failed)) }
}

/// Says what is on the disk.
fn look(site: &Site, resource: Uuid) -> anyhow::Result<()> {
    let (survey, _) = site.look(true)?;
    let case = survey.cases.iter().find(|case| case.resource.id == resource).context("not in the document")?;
    let wanted = case.wanted.as_ref().map_err(|refusal| anyhow!(refusal.reason.clone()))?;
    let path = site.settings.systems[0].root().join(wanted.place.to_string());
    let mode = fs::metadata(&path)?.permissions().mode() & 0o7777;
    let Ok(Seen::Ours(present)) = &case.seen else { return Err(anyhow!("{:?}", case.seen)) };
    let limits = present.limits.map(|limits| limits.to_string()).unwrap_or_default();
    say("storage", &format!("{}, mode {mode:o}, {limits}", path.display()));
    Ok(())
}

fn state(simulator: &Simulator, order: Uuid) -> &'static str {
    match simulator.world(|world| world.orders[&order].state()) {
        Some(OrderState::PendingProvider) => "pending-provider",
        Some(OrderState::Executing) => "executing",
        Some(OrderState::Done) => "done",
        _ => "in another state",
    }
}

fn say(who: &str, what: &str) {
    println!("{who:>12}  {what}");
}
