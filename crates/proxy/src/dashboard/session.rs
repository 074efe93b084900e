//! Sessions and sign-ins in progress, in cookies that only the proxy can read and make. The server keeps nothing, so sessions survive
//! restarts and are the same on all replicas.

use std::fmt;

use aws_lc_rs::error::Unspecified;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cookie::{Cookie, SameSite};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::auth::{Attempt, Grant};
use crate::config;
use crate::seal::{Seal, Secret};

/// Longest time between the beginning and the end of a sign-in, in seconds.
pub(super) const SIGN_IN_TIME: i64 = 600;
/// Largest number of sign-ins in progress that a browser keeps; each tab without a session begins one.
const SIGN_INS: usize = 8;
/// Largest size of name and value of a cookie that browsers keep.
const MAX_COOKIE: usize = 4096;

/// A signed-in person.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    #[serde(rename = "s")]
    pub(super) subject: String,
    #[serde(rename = "u")]
    pub(super) username: String,
    /// Required roles that the person lacks.
    #[serde(rename = "m", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) missing: Vec<String>,
    /// When the realm must be asked again, in seconds since 1970.
    #[serde(rename = "v")]
    pub(super) valid_until: i64,
    #[serde(rename = "r")]
    refresh_token: String,
}

impl Session {
    pub(super) fn refresh_token(&self) -> SecretString {
        self.refresh_token.as_str().into()
    }
}

impl From<Grant> for Session {
    fn from(grant: Grant) -> Self {
        let Grant { subject, username, missing, refresh_token, valid_until } = grant;
        Self { subject, username, missing, valid_until, refresh_token: refresh_token.expose_secret().to_owned() }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A sign-in in progress.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SignInState {
    pub(super) attempt: Attempt,
    /// The page to which it returns; a valid path.
    pub(super) to: String,
    /// When it began, in seconds since 1970.
    pub(super) began: i64,
}

/// Reads and writes the cookies.
pub(super) struct Cookies {
    seal: Seal,
    /// Whether browsers reach the proxy by https. Otherwise, on loopback, not all accept the prefix `__Host-` and `Secure`.
    secure: bool,
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookies").field("secure", &self.secure).finish_non_exhaustive()
    }
}

impl Cookies {
    /// With a key that all replicas derive from the secret of the client, for this realm and client.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub(super) fn new(settings: &config::SignIn, issuer: &str) -> Result<Self, Unspecified> {
        let context = format!("{issuer} {}", settings.client_id);
        let seal = Secret::new(settings.client_secret.expose_secret()).seal("dashboard cookies", &context)?;
        Ok(Self { seal, secure: settings.public_url.scheme() == "https" })
    }

    /// The session of a request.
    pub(super) fn session(&self, headers: &HeaderMap) -> Option<Session> {
        self.read(headers, &self.session_name())
    }

    /// Sets the session; `None` if browsers would drop the cookie, because the refresh token is too large.
    pub(super) fn set_session(&self, session: &Session) -> Option<HeaderValue> {
        // Without `Max-Age`: it ends with the browser, and before with the session at the realm.
        self.set(self.session_name(), session, None)
    }

    pub(super) fn remove_session(&self) -> HeaderValue {
        self.remove(self.session_name())
    }

    /// The sign-in in progress with this `state`.
    pub(super) fn sign_in(&self, headers: &HeaderMap, state: &str) -> Option<SignInState> {
        self.read(headers, &self.sign_in_name(state))
    }

    pub(super) fn set_sign_in(&self, state: &str, sign_in: &SignInState) -> Option<HeaderValue> {
        self.set(self.sign_in_name(state), sign_in, Some(SIGN_IN_TIME))
    }

    pub(super) fn remove_sign_in(&self, state: &str) -> HeaderValue {
        self.remove(self.sign_in_name(state))
    }

    /// Removes sign-ins so that one more can begin: the headers must not grow without limit.
    pub(super) fn make_room(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        let prefix = self.sign_in_name("");
        let names: Vec<_> =
            all(headers).map(|cookie| cookie.name().to_owned()).filter(|name| name.starts_with(&prefix)).collect();
        let excess = (names.len() + 1).saturating_sub(SIGN_INS);
        names.into_iter().take(excess).map(|name| self.remove(name)).collect()
    }

    fn prefix(&self) -> &'static str {
        if self.secure { "__Host-hpc-storage-" } else { "hpc-storage-" }
    }

    fn session_name(&self) -> String {
        format!("{}session", self.prefix())
    }

    fn sign_in_name(&self, state: &str) -> String {
        format!("{}sign-in-{state}", self.prefix())
    }

    /// The first cookie of this name that this key sealed as such.
    fn read<T: DeserializeOwned>(&self, headers: &HeaderMap, name: &str) -> Option<T> {
        all(headers).filter(|cookie| cookie.name() == name).find_map(|cookie| {
            let sealed = BASE64_URL_SAFE_NO_PAD.decode(cookie.value()).ok()?;
            serde_json::from_slice(&self.seal.open(name, &sealed)?).ok()
        })
    }

    fn set<T: Serialize>(&self, name: String, value: &T, max_age: Option<i64>) -> Option<HeaderValue> {
        let sealed = self.seal.close(&name, serde_json::to_vec(value).ok()?)?;
        let value = BASE64_URL_SAFE_NO_PAD.encode(sealed);
        if name.len() + value.len() > MAX_COOKIE {
            return None;
        }
        self.header(name, value, max_age)
    }

    fn remove(&self, name: String) -> HeaderValue {
        // The names are valid in headers.
        self.header(name, String::new(), Some(0)).unwrap_or(HeaderValue::from_static(""))
    }

    fn header(&self, name: String, value: String, max_age: Option<i64>) -> Option<HeaderValue> {
        // `Lax`, because the realm redirects the browser here.
        let mut cookie =
            Cookie::build((name, value)).path("/").http_only(true).secure(self.secure).same_site(SameSite::Lax).build();
        cookie.set_max_age(max_age.map(cookie::time::Duration::seconds));
        HeaderValue::try_from(cookie.to_string()).ok()
    }
}

/// All cookies of a request; invalid ones are skipped.
fn all(headers: &HeaderMap) -> impl Iterator<Item = Cookie<'_>> {
    let texts = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(Cookie::split_parse).filter_map(Result::ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str, client: &str, secret: &str) -> config::SignIn {
        config::SignIn {
            public_url: url.parse().unwrap(),
            client_id: client.to_owned(),
            client_secret: secret.into(),
            required_roles: vec![String::from("reader")],
        }
    }

    const ISSUER: &str = "https://idp.example.org/realms/cscs";

    fn cookies() -> Cookies {
        Cookies::new(&settings("https://storage.example.org", "dashboard", "0123456789abcdef"), ISSUER).unwrap()
    }

    fn session(refresh_token: &str) -> Session {
        Session {
            subject: String::from("f3a1"),
            username: String::from("ålice; \"x\""),
            missing: vec![String::from("reader")],
            valid_until: 17,
            refresh_token: refresh_token.to_owned(),
        }
    }

    /// The request of a browser with these cookies.
    fn sent(cookies: &[&HeaderValue]) -> HeaderMap {
        let pairs: Vec<_> = cookies.iter().map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap()).collect();
        HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(pairs.join("; ")).unwrap())])
    }

    #[test]
    fn a_session_is_encrypted_and_has_all_attributes() {
        let set = cookies().set_session(&session("secret")).unwrap();
        let text = set.to_str().unwrap();
        assert!(text.starts_with("__Host-hpc-storage-session=") && !text.contains("secret"), "{text}");
        let (_, attributes) = text.split_once("; ").unwrap();
        assert_eq!(attributes, "HttpOnly; SameSite=Lax; Secure; Path=/");
        assert_eq!(cookies().session(&sent(&[&set])), Some(session("secret")), "another replica reads it");
        assert_ne!(cookies().set_session(&session("secret")).unwrap(), set, "the nonce is random");
        let local = Cookies::new(&settings("http://localhost:8000", "dashboard", "0123456789abcdef"), ISSUER).unwrap();
        let text = local.set_session(&session("secret")).unwrap();
        assert!(
            !text.to_str().unwrap().contains("Secure") && text.to_str().unwrap().starts_with("hpc-storage-session=")
        );
    }

    #[test]
    fn forged_and_foreign_cookies_are_no_session() {
        let set = cookies().set_session(&session("secret")).unwrap();
        let text = set.to_str().unwrap().split(';').next().unwrap().to_owned();
        let begin = "__Host-hpc-storage-session=".len();
        for at in begin..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            // The last character has unused bits, which must be zero.
            let forged = HeaderValue::from_bytes(&forged).unwrap();
            assert_eq!(cookies().session(&sent(&[&forged])), None, "byte {at}");
        }
        for (url, client, secret, issuer) in [
            ("https://storage.example.org", "dashboard", "1123456789abcdef", ISSUER),
            ("https://storage.example.org", "other", "0123456789abcdef", ISSUER),
            ("https://storage.example.org", "dashboard", "0123456789abcdef", "https://idp.example.org/realms/other"),
            ("http://localhost", "dashboard", "0123456789abcdef", ISSUER),
        ] {
            let other = Cookies::new(&settings(url, client, secret), issuer).unwrap();
            assert_eq!(other.session(&sent(&[&set])), None, "{url} {client} {issuer}");
        }
        // A value that was sealed for another cookie.
        let state = SignInState { attempt: attempt(), to: String::from("/ui/"), began: 0 };
        let sign_in = cookies().set_sign_in("abc", &state).unwrap();
        let moved = sign_in.to_str().unwrap().replace("sign-in-abc", "session");
        assert_eq!(cookies().session(&sent(&[&HeaderValue::try_from(moved).unwrap()])), None);
        let moved = sign_in.to_str().unwrap().replace("sign-in-abc", "sign-in-abd");
        assert!(cookies().sign_in(&sent(&[&HeaderValue::try_from(moved).unwrap()]), "abd").is_none());
        assert!(cookies().sign_in(&sent(&[&sign_in]), "abc").is_some_and(|found| found == state));
    }

    fn attempt() -> Attempt {
        serde_json::from_str(r#"{"nonce": "n", "pkce_verifier": "p"}"#).unwrap()
    }

    #[test]
    fn a_forged_cookie_does_not_hide_a_genuine_one() {
        let set = cookies().set_session(&session("secret")).unwrap();
        let forged = HeaderValue::from_static("__Host-hpc-storage-session=AAAA");
        assert_eq!(cookies().session(&sent(&[&forged, &set])), Some(session("secret")));
        let mut two = sent(&[&forged]);
        two.extend(sent(&[&set]).into_iter().map(|(_, value)| (COOKIE, value)));
        assert_eq!(cookies().session(&two), Some(session("secret")));
    }

    #[test]
    fn a_cookie_that_browsers_would_drop_is_not_sent() {
        assert!(cookies().set_session(&session(&"x".repeat(2800))).is_some());
        assert!(cookies().set_session(&session(&"x".repeat(3100))).is_none());
    }

    #[test]
    fn old_sign_ins_make_room() {
        let state = || SignInState { attempt: attempt(), to: String::from("/ui/"), began: 0 };
        let many: Vec<_> =
            (0..10).map(|number| cookies().set_sign_in(&number.to_string(), &state()).unwrap()).collect();
        assert_eq!(cookies().make_room(&sent(&many[..7].iter().collect::<Vec<_>>())), Vec::<HeaderValue>::new());
        let removed = cookies().make_room(&sent(&many.iter().collect::<Vec<_>>()));
        let expected = ["0", "1", "2"].map(|state| cookies().remove_sign_in(state));
        assert_eq!(removed, expected);
        assert!(removed[0].to_str().unwrap().contains("Max-Age=0"));
    }
}
