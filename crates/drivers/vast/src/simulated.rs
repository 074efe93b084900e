//! A VAST management system with its file system, as far as quotas go.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Settings, Vast};
use driver_rest::NotSetUp;
use driver_rest::faults::Chance;
use driver_rest::simulated::{FAST, Reply, Request, serve};
use storage_driver::conformance;

/// The system's root as VAST names it.
pub const ROOT: &str = "/capstor";
/// Rows on a page, whatever is asked for.
const ROWS: usize = 2;

#[derive(Debug)]
pub struct Simulated {
    pub url: url::Url,
    pub folder: TempDir,
    world: Arc<Mutex<World>>,
}

#[derive(Debug)]
pub struct World {
    pub quotas: BTreeMap<u64, Quota>,
    last_id: u64,
    folder: PathBuf,
    chance: Chance,
    /// One in so many requests goes wrong; `None`: none.
    pub faults: Option<u64>,
    /// Requests that went wrong.
    pub wrong: u32,
    /// Whether a quota moves along with its directory.
    pub follows: bool,
    /// Whether lists come in pages.
    pub pages: bool,
    /// The token that is good, and how often it was given.
    token: String,
    pub logins: u32,
    /// Logins that were refused.
    pub wrong_logins: u32,
    /// How deep quotas can be nested.
    pub levels: usize,
    requests: u32,
    /// Whether the answer to the next change gets lost.
    pub loses_next: bool,
}

#[derive(Debug, Clone)]
pub struct Quota {
    pub fields: Value,
    inode: u64,
}

impl Simulated {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = World {
            quotas: BTreeMap::new(),
            last_id: 0,
            folder: folder.path().to_owned(),
            chance: Chance(0x0ba5_7000),
            faults: None,
            wrong: 0,
            follows: false,
            pages: false,
            token: "first".into(),
            logins: 0,
            wrong_logins: 0,
            levels: 16,
            requests: 0,
            loses_next: false,
        };
        let world = Arc::new(Mutex::new(world));
        let served = Arc::clone(&world);
        Self { url: serve(move |request| served.lock().unwrap().answer(request)), folder, world }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Makes a directory, as a person would.
    pub fn make_directory(&self, place: &str) -> PathBuf {
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

fn kind(path: &Path) -> i64 {
    rustix::fs::statfs(path).unwrap().f_type
}

pub fn with(simulated: &Simulated, credential: &Value) -> Result<Vast, NotSetUp> {
    Vast::on(&settings(simulated, credential), FAST, kind(simulated.folder.path()))
}

pub fn vast(simulated: &Simulated) -> Vast {
    with(simulated, &json!({"token": "hush"})).unwrap()
}

impl World {
    /// Makes a quota, as a person would.
    pub fn put(&mut self, name: &str, path: &str, tenant: u64) -> u64 {
        self.make(&json!({"name": name, "path": path, "tenant_id": tenant})).unwrap()
    }

    /// Everything that is there: quotas, with their directories instead of numbers, and directories.
    pub fn census(&self) -> Vec<String> {
        let places = directories(&self.folder);
        let numberless = |quota: &Quota| {
            let mut fields = quota.fields.clone();
            fields["id"] = 0.into();
            if let Some((id, inode)) = fields["name"].as_str().and_then(|name| name.split_once('.')) {
                let place = inode.parse().ok().and_then(|inode: u64| places.get(&inode));
                let below = place.map(|place| place.strip_prefix(&self.folder).unwrap());
                fields["name"] = format!("{id} for {below:?}").into();
            }
            fields.to_string()
        };
        self.quotas.values().map(numberless).chain(conformance::directories(&self.folder)).collect()
    }

    fn make(&mut self, body: &Value) -> Result<u64, &'static str> {
        let taken = |quota: &Quota| {
            let same = |keys: &[&str]| keys.iter().all(|key| quota.fields[*key] == body[*key]);
            same(&["path", "tenant_id"]) || same(&["name"])
        };
        if self.quotas.values().any(taken) {
            return Err("quota with this name or path already exists.");
        }
        let path = body["path"].as_str().unwrap();
        let is_above = |quota: &&Quota| path.starts_with(&format!("{}/", quota.fields["path"].as_str().unwrap()));
        if self.quotas.values().filter(is_above).count() >= self.levels {
            return Err("Quota nesting limit exceeded.");
        }
        let real = self.real(path);
        let inode = match std::fs::metadata(&real) {
            Ok(there) => there.ino(),
            Err(_) if body["create_dir"] == false => return Err("Directory does not exist."),
            Err(_) => 0,
        };
        self.last_id += 1;
        let mut fields = json!({
            "id": self.last_id, "state": "OK", "soft_limit": null, "hard_limit": null, "soft_limit_inodes": 0,
            "hard_limit_inodes": 0, "used_inodes": 3, "used_capacity": 17, "used_effective_capacity": 13_832_814_592_u64,
        });
        merge(&mut fields, body);
        self.quotas.insert(self.last_id, Quota { fields, inode });
        Ok(self.last_id)
    }

    fn real(&self, path: &str) -> PathBuf {
        self.folder.join(Path::new(path).strip_prefix(ROOT).unwrap_or(Path::new("elsewhere")))
    }

    fn goes_wrong(&mut self) -> bool {
        let wrong = self.faults.is_some_and(|n| self.chance.one_in(n));
        self.wrong += u32::from(wrong);
        wrong
    }

    fn answer(&mut self, request: &Request) -> Reply {
        let path: Vec<_> = request.path.iter().map(String::as_str).collect();
        if self.goes_wrong() {
            let status = if self.chance.one_in(2) { 429 } else { 503 };
            return Reply::Json(status, "retry-after: 0\r\n", json!(null));
        }
        if let ("POST", ["api", "token", ""]) = (&*request.method, &path[..]) {
            return self.log_in(&request.body);
        }
        self.requests += 1;
        // A login's token is good for some requests only.
        if self.requests.is_multiple_of(20) {
            self.token = format!("over at {}", self.requests);
        }
        let authorization = request.authorization.as_deref();
        if authorization != Some("Api-Token hush") && authorization != Some(&format!("Bearer {}", self.token)) {
            return Reply::Json(403, "", json!({"detail": "Token is invalid or expired"}));
        }
        let reply = match (&*request.method, &path[..]) {
            ("GET", ["api", "quotas", ""]) => self.list(request.query("page").unwrap().parse().unwrap()),
            ("POST", ["api", "quotas", ""]) => match self.make(&request.body) {
                Ok(id) => Reply::Json(201, "", self.quotas[&id].fields.clone()),
                Err(detail) => Reply::Json(400, "", json!({"detail": detail})),
            },
            (method, ["api", "quotas", id, ""]) => self.change(method, id.parse().unwrap(), &request.body),
            _ => Reply::Json(404, "", json!({"detail": "Not found."})),
        };
        let lost = request.method != "GET" && std::mem::take(&mut self.loses_next);
        if lost || self.goes_wrong() { Reply::Lost } else { reply }
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

/// All directories by their inodes.
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
