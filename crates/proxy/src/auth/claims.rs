//! Validation of a token's claims. Pure: the time is an argument.
//!
//! A lightweight access token of Keycloak lacks most claims. With introspection the realm's answer adds them ([`complete`]).

use serde_json::{Map, Value};
use thiserror::Error;

use super::Caller;
use super::refusal::{AuthError, Quoted, Refusal};

/// Tolerated difference between the realm's clock and ours, in seconds.
pub(super) const LEEWAY: i64 = 30;

/// The end of the year 9999, in seconds since 1970. Later times are invalid.
const LAST_TIME: i64 = 253_402_300_799;

/// Requirements for a token.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Required `iss`.
    pub(super) issuer: String,
    /// Required value in `aud` (decision D13).
    pub(super) audience: Option<String>,
    /// `auth.required_roles`.
    pub(super) required_roles: Vec<String>,
    /// `callbacks.required_roles`.
    pub(super) callback_roles: Vec<String>,
    /// `provisioners.required_roles`.
    pub(super) report_roles: Vec<String>,
    /// `auth.introspection`.
    pub(super) introspected: bool,
}

/// Claims that say which token an answer of introspection is about.
const IDENTIFYING: [&str; 5] = ["iss", "sub", "azp", "exp", "jti"];

/// Claims that introspection adds, one by one.
const ADDED: [&str; 4] = ["aud", "cnf", "preferred_username", "typ"];

/// Claims that introspection adds only if the token has neither.
const ROLES: [&str; 2] = ["realm_access", "resource_access"];

/// A claim in an answer of introspection that shows that the answer is not about the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("its claim `{0}` is not the token's, so it is about another token")]
pub(super) struct OtherToken(&'static str);

/// The claims of a token, completed by an answer of introspection about an active token. Signed claims are never replaced, and
/// only claims that the rules use are added.
pub(super) fn complete(
    signed: &Map<String, Value>,
    answer: &Map<String, Value>,
) -> Result<Map<String, Value>, OtherToken> {
    let has_roles = ROLES.iter().any(|name| signed.contains_key(*name));
    let roles = ROLES.iter().filter(|_| !has_roles);
    let added: Vec<(&str, &Value)> = ADDED
        .iter()
        .filter(|name| !signed.contains_key(**name))
        .chain(roles)
        .filter_map(|name| Some((*name, answer.get(*name)?)))
        .collect();
    for name in IDENTIFYING {
        match (signed.get(name), answer.get(name)) {
            (Some(ours), Some(theirs)) if ours != theirs => return Err(OtherToken(name)),
            // An answer without claims is valid (RFC 7662 section 2.2), but cannot complete anything.
            (Some(_), None) if !added.is_empty() => return Err(OtherToken(name)),
            _ => {}
        }
    }
    let mut completed = signed.clone();
    completed.extend(added.into_iter().map(|(name, value)| (name.to_owned(), value.clone())));
    Ok(completed)
}

impl Rules {
    /// Checks type and validity of an access token; returns `exp`. Both are in seconds since 1970.
    pub(super) fn check(&self, claims: &Map<String, Value>, now: i64) -> Result<i64, Refusal> {
        self.check_type(claims, "Bearer", now)
    }

    /// Checks type and validity of a token of this type.
    fn check_type(&self, claims: &Map<String, Value>, wanted: &'static str, now: i64) -> Result<i64, Refusal> {
        let issuer = string(claims, "iss")?.ok_or(Refusal::Missing("iss"))?;
        if issuer != self.issuer {
            return Err(Refusal::Issuer { wanted: self.issuer.clone(), was: Quoted::new(issuer) });
        }
        // Before the type, which Keycloak sets to `DPoP` in tokens that are bound by a proof.
        if claims.contains_key("cnf") {
            return Err(Refusal::Bound);
        }
        // ID and refresh tokens of the same realm are signed with the same keys.
        if let Some(kind) = string(claims, "typ")?
            && kind != wanted
        {
            return Err(Refusal::TokenType { wanted, was: Quoted::new(kind) });
        }
        let expires = time(claims, "exp")?.ok_or(Refusal::Missing("exp"))?;
        if has_expired(expires, now) {
            return Err(Refusal::Expired { at: expires, seconds_ago: now - expires });
        }
        for claim in ["nbf", "iat"] {
            if let Some(from) = time(claims, claim)?
                && from - LEEWAY > now
            {
                return Err(Refusal::NotYet { claim, seconds: from - now });
            }
        }
        Ok(expires)
    }

    /// Checks an ID token that this client received for a sign-in with this nonce, or for a refresh token (OpenID Connect Core,
    /// sections 3.1.3.7 and 12.2). Returns `sub` and the user name.
    pub(super) fn check_id_token<'a>(
        &self,
        claims: &'a Map<String, Value>,
        client: &str,
        nonce: Option<&str>,
        now: i64,
    ) -> Result<(&'a str, &'a str), Refusal> {
        self.check_type(claims, "ID", now)?;
        if !names(claims.get("aud"), client) {
            return Err(Refusal::Audience { wanted: client.to_owned() });
        }
        let of_client = string(claims, "azp")?.map(|party| party == client);
        let has_others = matches!(claims.get("aud"), Some(Value::Array(all)) if all.len() > 1);
        if of_client == Some(false) || (of_client.is_none() && has_others) {
            return Err(Refusal::Malformed { claim: "azp", wanted: "the client of this sign-in" });
        }
        let given = string(claims, "nonce")?;
        // A refreshed token need not have it.
        if let Some(nonce) = nonce
            && given != Some(nonce)
        {
            return Err(Refusal::Malformed { claim: "nonce", wanted: "the one of this sign-in" });
        }
        let subject = string(claims, "sub")?.filter(|subject| !subject.is_empty()).ok_or(Refusal::Missing("sub"))?;
        let username = string(claims, "preferred_username")?.ok_or(Refusal::Missing("preferred_username"))?;
        if username.trim().is_empty() {
            return Err(Refusal::Malformed { claim: "preferred_username", wanted: "a name" });
        }
        Ok((subject, username))
    }

    /// Checks an access token that this client received together with an ID token of this `sub`; returns `exp`.
    pub(super) fn check_own_token(
        &self,
        claims: &Map<String, Value>,
        client: &str,
        subject: &str,
        now: i64,
    ) -> Result<i64, Refusal> {
        let expires = self.check(claims, now)?;
        for (claim, wanted, meaning) in
            [("azp", client, "the client of this sign-in"), ("sub", subject, "the one of the ID token")]
        {
            if string(claims, claim)?.is_some_and(|given| given != wanted) {
                return Err(Refusal::Malformed { claim, wanted: meaning });
            }
        }
        Ok(expires)
    }

    /// Checks the audience; returns the user name.
    pub(super) fn username<'a>(&self, claims: &'a Map<String, Value>) -> Result<&'a str, Refusal> {
        // First, because its message explains lightweight tokens, which have no audience either.
        let username =
            string(claims, "preferred_username")?.ok_or(Refusal::NoName { introspected: self.introspected })?;
        if let Some(wanted) = &self.audience
            && !names(claims.get("aud"), wanted)
        {
            return Err(Refusal::Audience { wanted: wanted.clone() });
        }
        if username.trim().is_empty() {
            return Err(Refusal::Malformed { claim: "preferred_username", wanted: "a name" });
        }
        Ok(username)
    }

    /// Whether the token lacks a claim that introspection may add.
    pub(super) fn is_incomplete(&self, claims: &Map<String, Value>) -> bool {
        let has = |name: &str| claims.contains_key(name);
        let needs_roles =
            [&self.required_roles, &self.callback_roles, &self.report_roles].into_iter().any(|roles| !roles.is_empty());
        !has("preferred_username")
            || (self.audience.is_some() && !has("aud"))
            || (needs_roles && Self::lacks_roles(claims))
    }

    /// The caller, if the claims fulfil all rules.
    pub(super) fn admit(&self, claims: &Map<String, Value>, now: i64) -> Result<Caller, AuthError> {
        self.check(claims, now)?;
        let username = self.username(claims)?.to_owned();
        self.check_roles(claims)?;
        Ok(Caller {
            username,
            missing_for_callbacks: self.missing(&self.callback_roles, claims),
            missing_for_reports: self.missing(&self.report_roles, claims),
        })
    }

    /// Checks the roles required for reading.
    pub(super) fn check_roles(&self, claims: &Map<String, Value>) -> Result<(), AuthError> {
        let missing = self.missing(&self.required_roles, claims);
        if missing.is_empty() { Ok(()) } else { Err(AuthError::Forbidden { missing }) }
    }

    /// Whether the token has no claims about roles, which introspection may add.
    pub(super) fn lacks_roles(claims: &Map<String, Value>) -> bool {
        !ROLES.iter().any(|name| claims.contains_key(*name))
    }

    /// Those of some roles that the caller lacks. A required `name` is a role of the realm or of the client `auth.keycloak_client_id`;
    /// `client:name` is also that role of that client, wherever the colon is that makes it so.
    pub(super) fn missing(&self, roles: &[String], claims: &Map<String, Value>) -> Vec<String> {
        let of_realm = |role: &str| claims.get("realm_access").is_some_and(|access| names(access.get("roles"), role));
        let of_client = |client: &str, role: &str| {
            let access = claims.get("resource_access").and_then(|all| all.get(client));
            access.is_some_and(|access| names(access.get("roles"), role))
        };
        let has = |required: &str| {
            of_realm(required)
                || self.audience.as_deref().is_some_and(|own| of_client(own, required))
                || required.match_indices(':').any(|(at, _)| of_client(&required[..at], &required[at + 1..]))
        };
        roles.iter().filter(|role| !has(role)).cloned().collect()
    }
}

/// Whether `exp` is in the past by more than [`LEEWAY`].
pub(super) fn has_expired(expires: i64, now: i64) -> bool {
    now >= expires.saturating_add(LEEWAY)
}

fn string<'a>(claims: &'a Map<String, Value>, claim: &'static str) -> Result<Option<&'a str>, Refusal> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::Malformed { claim, wanted: "a string" }),
    }
}

/// A time in whole seconds. Fractions and numbers in strings are refused; Keycloak does not write them.
fn time(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<i64>, Refusal> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    match value.as_i64() {
        Some(time @ 0..=LAST_TIME) => Ok(Some(time)),
        _ => Err(Refusal::Malformed { claim, wanted: "a time in whole seconds since 1970" }),
    }
}

/// Whether a string or a list of strings contains `wanted`.
fn names(value: Option<&Value>, wanted: &str) -> bool {
    match value {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(all)) => all.iter().any(|one| one == wanted),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            other => panic!("{other}"),
        }
    }

    /// As Keycloak issues it.
    fn lightweight() -> Map<String, Value> {
        object(json!({
            "exp": 300, "iat": 0, "jti": "trltcc:5c1f", "iss": "https://idp.example.org/realms/cscs", "sub": "f3a1",
            "typ": "Bearer", "azp": "provisioner", "scope": "email profile",
        }))
    }

    /// As Keycloak answers about it.
    fn answer() -> Map<String, Value> {
        let mut answer = lightweight();
        answer.extend(object(json!({
            "aud": "storage", "acr": "1", "realm_access": {"roles": ["reader"]},
            "resource_access": {"storage": {"roles": ["writer"]}}, "preferred_username": "service-account-provisioner",
            "client_id": "provisioner", "username": "service-account-provisioner", "token_type": "Bearer", "active": true,
        })));
        answer
    }

    fn rules() -> Rules {
        Rules {
            issuer: String::from("https://idp.example.org/realms/cscs"),
            audience: Some(String::from("storage")),
            required_roles: vec![String::from("reader")],
            callback_roles: vec![String::from("writer")],
            report_roles: vec![String::from("reporter")],
            introspected: true,
        }
    }

    #[test]
    fn introspection_completes_a_lightweight_token() {
        assert!(rules().is_incomplete(&lightweight()));
        let completed = complete(&lightweight(), &answer()).unwrap();
        let caller = rules().admit(&completed, 0).unwrap();
        assert_eq!(caller.username, "service-account-provisioner");
        assert!(caller.missing_for_callbacks.is_empty());
        assert_eq!(caller.missing_for_reports, ["reporter"]);
        assert!(!rules().is_incomplete(&completed));
        // Not used by any rule.
        assert!(!completed.contains_key("client_id") && !completed.contains_key("acr"));
    }

    #[test]
    fn an_answer_about_another_token_completes_nothing() {
        for name in IDENTIFYING {
            for other in [json!("other"), json!(301), json!(300.0), Value::Null, json!(["f3a1"])] {
                let mut wrong = answer();
                wrong.insert(name.to_owned(), other);
                assert_eq!(complete(&lightweight(), &wrong), Err(OtherToken(name)));
            }
            let mut silent = answer();
            silent.remove(name);
            assert_eq!(complete(&lightweight(), &silent), Err(OtherToken(name)));
        }
        let only_active = object(json!({"active": true}));
        assert_eq!(complete(&lightweight(), &only_active), Ok(lightweight()));
        assert_eq!(complete(&answer(), &only_active), Ok(answer()));
    }

    #[test]
    fn signed_claims_and_roles_win() {
        let mut signed = lightweight();
        signed.extend(object(json!({"aud": "account", "preferred_username": "alice", "realm_access": {"roles": []}})));
        assert_eq!(complete(&signed, &answer()), Ok(signed.clone()), "one kind of roles is enough");
        assert!(matches!(rules().admit(&signed, 0), Err(AuthError::Refused(Refusal::Audience { .. }))));
        signed.insert(String::from("aud"), json!("storage"));
        assert!(matches!(rules().admit(&signed, 0), Err(AuthError::Forbidden { .. })));
    }

    #[test]
    fn a_type_from_introspection_is_checked() {
        // Keycloak 24 calls ID and refresh tokens active.
        let mut signed = lightweight();
        signed.remove("typ");
        let mut id_token = answer();
        id_token.insert(String::from("typ"), json!("ID"));
        let completed = complete(&signed, &id_token).unwrap();
        assert!(matches!(rules().admit(&completed, 0), Err(AuthError::Refused(Refusal::TokenType { .. }))));
    }

    #[test]
    fn a_binding_that_only_introspection_shows_is_refused() {
        // RFC 8705 section 3.2.
        let mut bound = answer();
        bound.insert(String::from("cnf"), json!({"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}));
        let completed = complete(&lightweight(), &bound).unwrap();
        assert!(matches!(rules().admit(&completed, 0), Err(AuthError::Refused(Refusal::Bound))));
    }

    #[test]
    fn added_claims_of_a_wrong_type_are_refused() {
        for (name, value) in [
            ("preferred_username", json!(5)),
            ("preferred_username", json!(" ")),
            ("preferred_username", json!(["alice"])),
            ("aud", json!({"storage": true})),
            ("aud", json!(null)),
            ("realm_access", json!(["reader"])),
            ("realm_access", json!({"roles": {"reader": true}})),
            ("typ", json!(1)),
        ] {
            let mut signed = lightweight();
            signed.remove(name);
            let mut wrong = answer();
            wrong.insert(name.to_owned(), value);
            let completed = complete(&signed, &wrong).unwrap();
            assert!(rules().admit(&completed, 0).is_err(), "{wrong:?}");
        }
    }

    fn claims() -> impl Strategy<Value = Map<String, Value>> {
        let names = [&IDENTIFYING[..], &ADDED, &ROLES, &["active", "scope", "nbf"]].concat();
        let value =
            prop_oneof![Just(json!(1)), Just(json!("a")), Just(json!({"roles": ["reader"]})), Just(Value::Null)];
        prop::collection::hash_map(prop::sample::select(names), value, 0..8)
            .prop_map(|claims| claims.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    proptest! {
        #[test]
        fn completing_never_changes_a_signed_claim(signed in claims(), answer in claims()) {
            let Ok(completed) = complete(&signed, &answer) else { return Ok(()) };
            for (name, value) in &signed {
                prop_assert_eq!(completed.get(name), Some(value));
            }
            let added: Vec<&str> =
                completed.keys().map(String::as_str).filter(|name| !signed.contains_key(*name)).collect();
            for name in &added {
                prop_assert!(ADDED.contains(name) || ROLES.contains(name), "{}", name);
                prop_assert_eq!(completed.get(*name), answer.get(*name));
            }
            let has_roles = ROLES.iter().any(|name| signed.contains_key(*name));
            prop_assert!(!has_roles || !added.iter().any(|name| ROLES.contains(name)));
            for name in IDENTIFYING {
                let (ours, theirs) = (signed.get(name), answer.get(name));
                prop_assert!(ours.is_none() || ours == theirs || (theirs.is_none() && added.is_empty()));
            }
        }
    }
}
