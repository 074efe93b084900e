//! The world in which the exchanges were recorded.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use simulator::Simulator;
use simulator::World;
use simulator::world::{
    Customer, Offering, OfferingType, Order, OrderState, OrderType, Project, Provider, Release, Resource,
    ResourceState, Role,
};
use uuid::Uuid;

use crate::exchange::{Exchange, load};

/// The situation of an order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) basic: bool,
    pub(crate) kind: OrderType,
    pub(crate) order: OrderState,
    pub(crate) resource: ResourceState,
}

fn id(value: &Value) -> Uuid {
    value.as_str().unwrap().parse().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Providers, offerings, customers, projects, resources and their orders, as far as the exchanges contain them.
pub(crate) fn recorded_world() -> World {
    let mut world = World::empty();
    world.release = Release::V7_0;
    let resources = load("resources");
    let offerings = load("offerings");
    let list = offerings.iter().find(|exchange| exchange.name() == "list-by-slug").unwrap();
    let full = offerings.iter().find(|exchange| exchange.name() == "detail").unwrap();
    let provider = id(&full.value["response"]["body"]["customer_uuid"]);
    let name = text(&full.value["response"]["body"]["customer_name"]);
    world.providers.insert(provider, Provider { uuid: provider, slug: "cscs".to_owned(), name });
    for row in list.value["response"]["body"].as_array().unwrap() {
        let kind = if row["type"] == "Marketplace.Basic" { OfferingType::Basic } else { OfferingType::Slurm };
        let uuid = id(&row["uuid"]);
        let offering = Offering::new(uuid, provider, &text(&row["slug"]), &text(&row["name"]), kind, world.now);
        world.offerings.insert(uuid, offering);
    }
    let details: HashMap<Uuid, Value> = resources
        .iter()
        .map(|exchange| &exchange.value["response"]["body"])
        .filter(|body| body.get("creation_order").is_some())
        .map(|body| (id(&body["uuid"]), body.clone()))
        .collect();
    for page in ["list-page-1-of-n", "list-page-2-of-n", "list-page-last"] {
        let exchange = resources.iter().find(|exchange| exchange.name() == page).unwrap();
        for row in exchange.value["response"]["body"].as_array().unwrap() {
            add_row(&mut world, row, details.get(&id(&row["uuid"])));
        }
    }
    for exchange in load("orders") {
        let body = &exchange.value["response"]["body"];
        if body.get("marketplace_resource_uuid").is_some() {
            add_order(&mut world, body);
        }
    }
    add_users(&mut world, provider, &resources);
    world
}

fn add_row(world: &mut World, row: &Value, detail: Option<&Value>) {
    let (uuid, project, customer) = (id(&row["uuid"]), id(&row["project_uuid"]), id(&row["customer_uuid"]));
    let creation = detail.map_or(Value::Null, |detail| detail["creation_order"].clone());
    let now = world.now;
    world.customers.entry(customer).or_insert_with(|| {
        Customer::new(customer, &text(&creation["customer_slug"]), &text(&row["customer_name"]), now)
    });
    world.projects.entry(project).or_insert_with(|| Project {
        uuid: project,
        customer,
        slug: text(&creation["project_slug"]),
        name: text(&row["project_name"]),
        expired: false,
        end_date: None,
    });
    let state = ResourceState::parse(row["state"].as_str().unwrap()).unwrap();
    let mut resource = Resource::new(uuid, id(&row["offering_uuid"]), project, &text(&row["slug"]), state, now);
    for key in ["name", "created", "modified", "backend_id", "attributes", "limits", "options", "backend_metadata"] {
        resource.set(key, row[key].clone());
    }
    world.resources.insert(uuid, resource);
    for key in ["creation_order", "order_in_progress"] {
        if let Some(order) = detail.map(|detail| &detail[key]).filter(|order| order.is_object()) {
            add_order(world, order);
        }
    }
}

fn add_order(world: &mut World, row: &Value) {
    let (uuid, resource) = (id(&row["uuid"]), id(&row["marketplace_resource_uuid"]));
    let Some(owner) = world.resources.get_mut(&resource).filter(|owner| !owner.orders.contains(&uuid)) else { return };
    owner.orders.push(uuid);
    let own = ["type", "state", "attributes", "limits", "created", "modified", "error_message", "error_traceback"];
    let record = own.iter().map(|key| ((*key).to_owned(), row[*key].clone())).collect();
    world.orders.insert(uuid, Order { uuid, resource, verbatim: false, record });
}

fn add_users(world: &mut World, provider: Uuid, resources: &[Exchange]) {
    world.add_user("provider-owner").roles.push(Role::ProviderOwner(provider));
    let managed: Vec<Role> = world.offerings.keys().map(|uuid| Role::OfferingManager(*uuid)).collect();
    world.add_user("offering-manager").roles = managed;
    let owned: Vec<Role> = world.customers.keys().map(|uuid| Role::CustomerOwner(*uuid)).collect();
    world.add_user("consumer-owner").roles = owned;
    let seen = resources.iter().find(|exchange| exchange.name() == "list-as-project-member").unwrap();
    let project = world.resources[&id(&seen.value["response"]["body"][0]["uuid"])].project;
    let team = resources.iter().find(|exchange| exchange.name() == "team").unwrap();
    let member = world.add_user("project-member");
    member.uuid = id(&team.value["response"]["body"][0]["uuid"]);
    member.roles.push(Role::ProjectMember(project));
}

/// The identifier in the exchange's path; a new one if there is none.
pub(crate) fn order_of(exchange: &Exchange) -> Uuid {
    exchange.path().split('/').find_map(|part| Uuid::try_parse(part).ok()).unwrap_or(Uuid::nil())
}

/// Adds an order with its own resource, or replaces it.
pub(crate) fn put_order(world: &mut World, order: Uuid, place: Place) {
    put_order_of(world, order, Uuid::new_v5(&order, b"resource"), place);
}

pub(crate) fn put_order_of(world: &mut World, order: Uuid, resource: Uuid, place: Place) {
    put_resource(world, resource, place.resource);
    let wanted = if place.basic { OfferingType::Basic } else { OfferingType::Slurm };
    let offering = world.offerings.values().find(|offering| offering.kind == wanted).unwrap().uuid;
    let row = world.resources.get_mut(&resource).unwrap();
    row.offering = offering;
    row.orders = vec![order];
    row.set_state(place.resource);
    let mut record = Map::new();
    record.insert("type".to_owned(), place.kind.as_str().into());
    record.insert("state".to_owned(), place.order.as_str().into());
    record.insert("attributes".to_owned(), json!({}));
    record.insert("limits".to_owned(), json!({ "storage": 20 }));
    world.orders.insert(order, Order { uuid: order, resource, verbatim: false, record });
}

/// Adds a resource to a project of `project-member`, unless it exists.
pub(crate) fn put_resource(world: &mut World, uuid: Uuid, state: ResourceState) {
    if world.resources.contains_key(&uuid) {
        return;
    }
    let member = world.users.iter().find(|user| user.username == "project-member").unwrap();
    let [Role::ProjectMember(project)] = member.roles[..] else { panic!("a member of one project") };
    let offering = world.offerings.values().find(|offering| offering.kind == OfferingType::Slurm).unwrap().uuid;
    let mut resource = Resource::new(uuid, offering, project, "acted-on", state, world.now);
    resource.set("limits", json!({ "storage": 10 }));
    world.resources.insert(uuid, resource);
}

pub(crate) fn rename_all(world: &mut World, project: &str, customer: &str) {
    for row in world.projects.values_mut() {
        project.clone_into(&mut row.name);
    }
    for row in world.customers.values_mut() {
        customer.clone_into(&mut row.name);
    }
}

/// The states in a recording.
pub(crate) fn stated(states: &Value) -> (OrderState, ResourceState) {
    let of = |key: &str| states[key].as_str().unwrap();
    (OrderState::parse(of("order")).unwrap(), ResourceState::parse(of("resource")).unwrap())
}

/// The states in the world.
pub(crate) fn states(sim: &Simulator, order: Uuid) -> (OrderState, ResourceState) {
    sim.world(|world| {
        let order = &world.orders[&order];
        (order.state().unwrap(), world.resources[&order.resource].state().unwrap())
    })
}
