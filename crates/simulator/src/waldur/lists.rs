//! Lists of resources and orders with their filters, and single rows.

use std::hash::{Hash, Hasher};

use axum::http::StatusCode;
use uuid::Uuid;

use super::access::Caller;
use super::cells::{Fields, Writer};
use super::listing::Page;
use super::refusals;
use crate::World;
use crate::http::{Call, Reply};
use crate::state::ServiceState;
use crate::world::{OrderState, Release, Resource, ResourceState, RowOrder, Stamp};

const PROVIDER_SIDE: &str = "/api/marketplace-provider-resources/";

pub(super) fn resources(shared: &ServiceState, caller: &Caller<'_>, call: &Call) -> Reply {
    let world = caller.world;
    let rows = shared.listing(caller.user.uuid, call, world.rows, || {
        let passes = resource_filter(caller, call)?;
        let rows = world.resources.values().enumerate().filter(|(_, row)| passes(row));
        let mut rows: Vec<usize> = rows.map(|(index, _)| index).collect();
        sort(&mut rows, world, call, &["name", "created"], |index, key| world.resources[index].text(key))?;
        Ok(rows)
    });
    let rows = match rows {
        Ok(rows) => rows,
        Err(reply) => return reply,
    };
    let fields = Fields::of(call, caller, false);
    let writer = Writer { world, base: &call.base, fields: &fields };
    match Page::of(call, rows.len(), call.endless) {
        Ok(page) => page.answer(&rows, |out, index| writer.resource(out, &world.resources[*index])),
        Err(reply) => reply,
    }
}

/// Whether a resource is visible to the caller and passes the filters of the request, which apply to single rows too.
fn resource_filter<'a>(caller: &'a Caller<'_>, call: &'a Call) -> Result<impl Fn(&Resource) -> bool + 'a, Reply> {
    let world = caller.world;
    let filter = Filter::of(call, world, &ResourceState::ALL.map(ResourceState::as_str))?;
    let visible = hides_new_resources(call, world);
    let provider_side = call.path.starts_with(PROVIDER_SIDE);
    Ok(move |row: &Resource| {
        let sees = if provider_side { caller.sees_as_provider(row.offering) } else { caller.sees_as_consumer(row) };
        sees && filter.passes(world, row, row.text("state"), row.text("modified"))
            && call.last("backend_id").is_none_or(|id| row.text("backend_id") == id)
            && call.last("name_exact").is_none_or(|name| row.text("name") == name)
            && !(visible && is_not_yet_the_providers(world, row))
    })
}

/// Whether the request filters by `visible_to_providers`, and this release has that filter.
fn hides_new_resources(call: &Call, world: &World) -> bool {
    // The Waldur of the recorded cases does not have it.
    let recorded = world.rows == RowOrder::AsGiven;
    call.last("visible_to_providers") == Some("true") && world.release == Release::Newer && !recorded
}

/// Whether the resource is Creating and its order still needs approval on the consumer's side.
fn is_not_yet_the_providers(world: &World, row: &Resource) -> bool {
    use OrderState::{PendingConsumer, PendingProject, PendingStartDate};
    row.state() == Some(ResourceState::Creating)
        && world
            .order_in_progress(row)
            .and_then(crate::world::Order::state)
            .is_some_and(|state| matches!(state, PendingConsumer | PendingProject | PendingStartDate))
}

pub(super) fn resource(caller: &Caller<'_>, call: &Call, id: Option<Uuid>) -> Reply {
    let world = caller.world;
    let passes = match resource_filter(caller, call) {
        Ok(passes) => passes,
        Err(reply) => return reply,
    };
    let found = id.and_then(|id| world.resources.get(&id)).filter(|row| passes(row));
    let Some(row) = found else { return refusals::missing("Resource") };
    let fields = Fields::of(call, caller, true);
    let mut out = Vec::new();
    Writer { world, base: &call.base, fields: &fields }.resource(&mut out, row);
    Reply::raw(StatusCode::OK, "application/json", out)
}

pub(super) fn orders(shared: &ServiceState, caller: &Caller<'_>, call: &Call) -> Reply {
    let world = caller.world;
    let rows = shared.listing(caller.user.uuid, call, world.rows, || {
        let filter = Filter::of(call, world, &OrderState::ALL.map(OrderState::as_str))?;
        let of_resource = uuid(call, "resource_uuid")?;
        let mut rows: Vec<usize> = Vec::new();
        for (index, row) in world.orders.values().enumerate() {
            let Some(resource) = world.resources.get(&row.resource) else { continue };
            if (caller.sees_as_provider(resource.offering) || caller.sees_as_consumer(resource))
                && filter.passes(world, resource, row.text("state"), row.text("modified"))
                && of_resource.is_none_or(|id| row.resource == id)
                && call.last("type").is_none_or(|kind| row.text("type") == kind)
            {
                rows.push(index);
            }
        }
        sort(&mut rows, world, call, &["created"], |index, key| world.orders[index].text(key))?;
        Ok(rows)
    });
    let rows = match rows {
        Ok(rows) => rows,
        Err(reply) => return reply,
    };
    let fields = Fields::of(call, caller, false);
    let writer = Writer { world, base: &call.base, fields: &fields };
    match Page::of(call, rows.len(), call.endless) {
        Ok(page) => page.answer(&rows, |out, index| writer.order(out, &world.orders[*index])),
        Err(reply) => reply,
    }
}

pub(super) fn order(caller: &Caller<'_>, call: &Call, id: Option<Uuid>) -> Reply {
    let world = caller.world;
    let found = id.and_then(|id| world.orders.get(&id)).filter(|row| {
        world
            .resources
            .get(&row.resource)
            .is_some_and(|row| caller.sees_as_provider(row.offering) || caller.sees_as_consumer(row))
    });
    let Some(row) = found else { return refusals::missing("Order") };
    let fields = Fields::of(call, caller, true);
    let mut out = Vec::new();
    Writer { world, base: &call.base, fields: &fields }.order(&mut out, row);
    Reply::raw(StatusCode::OK, "application/json", out)
}

/// Filters that resources and orders share.
struct Filter<'a> {
    states: Vec<&'a str>,
    offering: Option<Uuid>,
    slugs: Option<Vec<&'a str>>,
    project: Option<Uuid>,
    customer: Option<Uuid>,
    modified: Option<String>,
}

impl<'a> Filter<'a> {
    fn of(call: &'a Call, world: &World, states: &[&str]) -> Result<Self, Reply> {
        let asked: Vec<&str> = call.all("state").collect();
        if let Some(unknown) = asked.iter().find(|state| !states.contains(state)) {
            let text = format!("Select a valid choice. {unknown} is not one of the available choices.");
            return Err(refusals::invalid("state", &text));
        }
        // 7.0.x ignores this filter.
        let newer = world.release == Release::Newer;
        let slugs = call.last("offering_slug").filter(|_| newer).map(|list| list.split(',').collect());
        let modified = match call.last("modified") {
            None => None,
            // Resources of 7.0.x accept dates only.
            Some(text) if !newer && text.contains('T') && call.path.contains("-resources") => {
                return Err(refusals::invalid("modified", "Enter a valid date."));
            }
            Some(text) => match Stamp::parse(text) {
                Some(stamp) => Some(stamp.text()),
                None => return Err(refusals::invalid("modified", "Enter a valid date/time.")),
            },
        };
        Ok(Self {
            states: asked,
            offering: uuid(call, "offering_uuid")?,
            slugs,
            project: uuid(call, "project_uuid")?,
            customer: uuid(call, "customer_uuid")?,
            modified,
        })
    }

    fn passes(&self, world: &World, resource: &Resource, state: &str, modified: &str) -> bool {
        (self.states.is_empty() || self.states.contains(&state))
            && self.offering.is_none_or(|id| resource.offering == id)
            && self.slugs.as_ref().is_none_or(|slugs| {
                world.offerings.get(&resource.offering).is_some_and(|offering| slugs.contains(&offering.slug.as_str()))
            })
            && self.project.is_none_or(|id| resource.project == id)
            && self
                .customer
                .is_none_or(|id| world.projects.get(&resource.project).is_some_and(|row| row.customer == id))
            && self.modified.as_deref().is_none_or(|since| modified >= since)
    }
}

/// An identifier to filter by; the last value of a parameter applies.
fn uuid(call: &Call, key: &str) -> Result<Option<Uuid>, Reply> {
    let parse = |text| Uuid::try_parse(text).map_err(|_| refusals::invalid(key, "Enter a valid UUID."));
    call.last(key).map(parse).transpose()
}

/// Sorts by the parameter `o`, or by `created` without it, and ties as in [`RowOrder`].
fn sort<'a>(
    rows: &mut [usize],
    world: &World,
    call: &Call,
    known: &[&str],
    text: impl Fn(usize, &str) -> &'a str,
) -> Result<(), Reply> {
    let keys: Vec<&str> = call.last("o").unwrap_or("created").split(',').collect();
    for key in &keys {
        if !known.contains(&key.trim_start_matches('-')) {
            let text = format!("Select a valid choice. {key} is not one of the available choices.");
            return Err(refusals::invalid("o", &text));
        }
    }
    if world.rows == RowOrder::AsGiven {
        return Ok(());
    }
    let page = call.last("page").unwrap_or("1");
    let shuffled = |row: usize| {
        let mut hasher = std::hash::DefaultHasher::new();
        (row, page).hash(&mut hasher);
        hasher.finish()
    };
    rows.sort_by(|a, b| {
        let order = keys.iter().fold(std::cmp::Ordering::Equal, |order, key| {
            order.then_with(|| match key.strip_prefix('-') {
                Some(key) => text(*b, key).cmp(text(*a, key)),
                None => text(*a, key).cmp(text(*b, key)),
            })
        });
        match world.rows {
            RowOrder::AskedWithoutTieBreak => order.then_with(|| shuffled(*a).cmp(&shuffled(*b))),
            RowOrder::Asked | RowOrder::AsGiven => order,
        }
    });
    Ok(())
}
