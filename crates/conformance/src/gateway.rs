//! Stands between the command under test and the proxy and Waldur: records every exchange, and answers, delays or changes what
//! a case asks for.

mod listing;

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use futures::{StreamExt, stream};
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
    /// A redirect to an origin that must not get the credential, with this status.
    Redirect(u16),
    /// RST instead of an answer.
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

    async fn serve(self: Arc<Self>, front: Front, request: Request<Incoming>) -> io::Result<Received> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let target = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let call = Call { front, method: parts.method, target, headers: parts.headers, body };
        if front == Front::Waldur && call.authorization() == format!("Token {PROVIDER_TOKEN}") {
            return self.forward(&call).await;
        }
        let number = self.begin(&call);
        if call.callback().is_some() {
            // To the end, even if the command is killed: the log must show what Waldur has done.
            tokio::spawn(async move { self.exchange(&call, number).await }).await.map_err(io::Error::other)?
        } else {
            let _end = EndOnDrop { gateway: &self, number };
            self.exchange(&call, number).await
        }
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
            Some(Answer::Redirect(status)) => Ok(self.redirect(call, status)),
            Some(Answer::Status(status)) => {
                let status = status_of(status);
                Ok(Received::text(status, if status.is_success() { "{}" } else { r#"{"detail": "simulated"}"# }))
            }
        }
    }

    /// A redirect to the origin to which no credential belongs.
    fn redirect(&self, call: &Call, status: u16) -> Received {
        let to = format!("{}{}", self.url(Front::Foreign), call.target);
        Received::text(status_of(status), "").with("location", &to)
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
        Ok(Received { status, headers, body, end: End::Whole })
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
    pub(crate) fn is_success(self) -> bool {
        matches!(self, Self::Status(200..300))
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::Status(status) => status.to_string(),
            Self::Redirect(_) => "redirect".to_owned(),
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
    end: End,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    /// After half of the body, the connection is closed.
    Closed,
    /// After half of the body, the connection is reset.
    Reset,
}

impl Received {
    fn text(status: StatusCode, text: &str) -> Self {
        let headers =
            HeaderMap::from_iter([(hyper::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        Self { status, headers, body: Bytes::copy_from_slice(text.as_bytes()), end: End::Whole }
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
        let body = if self.end == End::Whole {
            Full::new(self.body).map_err(|never| match never {}).boxed()
        } else {
            let half = self.body.slice(..self.body.len() / 2);
            // The first half must have left before the connection ends.
            let end = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(io::Error::from(io::ErrorKind::ConnectionAborted))
            };
            let frames = stream::iter([Ok(Frame::data(half))]).chain(stream::once(end));
            BodyExt::boxed(StreamBody::new(frames))
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
            let Ok(socket) = stream.as_fd().try_clone_to_owned().map(Arc::new) else { return };
            let service = service_fn(move |request| {
                let (gateway, socket) = (Arc::clone(&gateway), Arc::clone(&socket));
                async move {
                    let outcome = gateway.serve(front, request).await;
                    let is_reset = match &outcome {
                        Ok(received) => received.end == End::Reset,
                        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
                    };
                    if is_reset {
                        reset_at_close(&socket);
                    }
                    outcome.map(Received::into_response)
                }
            });
            // An error closes the connection, as a case may want.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Lets the end of the connection be RST, and not FIN.
fn reset_at_close(socket: &OwnedFd) {
    // Fails if the connection is gone.
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Notes the end of an exchange that the command has given up.
struct EndOnDrop<'a> {
    gateway: &'a Gateway,
    number: usize,
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.gateway.note(self.number, |exchange| {
            exchange.ended.get_or_insert_with(Instant::now);
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

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Ipv4Addr, TcpStream};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use simulator::{Simulator, World};
    use tokio::runtime::Runtime;
    use uuid::Uuid;

    use super::{Answer, Effect, End, Front, Gateway, ListingChange, Rule, When};

    struct Rig {
        gateway: Arc<Gateway>,
        /// Runs the gateway.
        _runtime: Runtime,
    }

    fn rig() -> Rig {
        // Fails if another test has set one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = Runtime::new().unwrap();
        let simulator = Arc::new(Simulator::start_blocking(World::empty(), (Ipv4Addr::LOCALHOST, 0).into()).unwrap());
        let gateway = Gateway::start(&runtime, &simulator).unwrap();
        gateway.set_proxy(simulator.base_url());
        Rig { gateway, _runtime: runtime }
    }

    impl Rig {
        /// Sends the request; returns what comes before the connection ends, and how it ends.
        fn ask(&self, front: Front, request: &str) -> (String, Option<ErrorKind>) {
            let mut stream = TcpStream::connect(self.gateway.addresses[front as usize]).unwrap();
            stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let (mut answer, mut buffer) = (String::new(), [0; 4096]);
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => return (answer, None),
                    Ok(length) => answer += &String::from_utf8_lossy(&buffer[..length]),
                    Err(error) => return (answer, Some(error.kind())),
                }
            }
        }
    }

    const LISTING: &str = "GET /api/storage-resources/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

    #[test]
    fn a_reset_is_no_ordinary_end_of_the_connection() {
        let rig = rig();
        let order = Uuid::from_u128(1);
        for (when, answer) in [(When::Before, Answer::Reset), (When::After, Answer::Reset)] {
            rig.gateway.add(Rule { action: "set_state_done", ids: [order; 2], effect: Effect::Answer(when, answer) });
            let request = format!(
                "POST /api/marketplace-orders/{order}/set_state_done/ HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
            );
            assert_eq!(rig.ask(Front::Waldur, &request), (String::new(), Some(ErrorKind::ConnectionReset)), "{when:?}");
        }
        for (change, begins, end) in [
            (ListingChange::Answer(Answer::Reset), "", Some(ErrorKind::ConnectionReset)),
            (ListingChange::CutOff(End::Reset), "HTTP/1.1 ", Some(ErrorKind::ConnectionReset)),
            (ListingChange::CutOff(End::Closed), "HTTP/1.1 ", None),
        ] {
            rig.gateway.change_listing(|listing| listing.change = Some(change.clone()));
            let (answer, how) = rig.ask(Front::Proxy, LISTING);
            assert!(answer.starts_with(begins) && how == end, "{answer:?} {how:?}");
            assert_eq!(answer.is_empty(), begins.is_empty(), "{answer:?}");
        }
    }

    #[test]
    fn an_exchange_that_the_client_gives_up_has_ended() {
        let rig = rig();
        rig.gateway.change_listing(|listing| listing.change = Some(ListingChange::Answer(Answer::Hang)));
        let mut stream = TcpStream::connect(rig.gateway.addresses[Front::Proxy as usize]).unwrap();
        stream.write_all(LISTING.as_bytes()).unwrap();
        let begun = Instant::now();
        let until = |what: &str, holds: &dyn Fn() -> bool| {
            while !holds() {
                assert!(begun.elapsed() < Duration::from_mins(1), "never: {what}");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        until("it begins", &|| rig.gateway.log().len() == 1);
        drop(stream);
        until("it ends", &|| rig.gateway.log()[0].ended.is_some());
        assert_eq!(rig.gateway.log()[0].status, None);
    }

    #[test]
    fn redirects_lead_to_another_origin() {
        let rig = rig();
        rig.gateway.change_listing(|listing| listing.change = Some(ListingChange::Answer(Answer::Redirect(302))));
        let (answer, _) = rig.ask(Front::Proxy, LISTING);
        let location = format!("location: {}/api/storage-resources/", rig.gateway.url(Front::Foreign));
        assert!(answer.starts_with("HTTP/1.1 302 ") && answer.contains(&location), "{answer}");
    }
}
