//! The part of Waldur's REST API that storage services use.
//!
//! Every call is checked in Waldur's order: 401, 404 (unknown, invisible or malformed identifier), 403, 409 (state),
//! 405 (type of offering), 400 (content). Unknown paths return Django's HTML page for 404.
//!
//! The answers of 7.0.x are recorded. Some details of newer releases are not clear from their sources and are invented
//! here: the texts with status 200 of `approve_by_provider` and `set_state_ok` and with status 409 of
//! `update_options_direct`; that `update_options_direct` merges the options into the old ones; 400 for `set_backend_id`
//! without an ID; that both fields of `set_state_erred` are optional; what happens to a resource whose order is
//! cancelled; the text with status 400 for a `backend_id` that another resource has; orders of type Restore, except for
//! the name of the type.

mod access;
mod actions;
mod cells;
mod listing;
mod lists;
mod offerings;
mod refusals;
mod usage;

use axum::http::{Method, StatusCode};
use uuid::Uuid;

use crate::broker;
use crate::http::{Call, Reply};
use crate::state::ServiceState;
use crate::world::Release;
use access::Caller;

/// Answers a request below `/api/`.
pub(crate) fn answer(shared: &ServiceState, call: &Call) -> Reply {
    let reply = route(shared, call);
    let reply = if reply.status.is_redirection() { reply } else { reply.with("X-Frame-Options", "DENY") };
    let world = shared.read();
    let date = world.time().plus_micros(world.date_ahead).http_date();
    drop(world);
    let language = if access::wants_german(call) { "de" } else { "en" };
    reply.with("Date", &date).with("Vary", "Accept-Language, Cookie").with("Content-Language", language)
}

fn route(shared: &ServiceState, call: &Call) -> Reply {
    let Some(path) = call.path.strip_suffix('/') else { return refusals::append_slash(call) };
    let segments: Vec<&str> = path.split('/').skip(2).collect();
    if let (["marketplace-orders", id], &Method::DELETE) = (segments.as_slice(), &call.method) {
        return actions::delete(shared, call, parse(id)).with("Allow", "GET, PUT, PATCH, DELETE, HEAD, OPTIONS");
    }
    if let [family, ..] = segments[..]
        && let Some(get) = find_list(shared, call, family, &segments[1..])
    {
        return get;
    }
    match (segments.as_slice(), &call.method) {
        (["version"], method) => reading(method, "GET, OPTIONS", || {
            with_caller(shared, call, |world, _| {
                Reply::json(StatusCode::OK, &serde_json::json!({ "version": world.release.version() }))
            })
        }),
        (["users", "me"], method) => reading(method, "GET, HEAD, OPTIONS", || {
            with_caller(shared, call, |world, user| offerings::me(world, user, call))
        }),
        (["marketplace-component-usages", "set_usage"], _) => acting(call, || usage::set(shared, call)),
        (["event-consumers", "register"], _) if shared.read().release == Release::Newer => {
            acting(call, || register(shared, call))
        }
        (["marketplace-orders", id, action], _) if actions::ORDER.contains(action) => {
            acting(call, || actions::order(shared, call, parse(id), action))
        }
        (["marketplace-provider-resources", id, action], _) if actions::known(shared, action) => {
            acting(call, || actions::resource(shared, call, parse(id), action))
        }
        (["marketplace-resources", id, "update_options"], _) => {
            acting(call, || actions::resource(shared, call, parse(id), "update_options"))
        }
        _ => refusals::not_found(),
    }
}

fn register(shared: &ServiceState, call: &Call) -> Reply {
    with_caller(shared, call, |world, user| {
        let caller = Caller::new(world, user);
        let sees = |offering| caller.sees_as_provider(offering);
        broker::register(&shared.broker, call, (user.uuid, &user.token), sees, world.events.next())
    })
}

/// Lists and single rows, read with GET and HEAD.
fn find_list(shared: &ServiceState, call: &Call, family: &str, rest: &[&str]) -> Option<Reply> {
    let list = "GET, POST, HEAD, OPTIONS";
    let detail = "GET, PUT, PATCH, DELETE, HEAD, OPTIONS";
    let allow = match (family, rest) {
        ("marketplace-provider-resources", [_, "team"]) | ("marketplace-provider-offerings", [_, "customers"]) => {
            "GET, HEAD, OPTIONS"
        }
        (
            "marketplace-resources"
            | "marketplace-provider-resources"
            | "marketplace-orders"
            | "marketplace-provider-offerings"
            | "marketplace-component-usages",
            [],
        ) => list,
        (
            "marketplace-resources"
            | "marketplace-provider-resources"
            | "marketplace-orders"
            | "marketplace-provider-offerings",
            [_],
        ) => detail,
        _ => return None,
    };
    let read = || {
        with_caller(shared, call, |world, user| {
            let caller = Caller::new(world, user);
            match (family, rest) {
                ("marketplace-orders", []) => lists::orders(shared, &caller, call),
                ("marketplace-orders", [id]) => lists::order(&caller, call, parse(id)),
                ("marketplace-provider-offerings", []) => offerings::list(&caller, call),
                ("marketplace-provider-offerings", [id]) => offerings::detail(&caller, call, parse(id)),
                ("marketplace-provider-offerings", [id, _]) => offerings::customers(&caller, call, parse(id)),
                ("marketplace-component-usages", _) => usage::list(&caller, call),
                ("marketplace-provider-resources", [id, _]) => offerings::team(&caller, parse(id)),
                (_, [id]) => lists::resource(&caller, call, parse(id)),
                (_, _) => lists::resources(shared, &caller, call),
            }
        })
    };
    Some(reading(&call.method, allow, read))
}

/// Runs a read as the user of the request's token.
fn with_caller(
    shared: &ServiceState,
    call: &Call,
    read: impl FnOnce(&crate::World, &crate::world::User) -> Reply,
) -> Reply {
    if call.header("accept").is_some_and(|accept| accept.starts_with("text/html") && !accept.contains("*/*")) {
        return refusals::detail(StatusCode::NOT_ACCEPTABLE, "Could not satisfy the request Accept header.");
    }
    let world = shared.read();
    match access::authenticate(&world, call) {
        Ok(user) => read(&world, user),
        Err(reply) => reply,
    }
}

fn reading(method: &Method, allow: &str, read: impl FnOnce() -> Reply) -> Reply {
    match *method {
        Method::GET | Method::HEAD => read(),
        _ => refusals::method_not_allowed(method),
    }
    .with("Allow", allow)
}

fn acting(call: &Call, act: impl FnOnce() -> Reply) -> Reply {
    let reply = if call.method == Method::POST { act() } else { refusals::method_not_allowed(&call.method) };
    reply.with("Allow", "POST, OPTIONS")
}

/// Identifiers may have dashes; anything else is an unknown row.
fn parse(id: &str) -> Option<Uuid> {
    Uuid::try_parse(id).ok()
}
