//! The proxy and Waldur over HTTP: the document read, callbacks sent.
//!
//! Credentials go to their own origins alone: the Keycloak token to the proxy, the Waldur token to Waldur. A link that
//! leads elsewhere is refused, whatever document it stands in.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::{BlockingRetryable, ExponentialBuilder};
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{AUTHORIZATION, CACHE_CONTROL, HeaderValue};
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use tracing::debug;
use url::Url;
use uuid::Uuid;

use crate::document::{self, Document};
use crate::driver::Fault;
use crate::pass::{Action, Answer, Call};
use crate::settings::Settings;

/// The largest page that is read, in bytes: 500 items are some 1 MB.
const LARGEST_PAGE: u64 = 64 << 20;
/// The largest document that is read, in bytes: a million items.
const LARGEST_DOCUMENT: usize = 2 << 30;
/// The most pages that are read: ten million items.
const MOST_PAGES: usize = 20_000;
/// How many times as long as one exchange the reading of all pages may take.
const LONGEST_READING: u32 = 10;
/// Items a page: the most that the proxy gives.
const PAGE_SIZE: usize = 500;
/// Where the proxy relays callbacks, below its URL.
const RELAY: &str = "/api/callbacks/";
/// The largest answer to a callback that is read, in bytes.
const LARGEST_ANSWER: u64 = 1 << 20;
/// A token is renewed this long before it expires.
const RENEW_BEFORE: Duration = Duration::from_secs(30);

/// The proxy, and Waldur where callbacks go there.
#[derive(Debug)]
pub struct Source {
    client: Client,
    settings: Settings,
    /// Set, it ends what is being read.
    stop: Arc<AtomicBool>,
    token: Mutex<Option<(HeaderValue, Instant)>>,
}

#[derive(Deserialize)]
struct Grant {
    access_token: SecretString,
    expires_in: u64,
}

/// Whose token a link gets.
enum Origin {
    Proxy,
    Waldur,
}

impl Source {
    /// A source by these settings.
    pub fn new(settings: &Settings, stop: &Arc<AtomicBool>) -> Result<Self, Fault> {
        let client = Client::builder()
            .redirect(Policy::none())
            // Credentials go to their own origins, whatever the shell of the user who runs this says of proxies.
            .no_proxy()
            .timeout(settings.proxy.timeout)
            .user_agent(concat!("hpc-storage-provisioner/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                Fault::passing("no HTTP client can be made: are the system's CA certificates installed?", error)
            })?;
        Ok(Self { client, settings: settings.clone(), stop: Arc::clone(stop), token: Mutex::new(None) })
    }

    fn bounded(&self, response: Response, most: u64) -> Result<Vec<u8>, Fault> {
        bounded(response, self.settings.proxy.timeout, most, &self.stop)
    }

    /// The whole document, read afresh.
    pub fn read(&self) -> Result<Document, Fault> {
        let until = Instant::now() + self.settings.proxy.timeout * LONGEST_READING;
        let mut bodies = vec![self.page(1)?];
        let pages =
            document::pages(&bodies[0]).map_err(|error| Fault::passing("the document cannot be read", error))?;
        if pages > MOST_PAGES {
            return Err(Fault::unclear(format!(
                "the document has {pages} pages, more than the {MOST_PAGES} that are read"
            )));
        }
        for page in 2..=pages {
            bodies.push(self.page(page)?);
            if Instant::now() > until {
                let (read, time) = (bodies.len(), (self.settings.proxy.timeout * LONGEST_READING).as_secs());
                return Err(Fault::unclear(format!("only {read} of {pages} pages of the document came in {time} s")));
            }
            if bodies.iter().map(Vec::len).sum::<usize>() > LARGEST_DOCUMENT {
                return Err(Fault::unclear(format!("the document is larger than {LARGEST_DOCUMENT} bytes")));
            }
        }
        document::assemble(&bodies, self.settings.mock_identities)
            .map_err(|error| Fault::passing("the document cannot be used", error))
    }

    /// One page. Reading is repeated: it changes nothing.
    fn page(&self, page: usize) -> Result<Vec<u8>, Fault> {
        let url =
            format!("{}/api/storage-resources/?page={page}&page_size={PAGE_SIZE}", base(&self.settings.proxy.url));
        let once = || {
            let request = self.client.get(&url);
            // Only the first page asks for a new reading: the others come from the same.
            let request = if page == 1 { request.header(CACHE_CONTROL, "no-cache") } else { request };
            let response =
                self.authorized(request)?.send().map_err(|error| unreachable(&self.settings.proxy.url, error))?;
            let status = response.status();
            if status.as_u16() == 401 {
                *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            if !status.is_success() {
                let hint = if status.as_u16() == 404 { " (is proxy.url the proxy's, without `/api`?)" } else { "" };
                return Err(Fault::unclear(format!("the proxy answers {status} to {url}{hint}: {}", detail(response))));
            }
            self.bounded(response, LARGEST_PAGE)
        };
        let patience =
            ExponentialBuilder::default().with_min_delay(Duration::from_millis(200)).with_max_times(2).with_jitter();
        once.retry(patience).sleep(std::thread::sleep).when(|_| !self.stop.load(Ordering::Relaxed)).call()
    }

    fn authorized(&self, request: RequestBuilder) -> Result<RequestBuilder, Fault> {
        Ok(match self.bearer()? {
            Some(bearer) => request.header(AUTHORIZATION, bearer),
            None => request,
        })
    }

    /// The value of the header for the proxy; `None` where there is no client.
    fn bearer(&self) -> Result<Option<HeaderValue>, Fault> {
        let proxy = &self.settings.proxy;
        let (Some(url), Some(id), Some(secret)) = (&proxy.token_url, &proxy.client_id, &proxy.client_secret) else {
            return Ok(None);
        };
        let mut held = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((bearer, until)) = &*held
            && Instant::now() < *until
        {
            return Ok(Some(bearer.clone()));
        }
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", id.as_str()),
            ("client_secret", secret.expose_secret()),
        ];
        let response = self.client.post(url.clone()).form(&form).send().map_err(|error| unreachable(url, error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(Fault::unclear(format!(
                "the token endpoint {} answers {status}: check proxy.client_id, proxy.client_secret and proxy.token_url",
                public(url)
            )));
        }
        let grant: Grant = serde_json::from_slice(&self.bounded(response, 1 << 20)?)
            .map_err(|_| Fault::unclear(format!("the token endpoint {} gives no token", public(url))))?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", grant.access_token.expose_secret()))
            .map_err(|_| Fault::unclear("the token endpoint gives a token that is none"))?;
        bearer.set_sensitive(true);
        let life = Duration::from_secs(grant.expires_in.min(86_400)).saturating_sub(RENEW_BEFORE);
        *held = Some((bearer.clone(), Instant::now() + life));
        Ok(Some(bearer))
    }

    /// Tells Waldur something, once: what came of a POST that was not answered shows in the document.
    pub fn call(&self, call: &Call) -> Answer {
        if !is_meant(call) {
            return Answer::Denied(not_meant(call));
        }
        let request = match self.addressed(&call.link) {
            Ok(request) => request,
            Err(why) => return Answer::Denied(why),
        };
        let request = match call.body() {
            Some(body) => request.json(&body),
            None => request.json(&json!({})),
        };
        debug!(resource = %call.resource, action = call.action.name(), "callback");
        let name = call.action.name();
        match request.send() {
            Err(error) => Answer::Unclear(format!("{name}: {}", crate::pass::told(&error.without_url()))),
            Ok(response) if response.status().is_success() => {
                if self.is_waldurs(response) {
                    return Answer::Accepted;
                }
                Answer::Unclear(format!(
                    "{name} is answered by something that is not Waldur: is it in maintenance, or behind a login page?"
                ))
            }
            Ok(response) => match response.status().as_u16() {
                status @ (401 | 403) => Answer::Denied(format!("{name} is refused ({status}): {}", detail(response))),
                status => Answer::Unclear(format!("{name} is answered {status}: {}", detail(response))),
            },
        }
    }

    /// Whether an answer is one that Waldur gives: JSON, or nothing at all.
    fn is_waldurs(&self, response: Response) -> bool {
        let is_json = |text: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
        self.bounded(response, LARGEST_ANSWER).is_ok_and(|text| text.is_empty() || is_json(&text))
    }

    /// A POST to a link, with the credentials that belong to its origin.
    fn addressed(&self, link: &str) -> Result<RequestBuilder, String> {
        let url = Url::parse(link).map_err(|_| "a link of the document is no URL".to_owned())?;
        let request = self.client.post(url.clone());
        match self.origin(&url)? {
            Origin::Proxy => self.authorized(request).map_err(|fault| crate::pass::told(&fault)),
            Origin::Waldur => {
                let token =
                    self.settings.waldur.as_ref().map(|waldur| waldur.api_token.expose_secret()).unwrap_or_default();
                let mut value =
                    HeaderValue::from_str(&format!("Token {token}")).map_err(|_| "waldur.api_token is no token")?;
                value.set_sensitive(true);
                Ok(request.header(AUTHORIZATION, value))
            }
        }
    }

    /// Whether a call's link leads to that call, where there are credentials for it; why not.
    pub fn reaches(&self, call: &Call) -> Result<(), String> {
        if is_meant(call) { self.leads(&call.link) } else { Err(not_meant(call)) }
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
        match self.addressed(&url)?.json(&body).send() {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => Err(format!("Waldur answers {}: {}", response.status(), detail(response))),
            Err(error) => Err(crate::pass::told(&error.without_url())),
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
    let (id, places) = match call.action {
        Action::SetBackendId => (Some(call.resource), ["marketplace-provider-resources", "resources"]),
        _ => (call.order, ["marketplace-orders", "orders"]),
    };
    let mut parts = url.path().trim_end_matches('/').rsplit('/');
    let (action, named, place) = (parts.next(), parts.next(), parts.next());
    action == Some(call.action.name())
        && id.is_some()
        && named.and_then(|named| Uuid::try_parse(named).ok()) == id
        && place.is_some_and(|place| places.contains(&place))
}

fn not_meant(call: &Call) -> String {
    format!("the document's link for {} does not lead there: refused", call.action.name())
}

fn base(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

fn public(url: &Url) -> String {
    settings::check::public_part(url)
}

fn told_to_stop(stop: &AtomicBool) -> Result<(), Fault> {
    if stop.load(Ordering::Relaxed) { Err(Fault::Stopped("the answer was read".into())) } else { Ok(()) }
}

fn unreachable(url: &Url, error: reqwest::Error) -> Fault {
    let remedy = "is the URL right, and does something answer there?";
    Fault::passing(format!("{} cannot be asked: {remedy}", public(url)), error.without_url())
}

/// A whole body, within its bound and the deadline: a client's time-out alone begins anew with each byte.
fn bounded(mut response: Response, time: Duration, most: u64, stop: &AtomicBool) -> Result<Vec<u8>, Fault> {
    let until = Instant::now() + time;
    let (mut body, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        told_to_stop(stop)?;
        let read = response.read(&mut piece).map_err(|error| Fault::passing("the answer broke off", error))?;
        body.extend_from_slice(&piece[..read]);
        if read == 0 {
            return Ok(body);
        }
        if body.len() as u64 > most {
            return Err(Fault::unclear(format!("the answer is larger than {most} bytes")));
        }
        if Instant::now() > until {
            return Err(Fault::unclear(format!("the answer was not whole within {} s", time.as_secs())));
        }
    }
}

/// What an answer says of itself: its `detail`, if that is a short text without anything that could steer a terminal.
fn detail(response: Response) -> String {
    let text = bounded(response, Duration::from_secs(10), 64 << 10, &AtomicBool::new(false)).unwrap_or_default();
    let said = serde_json::from_slice::<serde_json::Value>(&text).ok();
    let said = said.as_ref().and_then(|said| said.get("detail")?.as_str()).unwrap_or("no further word");
    said.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests;
