//! The demo's world: something waits for nearly everybody who can have to act.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use simulator::World;
use simulator::world::{NewResource, ResourceState, Stamp};
use uuid::Uuid;

/// A project with a GID of its own.
pub(crate) struct Project {
    customer: &'static str,
    pub(crate) slug: &'static str,
    name: &'static str,
}

const fn project(customer: &'static str, slug: &'static str, name: &'static str) -> Project {
    Project { customer, slug, name }
}

/// The project of the first orders.
pub(crate) const FIRST: Project = project("uni-alpha", "demo-story", "The demo's project");
/// The projects of the orders that follow.
pub(crate) const PROJECTS: [Project; 4] = [
    project("uni-beta", "genomes", "Genomes of alpine plants"),
    project("uni-alpha", "turbulence", "Turbulence in stellar winds"),
    project("inst-delta", "batteries", "Solid-state batteries"),
    project("mch", "nowcasting", "Nowcasting of thunderstorms"),
];
/// The project of an order whose directory somebody has already created by hand.
const BY_HAND: Project = project("lab-gamma", "detector", "Detector upgrade");
/// The campaigns that have ended, all at once. They are more than the provisioner removes without confirmation.
const ENDED: [&str; 6] = ["beamtime-21", "beamtime-22", "beamtime-23", "beamtime-24", "beamtime-25", "beamtime-26"];
/// The resource of a user who has no UID yet.
const WITHOUT_UID: &str = "create-pending-provider";
/// How long ago the open orders were placed, in minutes.
const AGES: [i64; 7] = [35, 2 * 1440, 190, 5 * 1440, 1500, 9 * 1440, 410];
const FIRST_GID: u32 = 31_000;

/// Adds the projects and what waits, and moves the open orders to the days before `now`.
pub(crate) fn prepare(world: &mut World, now: SystemTime) {
    let micros = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let now = Stamp::from_micros(i64::try_from(micros).unwrap_or_default());
    // `run_clock` adds the hour.
    world.now = now.plus_micros(-3_600_000_000);
    for project in [&FIRST, &BY_HAND].into_iter().chain(&PROJECTS) {
        add_project(world, project.customer, project.slug, project.name);
    }
    let detector = order(world, "vast", BY_HAND.slug, 25);
    let mut approved: Vec<_> = detector.into_iter().collect();
    for slug in ENDED {
        add_project(world, "lab-gamma", slug, slug);
        let places = place(world, "vast", slug);
        let record =
            Map::from_iter([("limits".to_owned(), json!({ "storage": 8 })), ("attributes".to_owned(), attributes())]);
        let resource = places.map(|place| world.add_resource(place, slug, ResourceState::Ok, record));
        approved.extend(resource.and_then(|resource| world.order_terminate(resource)));
    }
    for order in approved {
        // The order is new, so its customer can approve it.
        let _ = world.consumer_approve(order);
    }
    // Everybody has a UID but the user whose directory on vast has just been ordered.
    for (number, resource) in world.resources.values().enumerate() {
        let (username, uid) = (resource.text("slug"), 23_000 + number);
        if username != WITHOUT_UID {
            world.hpc.users.insert(username.to_owned(), json!({ "username": username, "unixUid": uid }));
        }
    }
    for (order, age) in world.orders.values_mut().zip(AGES.iter().cycle()) {
        let created = now.plus_micros(-age * 60_000_000).text();
        order.set("created", created.as_str());
        order.set("modified", created);
    }
}

/// Places an order for storage of a project, which still needs the customer's approval.
pub(crate) fn order(world: &mut World, system: &str, project: &str, terabytes: u32) -> Option<Uuid> {
    let (offering, owner) = place(world, system, project)?;
    let (slug, limits) = (format!("{project}-storage"), json!({ "storage": terabytes }));
    Some(world.order_create(NewResource { offering, project: owner, slug, limits, attributes: attributes() }))
}

/// Creates a directory by hand below the root of vast, where the provisioner will not expect one.
pub(crate) fn create_by_hand(root: &Path) -> io::Result<()> {
    let Project { customer, slug, .. } = BY_HAND;
    fs::create_dir_all(root.join(format!("store/cscs/{customer}/{slug}")))
}

fn attributes() -> Value {
    json!({ "storage_data_type": "store", "permissions": "2770" })
}

fn add_project(world: &mut World, customer: &str, slug: &str, name: &str) {
    let customer = world.customers.values().find(|row| row.slug == customer).map(|row| row.uuid);
    if let Some(customer) = customer {
        world.add_project(customer, slug, name);
    }
    let gid = FIRST_GID + u32::try_from(world.hpc.projects.len()).unwrap_or_default();
    world.hpc.add_project(slug, Some(gid));
}

fn place(world: &World, system: &str, project: &str) -> Option<(Uuid, Uuid)> {
    let project = world.projects.values().find(|row| row.slug == project)?.uuid;
    Some((world.offering_by_slug(system)?.uuid, project))
}
