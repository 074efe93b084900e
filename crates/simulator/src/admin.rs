//! Faults, requests and keys, for a shell.

use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::faults::FaultRule;
use crate::http::{Call, Reply};
use crate::server::Shared;

/// Answers a request below `/_simulator/`.
pub(crate) fn answer(shared: &Shared, call: &Call) -> Reply {
    match (&call.method, call.path.trim_end_matches('/')) {
        (&Method::GET, "/_simulator/faults") => Reply::json(StatusCode::OK, &json!(shared.faults.all())),
        (&Method::POST, "/_simulator/faults") => match serde_json::from_slice::<FaultRule>(&call.body) {
            Ok(rule) => {
                shared.faults.add(rule);
                Reply::empty(StatusCode::NO_CONTENT)
            }
            Err(error) => {
                let example = json!({ "route": "GET /api/*", "fault": { "kind": "answer", "status": 503,
                    "headers": [["Retry-After", "2"]] }, "times": 3 });
                let body = json!({ "detail": format!("this is no fault: {error}"), "example": example });
                Reply::json(StatusCode::BAD_REQUEST, &body)
            }
        },
        (&Method::DELETE, "/_simulator/faults") => {
            shared.faults.clear();
            Reply::empty(StatusCode::NO_CONTENT)
        }
        (&Method::GET, "/_simulator/requests") => Reply::json(StatusCode::OK, &json!(shared.log.all())),
        (&Method::DELETE, "/_simulator/requests") => {
            shared.log.clear();
            Reply::empty(StatusCode::NO_CONTENT)
        }
        (&Method::POST, "/_simulator/rotate-keys") => {
            let keep = call.last("keep") == Some("true");
            match shared.realm.rotate(keep) {
                Ok(kid) => Reply::json(StatusCode::OK, &json!({ "kid": kid, "kept_old": keep })),
                Err(error) => Reply::json(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "detail": error.to_string() })),
            }
        }
        _ => Reply::json(
            StatusCode::NOT_FOUND,
            &json!({ "detail": "GET|POST|DELETE faults, GET|DELETE requests, POST rotate-keys[?keep=true]" }),
        ),
    }
}
