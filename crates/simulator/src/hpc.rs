//! The HPC User API: GIDs of projects, and users.

use std::collections::HashSet;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::http::{Call, Reply};
use crate::state::ServiceState;

/// Answers a request below `/hpc/`.
pub(crate) fn answer(shared: &ServiceState, call: &Call) -> Reply {
    let world = shared.read();
    let version = " HTTP/1.1\r\n".len();
    if call.method.as_str().len() + 1 + call.target.len() + version > world.hpc.request_line_limit {
        return Reply::raw(StatusCode::URI_TOO_LONG, "text/html", "<html><h1>414 Request-URI Too Large</h1></html>");
    }
    let path = call.path.trim_end_matches('/');
    let Some(rest) = path.strip_prefix("/hpc/api/v1/export/") else {
        return Reply::json(StatusCode::NOT_FOUND, &json!({ "detail": "Not found." }));
    };
    if call.method != Method::GET {
        return Reply::json(StatusCode::METHOD_NOT_ALLOWED, &json!({ "detail": "Method not allowed." }));
    }
    let accepted = call.bearer().is_some_and(|token| match world.hpc.tokens.get(token) {
        Some(expires) => expires.is_none_or(|expires| expires > crate::keycloak::wall_clock()),
        None => shared.realm.is_active(token),
    });
    if !accepted {
        return Reply::json(StatusCode::UNAUTHORIZED, &json!({ "detail": "Invalid or expired token." }))
            .with("WWW-Authenticate", "Bearer");
    }
    if rest == "waldur/projects" {
        let asked: HashSet<&str> = call.all("projects").collect();
        let projects = &world.hpc.projects;
        let rows: Vec<&Value> = if asked.is_empty() {
            projects.iter().collect()
        } else {
            let index = shared.projects(&world);
            let mut positions: Vec<usize> =
                asked.iter().filter_map(|name| index.get(*name)).flatten().copied().collect();
            positions.sort_unstable();
            positions.into_iter().map(|position| &projects[position]).collect()
        };
        return Reply::json(StatusCode::OK, &json!({ "projects": rows }));
    }
    match rest.strip_prefix("cscs/users/").and_then(|name| world.hpc.users.get(name)) {
        Some(user) => Reply::json(StatusCode::OK, user),
        None => Reply::json(StatusCode::NOT_FOUND, &json!({ "detail": "Not found." })),
    }
}
