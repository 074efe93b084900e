//! Answers of the upstreams: Waldur's lists with their headers, the project export, a realm's discovery document.
//!
//! The input's first line is a `Link` header, the second is `X-Result-Count`, and the rest is the body.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, StatusCode};
use proxy::auth::fuzzing::{Keys, endpoints};
use proxy::upstream::Answer;
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

static ISSUER: LazyLock<Url> = LazyLock::new(|| Url::parse("https://idp.example.org/auth/realms/cscs").expect("a URL"));

/// A row with one UUID. A `Value` has one even if the row has two, and it is not known which.
#[derive(Deserialize)]
struct Record {
    #[serde(rename = "uuid")]
    _uuid: Uuid,
}

/// Reads the input as each kind of answer.
pub fn check(data: &[u8]) {
    let (link, rest) = crate::line(data);
    let (count, body) = crate::line(rest);
    let mut headers = HeaderMap::new();
    for (name, value) in [("link", link), ("x-result-count", count)] {
        if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_bytes(value)) {
            headers.insert(name, value);
        }
    }
    let answer = Answer { status: StatusCode::OK, headers, body: body.to_vec().into() };
    let value = serde_json::from_slice::<Value>(body);
    let rows = value.as_ref().ok().and_then(Value::as_array);
    let [resources, others @ ..] = proxy::waldur::fuzzing::page(&answer);
    // A record that cannot be mapped still counts as a row; a row that is not a record makes the list invalid (decision D19).
    let all = rows.map(Vec::len);
    assert!(value.is_err() || resources.is_none() || resources == all);
    let are_records = value.is_ok() && serde_json::from_slice::<Vec<Record>>(body).is_ok();
    assert!(!are_records || resources == all);
    assert!(others.into_iter().all(|read| read.is_none() || resources.is_none() || read == resources));

    let asked = ["project", "project-2", "lost"];
    if let Some(gids) = proxy::hpc_user::fuzzing::gids(&answer, &asked) {
        assert!(gids.iter().all(|(_, gid)| *gid != Some(0)), "no project has the GID of root");
        assert_eq!(gids.len(), asked.len(), "exactly the requested projects have a result");
    }
    if let Ok(value) = value {
        let keys = Keys::read(&value).map_or(0, |keys| keys.count());
        assert!(keys <= value["keys"].as_array().map_or(0, Vec::len));
        for url in endpoints(&value, &ISSUER).into_iter().flatten() {
            assert_eq!(url.origin(), ISSUER.origin(), "credentials are sent only to the issuer's origin");
        }
    }
}
