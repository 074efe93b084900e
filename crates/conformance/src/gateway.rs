//! Stands between the command under test and the proxy and Waldur: records every exchange, and answers, delays or changes what
//! a case asks for.

mod listing;

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use simulator::{PROVIDER_TOKEN, Simulator, TokenSpec, World};
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use uuid::Uuid;

use crate::command::Victim;
use crate::exchange::{Callback, Exchange, Front};
use crate::probe::Probed;

pub(crate) use listing::{Listing, ListingChange};

/// Waldur's token of the command's user.
pub(crate) const WALDUR_TOKEN: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// How long a hanging exchange takes until its connection is closed.
const HANG: Duration = Duration::from_secs(3);
/// Longest text of an answer in the log, in characters.
const MAX_ANSWER: usize = 200;

type Body = BoxBody<Bytes, io::Error>;

/// A change of the simulated services.
pub(crate) type WorldChange = Box<dyn FnOnce(&mut World) + Send>;

/// When the answer of a callback is replaced: without its effect, or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

/// What comes instead of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Status(u16),
    /// 307 to an origin that must not get the credential.
    Redirect,
    Reset,
    /// Nothing for three seconds, then the connection is closed.
    Hang,
}

/// What happens to a callback.
pub(crate) enum Effect {
    Answer(When, Answer),
    /// The command is killed.
    Kill(When),
    /// The world changes before the callback reaches Waldur.
    Change(WorldChange),
}

/// What happens to the next callback that matches.
pub(crate) struct Rule {
    pub(crate) action: &'static str,
    /// The order and its resource.
    pub(crate) ids: [Uuid; 2],
    pub(crate) effect: Effect,
}

/// Reads the directory of an order or a resource.
pub(crate) type Prober = Arc<dyn Fn(Uuid) -> Option<Probed> + Send + Sync>;

/// What a case sets, and what is recorded in it.
#[derive(Default)]
struct State {
    log: Vec<Exchange>,
    /// Number of exchanges in earlier cases.
    earlier: usize,
    rules: Vec<Rule>,
    listing: Listing,
    /// Answers 401 to tokens after the second in which they expire, as a proxy whose clock is exact.
    strict_expiry: bool,
    /// Tokens that are refused.
    revoked: HashSet<String>,
    tokens: HashSet<String>,
    prober: Option<Prober>,
    victim: Option<Victim>,
}

pub(crate) struct Gateway {
    state: Mutex<State>,
    /// Changes when the answer to a waiting request may change.
    listing_changes: watch::Sender<u64>,
    http: reqwest::Client,
    runtime: Handle,
    simulator: Arc<Simulator>,
    /// Base URL of the proxy.
    proxy: Mutex<String>,
    /// Addresses of the three fronts.
    pub(crate) addresses: [SocketAddr; 3],
}

impl Gateway {
    /// Starts the gateway on free ports of the loopback interface.
    pub(crate) fn start(runtime: &Runtime, simulator: &Arc<Simulator>) -> anyhow::Result<Arc<Self>> {
        let bind = || runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).context("no free port");
        let listeners = [bind()?, bind()?, bind()?];
        let [proxy, waldur, foreign] = &listeners;
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .no_gzip()
            .no_brotli()
            .no_deflate()
            .no_zstd()
            .build()?;
        let gateway = Arc::new(Self {
            state: Mutex::default(),
            listing_changes: watch::Sender::default(),
            http,
            runtime: runtime.handle().clone(),
            simulator: Arc::clone(simulator),
            proxy: Mutex::default(),
            addresses: [proxy.local_addr()?, waldur.local_addr()?, foreign.local_addr()?],
        });
        for (listener, front) in listeners.into_iter().zip([Front::Proxy, Front::Waldur, Front::Foreign]) {
            runtime.spawn(accept(Arc::clone(&gateway), listener, front));
        }
        Ok(gateway)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The base URL of a front.
    pub(crate) fn url(&self, front: Front) -> String {
        format!("http://{}", self.addresses[front as usize])
    }

    pub(crate) fn set_proxy(&self, base: String) {
        *self.proxy.lock().unwrap_or_else(PoisonError::into_inner) = base;
    }

    /// Forgets everything about the last case.
    pub(crate) fn reset(&self, prober: Prober) {
        let mut state = self.state();
        let earlier = state.earlier + state.log.len();
        *state = State { prober: Some(prober), earlier, ..State::default() };
        drop(state);
        self.wake();
    }

    pub(crate) fn log(&self) -> Vec<Exchange> {
        self.state().log.clone()
    }

    pub(crate) fn add(&self, rule: Rule) {
        self.state().rules.push(rule);
    }

    /// Number of rules that have not been used.
    pub(crate) fn rules(&self) -> usize {
        self.state().rules.len()
    }

    pub(crate) fn set_victim(&self, victim: Option<Victim>) {
        self.state().victim = victim;
    }

    pub(crate) fn expire_strictly(&self) {
        self.state().strict_expiry = true;
    }

    /// Refuses all tokens that were used so far.
    pub(crate) fn revoke_tokens(&self) {
        let mut state = self.state();
        let State { revoked, tokens, .. } = &mut *state;
        revoked.clone_from(tokens);
        drop(state);
        self.wake();
    }

    /// Changes the listing, beginning with requests that already wait.
    pub(crate) fn change_listing(&self, change: impl FnOnce(&mut Listing)) {
        change(&mut self.state().listing);
        self.wake();
    }

    /// The tag that the proxy has now for this listing; `None` if it does not answer.
    pub(crate) fn tag(&self, target: &str) -> Option<String> {
        let url = format!("{}{target}", self.proxy.lock().unwrap_or_else(PoisonError::into_inner));
        let token = self.simulator.realm().mint(&TokenSpec::service_account("conformance"));
        let request = self.http.get(url).bearer_auth(token).header("cache-control", "no-cache");
        let response = self.runtime.block_on(request.send()).ok()?;
        response.headers().get("etag")?.to_str().ok().map(str::to_owned)
    }

    fn wake(&self) {
        self.listing_changes.send_modify(|number| *number += 1);
    }

    async fn serve(self: Arc<Self>, front: Front, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let target = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let call = Call { front, method: parts.method, target, headers: parts.headers, body };
        if front == Front::Waldur && call.authorization() == format!("Token {PROVIDER_TOKEN}") {
            return self.forward(&call).await.map(Received::into_response);
        }
        let number = self.begin(&call);
        let outcome = if call.callback().is_some() {
            // To the end, even if the command is killed: the log must show what Waldur has done.
            tokio::spawn(async move { self.exchange(&call, number).await }).await.map_err(io::Error::other)?
        } else {
            self.exchange(&call, number).await
        };
        outcome.map(Received::into_response)
    }

    async fn exchange(&self, call: &Call, number: usize) -> io::Result<Received> {
        let outcome = self.answer(call, number).await;
        self.note(number, |exchange| {
            exchange.ended = Some(Instant::now());
            let Ok(received) = &outcome else { return };
            exchange.status = Some(received.status.as_u16());
            exchange.tag = received.header("etag").map(str::to_owned);
            if exchange.page.is_none() && exchange.answer.is_empty() {
                exchange.answer = String::from_utf8_lossy(&received.body).chars().take(MAX_ANSWER).collect();
            }
        });
        outcome
    }

    /// Records the begin of an exchange; returns its number.
    fn begin(&self, call: &Call) -> usize {
        let leak = match call.front {
            _ if call.authorization().is_empty() => None,
            Front::Foreign => Some("a credential went to an origin to which none belongs"),
            Front::Proxy if !call.authorization().starts_with("Bearer ") => {
                Some("another credential than the Keycloak token went to the proxy")
            }
            Front::Waldur if call.authorization() != format!("Token {WALDUR_TOKEN}") => {
                Some("another credential than Waldur's token went to Waldur")
            }
            Front::Proxy | Front::Waldur => None,
        };
        let mut state = self.state();
        if call.front == Front::Proxy {
            state.tokens.insert(call.authorization().to_owned());
        }
        state.log.push(Exchange {
            started: Instant::now(),
            ended: None,
            front: call.front,
            method: call.method.to_string(),
            target: call.target.clone(),
            body: String::from_utf8_lossy(&call.body).into_owned(),
            known: call.header("if-none-match").map(str::to_owned),
            waits: call.wait().is_some(),
            callback: call.callback(),
            effect: None,
            status: None,
            page: None,
            tag: None,
            answer: String::new(),
            fault: None,
            leak,
            probed: None,
        });
        state.earlier + state.log.len() - 1
    }

    fn note(&self, number: usize, change: impl FnOnce(&mut Exchange)) {
        let mut state = self.state();
        let at = number.checked_sub(state.earlier);
        if let Some(exchange) = at.and_then(|at| state.log.get_mut(at)) {
            change(exchange);
        }
    }

    async fn answer(&self, call: &Call, number: usize) -> io::Result<Received> {
        if call.front == Front::Foreign {
            return Ok(Received::text(StatusCode::OK, "{}"));
        }
        if call.front == Front::Proxy && self.refuses(call.authorization()) {
            self.note(number, |exchange| exchange.fault = Some("the token has expired or is revoked".into()));
            let text = r#"{"detail": "Token is not valid", "error": "AuthenticationError"}"#;
            let header = ("www-authenticate", "Bearer error=\"invalid_token\"");
            return Ok(Received::text(StatusCode::UNAUTHORIZED, text).with(header.0, header.1));
        }
        if let Some(callback) = call.callback() {
            return self.call_back(call, number, &callback).await;
        }
        if call.is_listing() {
            return self.list(call, number).await;
        }
        self.forward(call).await
    }

    fn refuses(&self, authorization: &str) -> bool {
        let state = self.state();
        let has_expired = || {
            let expires = authorization.split('.').nth(1).and_then(expiry).unwrap_or(u64::MAX);
            expires <= unix_time()
        };
        state.revoked.contains(authorization) || (state.strict_expiry && has_expired())
    }

    async fn call_back(&self, call: &Call, number: usize, callback: &Callback) -> io::Result<Received> {
        let (prober, effect) = {
            let mut state = self.state();
            let matches = |rule: &Rule| rule.action == callback.action && rule.ids.contains(&callback.id);
            let at = state.rules.iter().position(matches);
            (state.prober.clone(), at.map(|at| state.rules.remove(at).effect))
        };
        if let Some(prober) = prober {
            let id = callback.id;
            let found = tokio::task::spawn_blocking(move || prober(id)).await.ok().flatten();
            self.note(number, |exchange| exchange.probed = found);
        }
        let forward = async || {
            let received = self.forward(call).await?;
            self.note(number, |exchange| exchange.effect = Some(received.status.as_u16()));
            Ok::<_, io::Error>(received)
        };
        let (when, instead) = match effect {
            None => return forward().await,
            Some(Effect::Change(change)) => {
                self.note(number, |exchange| exchange.fault = Some("Waldur changes just before".into()));
                self.simulator.world(change);
                return forward().await;
            }
            Some(Effect::Kill(when)) => (when, None),
            Some(Effect::Answer(when, answer)) => (when, Some(answer)),
        };
        if when == When::After {
            forward().await?;
        }
        let fault = match instead {
            None => format!("killed {}", when.text()),
            Some(answer) => format!("{} {}", answer.text(), when.text()),
        };
        self.note(number, |exchange| exchange.fault = Some(fault));
        match instead {
            None => {
                let victim = self.state().victim.clone();
                if let Some(victim) = victim {
                    victim.kill();
                }
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Some(Answer::Reset) => Err(io::ErrorKind::ConnectionReset.into()),
            Some(Answer::Hang) => {
                tokio::time::sleep(HANG).await;
                Err(io::ErrorKind::TimedOut.into())
            }
            Some(Answer::Redirect) => {
                let to = format!("{}{}", self.url(Front::Foreign), call.target);
                Ok(Received::text(StatusCode::TEMPORARY_REDIRECT, "").with("location", &to))
            }
            Some(Answer::Status(status)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Ok(Received::text(status, if status.is_success() { "{}" } else { r#"{"detail": "simulated"}"# }))
            }
        }
    }

    /// Sends the request on.
    async fn forward(&self, call: &Call) -> io::Result<Received> {
        let base = match call.front {
            Front::Proxy => self.proxy.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Front::Waldur | Front::Foreign => self.simulator.base_url(),
        };
        let mut headers = call.headers.clone();
        // The log needs readable bodies.
        for name in ["accept-encoding", "connection", "content-length", "transfer-encoding"] {
            headers.remove(name);
        }
        let url = format!("{base}{}", call.target);
        let request = self.http.request(call.method.clone(), url).headers(headers).body(call.body.clone());
        let response = request.send().await.map_err(io::Error::other)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(io::Error::other)?;
        Ok(Received { status, headers, body, cut: false })
    }
}

impl When {
    fn text(self) -> &'static str {
        match self {
            Self::Before => "without the effect",
            Self::After => "after the effect",
        }
    }
}

impl Answer {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Status(status) => status.to_string(),
            Self::Redirect => "redirect".to_owned(),
            Self::Reset => "reset".to_owned(),
            Self::Hang => "hang".to_owned(),
        }
    }
}

/// A request of the command or of the proxy.
struct Call {
    front: Front,
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn authorization(&self) -> &str {
        self.header(AUTHORIZATION.as_str()).unwrap_or_default()
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    fn is_listing(&self) -> bool {
        let path = self.path().trim_end_matches('/');
        self.front == Front::Proxy && self.method == Method::GET && path == "/api/storage-resources"
    }

    /// For how many seconds the client wants to wait for a change.
    fn wait(&self) -> Option<u64> {
        self.headers.get(IF_NONE_MATCH)?;
        let mut preferences = self.header("prefer")?.split(',');
        preferences.find_map(|preference| preference.trim().strip_prefix("wait=")?.parse().ok())
    }

    fn callback(&self) -> Option<Callback> {
        let mut segments = self.path().trim_matches('/').rsplit('/');
        let (action, id) = (segments.next()?, Uuid::try_parse(segments.next()?).ok()?);
        (self.method == Method::POST).then(|| Callback { id, action: action.to_owned() })
    }
}

/// An answer.
#[derive(Debug, Clone)]
struct Received {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// Only the first half of the body is sent, then the connection is closed.
    cut: bool,
}

impl Received {
    fn text(status: StatusCode, text: &str) -> Self {
        let headers =
            HeaderMap::from_iter([(hyper::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        Self { status, headers, body: Bytes::copy_from_slice(text.as_bytes()), cut: false }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn into_response(self) -> Response<Body> {
        let body = if self.cut {
            let half = self.body.slice(..self.body.len() / 2);
            let frames = [Ok(Frame::data(half)), Err(io::Error::from(io::ErrorKind::ConnectionAborted))];
            BodyExt::boxed(StreamBody::new(stream::iter(frames)))
        } else {
            Full::new(self.body).map_err(|never| match never {}).boxed()
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        for (name, value) in &self.headers {
            if !matches!(name.as_str(), "connection" | "content-length" | "transfer-encoding") {
                response.headers_mut().append(name, value.clone());
            }
        }
        response
    }
}

async fn accept(gateway: Arc<Gateway>, listener: TcpListener, front: Front) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move {
            let service = service_fn(move |request| Arc::clone(&gateway).serve(front, request));
            // An error closes the connection, as a case may want.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The claim `exp` in the middle part of a token.
fn expiry(payload: &str) -> Option<u64> {
    use base64::Engine;
    let text = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<serde_json::Value>(&text).ok()?["exp"].as_u64()
}

#[expect(clippy::disallowed_methods, reason = "the expiry of tokens is a time of the wall clock")]
fn unix_time() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
