//! A Kubernetes API server for Lease objects, over TLS: responses, versions of objects and refusals as in the real one, and
//! faults.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use program::lock;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The namespace that exists.
pub(crate) const NAMESPACE: &str = "storage";
const VERBS: [&str; 3] = ["get", "create", "update"];

/// What happens to a request instead of the usual.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Status, additional header lines, body.
    Reply(u16, &'static str, String),
    /// The connection ends before the request is carried out.
    Reset,
    /// The request is carried out, and the connection ends without a response.
    Lost,
    /// No response for this long, and then the end of the connection.
    Hang(Duration),
}

/// A request as the hook sees it: verb, path and token.
pub(crate) type Hook = Box<dyn Fn(&str, &str, &str) -> Option<Fault> + Send + Sync>;

pub(crate) struct ApiServer {
    pub(crate) address: SocketAddr,
    directory: TempDir,
    certificate: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    world: Mutex<World>,
    hook: Mutex<Option<Arc<Hook>>>,
}

#[derive(Default)]
struct World {
    /// By path.
    objects: BTreeMap<String, Value>,
    version: u64,
    /// The verbs that each token allows.
    accounts: BTreeMap<String, BTreeSet<&'static str>>,
}

/// Status and body.
type Answer = (u16, Value);

impl ApiServer {
    pub(crate) fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let (config, state) = (Arc::new(config), Arc::new(State::default()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, state) = (Arc::clone(&config), Arc::clone(&shared));
                std::thread::spawn(move || {
                    state.serve(StreamOwned::new(ServerConnection::new(config).unwrap(), stream.unwrap()))
                });
            }
        });
        Self { address, directory: TempDir::new().unwrap(), certificate: made.cert.pem(), state }
    }

    /// A service account that may do everything. Returns the directory that a pod would have. Its name is the token.
    pub(crate) fn account(&self, name: &str) -> PathBuf {
        let directory = self.directory.path().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("token"), name).unwrap();
        std::fs::write(directory.join("ca.crt"), &self.certificate).unwrap();
        self.allow(name, &VERBS);
        directory
    }

    /// The verbs that a token allows from now on.
    pub(crate) fn allow(&self, token: &str, verbs: &[&'static str]) {
        lock(&self.state.world).accounts.insert(token.to_owned(), verbs.iter().copied().collect());
    }

    /// A token that is no longer accepted.
    pub(crate) fn forget(&self, token: &str) {
        lock(&self.state.world).accounts.remove(token);
    }

    /// Called with each request.
    pub(crate) fn hook(&self, hook: impl Fn(&str, &str, &str) -> Option<Fault> + Send + Sync + 'static) {
        *lock(&self.state.hook) = Some(Arc::new(Box::new(hook)));
    }

    pub(crate) fn clear_hook(&self) {
        *lock(&self.state.hook) = None;
    }

    /// The lease with this name; null if there is none.
    pub(crate) fn lease(&self, name: &str) -> Value {
        lock(&self.state.world).objects.get(&path_of(name)).cloned().unwrap_or_default()
    }

    /// Changes a lease as `kubectl edit` does.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut world = lock(&self.state.world);
        let mut object = world.objects[&path_of(name)].clone();
        change(&mut object);
        world.store(&path_of(name), object);
    }

    pub(crate) fn delete(&self, name: &str) {
        lock(&self.state.world).objects.remove(&path_of(name));
    }
}

fn path_of(name: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{name}")
}

impl State {
    /// Answers requests until the connection ends.
    fn serve(&self, stream: StreamOwned<ServerConnection, TcpStream>) -> Option<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = || {
                let mut line = String::new();
                stream.read_line(&mut line).ok().filter(|read| *read > 0).map(|_| line.trim_end().to_owned())
            };
            let first = line()?;
            let (mut length, mut token) = (0, String::new());
            while let Some(header) = line().filter(|header| !header.is_empty()) {
                let (name, value) = header.split_once(": ")?;
                match &*name.to_ascii_lowercase() {
                    "content-length" => length = value.parse().ok()?,
                    "authorization" => value.strip_prefix("Bearer ")?.clone_into(&mut token),
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).ok()?;
            let mut words = first.split(' ');
            let (method, path) = (words.next()?, words.next()?);
            let verb = match method {
                "GET" => "get",
                "POST" => "create",
                "PUT" => "update",
                _ => return None,
            };
            let hook = lock(&self.hook).clone();
            let fault = hook.and_then(|hook| hook(verb, path, &token));
            let answer = match &fault {
                Some(Fault::Reset) => return None,
                Some(Fault::Hang(time)) => {
                    std::thread::sleep(*time);
                    return None;
                }
                Some(Fault::Reply(..)) => (0, Value::Null),
                Some(Fault::Lost) | None => lock(&self.world).answer(verb, path, &token, &body),
            };
            let (status, headers, body) = match fault {
                Some(Fault::Lost) => return None,
                Some(Fault::Reply(status, headers, body)) => (status, headers, body),
                _ => (answer.0, "content-type: application/json\r\n", answer.1.to_string()),
            };
            let head = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n", body.len());
            stream.get_mut().write_all((head + &body).as_bytes()).ok()?;
        }
    }
}

impl World {
    fn answer(&mut self, verb: &str, path: &str, token: &str, body: &[u8]) -> Answer {
        let Some(allowed) = self.accounts.get(token) else {
            return status(401, "Unauthorized", "Unauthorized", "");
        };
        let body = serde_json::from_slice(body).unwrap_or(Value::Null);
        if path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" {
            let verb = body["spec"]["resourceAttributes"]["verb"].as_str().unwrap();
            let mut review = body.clone();
            review["status"] = json!({"allowed": allowed.contains(verb)});
            return (201, review);
        }
        let parts: Vec<_> = path.split('/').collect();
        let ["", "apis", "coordination.k8s.io", "v1", "namespaces", namespace, "leases", name @ ..] = &parts[..] else {
            return (404, json!("404 page not found"));
        };
        let name = name.first().copied().or(body["metadata"]["name"].as_str()).unwrap_or_default().to_owned();
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}");
        if !allowed.contains(verb) {
            let text = format!(
                "leases.coordination.k8s.io {name:?} is forbidden: User \"system:serviceaccount:storage:{token}\" cannot \
                 {verb} resource \"leases\" in API group \"coordination.k8s.io\" in the namespace {namespace:?}"
            );
            return status(403, "Forbidden", &text, &name);
        }
        let missing = |what: &str| status(404, "NotFound", &format!("{what} {name:?} not found"), &name);
        match (verb, self.objects.get(&path).cloned()) {
            ("get", Some(object)) => (200, object),
            ("create", _) if *namespace != NAMESPACE => {
                status(404, "NotFound", &format!("namespaces {namespace:?} not found"), namespace)
            }
            ("create", Some(_)) => {
                let text = format!("leases.coordination.k8s.io {name:?} already exists");
                status(409, "AlreadyExists", &text, &name)
            }
            ("create", None) => self.checked(201, &path, &name, body),
            (_, None) => missing("leases.coordination.k8s.io"),
            (_, Some(object)) => match body["metadata"]["resourceVersion"].as_str() {
                None | Some("") => {
                    let text = "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update";
                    status(422, "Invalid", text, &name)
                }
                Some(version) if object["metadata"]["resourceVersion"] != version => {
                    let text = format!(
                        "Operation cannot be fulfilled on leases.coordination.k8s.io {name:?}: the object has been \
                         modified; please apply your changes to the latest version and try again"
                    );
                    status(409, "Conflict", &text, &name)
                }
                // A change that changes nothing gets no new version.
                Some(_) if object == body => (200, object),
                Some(_) => self.checked(200, &path, &name, body),
            },
        }
    }

    fn checked(&mut self, code: u16, path: &str, name: &str, object: Value) -> Answer {
        let spec = &object["spec"];
        let is_time = |value: &Value| {
            let shape = "0000-00-00T00:00:00.000000Z";
            value.is_null()
                || value.as_str().is_some_and(|text| {
                    text.len() == shape.len()
                        && text
                            .bytes()
                            .zip(shape.bytes())
                            .all(|(c, like)| if like == b'0' { c.is_ascii_digit() } else { c == like })
                })
        };
        let (duration, transitions) = (&spec["leaseDurationSeconds"], &spec["leaseTransitions"]);
        if !is_time(&spec["renewTime"])
            || !is_time(&spec["acquireTime"])
            || transitions.as_i64().is_some_and(|count| count > i32::MAX.into())
        {
            return status(400, "BadRequest", "Lease in version \"v1\" cannot be handled as a Lease", name);
        }
        if duration.as_i64().is_some_and(|seconds| seconds <= 0) || transitions.as_i64().is_some_and(|count| count < 0)
        {
            return status(422, "Invalid", "spec: Invalid value: must be greater than 0", name);
        }
        (code, self.store(path, object))
    }

    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{}", self.version).into();
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

fn status(code: u16, reason: &str, message: &str, name: &str) -> Answer {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
        "details": {"name": name, "group": "coordination.k8s.io", "kind": "leases"}, "code": code,
    });
    (code, body)
}
