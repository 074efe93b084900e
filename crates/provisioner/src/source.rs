//! The proxy and Waldur over HTTP: the document read, callbacks sent.
//!
//! Credentials go to their own origins alone: the Keycloak token to the proxy, the Waldur token to Waldur. A link that
//! leads elsewhere is refused, whatever document it stands in.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::{BlockingRetryable, ExponentialBuilder};
use provisioner_core::document::{self, Document};
use provisioner_core::last_order::SET_STATE_OK;
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{AGE, AUTHORIZATION, CACHE_CONTROL, ETAG, HeaderValue};
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::json;
use storage_driver::credential::CredentialGuard;
use token_response::Denied;
use tracing::{debug, warn};
use url::Url;
use uuid::Uuid;
use waldur_answers::TokenUser;

use crate::driver::DriverError;
use crate::pass::{Answer, Call};
use crate::settings::Settings;

/// The largest page that is read, in bytes: 500 items are some 1 MB.
const LARGEST_PAGE: u64 = 64 << 20;
/// The largest document that is read, in bytes: a million items.
const LARGEST_DOCUMENT: usize = 2 << 30;
/// The most pages that are read: ten million items.
const MOST_PAGES: usize = 20_000;
/// How many times as long as one exchange the reading of all pages may take.
const LONGEST_READING: u32 = 10;
/// How many times all pages are read, where they change meanwhile.
const MOST_READINGS: usize = 3;
/// Items a page: the most that the proxy gives.
const PAGE_SIZE: usize = 500;
/// Where the proxy relays callbacks, below its URL.
const RELAY: &str = "/api/callbacks/";
/// The largest answer to a callback that is read, in bytes.
const LARGEST_ANSWER: u64 = 1 << 20;
/// Why a Waldur without `set_state_ok` refuses it.
const NOT_THERE: &str = "this Waldur does not have this call";
/// The largest answer of the token endpoint that is read, in bytes.
const LARGEST_GRANT: u64 = 1 << 20;
/// A refused secret or token is tried again after this time, in case that the other side was at fault.
const PAUSE_WHEN_REFUSED: Duration = Duration::from_mins(15);

/// The proxy, and Waldur where callbacks go there.
#[derive(Debug)]
pub struct Source {
    http: Client,
    settings: Settings,
    /// Set, it ends what is being read.
    stop: Arc<AtomicBool>,
    token: Mutex<Option<Token>>,
    /// Whether the token endpoint refused the client.
    client: CredentialGuard,
    /// Whether Waldur refused its token.
    waldur: CredentialGuard,
}

/// One page of the document.
struct Page {
    body: Vec<u8>,
    age: Duration,
    /// Identifies what the proxy has read; `None` where the answer has no `ETag`.
    tag: Option<HeaderValue>,
}

/// A token for the proxy.
#[derive(Debug)]
struct Token {
    /// `Bearer …`, marked as sensitive.
    bearer: HeaderValue,
    /// When it was asked for.
    obtained: Instant,
    renew_at: Instant,
    expires_at: Instant,
}

/// Why a page or a token was not had.
enum Failure {
    /// It may be there the next time.
    Passing(DriverError),
    /// Asking again gives the same answer, and could lock an account.
    Lasting(DriverError),
}

impl Failure {
    fn of_status(status: StatusCode, fault: DriverError) -> Self {
        let passes =
            status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        if passes { Self::Passing(fault) } else { Self::Lasting(fault) }
    }

    fn fault(self) -> DriverError {
        match self {
            Self::Passing(fault) | Self::Lasting(fault) => fault,
        }
    }
}

/// What a request was authorized by.
enum Credential {
    /// The token for the proxy; `None` where the proxy serves without authentication.
    Bearer(Option<HeaderValue>),
    /// Waldur's token.
    Waldur,
}

/// Whose token a link gets.
enum Origin {
    Proxy,
    Waldur,
}

/// Why something could not be read from Waldur.
#[derive(Debug)]
pub enum WaldurFault {
    /// Callbacks fail as well: Waldur cannot be reached, or refuses the token.
    Unusable(String),
    /// Waldur shows no such object to the token's user (404).
    Missing(String),
    /// Waldur gives no readable answer. Callbacks may succeed all the same.
    Unreadable(String),
}

/// The part of a resource that says who may approve its orders.
#[derive(serde::Deserialize)]
struct Provided {
    offering_uuid: Option<Uuid>,
    provider_uuid: Option<Uuid>,
}

impl Source {
    /// A source by these settings.
    pub fn new(settings: &Settings, stop: &Arc<AtomicBool>) -> Result<Self, DriverError> {
        let http = Client::builder()
            .redirect(Policy::none())
            // Credentials go to their own origins, whatever the shell of the user who runs this says of proxies.
            .no_proxy()
            .timeout(settings.proxy.timeout)
            .user_agent(concat!("hpc-storage-provisioner/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                DriverError::passing("no HTTP client can be made: are the system's CA certificates installed?", error)
            })?;
        let guard = || CredentialGuard::lasting(PAUSE_WHEN_REFUSED);
        let (settings, stop) = (settings.clone(), Arc::clone(stop));
        Ok(Self { http, settings, stop, token: Mutex::new(None), client: guard(), waldur: guard() })
    }

    fn bounded(&self, response: Response, most: u64) -> Result<Vec<u8>, DriverError> {
        bounded(response, self.settings.proxy.timeout, most, &self.stop)
    }

    /// The whole document, for which the proxy reads Waldur now.
    pub fn read(&self) -> Result<Document, DriverError> {
        self.document(true)
    }

    /// The whole document as the proxy has it. [`Document::age`] says how old it is.
    pub fn newest(&self) -> Result<Document, DriverError> {
        self.document(false)
    }

    fn document(&self, fresh: bool) -> Result<Document, DriverError> {
        let until = Instant::now() + self.settings.proxy.timeout * LONGEST_READING;
        for _ in 0..MOST_READINGS {
            // Each time fresh again: behind one address, another replica of the proxy may have an older reading.
            if let Some(document) = self.whole(fresh, until)? {
                return Ok(document);
            }
        }
        Err(DriverError::unclear(format!(
            "the document changed while its pages were read, {MOST_READINGS} times (the `ETag` of its pages differs)"
        )))
    }

    /// The document from all its pages; `None` if they are not of one reading of the proxy.
    fn whole(&self, fresh: bool, until: Instant) -> Result<Option<Document>, DriverError> {
        let first = self.page(1, fresh)?;
        let mut bodies = vec![first.body];
        let pages = document::page_count(&bodies[0])
            .map_err(|error| DriverError::passing("the document cannot be read", error))?;
        if pages > MOST_PAGES {
            return Err(DriverError::unclear(format!(
                "the document has {pages} pages, more than the {MOST_PAGES} that are read"
            )));
        }
        for number in 2..=pages {
            let page = self.page(number, false)?;
            // The proxy gives all pages of one reading the same tag.
            if first.tag.as_ref().zip(page.tag.as_ref()).is_some_and(|(first, other)| first != other) {
                return Ok(None);
            }
            bodies.push(page.body);
            if Instant::now() > until {
                let (read, time) = (bodies.len(), (self.settings.proxy.timeout * LONGEST_READING).as_secs());
                return Err(DriverError::unclear(format!(
                    "only {read} of {pages} pages of the document came in {time} s"
                )));
            }
            if bodies.iter().map(Vec::len).sum::<usize>() > LARGEST_DOCUMENT {
                return Err(DriverError::unclear(format!("the document is larger than {LARGEST_DOCUMENT} bytes")));
            }
        }
        let document = document::parse(&bodies, self.settings.mock_identities)
            .map_err(|error| DriverError::passing("the document cannot be used", error))?;
        Ok(Some(Document { age: first.age, ..document }))
    }

    /// One page. Reading is repeated: it changes nothing.
    fn page(&self, page: usize, fresh: bool) -> Result<Page, DriverError> {
        let patience =
            ExponentialBuilder::default().with_min_delay(Duration::from_millis(200)).with_max_times(2).with_jitter();
        let may_pass = |failure: &Failure| matches!(failure, Failure::Passing(_)) && !self.stop.load(Ordering::Relaxed);
        let once = || self.page_once(page, fresh);
        once.retry(patience).sleep(std::thread::sleep).when(may_pass).call().map_err(Failure::fault)
    }

    fn page_once(&self, page: usize, fresh: bool) -> Result<Page, Failure> {
        let url =
            format!("{}/api/storage-resources/?page={page}&page_size={PAGE_SIZE}", base(&self.settings.proxy.url));
        let asked = Instant::now();
        let mut request = self.http.get(&url);
        // Only the first page asks for a new reading: the others come from the same.
        if fresh {
            request = request.header(CACHE_CONTROL, "no-cache");
        }
        let bearer = self.bearer()?;
        if let Some(bearer) = &bearer {
            request = request.header(AUTHORIZATION, bearer.clone());
        }
        let response =
            request.send().map_err(|error| Failure::Passing(unreachable(&self.settings.proxy.url, error)))?;
        let status = response.status();
        if !status.is_success() {
            let hint = match status {
                StatusCode::NOT_FOUND => " (is proxy.url the proxy's, without `/api`?)",
                StatusCode::UNAUTHORIZED if bearer.is_none() => {
                    " (give proxy.token_url, proxy.client_id and proxy.client_secret)"
                }
                _ => "",
            };
            let fault =
                DriverError::unclear(format!("the proxy answers {status} to {url}{hint}: {}", reason(response)));
            // An old token may have been revoked; a new one would be refused like the one before.
            let was_old =
                status == StatusCode::UNAUTHORIZED && bearer.is_some_and(|bearer| self.forget(&bearer, asked));
            return Err(if was_old { Failure::Passing(fault) } else { Failure::of_status(status, fault) });
        }
        let age = response.headers().get(AGE).and_then(|age| age.to_str().ok()?.parse().ok()).unwrap_or_default();
        let tag = response.headers().get(ETAG).cloned();
        let body = self.bounded(response, LARGEST_PAGE).map_err(Failure::Passing)?;
        Ok(Page { body, age: Duration::from_secs(age), tag })
    }

    /// Forgets a token that the proxy refused. Whether it was obtained before `asked`.
    fn forget(&self, refused: &HeaderValue, asked: Instant) -> bool {
        let mut held = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Some(token) if token.bearer == refused => {
                let is_old = token.obtained < asked;
                *held = None;
                is_old
            }
            // Another thread has forgotten or replaced it.
            _ => true,
        }
    }

    /// The value of the header for the proxy; `None` where there is no client.
    fn bearer(&self) -> Result<Option<HeaderValue>, Failure> {
        let proxy = &self.settings.proxy;
        let (Some(url), Some(id), Some(secret)) = (&proxy.token_url, &proxy.client_id, &proxy.client_secret) else {
            return Ok(None);
        };
        // Locked during the exchange: other threads wait for the same token, or the same refusal.
        let mut held = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = held.as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok(Some(token.bearer.clone()));
        }
        match self.grant(url, id, secret) {
            Ok(token) => Ok(Some(held.insert(token).bearer.clone())),
            Err(failure) => match held.as_ref().filter(|token| Instant::now() < token.expires_at) {
                Some(token) => {
                    let why = program::error_chain(&failure.fault());
                    warn!("the token for the proxy cannot be renewed and is used until it expires: {why}");
                    Ok(Some(token.bearer.clone()))
                }
                None => Err(failure),
            },
        }
    }

    /// A new token. A client that was refused is not sent again at once.
    fn grant(&self, url: &Url, id: &str, secret: &SecretString) -> Result<Token, Failure> {
        self.client.check().map_err(Failure::Lasting)?;
        let form = [("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret.expose_secret())];
        // The lifetime counts from before the request, so that the token never seems to live longer than it does.
        let obtained = Instant::now();
        let response = self
            .http
            .post(url.clone())
            .form(&form)
            .send()
            .map_err(|error| Failure::Passing(unreachable(url, error)))?;
        let status = response.status();
        let body = self.bounded(response, LARGEST_GRANT).map_err(Failure::Passing)?;
        let granted = token_response::read(status.as_u16(), &body).map_err(|denied| {
            let endpoint = format!("the token endpoint {}", public(url));
            let what = match &denied {
                Denied::Client(code) => format!(
                    "{endpoint} refuses the client ({code}): check proxy.client_id and proxy.client_secret, and that \
                     the identity provider allows this client the client credentials grant"
                ),
                Denied::Scope | Denied::Request(_) | Denied::NotJson { .. } | Denied::Unusable(_) => {
                    format!("{endpoint} gives no token: {denied}; check proxy.token_url")
                }
                Denied::Status(_) => format!("{endpoint} gives no token: {status}"),
            };
            if matches!(denied, Denied::Client(_)) {
                self.client.record(&*what);
            }
            Failure::of_status(status, DriverError::unclear(what))
        })?;
        let mut bearer =
            HeaderValue::from_str(&format!("Bearer {}", granted.access_token.expose_secret())).map_err(|_| {
                Failure::Lasting(DriverError::unclear("the token endpoint gives a token that fits into no header"))
            })?;
        bearer.set_sensitive(true);
        let (renew_at, expires_at) = (obtained + granted.renew_after(), obtained + granted.lifetime);
        Ok(Token { bearer, obtained, renew_at, expires_at })
    }

    /// Tells Waldur something, once: what came of a POST that was not answered shows in the document.
    pub fn call(&self, call: &Call) -> Answer {
        if !is_meant(call) {
            return Answer::Denied(not_meant(call));
        }
        let asked = Instant::now();
        let (request, credential) = match self.addressed(&call.link) {
            Ok(addressed) => addressed,
            Err(why) => return Answer::Denied(why),
        };
        let name = call.action;
        debug!(resource = %call.resource, action = name, "callback");
        let request = request.json(call.body.as_ref().unwrap_or(&json!({})));
        match request.send() {
            Err(error) => Answer::Unclear(format!("{name}: {}", program::error_chain(&error.without_url()))),
            Ok(response) if response.status().is_success() => match self.is_waldurs(response) {
                Ok(true) => Answer::Accepted,
                Ok(false) => Answer::Unclear(format!(
                    "{name} is answered by something that is not Waldur: is it in maintenance, or behind a login \
                         page?"
                )),
                Err(fault) => Answer::Unclear(format!("{name} is answered, but {}", program::error_chain(&fault))),
            },
            Ok(response) => match response.status().as_u16() {
                401 => {
                    self.refused(&credential, asked);
                    Answer::Denied(format!("{name} is refused (401): {}", reason(response)))
                }
                status @ 403 => Answer::Denied(format!("{name} is refused ({status}): {}", reason(response))),
                400 => Answer::Refused(reason(response)),
                404 if name == SET_STATE_OK => Answer::Refused(NOT_THERE.to_owned()),
                status @ 404 => Answer::Missing(format!("{name} is answered {status}: {}", reason(response))),
                status => Answer::Unclear(format!("{name} is answered {status}: {}", reason(response))),
            },
        }
    }

    /// Whether an answer is one that Waldur gives: JSON, or nothing at all. It is read to its end also when the program is
    /// told to stop: what Waldur has accepted must not look as if it had not.
    fn is_waldurs(&self, response: Response) -> Result<bool, DriverError> {
        let is_json = |text: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
        let text = bounded(response, self.settings.proxy.timeout, LARGEST_ANSWER, &AtomicBool::new(false))?;
        Ok(text.is_empty() || is_json(&text))
    }

    /// A POST to a link, with the credentials that belong to its origin, and those credentials.
    fn addressed(&self, link: &str) -> Result<(RequestBuilder, Credential), String> {
        let url = Url::parse(link).map_err(|_| "a link of the document is no URL".to_owned())?;
        let request = self.http.post(url.clone());
        match self.origin(&url)? {
            Origin::Proxy => {
                let bearer = self.bearer().map_err(|failure| program::error_chain(&failure.fault()))?;
                let request = bearer.iter().fold(request, |request, bearer| request.header(AUTHORIZATION, bearer));
                Ok((request, Credential::Bearer(bearer)))
            }
            Origin::Waldur => Ok((request.header(AUTHORIZATION, self.waldur_token()?), Credential::Waldur)),
        }
    }

    /// The value of the header for Waldur.
    fn waldur_token(&self) -> Result<HeaderValue, String> {
        self.waldur.check().map_err(|fault| program::error_chain(&fault))?;
        let token = self.settings.waldur.as_ref().map(|waldur| waldur.api_token.expose_secret()).unwrap_or_default();
        let mut value = HeaderValue::from_str(&format!("Token {token}")).map_err(|_| "waldur.api_token is no token")?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The user that Waldur's token belongs to.
    pub fn token_user(&self) -> Result<TokenUser, WaldurFault> {
        self.waldur_get("users/me/", &TokenUser::FIELDS)
    }

    /// The UUIDs of a resource's offering and of the organization that provides it; `None` where Waldur does not give them.
    pub fn offering(&self, resource: Uuid) -> Result<Option<(Uuid, Uuid)>, WaldurFault> {
        let path = format!("marketplace-provider-resources/{}/", resource.simple());
        let provided: Provided = self.waldur_get(&path, &["offering_uuid", "provider_uuid"])?;
        Ok(provided.offering_uuid.zip(provided.provider_uuid))
    }

    /// These fields of one object of Waldur's.
    fn waldur_get<T: DeserializeOwned>(&self, path: &str, fields: &[&str]) -> Result<T, WaldurFault> {
        use WaldurFault::{Missing, Unreadable, Unusable};
        let waldur = self.settings.waldur.as_ref();
        let waldur = waldur.ok_or_else(|| Unusable("set waldur.api_url and waldur.api_token".to_owned()))?;
        let url = format!("{}/{path}", base(&waldur.api_url));
        let fields: Vec<_> = fields.iter().map(|field| ("field", field)).collect();
        let token = self.waldur_token().map_err(Unusable)?;
        let asked = Instant::now();
        let response = self.http.get(&url).query(&fields).header(AUTHORIZATION, token).send();
        let response =
            response.map_err(|error| Unusable(program::error_chain(&unreachable(&waldur.api_url, error))))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => {
                self.refused(&Credential::Waldur, asked);
                let why = reason(response);
                return Err(Unusable(format!("Waldur refuses the token (401): {why}; check waldur.api_token")));
            }
            status => {
                let why = format!("Waldur answers {status} to {path}: {}", reason(response));
                return Err(if status == StatusCode::NOT_FOUND { Missing(why) } else { Unreadable(why) });
            }
        }
        let body = self.bounded(response, LARGEST_ANSWER).map_err(|fault| Unreadable(program::error_chain(&fault)))?;
        // The error of the parser could quote what the body holds.
        serde_json::from_slice(&body)
            .map_err(|_| Unreadable(format!("Waldur answers {path} with something that cannot be read")))
    }

    /// Records that a credential was refused (401), so that it is not sent again at once.
    fn refused(&self, credential: &Credential, asked: Instant) {
        match credential {
            Credential::Bearer(Some(bearer)) => _ = self.forget(bearer, asked),
            Credential::Bearer(None) => {}
            Credential::Waldur => self.waldur.record("Waldur refuses the token (401): check waldur.api_token"),
        }
    }

    /// Whether a call's link leads to that call, where there are credentials for it; why not.
    pub fn reaches(&self, call: &Call) -> Result<(), String> {
        if is_meant(call) { self.leads(&call.link) } else { Err(not_meant(call)) }
    }

    /// Whether a link of the document leads to Waldur itself, past the proxy.
    pub fn leads_to_waldur(&self, link: &str) -> bool {
        Url::parse(link).is_ok_and(|url| matches!(self.origin(&url), Ok(Origin::Waldur)))
    }

    /// Whether a link of the document leads to where there are credentials for it; why not.
    pub fn leads(&self, link: &str) -> Result<(), String> {
        self.addressed(link).map(|_| ())
    }

    fn origin(&self, link: &Url) -> Result<Origin, String> {
        let proxy = &self.settings.proxy;
        let below = |base: &Url, more: &str| {
            let path = format!("{}{more}", base.path().trim_end_matches('/'));
            link.origin() == base.origin() && link.path().starts_with(&path)
        };
        // The two may be at one origin: what the proxy relays is told by its place there.
        let relayed = |url: &Url| below(url, RELAY);
        if relayed(&proxy.url) || proxy.public_url.as_ref().is_some_and(relayed) {
            return Ok(Origin::Proxy);
        }
        match &self.settings.waldur {
            // A path that only begins alike is another one.
            Some(waldur) if below(&waldur.api_url, "/") => Ok(Origin::Waldur),
            Some(waldur) => Err(format!(
                "a link of the document leads to {}, neither to the proxy nor to waldur.api_url ({}): refused",
                link.origin().ascii_serialization(),
                public(&waldur.api_url)
            )),
            None => Err(format!(
                "a link of the document leads to {}, for which there is no token: set waldur.api_url and \
                 waldur.api_token, or have the proxy relay (`callbacks.relay`)",
                link.origin().ascii_serialization()
            )),
        }
    }

    /// Tells Waldur what a resource uses of a component.
    pub fn report_usage(&self, resource: Uuid, component: &str, amount: f64) -> Result<(), String> {
        let waldur = self.settings.waldur.as_ref().ok_or("set waldur.api_url and waldur.api_token")?;
        let url = format!("{}/marketplace-component-usages/set_usage/", base(&waldur.api_url));
        let body =
            json!({"resource": resource.simple().to_string(), "usages": [{"type": component, "amount": amount}]});
        let asked = Instant::now();
        let (request, credential) = self.addressed(&url)?;
        match request.json(&body).send() {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => {
                if response.status() == StatusCode::UNAUTHORIZED {
                    self.refused(&credential, asked);
                }
                Err(format!("Waldur answers {}: {}", response.status(), reason(response)))
            }
            Err(error) => Err(program::error_chain(&error.without_url())),
        }
    }
}

/// Whether a link leads to the call that it is given for, of this order or resource, directly or by the proxy's relay:
/// a document must not choose what a credential is used for.
fn is_meant(call: &Call) -> bool {
    let Ok(url) = Url::parse(&call.link) else { return false };
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return false;
    }
    // Such a path could lead out of the API: servers differ in how they read it.
    if url.path().contains(['%', ';']) || url.path().contains("//") {
        return false;
    }
    let (id, places) = match call.action {
        "set_backend_id" | SET_STATE_OK => (Some(call.resource), ["marketplace-provider-resources", "resources"]),
        _ => (call.order, ["marketplace-orders", "orders"]),
    };
    let mut parts = url.path().trim_end_matches('/').rsplit('/');
    let (action, named, place) = (parts.next(), parts.next(), parts.next());
    action == Some(call.action)
        && id.is_some()
        && named.and_then(|named| Uuid::try_parse(named).ok()) == id
        && place.is_some_and(|place| places.contains(&place))
}

fn not_meant(call: &Call) -> String {
    format!("the document's link for {} does not lead there: refused", call.action)
}

fn base(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

fn public(url: &Url) -> String {
    settings::check::public_part(url)
}

fn told_to_stop(stop: &AtomicBool) -> Result<(), DriverError> {
    if stop.load(Ordering::Relaxed) { Err(DriverError::Stopped("the answer was read".into())) } else { Ok(()) }
}

fn unreachable(url: &Url, error: reqwest::Error) -> DriverError {
    let remedy = "is the URL right, and does something answer there?";
    DriverError::passing(format!("{} cannot be asked: {remedy}", public(url)), error.without_url())
}

/// A whole body, within its bound and the deadline: a client's time-out alone begins anew with each byte.
fn bounded(mut response: Response, time: Duration, most: u64, stop: &AtomicBool) -> Result<Vec<u8>, DriverError> {
    let until = Instant::now() + time;
    let (mut body, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        told_to_stop(stop)?;
        let read = response.read(&mut piece).map_err(|error| DriverError::passing("the answer broke off", error))?;
        body.extend_from_slice(&piece[..read]);
        if read == 0 {
            return Ok(body);
        }
        if body.len() as u64 > most {
            return Err(DriverError::unclear(format!("the answer is larger than {most} bytes")));
        }
        if Instant::now() > until {
            return Err(DriverError::unclear(format!("the answer was not whole within {} s", time.as_secs())));
        }
    }
}

/// The reason that an answer gives.
fn reason(response: Response) -> String {
    let body = bounded(response, Duration::from_secs(10), 64 << 10, &AtomicBool::new(false)).unwrap_or_default();
    waldur_answers::reason(&body).unwrap_or_else(|| "it gives no reason".to_owned())
}

#[cfg(test)]
mod tests;
