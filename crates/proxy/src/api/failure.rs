//! Error responses, in the format of the Python proxy.

use std::time::Duration;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tracing::{error, warn};

use super::query::InvalidParameter;
use crate::store::StoreError;
use program::error_chain;

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// 404.
    NotFound,
    /// 405, with the allowed methods.
    MethodNotAllowed(&'static str),
    /// A callback that was not relayed, or a report that is not kept, with the reason.
    Refused(StatusCode, String),
    /// 422: all invalid parameters.
    Query(Vec<InvalidParameter>),
    /// 500: a resource cannot be processed (decisions D7, D8).
    Processing(String),
    /// 502: an upstream cannot be read (decisions D9, D10).
    Upstream(StoreError),
    /// 504: no response within `server.request_timeout`.
    TooSlow(Duration),
    /// 503: a limit on concurrent requests is reached. Holds what there is too much of.
    TooMany(&'static str),
    /// 500: an internal error.
    Internal(serde_json::Error),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Upstream(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let response = |status: StatusCode, body: Value| (status, Json(body)).into_response();
        match self {
            Self::NotFound => response(StatusCode::NOT_FOUND, json!({"detail": "Not Found"})),
            Self::MethodNotAllowed(allow) => {
                let body = Json(json!({"detail": "Method Not Allowed"}));
                (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, allow)], body).into_response()
            }
            Self::Refused(status, detail) => response(status, json!({ "detail": detail })),
            Self::Query(faults) => response(StatusCode::UNPROCESSABLE_ENTITY, json!({"detail": faults})),
            Self::Processing(detail) => {
                warn!(detail, "cannot process a resource");
                response(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    json!({
                        "detail": detail,
                        "error": "ResourceProcessingError",
                        "message": "Failed to process storage resource.",
                    }),
                )
            }
            Self::Upstream(error) if error.is_internal() => internal(),
            Self::Upstream(StoreError::TooSlow(patience)) => Self::TooSlow(patience).into_response(),
            // The failed refresh has logged the error, once for all requests that waited for it.
            Self::Upstream(error) => response(
                StatusCode::BAD_GATEWAY,
                json!({
                    "detail": error_chain(&error),
                    "error": "UpstreamServiceError",
                    "message": "Failed to communicate with an upstream service.",
                }),
            ),
            Self::TooSlow(timeout) => response(
                StatusCode::GATEWAY_TIMEOUT,
                json!({
                    "detail": format!(
                        "no response within {} s (server.request_timeout): an upstream is slow",
                        timeout.as_secs_f64()
                    ),
                    "error": "UpstreamServiceError",
                    "message": "Failed to communicate with an upstream service.",
                }),
            ),
            Self::TooMany(detail) => {
                let body = json!({"detail": detail, "error": "ServiceOverloaded"});
                (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], Json(body)).into_response()
            }
            Self::Internal(error) => {
                error!(%error, "cannot render the catalogue");
                internal()
            }
        }
    }
}

/// 500: an internal error. The response has no details.
pub(crate) fn internal() -> Response {
    let body = json!({"detail": "An error occurred.", "error": "InternalServerError"});
    (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::to_bytes;

    use super::*;
    use crate::api::query;
    use crate::openapi::tests::assert_described;
    use crate::source::SourceError;
    use crate::waldur::WaldurError;

    const LISTING: &str = "/api/storage-resources/";
    const ITEM: &str = "/api/storage-resources/{itemId}/";
    const CALLBACK: &str = "/api/callbacks/orders/{order}/{action}/";

    #[tokio::test]
    async fn error_responses_match_the_openapi_document() {
        let no_json = serde_json::from_str::<Value>("").unwrap_err();
        let faults = query::parse("page_size=0&page=a&status=b&state=&storage_system=", &[]).unwrap_err();
        assert_eq!(faults.len(), 5);
        let unread = SourceError::from(WaldurError::Unstable("resources"));
        for (failure, path, status) in [
            (Failure::NotFound, ITEM, 404),
            (Failure::Query(faults), LISTING, 422),
            (Failure::Query(vec![InvalidParameter::uuid("x")]), ITEM, 422),
            (Failure::Processing("no GID".into()), LISTING, 500),
            (Failure::Processing("no GID".into()), ITEM, 500),
            (Failure::Internal(no_json), LISTING, 500),
            (Failure::Upstream(StoreError::Source(Arc::new(unread))), LISTING, 502),
            (Failure::Upstream(StoreError::Panicked), LISTING, 500),
            (Failure::Refused(StatusCode::CONFLICT, "the order is executing".into()), CALLBACK, 409),
            (Failure::Refused(StatusCode::PAYLOAD_TOO_LARGE, "too large".into()), CALLBACK, 413),
            (Failure::NotFound, CALLBACK, 404),
            (Failure::MethodNotAllowed("POST"), CALLBACK, 405),
            (Failure::TooSlow(Duration::from_mins(1)), CALLBACK, 504),
            (Failure::TooMany(""), LISTING, 503),
            (Failure::TooMany(""), ITEM, 503),
            (Failure::TooSlow(Duration::from_mins(1)), LISTING, 504),
        ] {
            let answer = failure.into_response();
            assert_eq!(answer.status(), status);
            let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            assert_described(path, status, &serde_json::from_slice(&body).unwrap());
        }
    }
}
