//! Error answers with the texts of Django and the REST framework.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::http::{Call, Reply};
use crate::world::Refusal;

pub(super) fn detail(status: StatusCode, text: &str) -> Reply {
    Reply::json(status, &json!({ "detail": text }))
}

pub(super) fn missing(model: &str) -> Reply {
    detail(StatusCode::NOT_FOUND, &format!("No {model} matches the given query."))
}

pub(super) fn forbidden() -> Reply {
    detail(StatusCode::FORBIDDEN, "You do not have permission to perform this action.")
}

pub(super) fn method_not_allowed(what: impl std::fmt::Display) -> Reply {
    detail(StatusCode::METHOD_NOT_ALLOWED, &format!("Method \"{what}\" not allowed."))
}

/// Status 400 with `{"field": ["text"]}`.
pub(super) fn invalid(field: &str, text: &str) -> Reply {
    Reply::json(StatusCode::BAD_REQUEST, &json!({ field: [text] }))
}

pub(super) fn transition(refusal: &Refusal, model: &str) -> Reply {
    match refusal {
        Refusal::Unknown => missing(model),
        Refusal::WrongState(_) => detail(StatusCode::CONFLICT, &refusal.to_string()),
        Refusal::OfferingType(_) => method_not_allowed(refusal),
        Refusal::Unavailable(text) => Reply::json(StatusCode::BAD_REQUEST, &json!([text])),
        Refusal::Crash => crash(),
    }
}

/// The answer to a path without a trailing slash. Django also redirects a POST, which clients then repeat as a GET.
pub(super) fn append_slash(call: &Call) -> Reply {
    let (path, query) = call.target.split_once('?').map_or((call.target.as_str(), ""), |(path, query)| (path, query));
    let question = if query.is_empty() { "" } else { "?" };
    Reply::raw(StatusCode::MOVED_PERMANENTLY, "text/html; charset=utf-8", "")
        .with("Location", &format!("{path}/{question}{query}"))
}

pub(super) fn not_found() -> Reply {
    page(StatusCode::NOT_FOUND, "Not Found", "The requested resource was not found on this server.")
}

pub(super) fn crash() -> Reply {
    page(StatusCode::INTERNAL_SERVER_ERROR, "Server Error (500)", "")
}

fn page(status: StatusCode, title: &str, text: &str) -> Reply {
    let body = format!(
        "\n<!doctype html>\n<html lang=\"en\">\n<head>\n  <title>{title}</title>\n</head>\n<body>\n  \
         <h1>{title}</h1><p>{text}</p>\n</body>\n</html>\n"
    );
    Reply::raw(status, "text/html; charset=utf-8", body)
}

/// The request's body as JSON; an empty body is an empty object, as in the REST framework.
pub(super) fn body(call: &Call) -> Result<Value, Reply> {
    if call.body.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(&call.body).map_err(|_| {
        // Python's texts for the two most common errors.
        let text = match call.body.strip_prefix(b"{").and_then(|rest| rest.first()) {
            Some(next) if *next != b'"' => {
                "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
            }
            _ => "Expecting value: line 1 column 1 (char 0)",
        };
        detail(StatusCode::BAD_REQUEST, &format!("JSON parse error - {text}"))
    })
}

/// Validates a text field like the REST framework's `CharField`; numbers become text.
///
/// `Ok(None)` if it is absent.
pub(super) fn text_field(body: &Value, field: &str, longest: usize) -> Result<Option<String>, Value> {
    let text = match body.get(field) {
        None => return Ok(None),
        Some(Value::Null) => return Err(json!(["This field may not be null."])),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => return Err(json!(["Not a valid string."])),
    };
    if text.chars().count() > longest {
        return Err(json!([format!("Ensure this field has no more than {longest} characters.")]));
    }
    Ok(Some(text))
}
