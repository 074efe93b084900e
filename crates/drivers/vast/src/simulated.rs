//! A VAST management system with its file system, limited to what concerns quotas.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Settings, Vast};
use driver_rest::InvalidSettings;
use driver_rest::faults::InjectedFaults;
use driver_rest::simulated::{FAST, Reply, Request, serve};
use storage_driver::conformance;

/// The system's root on VAST.
pub const ROOT: &str = "/capstor";
/// Rows on a page, regardless of the requested number.
const ROWS: usize = 2;

#[derive(Debug)]
pub struct Simulated {
    pub url: url::Url,
    pub folder: TempDir,
    world: Arc<Mutex<World>>,
}

#[derive(Debug, Default)]
pub struct World {
    pub quotas: BTreeMap<u64, SimulatedQuota>,
    last_id: u64,
    folder: PathBuf,
    pub faults: InjectedFaults,
    /// Whether a quota follows its directory when that is renamed.
    pub follows: bool,
    /// Whether lists are split into pages.
    pub pages: bool,
    /// The current token.
    token: String,
    pub logins: u32,
    pub wrong_logins: u32,
    /// How many levels of nested quotas are allowed.
    pub levels: usize,
    requests: u32,
}

#[derive(Debug, Clone)]
pub struct SimulatedQuota {
    pub fields: Value,
    inode: u64,
}

impl Simulated {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = World {
            folder: folder.path().to_owned(),
            faults: InjectedFaults::seeded(0x0ba5_7000),
            token: "first".into(),
            levels: 16,
            ..World::default()
        };
        let world = Arc::new(Mutex::new(world));
        let served = Arc::clone(&world);
        Self { url: serve(move |request| served.lock().unwrap().answer(request)), folder, world }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Creates a directory, as a person would.
    pub fn create_directory(&self, place: &str) -> PathBuf {
        let path = self.folder.path().join(place);
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}

pub fn settings(simulated: &Simulated, credential: &Value) -> Settings {
    let mut settings = json!({
        "api": {"url": simulated.url, "timeout_seconds": 10}, "root": ROOT, "mount": simulated.folder.path(),
    });
    for (key, value) in credential.as_object().unwrap() {
        settings[key] = value.clone();
    }
    serde_json::from_value(settings).unwrap()
}

fn file_system_type(path: &Path) -> i64 {
    rustix::fs::statfs(path).unwrap().f_type
}

pub fn with(simulated: &Simulated, credential: &Value) -> Result<Vast, InvalidSettings> {
    Vast::with(&settings(simulated, credential), FAST, file_system_type(simulated.folder.path()))
}

pub fn vast(simulated: &Simulated) -> Vast {
    with(simulated, &json!({"token": "hush"})).unwrap()
}

impl World {
    /// Creates a quota, as a person would.
    pub fn put(&mut self, name: &str, path: &str, tenant: u64) -> u64 {
        self.create(&json!({"name": name, "path": path, "tenant_id": tenant})).unwrap()
    }

    /// The complete state: quotas, with directories instead of inodes, and directories.
    pub fn census(&self) -> Vec<String> {
        let places = directories(&self.folder);
        let without_ids = |quota: &SimulatedQuota| {
            let mut fields = quota.fields.clone();
            fields["id"] = 0.into();
            if let Some((id, inode)) = fields["name"].as_str().and_then(|name| name.split_once('.')) {
                let place = inode.parse().ok().and_then(|inode: u64| places.get(&inode));
                let below = place.map(|place| place.strip_prefix(&self.folder).unwrap());
                fields["name"] = format!("{id} for {below:?}").into();
            }
            fields.to_string()
        };
        self.quotas.values().map(without_ids).chain(conformance::directories(&self.folder)).collect()
    }

    fn create(&mut self, body: &Value) -> Result<u64, &'static str> {
        let taken = |quota: &SimulatedQuota| {
            let same = |keys: &[&str]| keys.iter().all(|key| quota.fields[*key] == body[*key]);
            same(&["path", "tenant_id"]) || same(&["name"])
        };
        if self.quotas.values().any(taken) {
            return Err("quota with this name or path already exists.");
        }
        let path = body["path"].as_str().unwrap();
        let is_above =
            |quota: &&SimulatedQuota| path.starts_with(&format!("{}/", quota.fields["path"].as_str().unwrap()));
        if self.quotas.values().filter(is_above).count() >= self.levels {
            return Err("Quota nesting limit exceeded.");
        }
        let real = self.real_path(path);
        let inode = match std::fs::metadata(&real) {
            Ok(metadata) => metadata.ino(),
            Err(_) if body["create_dir"] == false => return Err("Directory does not exist."),
            Err(_) => 0,
        };
        self.last_id += 1;
        let mut fields = json!({
            "id": self.last_id, "state": "OK", "soft_limit": null, "hard_limit": null, "soft_limit_inodes": 0,
            "hard_limit_inodes": 0, "used_inodes": 3, "used_capacity": 17, "used_effective_capacity": 13_832_814_592_u64,
        });
        merge(&mut fields, body);
        self.quotas.insert(self.last_id, SimulatedQuota { fields, inode });
        Ok(self.last_id)
    }

    fn real_path(&self, path: &str) -> PathBuf {
        self.folder.join(Path::new(path).strip_prefix(ROOT).unwrap_or(Path::new("elsewhere")))
    }

    fn answer(&mut self, request: &Request) -> Reply {
        let path: Vec<_> = request.path.iter().map(String::as_str).collect();
        if let Some(refusal) = self.faults.refusal() {
            return refusal;
        }
        if let ("POST", ["api", "token", ""]) = (&*request.method, &path[..]) {
            return self.log_in(&request.body);
        }
        self.requests += 1;
        // The token of a login expires after some requests.
        if self.requests.is_multiple_of(20) {
            self.token = format!("expired at request {}", self.requests);
        }
        let authorization = request.authorization.as_deref();
        if authorization != Some("Api-Token hush") && authorization != Some(&format!("Bearer {}", self.token)) {
            return Reply::Json(403, "", json!({"detail": "Token is invalid or expired"}));
        }
        let reply = match (&*request.method, &path[..]) {
            ("GET", ["api", "quotas", ""]) => self.list(request.query("page").unwrap().parse().unwrap()),
            ("POST", ["api", "quotas", ""]) => match self.create(&request.body) {
                Ok(id) => Reply::Json(201, "", self.quotas[&id].fields.clone()),
                Err(detail) => Reply::Json(400, "", json!({"detail": detail})),
            },
            (method, ["api", "quotas", id, ""]) => self.change(method, id.parse().unwrap(), &request.body),
            _ => Reply::Json(404, "", json!({"detail": "Not found."})),
        };
        self.faults.deliver(&request.method, reply)
    }

    fn log_in(&mut self, body: &Value) -> Reply {
        if *body != json!({"username": "manager", "password": "hush"}) {
            self.wrong_logins += 1;
            return Reply::Json(401, "", json!({"detail": "No active account found with the given credentials"}));
        }
        self.logins += 1;
        self.token = format!("token-{}", self.logins);
        Reply::Json(200, "", json!({"access": self.token, "refresh": "x"}))
    }

    fn change(&mut self, method: &str, id: u64, body: &Value) -> Reply {
        let Some(quota) = self.quotas.get_mut(&id) else {
            return Reply::Json(404, "", json!({"detail": "Not found."}));
        };
        match method {
            "PATCH" => {
                merge(&mut quota.fields, body);
                Reply::Json(200, "", quota.fields.clone())
            }
            "DELETE" => {
                self.quotas.remove(&id);
                Reply::Json(204, "", json!(null))
            }
            _ => Reply::Json(405, "", json!({"detail": "Method not allowed."})),
        }
    }

    fn list(&mut self, page: usize) -> Reply {
        if self.follows {
            let places = directories(&self.folder);
            for quota in self.quotas.values_mut() {
                if let Some(now) = places.get(&quota.inode) {
                    let below = now.strip_prefix(&self.folder).unwrap().display();
                    quota.fields["path"] = format!("{ROOT}/{below}").into();
                }
            }
        }
        let all: Vec<_> = self.quotas.values().map(|quota| quota.fields.clone()).collect();
        if !self.pages {
            return Reply::Json(200, "", json!(all));
        }
        let rows: Vec<_> = all.iter().skip((page - 1) * ROWS).take(ROWS).collect();
        let next = (all.len() > page * ROWS).then_some("https://vms/api/quotas/?page=next");
        Reply::Json(200, "", json!({"count": all.len(), "next": next, "previous": null, "results": rows}))
    }
}

fn merge(fields: &mut Value, body: &Value) {
    for (key, value) in body.as_object().unwrap() {
        fields[key] = value.clone();
    }
}

/// All directories by inode.
fn directories(folder: &Path) -> BTreeMap<u64, PathBuf> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                found.insert(entry.metadata().unwrap().ino(), entry.path());
                left.push(entry.path());
            }
        }
    }
    found
}
