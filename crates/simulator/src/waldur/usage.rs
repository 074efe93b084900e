//! Reported usage.

use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{self, Caller};
use super::cells::hex;
use super::{offerings, refusals};
use crate::World;
use crate::http::{Call, Reply};
use crate::state::ServiceState;
use crate::world::{ResourceState, Usage};

/// `POST …/set_usage/` by `resource`; reports by `plan_period` are not simulated.
pub(super) fn set(shared: &ServiceState, call: &Call) -> Reply {
    let mut world = shared.write();
    let user = match access::authenticate(&world, call) {
        Ok(user) => user.clone(),
        Err(reply) => return reply,
    };
    let body = match refusals::body(call) {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    let Some(stated) = body["resource"].as_str() else {
        return refusals::invalid("resource", "This field is required.");
    };
    let Some(row) = Uuid::try_parse(stated).ok().and_then(|id| world.resources.get(&id)) else {
        return refusals::invalid("resource", &format!("Object with uuid={stated} does not exist."));
    };
    let Some(offering) = world.offerings.get(&row.offering) else { return refusals::crash() };
    if !Caller::new(&world, &user).serves(offering) {
        return refusals::forbidden();
    }
    let id = row.uuid;
    if !matches!(row.state(), Some(ResourceState::Ok | ResourceState::Updating | ResourceState::Terminating)) {
        return refusals::invalid("resource", "Resource is not in valid state.");
    }
    let usages = body["usages"].as_array().cloned().unwrap_or_default();
    let kind = |usage: &Value| usage["type"].as_str().unwrap_or_default().to_owned();
    let unknown: Vec<String> = usages.iter().map(kind).filter(|kind| !offering.components.contains(kind)).collect();
    if !unknown.is_empty() {
        let text = format!("These components are invalid: {}.", unknown.join(", "));
        return refusals::invalid("non_field_errors", &text);
    }
    let faults: Vec<Value> = usages
        .iter()
        .map(|usage| amount(&usage["amount"]).map_or_else(|fault| json!({ "amount": [fault] }), |_| json!({})))
        .collect();
    if faults.iter().any(|fault| *fault != json!({})) {
        return Reply::json(StatusCode::BAD_REQUEST, &json!({ "usages": faults }));
    }
    for usage in &usages {
        let amount = amount(&usage["amount"]).unwrap_or_default();
        let description = usage["description"].as_str().unwrap_or_default();
        record(&mut world, id, &kind(usage), amount, description);
    }
    Reply::empty(StatusCode::CREATED)
}

/// Validates an amount like the REST framework's `DecimalField`.
fn amount(value: &Value) -> Result<f64, &'static str> {
    // The shortest text of a number is the same as that of Python's `str`.
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return Err("A valid number is required."),
    };
    let amount = text.parse::<f64>().ok().filter(|amount| amount.is_finite()).ok_or("A valid number is required.")?;
    if decimals(&text) > 2 {
        return Err("Ensure that there are no more than 2 decimal places.");
    }
    Ok(amount)
}

/// Number of decimal places, also for texts such as `3e-6` and `3.50`.
fn decimals(text: &str) -> i64 {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let places = mantissa.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    (i64::try_from(places).unwrap_or(i64::MAX) - exponent.parse::<i64>().unwrap_or_default()).max(0)
}

/// Records usage. A second report for a month overwrites the first.
fn record(world: &mut World, resource: Uuid, component: &str, amount: f64, description: &str) {
    let now = world.tick();
    let uuid = world.next_id();
    let billing_period = format!("{}-01", &now.text()[..7]);
    let found = world.usages.iter_mut().find(|usage| {
        usage.resource == resource && usage.component == component && usage.billing_period == billing_period
    });
    match found {
        Some(usage) => {
            usage.amount = amount;
            description.clone_into(&mut usage.description);
        }
        None => world.usages.push(Usage {
            uuid,
            resource,
            component: component.to_owned(),
            billing_period,
            amount,
            created: now,
            description: description.to_owned(),
        }),
    }
    for field in ["current_usages", "limit_usage"] {
        let mut shown =
            world.resources.get(&resource).and_then(|row| row.record.get(field)).cloned().unwrap_or(json!({}));
        shown[component] = format!("{amount:.2}").into();
        world.change(resource, field, shown);
    }
}

pub(super) fn list(caller: &Caller<'_>, call: &Call) -> Reply {
    let world = caller.world;
    let of = call.last("resource_uuid").map(Uuid::try_parse);
    let rows: Vec<Value> = world
        .usages
        .iter()
        .filter(|usage| of.as_ref().is_none_or(|id| id.as_ref() == Ok(&usage.resource)))
        .filter_map(|usage| world.resources.get(&usage.resource).map(|row| (usage, row)))
        .filter(|(_, row)| caller.sees_as_provider(row.offering) || caller.sees_as_consumer(row))
        .map(|(usage, row)| offerings::trimmed(call, show(world, usage, row)))
        .collect();
    offerings::page(call, &rows)
}

fn show(world: &World, usage: &Usage, row: &crate::world::Resource) -> Value {
    let offering = world.offerings.get(&row.offering);
    let project = world.projects.get(&row.project);
    let customer = project.and_then(|project| world.customers.get(&project.customer));
    json!({
        "uuid": hex(usage.uuid), "created": world.written(usage.created), "description": usage.description,
        "type": usage.component, "name": usage.component, "measured_unit": "TB",
        "usage": format!("{:.2}", usage.amount), "date": world.written(usage.created), "recurring": false,
        "resource_name": row.text("name"), "resource_uuid": hex(row.uuid),
        "offering_name": offering.map(|row| &row.name), "offering_uuid": hex(row.offering),
        "project_name": project.map(|row| &row.name), "project_uuid": hex(row.project),
        "customer_name": customer.map(|row| &row.name), "customer_uuid": customer.map(|row| hex(row.uuid)),
        "billing_period": usage.billing_period, "modified_by": 3,
    })
}

#[cfg(test)]
mod tests {
    use super::decimals;

    #[test]
    fn decimal_places_are_counted_like_pythons_decimal() {
        for (text, places) in
            [("7", 0), ("7.5", 1), ("7.50", 2), ("0.000003", 6), ("3e-6", 6), ("3.5E-1", 2), ("1e3", 0)]
        {
            assert_eq!(decimals(text), places, "{text}");
        }
    }
}
