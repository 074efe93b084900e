//! The realm's discovery document (OpenID Connect Discovery 1.0). Pure.
//!
//! Endpoints are only used from the configured origin. A document that contradicts the settings (another issuer,
//! or keys at another origin) is an error. Without a document, for example behind a reverse proxy that publishes only some
//! paths, Keycloak's fixed paths are used.

use serde_json::Value;
use url::Url;

use crate::upstream::public_part;

/// URLs of the realm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoints {
    /// The JWKS document.
    pub(super) keys: Url,
    /// Token introspection (RFC 7662).
    pub(super) introspection: Url,
    /// Where browsers sign in.
    pub(super) authorization: Url,
    /// Where codes and refresh tokens are exchanged for tokens.
    pub(super) token: Url,
    /// Where sessions end (OpenID Connect RP-Initiated Logout).
    pub(super) end_session: Url,
}

/// `path` below the realm.
pub(super) fn below(issuer: &Url, path: &[&str]) -> Url {
    let mut url = issuer.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.extend(path);
    }
    url
}

/// The URLs below Keycloak's fixed paths.
pub(super) fn fixed(issuer: &Url) -> Endpoints {
    let at = |path: &[&str]| below(issuer, &[&["protocol", "openid-connect"], path].concat());
    Endpoints {
        keys: at(&["certs"]),
        introspection: at(&["token", "introspect"]),
        authorization: at(&["auth"]),
        token: at(&["token"]),
        end_session: at(&["logout"]),
    }
}

/// Reads the discovery document of `issuer`. `Ok(None)` if it is not such a document; an error if it contradicts the
/// settings.
pub(super) fn read(document: &Value, issuer: &Url) -> Result<Option<Endpoints>, String> {
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let (Some(announced), Some(keys)) = (text("issuer"), text("jwks_uri")) else { return Ok(None) };
    if announced != issuer.as_str() {
        return Err(format!(
            "its issuer is {}, but auth.keycloak_url and auth.keycloak_realm give {issuer}; set auth.keycloak_url \
             (CSCS_KEYCLOAK_URL) so that both are the same, because every token names the issuer",
            shown(announced)
        ));
    }
    let ours = |text: &str| Url::parse(text).ok().filter(|url| url.origin() == issuer.origin());
    let keys = ours(keys).ok_or_else(|| {
        format!(
            "its keys are at {}, which is not the origin of auth.keycloak_url, and are not fetched; if that is correct, set \
             auth.keycloak_url (CSCS_KEYCLOAK_URL) to that origin",
            shown(keys)
        )
    })?;
    let fixed = fixed(issuer);
    let endpoint = |name: &str, fixed: Url| text(name).and_then(ours).unwrap_or(fixed);
    Ok(Some(Endpoints {
        keys,
        introspection: endpoint("introspection_endpoint", fixed.introspection),
        authorization: endpoint("authorization_endpoint", fixed.authorization),
        token: endpoint("token_endpoint", fixed.token),
        end_session: endpoint("end_session_endpoint", fixed.end_session),
    }))
}

/// A URL from a document without query and credentials. Other text is not repeated.
fn shown(text: &str) -> String {
    Url::parse(text).map_or_else(|_| String::from("an invalid URL"), |url| public_part(&url))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn issuer() -> Url {
        Url::parse("https://idp.example.org/auth/realms/cscs").unwrap()
    }

    #[test]
    fn a_document_of_the_same_issuer_and_origin_is_used() {
        let document = json!({
            "issuer": issuer().as_str(),
            "jwks_uri": "https://idp.example.org:443/keys",
            "introspection_endpoint": "https://idp.example.org/ask",
        });
        let endpoints = read(&document, &issuer()).unwrap().unwrap();
        assert_eq!(endpoints.keys.as_str(), "https://idp.example.org/keys");
        assert_eq!(endpoints.introspection.as_str(), "https://idp.example.org/ask");
    }

    #[test]
    fn other_documents_are_ignored_and_contradictions_are_errors() {
        for document in [
            json!(null),
            json!([]),
            json!({}),
            json!({"issuer": 1, "jwks_uri": 2}),
            json!({"issuer": issuer().as_str()}),
        ] {
            assert_eq!(read(&document, &issuer()), Ok(None), "{document}");
        }
        let keys = "https://idp.example.org/keys";
        for other in
            ["https://idp.example.org/auth/realms/cscs/", "http://idp.example.org/auth/realms/cscs", "cscs", ""]
        {
            let error = read(&json!({"issuer": other, "jwks_uri": keys}), &issuer()).unwrap_err();
            assert!(error.contains("set auth.keycloak_url (CSCS_KEYCLOAK_URL)"), "{error}");
        }
        for elsewhere in
            ["https://evil.example.org/keys", "http://idp.example.org/keys", "https://idp.example.org:8443/", "/keys"]
        {
            let error = read(&json!({"issuer": issuer().as_str(), "jwks_uri": elsewhere}), &issuer()).unwrap_err();
            assert!(error.contains("origin"), "{error}");
        }
    }

    #[test]
    fn secrets_and_people_are_sent_to_the_configured_origin_only() {
        let document = json!({
            "issuer": issuer().as_str(),
            "jwks_uri": "https://idp.example.org/keys",
            "introspection_endpoint": "https://evil.example.org/ask",
            "authorization_endpoint": "https://evil.example.org/auth",
            "token_endpoint": "http://idp.example.org/token",
            "end_session_endpoint": "javascript:alert(1)",
        });
        let endpoints = read(&document, &issuer()).unwrap().unwrap();
        let keys = endpoints.keys.clone();
        assert_eq!(endpoints, Endpoints { keys, ..fixed(&issuer()) });
    }
}
