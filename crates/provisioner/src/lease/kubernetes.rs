//! Leases as objects of the kind Lease on a Kubernetes API server.
//!
//! The rules are those of client-go's leader election, so that clocks need not agree: a lease has expired when this process
//! has seen no change of it for as long as it is valid. Each change names the `resourceVersion` that it is based on, so
//! that the server refuses one of two concurrent changes. The fencing token is `spec.leaseTransitions`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::blocking::Client;
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Method, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use program::{Clock, lock};
use settings::files;

use super::{LIFE, LeaseError, PURGE, ServerLeases, TIMEOUT, Tokens};
use crate::config::KubernetesSettings;
use crate::source::read_body;

const API_VERSION: &str = "coordination.k8s.io/v1";
const KIND: &str = "Lease";
/// The largest accepted response in bytes; etcd stores at most 1.5 MiB.
const MAX_RESPONSE: u64 = 2 << 20;
/// The largest accepted file with a token or certificates, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The highest value of `spec.leaseTransitions`.
const MAX_TOKEN: u64 = i32::MAX as u64;
/// How often a change is made again that others get ahead of.
const ATTEMPTS: usize = 3;
const RULE: &str = "a Role in that namespace must allow get, create and update of leases in the API group \
                    coordination.k8s.io, and a RoleBinding must name this service account";

/// An API server, and what this process has seen of its leases.
pub(super) struct Api {
    settings: KubernetesSettings,
    clock: Clock,
    /// The client, with the CA certificates that it trusts.
    client: Mutex<Option<(Vec<u8>, Client)>>,
    seen: Mutex<BTreeMap<String, Seen>>,
}

#[derive(Default)]
struct Seen {
    /// The last `spec` of the lease.
    spec: Value,
    /// Since when it has been so, in uptime of this machine.
    since: Duration,
    /// The highest token: after somebody deleted the lease or changed its count, tokens still grow.
    token: u64,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Why a request for a lease has no result.
enum NoLease {
    /// There is no such lease.
    Missing,
    /// The lease was changed, or made, in the meantime.
    Conflict,
    Failed(LeaseError),
}

impl From<LeaseError> for NoLease {
    fn from(error: LeaseError) -> Self {
        Self::Failed(error)
    }
}

/// Takes all leases, or none.
pub(super) fn take(api: &Arc<Api>, names: &[String]) -> Result<(Tokens, Box<dyn ServerLeases>), LeaseError> {
    // All are looked at first, and also after one that is held: the time in which a lease does not change counts from the
    // first look. And none is taken only to be released at once.
    let (mut free, mut held) = (Vec::new(), None);
    for name in names {
        match api.free(name) {
            Ok(lease) => free.push((name, lease)),
            Err(error) if error.is_held() => held = held.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    if let Some(held) = held {
        return Err(held);
    }
    let host = rustix::system::uname();
    let owner = format!("{}_{}", host.nodename().to_string_lossy(), Uuid::new_v4());
    let mut held = Held { api: Arc::clone(api), owner, leases: BTreeMap::new() };
    let mut tokens = Tokens::new();
    for (name, lease) in free {
        match held.take(name, lease) {
            Ok(token) => tokens.insert(name.clone(), token),
            Err(error) => {
                // Also the one for which there was no answer.
                held.release();
                return Err(error);
            }
        };
    }
    Ok((tokens, Box::new(held)))
}

struct Held {
    api: Arc<Api>,
    /// Identity of the holder, a new one each time.
    owner: String,
    /// Each lease as the server has it; null if that is unknown.
    leases: BTreeMap<String, Value>,
}

impl Held {
    /// Takes a lease that is free. Returns the token.
    fn take(&mut self, name: &str, lease: Option<Value>) -> Result<u64, LeaseError> {
        let api = &self.api;
        let token = api.next_token(name)?;
        let stored = self.leases.entry(name.to_owned()).or_default();
        let (method, mut lease) = match lease {
            Some(lease) => (Method::PUT, lease),
            None => (Method::POST, api.new_lease(name)),
        };
        let spec = &mut lease["spec"];
        spec["holderIdentity"] = self.owner.clone().into();
        spec["leaseDurationSeconds"] = LIFE.as_secs().into();
        spec["leaseTransitions"] = token.into();
        spec["acquireTime"] = api.now(spec).into();
        spec["renewTime"] = spec["acquireTime"].clone();
        match api.lease(&method, name, Some(&lease)) {
            Ok(answer) if holder(&answer) == self.owner => *stored = answer,
            Ok(_) => return Err(api.failed(&format!("stored another holder of the Lease {}", object(name)))),
            // Somebody was faster.
            Err(NoLease::Conflict | NoLease::Missing) => return Err(LeaseError::held(name)),
            Err(NoLease::Failed(error)) => return Err(error),
        }
        lock(&api.seen).entry(name.to_owned()).or_default().token = token;
        Ok(token)
    }
}

impl ServerLeases for Held {
    fn renew(&mut self) -> Result<bool, LeaseError> {
        for (name, lease) in &mut self.leases {
            if !self.api.change(name, &self.owner, lease, &|_| {})? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn release(&mut self) {
        for (name, mut lease) in std::mem::take(&mut self.leases) {
            // The count stays: the next token is higher.
            if self.api.change(&name, &self.owner, &mut lease, &|spec| spec["holderIdentity"] = "".into()).is_err() {
                break;
            }
        }
    }
}

impl Api {
    pub(super) fn new(settings: KubernetesSettings, clock: Clock) -> Self {
        Self { settings, clock, client: Mutex::default(), seen: Mutex::default() }
    }

    /// Checks that the service account may use the leases.
    pub(super) fn check(&self, names: &[String]) -> Result<String, LeaseError> {
        for name in names {
            let mut denied = Vec::new();
            for verb in ["get", "create", "update"] {
                let attributes = json!({
                    "namespace": self.settings.namespace, "verb": verb, "group": "coordination.k8s.io",
                    "resource": "leases", "name": object(name),
                });
                let review = json!({
                    "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                    "spec": {"resourceAttributes": attributes},
                });
                let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
                let (status, answer) = self.exchange(&Method::POST, path, Some(&review))?;
                // Some clusters do not let everybody ask. Then the first pass shows it.
                if status.is_success() && answer["status"]["allowed"] == false {
                    denied.push(verb);
                }
            }
            if !denied.is_empty() {
                return Err(self.denied(name, &denied.join(" or "), ""));
            }
            self.look(name)?;
        }
        let objects: Vec<_> = names.iter().map(|name| object(name)).collect();
        Ok(format!(
            "get, create and update are allowed in the namespace {}: {}",
            self.settings.namespace,
            objects.join(", ")
        ))
    }

    /// The lease, if nobody has it; `None` if there is none yet.
    fn free(&self, name: &str) -> Result<Option<Value>, LeaseError> {
        let Some(lease) = self.look(name)? else { return Ok(None) };
        let mut seen = lock(&self.seen);
        let seen = seen.entry(name.to_owned()).or_default();
        seen.token = seen.token.max(transitions(&lease));
        let now = self.clock.uptime();
        if seen.spec != lease["spec"] {
            (seen.spec, seen.since) = (lease["spec"].clone(), now);
        }
        let holder = holder(&lease);
        let seconds = lease["spec"]["leaseDurationSeconds"].as_u64().and_then(|seconds| u32::try_from(seconds).ok());
        // Never less: a holder trusts its lease for this long, also if a person shortens it.
        let life = Duration::from_secs(seconds.unwrap_or_default().into()).max(LIFE);
        if holder.is_empty() || now >= seen.since + life {
            return Ok(Some(lease));
        }
        Err(LeaseError::Held { system: name.to_owned(), holder: one_line(holder) })
    }

    fn next_token(&self, name: &str) -> Result<u64, LeaseError> {
        let token = lock(&self.seen).get(name).map_or(0, |seen| seen.token) + 1;
        if token > MAX_TOKEN {
            let what =
                format!("the Lease {} has had {MAX_TOKEN} holders, the most that Kubernetes counts", object(name));
            return Err(unusable(format!("{what}: stop all provisioners, delete it, and start them again")));
        }
        Ok(token)
    }

    /// Renews a lease and changes its `spec`, if it has this owner. Returns whether it has. `lease` is the lease as the server
    /// has it, null if that is unknown; everything in it that is not changed is kept.
    fn change(&self, name: &str, owner: &str, lease: &mut Value, set: &dyn Fn(&mut Value)) -> Result<bool, LeaseError> {
        for _ in 0..ATTEMPTS {
            if lease.is_null() {
                let Some(found) = self.look(name)? else { return Ok(false) };
                *lease = found;
            }
            if holder(lease) != owner {
                return Ok(false);
            }
            let mut changed = lease.clone();
            let token = lock(&self.seen).get(name).map_or(0, |seen| seen.token).max(transitions(lease));
            let spec = &mut changed["spec"];
            spec["renewTime"] = self.now(spec).into();
            // Again, because a person can have changed them: others would take the lease early, or get an old token.
            spec["leaseDurationSeconds"] = LIFE.as_secs().into();
            spec["leaseTransitions"] = token.into();
            set(spec);
            match self.lease(&Method::PUT, name, Some(&changed)) {
                Ok(stored) => {
                    *lease = stored;
                    return Ok(true);
                }
                Err(NoLease::Missing) => return Ok(false),
                // Perhaps by us: a change is also made if its answer is lost.
                Err(NoLease::Conflict) => *lease = Value::Null,
                Err(NoLease::Failed(error)) => return Err(error),
            }
        }
        Err(unusable(format!(
            "the Lease {} cannot be changed, because something else changes it all the time",
            object(name)
        )))
    }

    /// The time for `renewTime`, which differs from the last one, whatever the clock shows: to others a lease that does not
    /// change is expired.
    fn now(&self, spec: &Value) -> String {
        let now = OffsetDateTime::from(self.clock.now());
        let text = micro_time(now);
        if spec["renewTime"] == text.as_str() { micro_time(now + Duration::from_micros(1)) } else { text }
    }

    fn new_lease(&self, name: &str) -> Value {
        json!({
            "apiVersion": API_VERSION, "kind": KIND,
            "metadata": {"name": object(name), "namespace": self.settings.namespace}, "spec": {},
        })
    }

    fn look(&self, name: &str) -> Result<Option<Value>, LeaseError> {
        match self.lease(&Method::GET, name, None) {
            Ok(lease) => Ok(Some(lease)),
            Err(NoLease::Missing) => Ok(None),
            Err(NoLease::Conflict) => Err(self.failed("answers 409 Conflict to a GET")),
            Err(NoLease::Failed(error)) => Err(error),
        }
    }

    /// Reads (GET), creates (POST) or replaces (PUT) a lease. Returns it as the server has it.
    fn lease(&self, method: &Method, name: &str, body: Option<&Value>) -> Result<Value, NoLease> {
        let (object, namespace) = (object(name), &self.settings.namespace);
        let (verb, below) = match *method {
            Method::POST => ("create", String::new()),
            Method::PUT => ("update", format!("/{object}")),
            _ => ("get", format!("/{object}")),
        };
        let path = format!("/apis/{API_VERSION}/namespaces/{namespace}/leases{below}");
        let (status, answer) = self.exchange(method, &path, body)?;
        if status.is_success() {
            return if is_lease(&answer, &object) {
                Ok(answer)
            } else {
                Err(self.failed(&format!("answers {verb} of the Lease {object} with something else")).into())
            };
        }
        let reason = reason(&answer);
        Err(match status {
            StatusCode::NOT_FOUND if verb == "create" => NoLease::Failed(unusable(format!(
                "the Lease {object} cannot be created in the namespace {namespace} (404): {reason}; check \
                 lease.kubernetes_namespace"
            ))),
            // Without a Status, there is no Kubernetes API at this address.
            StatusCode::NOT_FOUND if answer["kind"] == "Status" => NoLease::Missing,
            StatusCode::CONFLICT => NoLease::Conflict,
            StatusCode::FORBIDDEN => self.denied(name, verb, &format!(" (403): {reason}")).into(),
            _ => self.failed(&format!("answers {status} to {verb} of the Lease {object}: {reason}")).into(),
        })
    }

    fn denied(&self, name: &str, verbs: &str, why: &str) -> LeaseError {
        let (object, namespace) = (object(name), &self.settings.namespace);
        unusable(format!(
            "the service account may not {verbs} the Lease {object} in the namespace {namespace}{why}; {RULE}"
        ))
    }

    /// One exchange with the API server. Returns the status, and the answer if it is JSON: it always is after a success.
    fn exchange(&self, method: &Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value), LeaseError> {
        let url = format!("{}{path}", self.settings.api.as_str().trim_end_matches('/'));
        let token = self.file("token")?;
        let token = [b"Bearer ", token.trim_ascii()].concat();
        let mut token = HeaderValue::from_bytes(&token)
            .map_err(|_| unusable(format!("{}/token contains no token", self.settings.credentials.display())))?;
        token.set_sensitive(true);
        let mut request = self.client()?.request(method.clone(), url).header(AUTHORIZATION, token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().map_err(|error| {
            unusable_from(
                format!("the Kubernetes API server {} cannot be reached", self.settings.api),
                error.without_url(),
            )
        })?;
        let status = response.status();
        let wait = response.headers().get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.trim().parse().ok());
        let body = read_body(response, TIMEOUT, MAX_RESPONSE, &AtomicBool::new(false)).map_err(|error| {
            unusable_from(
                format!("the response of the Kubernetes API server {} cannot be read", self.settings.api),
                error,
            )
        })?;
        let answer = serde_json::from_slice::<Value>(&body);
        let with_reason = |text: String| format!("{text}: {}", reason(answer.as_ref().unwrap_or(&Value::Null)));
        match status {
            StatusCode::UNAUTHORIZED => Err(self.failed(&with_reason(format!(
                "refuses the token in {}/token (401); is its service account still there?",
                self.settings.credentials.display()
            )))),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Err(LeaseError::Kubernetes {
                what: with_reason(format!("the Kubernetes API server {} answers {status}", self.settings.api)),
                // Longer than a lease is valid, waiting would only delay the next pass.
                retry_after: Duration::from_secs(wait.unwrap_or_default()).min(LIFE),
                source: None,
            }),
            _ if status.is_redirection() => Err(self.failed(&format!(
                "answers {status}, a redirect, which is not followed: check KUBERNETES_SERVICE_HOST and \
                 KUBERNETES_SERVICE_PORT"
            ))),
            _ => match answer {
                Ok(answer) => Ok((status, answer)),
                Err(_) if !status.is_success() => Ok((status, Value::Null)),
                Err(_) => Err(self.failed(&format!("answers {status} without JSON"))),
            },
        }
    }

    /// The client that trusts the CA certificates in the file, which may change.
    fn client(&self) -> Result<Client, LeaseError> {
        let pem = self.file("ca.crt")?;
        let mut kept = lock(&self.client);
        if let Some((_, client)) = kept.as_ref().filter(|(known, _)| *known == pem) {
            return Ok(client.clone());
        }
        let path = self.settings.credentials.join("ca.crt");
        let failed = |error: Box<dyn Error + Send + Sync>| {
            unusable_from(format!("the CA certificates in {} cannot be used", path.display()), error)
        };
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.into()))?;
        if certificates.is_empty() {
            return Err(failed("it contains none".into()));
        }
        let client = Client::builder()
            .user_agent(concat!("hpc-storage-provisioner/", env!("CARGO_PKG_VERSION")))
            .tls_certs_only(certificates)
            .https_only(true)
            // A request without an answer takes its connection with it. With HTTP/2, all others would wait for that one.
            .http1_only()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| failed(error.into()))?;
        *kept = Some((pem, client.clone()));
        Ok(client)
    }

    /// The content of a file of the service account. It is read each time, because tokens rotate.
    fn file(&self, name: &str) -> Result<Vec<u8>, LeaseError> {
        let path = self.settings.credentials.join(name);
        files::read(&path, MAX_FILE).map_err(|error| unreadable(&path, &error))
    }

    fn failed(&self, what: &str) -> LeaseError {
        unusable(format!("the Kubernetes API server {} {what}", self.settings.api))
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> LeaseError {
    unusable(format!(
        "{} {}: a pod has this file unless `automountServiceAccountToken` is false; elsewhere, set \
         lease.kubernetes_credentials to a directory that has it",
        path.display(),
        files::why(error)
    ))
}

fn unusable(what: String) -> LeaseError {
    LeaseError::Kubernetes { what, retry_after: Duration::ZERO, source: None }
}

fn unusable_from(what: String, source: impl Into<Box<dyn Error + Send + Sync>>) -> LeaseError {
    LeaseError::Kubernetes { what, retry_after: Duration::ZERO, source: Some(source.into()) }
}

/// The name of the object.
fn object(name: &str) -> String {
    match name.strip_prefix(PURGE) {
        Some(system) => format!("hpc-storage-purge-{system}"),
        None => format!("hpc-storage-provisioner-{name}"),
    }
}

/// Whether this is the lease `object`, with values of the right types where they matter.
fn is_lease(answer: &Value, object: &str) -> bool {
    let (metadata, spec) = (&answer["metadata"], &answer["spec"]);
    let transitions = &spec["leaseTransitions"];
    answer["kind"] == KIND
        && answer["apiVersion"] == API_VERSION
        && metadata["name"] == object
        && metadata["resourceVersion"].as_str().is_some_and(|version| !version.is_empty())
        && (spec.is_null() || spec.is_object())
        && (spec["holderIdentity"].is_null() || spec["holderIdentity"].is_string())
        && (transitions.is_null() || transitions.is_u64())
}

/// The holder; empty if there is none.
fn holder(lease: &Value) -> &str {
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default()
}

fn transitions(lease: &Value) -> u64 {
    lease["spec"]["leaseTransitions"].as_u64().unwrap_or_default()
}

/// The message of a Status.
fn reason(status: &Value) -> String {
    status["message"].as_str().map(one_line).filter(|text| !text.is_empty()).unwrap_or("it gives no reason".into())
}

/// Foreign text in one line of limited length, without control characters.
fn one_line(text: &str) -> String {
    waldur_answers::reason(json!(text).to_string().as_bytes()).unwrap_or_default()
}

/// A time as a MicroTime of Kubernetes, which has exactly six decimals.
fn micro_time(time: OffsetDateTime) -> String {
    let (date, clock) = (time.date(), time.time());
    let (hour, minute, second) = clock.as_hms();
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", clock.microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_six_decimals() {
        let at = |nanos: i128| micro_time(OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap());
        assert_eq!(at(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(1_795_886_625_000_120_999), "2026-11-28T17:23:45.000120Z");
    }
}
