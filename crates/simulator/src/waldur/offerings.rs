//! Offerings, their customers, and the current user.

use std::collections::HashSet;

use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::Caller;
use super::cells::{hex, json as write_json};
use super::listing::Page;
use super::refusals;
use crate::World;
use crate::http::{Call, Reply};
use crate::world::{Customer, Offering, Release, Role, User};

pub(super) fn list(caller: &Caller<'_>, call: &Call) -> Reply {
    let newer = caller.world.release == Release::Newer;
    let rows: Vec<Value> = caller
        .world
        .offerings
        .values()
        .filter(|offering| caller.sees_as_provider(offering.uuid))
        // 7.0.x ignores this filter.
        .filter(|offering| !newer || call.last("slug").is_none_or(|slug| offering.slug == slug))
        .map(|offering| trimmed(call, show(caller.world, &call.base, offering)))
        .collect();
    page(call, &rows)
}

pub(super) fn detail(caller: &Caller<'_>, call: &Call, id: Option<Uuid>) -> Reply {
    match visible(caller, id) {
        Some(offering) => Reply::json(StatusCode::OK, &trimmed(call, show(caller.world, &call.base, offering))),
        None => refusals::missing("Offering"),
    }
}

/// The customers that have or had a resource of the offering.
pub(super) fn customers(caller: &Caller<'_>, call: &Call, id: Option<Uuid>) -> Reply {
    let Some(offering) = visible(caller, id) else { return refusals::missing("Offering") };
    if !caller.owns(offering) && !caller.sees_all() {
        return refusals::forbidden();
    }
    let world = caller.world;
    let rows: Vec<Value> = if let Some(rows) = &offering.customers {
        rows.iter().map(|row| trimmed(call, row.clone())).collect()
    } else {
        let bought = buyers(world, offering);
        let customers = world.customers.values().filter(|customer| bought.contains(&customer.uuid));
        customers.map(|customer| trimmed(call, show_customer(world, &call.base, customer))).collect()
    };
    page(call, &rows)
}

pub(super) fn team(caller: &Caller<'_>, id: Option<Uuid>) -> Reply {
    let found = id.and_then(|id| caller.world.resources.get(&id));
    let Some(row) = found.filter(|row| caller.sees_as_provider(row.offering)) else {
        return refusals::missing("Resource");
    };
    let people: Vec<Value> = caller
        .world
        .users
        .iter()
        .filter(|user| user.roles.contains(&Role::ProjectMember(row.project)))
        .map(|user| {
            json!({ "uuid": hex(user.uuid), "username": user.username, "full_name": user.username,
                "email": format!("{}@example.com", user.username), "role": "member", "expiration_time": null,
                "offering_user_username": null, "url": format!("/api/users/{}/", hex(user.uuid)) })
        })
        .collect();
    Reply::json(StatusCode::OK, &Value::Array(people))
}

pub(super) fn me(world: &World, user: &User, call: &Call) -> Reply {
    let permissions: Vec<Value> = user.roles.iter().flat_map(|role| permissions(world, user, *role)).collect();
    let mut row = json!({
        "url": format!("{}/api/users/{}/", call.base, hex(user.uuid)), "uuid": hex(user.uuid),
        "username": user.username, "slug": user.username, "full_name": user.username, "native_name": "",
        "email": format!("{}@example.com", user.username), "is_active": user.is_active, "token": user.token,
        "token_lifetime": null, "permissions": permissions,
    });
    if user.is_staff || user.is_support {
        row["is_staff"] = user.is_staff.into();
        row["is_support"] = user.is_support.into();
    }
    Reply::json(StatusCode::OK, &trimmed(call, row))
}

/// The Waldur permissions of a role. The manager of an offering also gets a role in the organization that provides it.
fn permissions(world: &World, user: &User, role: Role) -> Vec<Value> {
    let provider = |id: Uuid| world.providers.get(&id).map(|row| row.name.as_str());
    let shown = |role_name, scope_type, id, name| permission(world, user, (role_name, scope_type, id, name));
    match role {
        Role::ProviderOwner(id) => vec![shown("CUSTOMER.OWNER", "customer", id, provider(id))],
        Role::CustomerOwner(id) => {
            let name = world.customers.get(&id).map(|row| row.name.as_str());
            vec![shown("CUSTOMER.OWNER", "customer", id, name)]
        }
        Role::OfferingManager(id) => {
            let offering = world.offerings.get(&id);
            let manager = shown("OFFERING.MANAGER", "offering", id, offering.map(|row| row.name.as_str()));
            let of_provider =
                offering.map(|row| shown("CUSTOMER.MANAGER", "customer", row.provider, provider(row.provider)));
            std::iter::once(manager).chain(of_provider).collect()
        }
        Role::ProjectMember(id) => {
            let name = world.projects.get(&id).map(|row| row.name.as_str());
            vec![shown("PROJECT.MEMBER", "project", id, name)]
        }
    }
}

fn permission(world: &World, user: &User, shown: (&str, &str, Uuid, Option<&str>)) -> Value {
    let (role_name, scope_type, scope, name) = shown;
    json!({ "user_uuid": hex(user.uuid), "user_name": user.username, "user_slug": user.username,
        "created": world.written(world.now), "expiration_time": null, "role_name": role_name,
        "role_description": role_name, "role_uuid": hex(Uuid::new_v5(&Uuid::NAMESPACE_OID, role_name.as_bytes())),
        "scope_type": scope_type, "scope_uuid": hex(scope), "scope_name": name })
}

fn visible<'a>(caller: &Caller<'a>, id: Option<Uuid>) -> Option<&'a Offering> {
    id.and_then(|id| caller.world.offerings.get(&id)).filter(|offering| caller.sees_as_provider(offering.uuid))
}

fn buyers(world: &World, offering: &Offering) -> HashSet<Uuid> {
    let rows = world.resources.values().filter(|row| row.offering == offering.uuid);
    rows.filter_map(|row| world.projects.get(&row.project)).map(|project| project.customer).collect()
}

fn show(world: &World, base: &str, offering: &Offering) -> Value {
    let provider = world.providers.get(&offering.provider);
    let components: Vec<Value> = offering
        .components
        .iter()
        .map(|kind| json!({ "type": kind, "name": kind, "billing_type": "limit", "measured_unit": "TB" }))
        .collect();
    json!({
        "url": format!("{base}/api/marketplace-provider-offerings/{}/", hex(offering.uuid)),
        "uuid": hex(offering.uuid), "created": world.written(offering.created), "name": offering.name, "slug": offering.slug,
        "description": "", "type": offering.kind.as_str(), "state": "Active", "shared": true, "billable": true,
        "customer": format!("{base}/api/customers/{}/", hex(offering.provider)),
        "customer_uuid": hex(offering.provider), "customer_name": provider.map(|row| &row.name),
        "category_title": "Storage", "components": components,
        "plugin_options": { "service_provider_can_create_offering_user": true },
    })
}

fn show_customer(world: &World, base: &str, customer: &Customer) -> Value {
    if world.release == Release::Newer {
        return json!({ "uuid": hex(customer.uuid), "name": customer.name, "slug": customer.slug,
            "abbreviation": customer.abbreviation, "phone_number": "", "email": customer.email });
    }
    let projects = world.projects.values().filter(|project| project.customer == customer.uuid).count();
    json!({
        "url": format!("{base}/api/customers/{}/", hex(customer.uuid)), "uuid": hex(customer.uuid),
        "created": world.written(customer.created), "organization_group": null,
        "display_name": customer.name, "projects": [], "backend_id": "", "image": null, "blocked": customer.blocked,
        "archived": false, "default_tax_percent": "0.00",
        "accounting_start_date": world.written(customer.created), "projects_count": projects,
        "users_count": 1, "sponsor_number": null, "country_name": null, "name": customer.name, "slug": customer.slug,
        "native_name": "", "abbreviation": customer.abbreviation, "contact_details": "", "agreement_number": "",
        "email": customer.email, "phone_number": "", "access_subnets": "", "registration_code": "", "homepage": "",
        "domain": "", "vat_code": "", "postal": "", "address": "", "bank_name": "", "bank_account": "",
        "latitude": null, "longitude": null, "country": "", "payment_profiles": null, "is_service_provider": false,
        "call_managing_organization_uuid": null,
    })
}

/// Filters a row by the requested fields; keeps all if none is known.
pub(super) fn trimmed(call: &Call, row: Value) -> Value {
    let Value::Object(mut record) = row else { return row };
    let asked: Vec<&str> = call.all("field").collect();
    if asked.iter().any(|field| record.contains_key(*field)) {
        record.retain(|key, _| asked.contains(&key.as_str()));
    }
    Value::Object(record)
}

pub(super) fn page(call: &Call, rows: &[Value]) -> Reply {
    match Page::of(call, rows.len(), false) {
        Ok(page) => page.answer(rows, write_json),
        Err(reply) => reply,
    }
}
