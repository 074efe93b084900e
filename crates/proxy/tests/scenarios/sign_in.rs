//! Sign-in of operators to the dashboard, at the simulated realm.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use reqwest::header::{HeaderMap, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use serde_json::json;
use simulator::{Algorithm, Client, Fault, Signing, Simulator, TokenSpec, User, World};
use tempfile::TempDir;
use url::Url;

use crate::gate::{Certificates, Gate, Manner};
use crate::support::{Proxy, demo_with, start_with, until};

/// The URL under which browsers reach all replicas.
const PUBLIC: &str = "https://storage.example.org/below";
const SECRET: &str = "dashboard-secret-0123456789";
const SESSION: &str = "__Host-hpc-storage-session";
const TOKEN: &str = "POST /auth/realms/cscs/protocol/openid-connect/token";

const SETTINGS: [(&str, &str); 6] = [
    ("DISABLE_AUTH", "false"),
    ("DASHBOARD_ENABLED", "true"),
    ("DASHBOARD_PUBLIC_URL", PUBLIC),
    ("DASHBOARD_CLIENT_ID", "storage-dashboard"),
    ("DASHBOARD_CLIENT_SECRET", SECRET),
    ("DASHBOARD_REQUIRED_ROLES", "storage-reader"),
];

/// Keeps cookies and follows redirects, like a browser.
struct Browser {
    http: reqwest::Client,
    cookies: Mutex<BTreeMap<String, String>>,
}

/// An answer, and the URL in the address bar.
struct Page {
    status: u16,
    headers: HeaderMap,
    text: String,
    url: String,
}

impl Browser {
    fn new() -> Self {
        proxy::transport::install_tls_provider();
        let builder = reqwest::Client::builder().no_proxy().redirect(Policy::none());
        // The proxy has to verify certificates, not the browser.
        let http = builder.tls_danger_accept_invalid_certs(true).build().unwrap();
        Self { http, cookies: Mutex::default() }
    }

    /// Another window with the same cookies, which does not notice later changes.
    fn copy(&self) -> Self {
        let browser = Self::new();
        browser.cookies.lock().unwrap().clone_from(&self.cookies.lock().unwrap());
        browser
    }

    fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.lock().unwrap().get(name).cloned()
    }

    fn set_cookie(&self, name: &str, value: &str) {
        self.cookies.lock().unwrap().insert(name.to_owned(), value.to_owned());
    }

    /// Names of all cookies.
    fn names(&self) -> Vec<String> {
        self.cookies.lock().unwrap().keys().cloned().collect()
    }

    /// One request, to the proxy for URLs below [`PUBLIC`], else to the realm.
    async fn request(&self, proxy: &Proxy, method: &str, url: &str, headers: &[(&str, &str)]) -> Page {
        let below = url.strip_prefix(PUBLIC);
        let target = below.map_or_else(|| url.to_owned(), |path| format!("{}{path}", proxy.base));
        let mut request = self.http.request(method.parse().unwrap(), target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if below.is_some() {
            let cookies = self.cookies.lock().unwrap();
            let pairs: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            if !pairs.is_empty() {
                request = request.header("cookie", pairs.join("; "));
            }
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        for cookie in headers.get_all(SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            let (pair, attributes) = cookie.split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            assert!(cookie.len() <= 4096 && name.starts_with("__Host-"), "{cookie}");
            for attribute in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
                assert!(attributes.contains(attribute), "{cookie}");
            }
            let mut cookies = self.cookies.lock().unwrap();
            if attributes.contains("Max-Age=0") {
                cookies.remove(name)
            } else {
                cookies.insert(name.into(), value.into())
            };
        }
        let text = response.text().await.unwrap();
        Page { status, headers, text, url: url.to_owned() }
    }

    /// A page of the proxy, without following redirects.
    async fn get(&self, proxy: &Proxy, path: &str) -> Page {
        self.request(proxy, "GET", &format!("{PUBLIC}{path}"), &[]).await
    }

    /// Opens a page and follows redirects.
    async fn open(&self, proxy: &Proxy, path: &str) -> Page {
        self.follow(proxy, &format!("{PUBLIC}{path}")).await
    }

    async fn follow(&self, proxy: &Proxy, url: &str) -> Page {
        let mut page = self.request(proxy, "GET", url, &[]).await;
        for _ in 0..10 {
            let Some(next) = page.next() else { return page };
            page = self.request(proxy, "GET", &next, &[]).await;
        }
        panic!("redirected in a circle, at last to {}", page.url);
    }

    /// Goes on until the realm redirects to the callback; returns that URL.
    async fn until_callback(&self, proxy: &Proxy, path: &str) -> String {
        let mut page = self.get(proxy, path).await;
        loop {
            let next = page.next().unwrap_or_else(|| panic!("{} {}", page.status, page.text));
            if next.contains("/ui/callback?") {
                return next;
            }
            page = self.request(proxy, "GET", &next, &[]).await;
        }
    }

    async fn sign_out(&self, proxy: &Proxy, headers: &[(&str, &str)]) -> Page {
        self.request(proxy, "POST", &format!("{PUBLIC}/ui/logout"), headers).await
    }
}

impl Page {
    /// Where a browser goes next.
    fn next(&self) -> Option<String> {
        let location = self.headers.get(LOCATION).map(|to| to.to_str().unwrap());
        let refresh = self.headers.get("refresh").map(|to| to.to_str().unwrap().strip_prefix("0; url=").unwrap());
        let to = location.or(refresh)?;
        Some(Url::parse(&self.url).unwrap().join(to).unwrap().to_string())
    }

    /// Asserts that this is a complete page with this status and these words.
    #[track_caller]
    fn assert_says(&self, status: u16, words: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        assert!(self.text.starts_with("<!DOCTYPE html>") && self.text.contains(words), "{words:?} in {}", self.text);
        let policy = self.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
        assert_eq!(self.headers["cache-control"], "no-store");
    }

    /// Asserts that the page needs a sign-in.
    #[track_caller]
    fn assert_sends_to_login(&self) {
        assert_eq!(self.status, 303, "{}", self.text);
        assert!(
            self.headers[LOCATION].to_str().unwrap().starts_with("/below/ui/login?to=%2Fui%2F"),
            "{:?}",
            self.headers
        );
    }
}

async fn site() -> (Simulator, Proxy) {
    demo_with(&SETTINGS).await
}

/// A browser with a session.
async fn signed_in(proxy: &Proxy) -> Browser {
    let browser = Browser::new();
    browser.open(proxy, "/ui/").await.assert_says(200, "operator");
    browser
}

/// Makes access tokens expire at once, so that each request refreshes the session.
fn expire_at_once(simulator: &Simulator) {
    simulator.realm().register(Client::new("storage-dashboard", SECRET).redirect_uri("https*").lifetime(0));
}

/// Number of codes and refresh tokens that the realm received.
fn sign_in_requests(simulator: &Simulator) -> usize {
    let is_ours = |body: &str| body.contains("client_id=storage-dashboard");
    simulator.requests().iter().filter(|request| request.path.ends_with("/token") && is_ours(&request.body)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_signs_in_and_out() {
    let (simulator, proxy) = site().await;
    let browser = Browser::new();
    browser.get(&proxy, "/ui/?q=a%20b").await.assert_sends_to_login();
    let callback = browser.until_callback(&proxy, "/ui/?q=a%20b").await;
    let page = browser.follow(&proxy, &callback).await;
    page.assert_says(200, "operator");
    assert_eq!(page.url, format!("{PUBLIC}/ui/?q=a%20b"));
    assert_eq!(browser.names(), [SESSION], "the cookie of the sign-in is removed");

    let asked = simulator.requests().into_iter().find(|request| request.path.ends_with("/auth")).unwrap();
    let query: BTreeMap<_, _> = asked.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(query["redirect_uri"], format!("{PUBLIC}/ui/callback"));
    assert_eq!((query["response_type"], query["code_challenge_method"]), ("code", "S256"));
    assert_eq!(query["scope"], "openid profile");
    assert!(query["state"].len() >= 22 && query["nonce"].len() >= 22 && query["code_challenge"].len() == 43);

    // Nobody else's form signs out.
    for headers in [
        &[("origin", "https://evil.example.org")][..],
        &[("origin", "null")],
        &[("origin", "https://storage.example.org"), ("sec-fetch-site", "cross-site")],
        &[],
    ] {
        browser.sign_out(&proxy, headers).await.assert_says(403, "Not signed out");
    }
    let page = browser.get(&proxy, "/ui/logout").await;
    page.assert_says(405, "Sign out");
    assert_eq!(page.headers["allow"], "POST");
    assert_eq!((browser.get(&proxy, "/ui/").await.status, simulator.realm().sessions()), (200, 1));

    let stolen = browser.copy();
    let page =
        browser.sign_out(&proxy, &[("origin", "https://storage.example.org"), ("sec-fetch-site", "same-origin")]).await;
    page.assert_says(200, "You are signed out here and at the identity provider.");
    assert_eq!((simulator.realm().sessions(), browser.names()), (0, Vec::<String>::new()));
    browser.get(&proxy, "/ui/").await.assert_sends_to_login();
    // A copied cookie is worth something only until the realm is asked again.
    assert_eq!(stolen.get(&proxy, "/ui/").await.status, 200);

    let log = proxy.log();
    assert!(log.contains("an operator signed in") && log.contains("an operator signed out"), "{log}");
    assert!(log.contains("caller=\"operator\""), "{log}");
    let code = Url::parse(&callback).unwrap().query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    for secret in [SECRET, &code, query["state"], query["nonce"], "eyJ"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_without_a_session_are_not_shown() {
    let (simulator, proxy) = site().await;
    let browser = Browser::new();
    for (method, path, status) in
        [("HEAD", "/ui/", 303), ("POST", "/ui/", 405), ("GET", "/ui", 308), ("GET", "/ui/nowhere", 404)]
    {
        assert_eq!(
            browser.request(&proxy, method, &format!("{PUBLIC}{path}"), &[]).await.status,
            status,
            "{method} {path}"
        );
    }
    // Reverse proxies refuse large headers of answers.
    for (path, to) in [
        (format!("/ui/changes?system={}", "a".repeat(30_000)), "%2Fui%2Fchanges"),
        (format!("/ui/resources/{}", "a".repeat(30_000)), ""),
    ] {
        let page = browser.get(&proxy, &path).await;
        assert_eq!(page.headers[LOCATION], format!("/below/ui/login?to={to}"));
    }
    // Tokens are for programs, which use the API.
    let token = simulator.realm().mint(&TokenSpec::user("alice").role("storage-reader"));
    let bearer = format!("Bearer {token}");
    let page = browser.request(&proxy, "GET", &format!("{PUBLIC}/ui/"), &[("authorization", &bearer)]).await;
    page.assert_sends_to_login();
    // Forged and foreign cookies.
    let other =
        start_with(&simulator, &[&SETTINGS[..], &[("DASHBOARD_CLIENT_SECRET", "another-secret-0123456789")]].concat())
            .await;
    simulator.realm().register(Client::new("storage-dashboard", "another-secret-0123456789").redirect_uri("https*"));
    let foreign = signed_in(&other).await.cookie(SESSION).unwrap();
    let mut forged = foreign.clone().into_bytes();
    forged[40] ^= 1;
    for value in ["", "x", "{}", &foreign, &String::from_utf8(forged).unwrap(), &"A".repeat(4000), token.as_str()] {
        browser.set_cookie(SESSION, value);
        browser.get(&proxy, "/ui/").await.assert_sends_to_login();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_is_completed_once_and_by_the_browser_that_began_it() {
    let (simulator, proxy) = site().await;
    let (victim, attacker) = (Browser::new(), Browser::new());
    let callback = attacker.until_callback(&proxy, "/ui/").await;
    // Otherwise the victim would use the attacker's account.
    victim.follow(&proxy, &callback).await.assert_says(400, "This browser did not begin this sign-in");
    let other = victim.until_callback(&proxy, "/ui/").await;
    let wrong_state = with(&other, "state", &parameter(&callback, "state"));
    victim.follow(&proxy, &wrong_state).await.assert_says(400, "did not begin");
    assert_eq!(sign_in_requests(&simulator), 0, "no code was sent");
    // A code of another sign-in fails for its PKCE challenge.
    let mixed = with(&other, "code", &parameter(&callback, "code"));
    victim.follow(&proxy, &mixed).await.assert_says(400, "The realm does not accept this sign-in");
    assert!(victim.cookie(SESSION).is_none());

    let callback = victim.until_callback(&proxy, "/ui/").await;
    let before_use = victim.copy();
    victim.follow(&proxy, &callback).await.assert_says(200, "operator");
    let sent = sign_in_requests(&simulator);
    // The button "back".
    assert_eq!(victim.follow(&proxy, &callback).await.url, format!("{PUBLIC}/ui/"));
    assert_eq!(sign_in_requests(&simulator), sent, "the code was not sent again");
    // With the cookie of the sign-in, the realm detects it.
    before_use.follow(&proxy, &callback).await.assert_says(400, "The realm does not accept this sign-in");

    for (name, wrong, words) in [
        ("iss", "https://evil.example.org/realms/cscs", "another identity provider"),
        ("code", "", "incomplete"),
        ("state", "", "did not begin"),
        ("state", "a;b=c\u{7f}", "did not begin"),
    ] {
        let callback = attacker.until_callback(&proxy, "/ui/").await;
        attacker.follow(&proxy, &with(&callback, name, wrong)).await.assert_says(400, words);
        assert!(attacker.cookie(SESSION).is_none(), "{name}={wrong}");
    }
    attacker.get(&proxy, "/ui/callback").await.assert_says(400, "did not begin");
}

/// The URL with another value of this parameter.
fn with(url: &str, name: &str, value: &str) -> String {
    let mut url = Url::parse(url).unwrap();
    let pairs: Vec<_> = url.query_pairs().into_owned().filter(|(key, _)| key != name).collect();
    url.query_pairs_mut().clear().extend_pairs(pairs).append_pair(name, value);
    url.to_string()
}

fn parameter(url: &str, name: &str) -> String {
    Url::parse(url).unwrap().query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tabs_sign_in_at_once() {
    let (_simulator, proxy) = site().await;
    let browser = Browser::new();
    let mut callbacks = Vec::new();
    for tab in 0..8 {
        callbacks.push((tab, browser.until_callback(&proxy, &format!("/ui/?tab={tab}")).await));
    }
    for (tab, callback) in callbacks {
        let page = browser.follow(&proxy, &callback).await;
        page.assert_says(200, "operator");
        assert_eq!(page.url, format!("{PUBLIC}/ui/?tab={tab}"));
    }
    assert_eq!(browser.names(), [SESSION]);
    // Abandoned sign-ins do not accumulate.
    let browser = Browser::new();
    for _ in 0..20 {
        browser.until_callback(&proxy, "/ui/").await;
    }
    assert_eq!(browser.names().len(), 8, "{:?}", browser.names());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_leads_to_pages_only() {
    let (_simulator, proxy) = site().await;
    let session = signed_in(&proxy).await;
    for to in [
        "https://evil.example.org/ui/",
        "//evil.example.org/ui/",
        "/\\evil.example.org/ui/",
        "/ui/../../evil",
        "/ui/%2e%2e/%2e%2e/evil",
        "javascript:alert(1)",
        "/ui/logout",
        "/api/storage-resources/",
        "/ui/\r\nset-cookie: a=b",
    ] {
        let to: String = url::form_urlencoded::byte_serialize(to.as_bytes()).collect();
        for browser in [Browser::new(), session.copy()] {
            let page = browser.open(&proxy, &format!("/ui/login?to={to}")).await;
            page.assert_says(200, "operator");
            assert_eq!(page.url, format!("{PUBLIC}/ui/"), "{to}");
        }
    }
}

/// Tokens of `alice` for the sign-in that began last.
fn tokens(simulator: &Simulator) -> (TokenSpec, TokenSpec) {
    let asked = simulator.requests().into_iter().rfind(|request| request.path.ends_with("/auth")).unwrap();
    let nonce = asked.query_all("nonce")[0].to_owned();
    let person = || TokenSpec::user("alice").claim("azp", "storage-dashboard");
    let id = person().claim("typ", "ID").audience("storage-dashboard").claim("nonce", nonce);
    (person().role("storage-reader"), id)
}

/// Answers the next request for tokens with these, without one member.
fn answer_with(simulator: &Simulator, access: &TokenSpec, id: &TokenSpec, without: &str) {
    let mut body = json!({
        "access_token": simulator.realm().mint(access), "expires_in": 300, "refresh_token": "r", "token_type": "Bearer",
        "id_token": simulator.realm().mint(id),
    });
    body.as_object_mut().unwrap().remove(without);
    simulator.set_fault_times(TOKEN, Fault::ok("application/json", &body.to_string()), 1);
}

/// The last line of the log about a failed sign-in.
fn failure(proxy: &Proxy) -> String {
    proxy.log().lines().rfind(|line| line.contains("cannot sign in")).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_do_not_belong_to_the_sign_in_are_refused() {
    type Change = fn(TokenSpec) -> TokenSpec;
    let (simulator, proxy) = site().await;
    let same: Change = |spec| spec;
    let of_id: [(&str, Change); 14] = [
        ("`nonce` is not the one of this sign-in", |spec| spec.claim("nonce", "other")),
        ("`nonce` is not the one of this sign-in", |spec| spec.without("nonce")),
        ("`aud` must contain `storage-dashboard`", |spec| spec.audience("other")),
        ("`aud` must contain `storage-dashboard`", |spec| spec.without("aud")),
        ("`azp` is not the client of this sign-in", |spec| spec.claim("azp", "other")),
        ("`azp` is not the client of this sign-in", |spec| {
            spec.claim("aud", json!(["storage-dashboard", "other"])).without("azp")
        }),
        ("was issued by", |spec| spec.claim("iss", "https://evil.example.org")),
        ("the token expired", |spec| spec.lifetime(-60)),
        ("an ID token has the type `ID`", |spec| spec.claim("typ", "Bearer")),
        ("does not publish", |spec| spec.signed(Signing::Foreign(Algorithm::RS256))),
        ("algorithm", |spec| spec.signed(Signing::Nothing)),
        ("algorithm", |spec| spec.signed(Signing::PublicKeyAsSecret)),
        ("`preferred_username`", |spec| spec.without("preferred_username")),
        ("`sub`", |spec| spec.without("sub")),
    ];
    let of_access: [(&str, Change); 5] = [
        ("an access token has the type `Bearer`", |spec| spec.claim("typ", "ID")),
        ("`azp` is not the client", |spec| spec.claim("azp", "other")),
        ("`sub` is not the one of the ID token", |spec| spec.claim("sub", "other")),
        ("does not publish", |spec| spec.signed(Signing::Foreign(Algorithm::RS256))),
        ("the token expired", |spec| spec.lifetime(-60)),
    ];
    let cases = of_id.map(|(reason, change)| (reason, same, change)).into_iter();
    let cases = cases.chain(of_access.map(|(reason, change)| (reason, change, same)));
    for (number, (reason, change_access, change_id)) in cases.enumerate() {
        let browser = Browser::new();
        let callback = browser.until_callback(&proxy, "/ui/").await;
        let (access, id) = tokens(&simulator);
        answer_with(&simulator, &change_access(access), &change_id(id), "");
        let page = browser.follow(&proxy, &callback).await;
        page.assert_says(502, "do not understand each other");
        assert!(!page.text.contains(reason), "details are for the log: {}", page.text);
        assert!(browser.cookie(SESSION).is_none(), "{number}: {reason}");
        assert!(failure(&proxy).contains(reason), "{number}: {reason}: {}", failure(&proxy));
    }
    for (missing, reason) in
        [("id_token", "id_token"), ("refresh_token", "refresh_token"), ("access_token", "token endpoint")]
    {
        let browser = Browser::new();
        let callback = browser.until_callback(&proxy, "/ui/").await;
        let (access, id) = tokens(&simulator);
        answer_with(&simulator, &access, &id, missing);
        browser.follow(&proxy, &callback).await.assert_says(502, "Sign-in failed");
        let line = failure(&proxy);
        assert!(line.contains(reason) && !line.contains("eyJ"), "{missing}: {line}");
    }
    // The tokens from which all of these differ.
    let browser = Browser::new();
    let callback = browser.until_callback(&proxy, "/ui/").await;
    let (access, id) = tokens(&simulator);
    answer_with(&simulator, &access, &id, "");
    browser.follow(&proxy, &callback).await.assert_says(200, "alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_role_the_page_names_it() {
    let (simulator, proxy) = site().await;
    simulator.realm().register_user(User::new("visitor<b>", &[]));
    simulator.realm().sign_in_as(Some("visitor<b>"));
    let browser = Browser::new();
    let page = browser.open(&proxy, "/ui/").await;
    page.assert_says(403, "<code>storage-reader</code>");
    assert!(page.text.contains("Sign out") && page.text.contains("visitor&lt;b&gt;"), "{}", page.text);
    // Granted later.
    simulator.realm().register_user(User::new("visitor<b>", &["storage-reader"]));
    browser.open(&proxy, "/ui/").await.assert_says(403, "Check again");
    browser.open(&proxy, "/ui/login?to=/ui/").await.assert_says(200, "visitor&lt;b&gt;");
    // Another person signs in after signing out.
    browser.sign_out(&proxy, &[("origin", "https://storage.example.org")]).await.assert_says(200, "Signed out");
    simulator.realm().sign_in_as(Some("operator"));
    browser.open(&proxy, "/ui/").await.assert_says(200, "operator");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_with_the_realm() {
    let (simulator, proxy) = site().await;
    expire_at_once(&simulator);
    let browser = signed_in(&proxy).await;
    let before = browser.cookie(SESSION);
    assert_eq!(browser.get(&proxy, "/ui/").await.status, 200);
    assert_ne!(browser.cookie(SESSION), before, "the session is refreshed without a redirect");
    // The role is removed, and granted again.
    simulator.realm().register_user(User::new("operator", &[]));
    browser.get(&proxy, "/ui/").await.assert_says(403, "storage-reader");
    simulator.realm().register_user(User::new("operator", &["storage-reader"]));
    assert_eq!(browser.get(&proxy, "/ui/").await.status, 200);
    // An administrator signs everybody out; the realm signs in again without questions.
    simulator.realm().end_sessions();
    let page = browser.get(&proxy, "/ui/?q=1").await;
    page.assert_sends_to_login();
    assert!(browser.cookie(SESSION).is_none());
    assert_eq!(browser.open(&proxy, "/ui/?q=1").await.url, format!("{PUBLIC}/ui/?q=1"));
    // The user is disabled.
    simulator.realm().register_user(User { enabled: false, ..User::new("operator", &["storage-reader"]) });
    browser.open(&proxy, "/ui/").await.assert_says(403, "cancelled, or the identity provider refused it");
    assert_eq!(browser.names(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tabs_share_one_refresh() {
    let (simulator, proxy) = site().await;
    expire_at_once(&simulator);
    simulator.realm().use_refresh_tokens_once(true);
    let browser = signed_in(&proxy).await;
    for _ in 0..3 {
        let before = sign_in_requests(&simulator);
        let tabs: Vec<_> = (0..8).map(|_| browser.copy()).collect();
        let pages = join_all(tabs.iter().map(|tab| tab.get(&proxy, "/ui/"))).await;
        for page in pages {
            page.assert_says(200, "operator");
        }
        assert_eq!(sign_in_requests(&simulator), before + 1);
        browser.set_cookie(SESSION, &tabs[0].cookie(SESSION).unwrap());
    }
    assert_eq!(simulator.realm().sessions(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realm_that_is_away_does_not_end_sessions() {
    let (mut simulator, proxy) = site().await;
    let fresh = signed_in(&proxy).await;
    expire_at_once(&simulator);
    let browser = signed_in(&proxy).await;
    let session = browser.cookie(SESSION);
    for fault in [Fault::status(503), Fault::Reset, Fault::not_json(), Fault::wrong_type()] {
        simulator.set_fault_times(TOKEN, fault, 1);
        let page = browser.get(&proxy, "/ui/").await;
        page.assert_says(502, "The identity provider cannot be reached");
        assert_eq!(page.headers["retry-after"], "60");
    }
    simulator.stop();
    browser.get(&proxy, "/ui/").await.assert_says(502, "The identity provider cannot be reached");
    fresh.get(&proxy, "/ui/").await.assert_says(200, "operator");
    assert_eq!(browser.cookie(SESSION), session);
    // Signing out works here.
    let leaving = fresh.copy();
    let page = leaving.sign_out(&proxy, &[("origin", "https://storage.example.org")]).await;
    page.assert_says(200, "you may still be signed in there");
    let link = "/protocol/openid-connect/logout?client_id=storage-dashboard&amp;post_logout_redirect_uri=";
    assert!(page.text.contains(link), "{}", page.text);
    assert_eq!(leaving.names(), Vec::<String>::new());
    // Without keys nobody can begin.
    let cold = start_with(&simulator, &SETTINGS).await;
    Browser::new().open(&cold, "/ui/").await.assert_says(502, "The identity provider cannot be reached");
    simulator.restart().unwrap();
    until("the breaker closes", async || browser.get(&proxy, "/ui/").await.status == 200).await;
}

/// The number of sign-ins with this outcome.
async fn counted(proxy: &Proxy, outcome: &str) -> usize {
    let start = format!("hpc_storage_proxy_sign_ins_total{{outcome=\"{outcome}\"}} ");
    let metrics = proxy.get("/metrics").await.text;
    metrics.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
}

/// `docs/faults.md` lists these faults.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_fails_is_a_page_and_the_next_sign_in_works() {
    let (certificates, directory) = (Arc::new(Certificates::new()), TempDir::new().unwrap());
    let simulator = Simulator::start(World::empty()).await;
    let gate = Gate::start(simulator.address(), &certificates).await;
    let (realm, trusted) = (format!("https://{}", gate.address()), directory.path().join("ca.pem"));
    certificates.write(&trusted);
    simulator.realm().set_base(&realm);
    let realm = format!("{realm}/auth/");
    let more = [("CSCS_KEYCLOAK_URL", realm.as_str()), ("SSL_CERT_FILE", trusted.to_str().unwrap())];
    let proxy = start_with(&simulator, &[&SETTINGS[..], &more].concat()).await;
    let in_time = "no complete answer in time";
    let ended = "the connection ended before the answer was complete";
    let (mut unavailable, mut successes) = (0, 0);
    for (manner, fault, reason) in [
        (Manner::Shut, None, "cannot connect"),
        (Manner::Untrusted, None, "cannot connect"),
        (Manner::Open, Some(Fault::Silence), in_time),
        (Manner::Open, Some(Fault::Dribble { millis: 1000 }), in_time),
        (Manner::Open, Some(Fault::CutOff { after: 5 }), ended),
        (Manner::Open, Some(Fault::Reset), ended),
        (Manner::Open, Some(Fault::status(500)), "it answered 500"),
        (Manner::Open, Some(Fault::status(502)), "it answered 502"),
        (Manner::Open, Some(Fault::status(503)), "it answered 503"),
        (Manner::Open, Some(Fault::retry_after(429, 1)), "it answered 429"),
        (Manner::Open, Some(Fault::status(403)), "invalid answer"),
        (Manner::Open, Some(Fault::not_json()), "invalid answer"),
        (Manner::Open, Some(Fault::wrong_type()), "invalid answer"),
        (Manner::Open, Some(Fault::EndlessBody), "larger than"),
        (Manner::Open, Some(Fault::redirect("https://evil.example.org/")), "it redirects to"),
    ] {
        let browser = Browser::new();
        let callback = browser.until_callback(&proxy, "/ui/").await;
        gate.set(manner).await;
        if let Some(fault) = fault {
            simulator.set_fault(TOKEN, fault);
        }
        let page = browser.follow(&proxy, &callback).await;
        page.assert_says(502, "The identity provider cannot be reached. Try again in a minute.");
        assert!(page.text.contains("Sign in again"), "{}", page.text);
        assert_eq!(page.headers["retry-after"], "60");
        assert_eq!(browser.names(), Vec::<String>::new());
        assert!(failure(&proxy).contains(reason), "{reason}: {}", failure(&proxy));
        unavailable += 1;
        simulator.clear_faults();
        gate.set(Manner::Open).await;
        until("the next sign-in works", async || {
            let works = browser.open(&proxy, "/ui/").await.status == 200;
            *(if works { &mut successes } else { &mut unavailable }) += 1;
            works
        })
        .await;
    }
    assert_eq!(counted(&proxy, "unavailable").await, unavailable);
    // A slow answer is no failure.
    simulator.set_fault(TOKEN, Fault::delay(Duration::from_secs(1)));
    Browser::new().open(&proxy, "/ui/").await.assert_says(200, "operator");
    assert_eq!(counted(&proxy, "success").await, successes + 1);
    let log = proxy.log();
    for secret in [SECRET, "simulated fault", "maintenance", "eyJ"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

/// Without a token, nobody can use up the requests that the API needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_realm_and_many_sign_ins_do_not_block_the_api() {
    let (simulator, proxy) = demo_with(&[&SETTINGS[..], &[("SERVER_MAX_REQUESTS", "40")]].concat()).await;
    simulator.set_fault(TOKEN, Fault::delay(Duration::from_secs(3)));
    let mut callbacks = Vec::new();
    for _ in 0..40 {
        let browser = Browser::new();
        callbacks.push((browser.until_callback(&proxy, "/ui/").await, browser));
    }
    let completing = join_all(callbacks.iter().map(|(callback, browser)| async {
        let page = browser.request(&proxy, "GET", callback, &[]).await;
        if page.status == 503 {
            page.assert_says(503, "too many sign-ins at the moment");
        }
        page.status
    }));
    let api = async {
        until("the realm has them", async || sign_in_requests(&simulator) == 32).await;
        proxy.list("").await.status
    };
    let (statuses, api) = futures::join!(completing, api);
    assert_eq!(api, 401);
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 8, "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_ins_are_counted_by_outcome() {
    let (simulator, proxy) = site().await;
    let outcomes = ["success", "forbidden", "declined", "invalid", "unavailable", "misconfigured"];
    for outcome in outcomes {
        assert_eq!(counted(&proxy, outcome).await, 0, "{outcome}");
    }
    signed_in(&proxy).await;
    let callback = Browser::new().until_callback(&proxy, "/ui/").await;
    Browser::new().follow(&proxy, &callback).await.assert_says(400, "did not begin");
    simulator.realm().sign_in_as(None);
    Browser::new().open(&proxy, "/ui/").await.assert_says(403, "cancelled");
    simulator.realm().register_user(User::new("visitor", &[]));
    simulator.realm().sign_in_as(Some("visitor"));
    Browser::new().open(&proxy, "/ui/").await.assert_says(403, "You lack a role");
    simulator.set_fault_times(TOKEN, Fault::status(500), 1);
    Browser::new().open(&proxy, "/ui/").await.assert_says(502, "cannot be reached");
    simulator.realm().register(Client::new("storage-dashboard", "changed-0123456789").redirect_uri("https*"));
    Browser::new().open(&proxy, "/ui/").await.assert_says(502, "do not understand each other");
    for outcome in outcomes {
        assert_eq!(counted(&proxy, outcome).await, 1, "{outcome}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_realm_are_pages() {
    let (simulator, proxy) = site().await;
    let browser = Browser::new();
    simulator.realm().sign_in_as(None);
    browser.open(&proxy, "/ui/").await.assert_says(403, "cancelled, or the identity provider refused it");
    simulator.realm().sign_in_as(Some("operator"));
    for (code, words) in [
        ("temporarily_unavailable", "has a problem"),
        ("server_error", "has a problem"),
        ("invalid_scope", "invalid_scope"),
        ("<script>alert(1)</script>", "scriptalert1script"),
    ] {
        let callback = browser.until_callback(&proxy, "/ui/").await;
        let page = browser.follow(&proxy, &with(&callback, "error", code)).await;
        page.assert_says(502, words);
        assert!(page.text.contains("Sign in again") && !page.text.contains("<script>"), "{}", page.text);
    }
    // Settings that do not fit together.
    simulator.realm().register(Client::new("storage-dashboard", "changed-0123456789").redirect_uri("https*"));
    browser.open(&proxy, "/ui/").await.assert_says(502, "do not understand each other");
    let log = proxy.log();
    assert!(
        log.contains("unauthorized_client") && log.contains("check dashboard.client_id (DASHBOARD_CLIENT_ID)"),
        "{log}"
    );
    assert!(!log.contains(SECRET), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_survive_replicas_restarts_and_new_keys() {
    let (simulator, first) = site().await;
    let second = start_with(&simulator, &SETTINGS).await;
    // Begun at one replica, completed at the other.
    let browser = Browser::new();
    let callback = browser.until_callback(&first, "/ui/").await;
    browser.follow(&second, &callback).await.assert_says(200, "operator");
    browser.get(&first, "/ui/").await.assert_says(200, "operator");
    drop((first, second));
    let third = start_with(&simulator, &SETTINGS).await;
    browser.get(&third, "/ui/").await.assert_says(200, "operator");
    expire_at_once(&simulator);
    let browser = signed_in(&third).await;
    simulator.realm().rotate(false).unwrap();
    browser.get(&third, "/ui/").await.assert_says(200, "operator");
}

#[tokio::test(flavor = "multi_thread")]
async fn lightweight_tokens_need_introspection() {
    let simulator = Simulator::start(World::empty()).await;
    let client = Client::new("storage-dashboard", SECRET).redirect_uri("https*").audience("hpc-storage-proxy");
    simulator.realm().register(client.lightweight());
    let plain = start_with(&simulator, &SETTINGS).await;
    Browser::new().open(&plain, "/ui/").await.assert_says(403, "storage-reader");
    let introspection = [
        ("CSCS_KEYCLOAK_INTROSPECTION", "true"),
        ("CSCS_KEYCLOAK_CLIENT_ID", "hpc-storage-proxy"),
        ("CSCS_KEYCLOAK_CLIENT_SECRET", "proxy-secret"),
    ];
    let proxy = start_with(&simulator, &[&SETTINGS[..], &introspection].concat()).await;
    signed_in(&proxy).await;
}
