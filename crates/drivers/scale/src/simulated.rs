//! A Storage Scale management server with its file system: filesets are directories that are moved to and from their
//! junctions. It behaves as documented, with the deviations that users have reported.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Removal, Scale, Settings};
use driver_rest::faults::InjectedFaults;
use driver_rest::simulated::{FAST, Reply, Request, serve};
use storage_driver::conformance::directories;

/// Rows on a page of a list.
const ROWS: usize = 3;
/// The file system's block size, to which it rounds quotas.
pub const BLOCK: u64 = 4 << 20;
/// The system's root and the file system's mount point.
pub const ROOT: &str = "/gpfs/fs1";

#[derive(Debug)]
pub struct Simulated {
    pub url: url::Url,
    pub folder: TempDir,
    world: Arc<Mutex<World>>,
}

#[derive(Debug, Default)]
pub struct World {
    filesets: BTreeMap<String, SimulatedFileset>,
    /// The cache from which reads are answered.
    pub shown: BTreeMap<String, SimulatedFileset>,
    /// Reads until the cache is refreshed.
    pub lag: u32,
    jobs: Vec<(u32, Result<(), &'static str>)>,
    last_id: u64,
    folder: PathBuf,
    pub faults: InjectedFaults,
    /// Whether files are open in every fileset.
    pub busy: bool,
    /// Requests for lists.
    pub lists: u32,
    /// Attempts to create a fileset that existed.
    pub duplicates: u32,
    /// Whether quotas of users and groups are per fileset.
    pub per_fileset: bool,
    /// Requests with a wrong password. After three of them the user is locked.
    pub wrong_passwords: u32,
}

#[derive(Debug, Clone, Default)]
pub struct SimulatedFileset {
    id: u64,
    /// The ID of the fileset whose inode space it uses; its own if it is independent.
    pub inode_space: u64,
    pub snapshots: Vec<&'static str>,
    alloc_inodes: u64,
    comment: String,
    pub junction: Option<String>,
    max_inodes: u64,
    /// Soft and hard bytes, soft and hard inodes.
    limits: [u64; 4],
}

impl Simulated {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["mount", "unlinked"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let world =
            World { folder: folder.path().to_owned(), faults: InjectedFaults::seeded(0x5ca1e), ..World::default() };
        let world = Arc::new(Mutex::new(world));
        world.lock().unwrap().create("root", "root fileset", 0);
        world.lock().unwrap().filesets.get_mut("root").unwrap().junction = Some(ROOT.into());
        let served = Arc::clone(&world);
        Self { url: serve(move |request| served.lock().unwrap().answer(request)), folder, world }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub fn mount(&self) -> PathBuf {
        self.folder.path().join("mount")
    }
}

pub fn settings(simulated: &Simulated) -> Settings {
    let api = json!({"url": simulated.url, "timeout_seconds": 10});
    serde_json::from_value(json!({
        "api": api, "user": "proxy", "password": "hush", "filesystem": "fs1",
        "root": ROOT, "mount": simulated.mount(), "block_size": BLOCK,
    }))
    .unwrap()
}

pub fn file_system_type(path: &Path) -> i64 {
    rustix::fs::statfs(path).unwrap().f_type
}

pub fn scale(simulated: &Simulated) -> Scale {
    Scale::with(&settings(simulated), FAST, file_system_type(&simulated.mount())).unwrap()
}

/// The driver with `removal: unlink`.
pub fn unlinking(simulated: &Simulated) -> Scale {
    let settings = Settings { removal: Removal::Unlink, ..settings(simulated) };
    Scale::with(&settings, FAST, file_system_type(&simulated.mount())).unwrap()
}

impl World {
    /// Creates and links a fileset, as a person would.
    pub fn put(&mut self, name: &str, comment: &str, place: &str) {
        let path = self.folder.join("mount").join(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        self.create(name, comment, 0);
        self.link(name, &format!("{ROOT}/{place}")).unwrap();
        self.shown = self.filesets.clone();
    }

    pub fn names(&self) -> Vec<&str> {
        self.filesets.keys().map(String::as_str).filter(|name| *name != "root").collect()
    }

    /// The complete state: filesets without their IDs, and directories, whether linked or not.
    pub fn census(&self) -> Vec<String> {
        let without_ids = |(name, it): (&String, &SimulatedFileset)| {
            format!("{name} {:?}", SimulatedFileset { id: 0, inode_space: 0, ..it.clone() })
        };
        self.filesets.iter().map(without_ids).chain(directories(&self.folder)).collect()
    }

    fn create(&mut self, name: &str, comment: &str, max_inodes: u64) {
        self.last_id += 1;
        let (id, comment) = (self.last_id, comment.into());
        let fileset = SimulatedFileset { id, inode_space: id, comment, max_inodes, ..SimulatedFileset::default() };
        self.filesets.insert(name.into(), fileset);
        std::fs::create_dir(self.folder.join("unlinked").join(name)).unwrap();
    }

    fn real_path(&self, junction: &str) -> PathBuf {
        self.folder.join("mount").join(Path::new(junction).strip_prefix(ROOT).unwrap())
    }

    fn link(&mut self, name: &str, junction: &str) -> Result<(), &'static str> {
        let real = self.real_path(junction);
        let it = self.filesets.get_mut(name).ok_or("EFSSG0072C no such fileset")?;
        if it.junction.is_some() || real.exists() || !real.parent().unwrap().is_dir() {
            return Err("EFSSG0449C mmlinkfileset: The junction path is linked, exists, or has no parent.");
        }
        std::fs::rename(self.folder.join("unlinked").join(name), real).unwrap();
        it.junction = Some(junction.into());
        Ok(())
    }

    pub fn unlink(&mut self, name: &str) -> Result<(), &'static str> {
        let junction = self.filesets.get(name).and_then(|it| it.junction.clone()).ok_or("EFSSG0072C not linked")?;
        if self.busy {
            return Err("EFSSG0450C mmunlinkfileset: Device or resource busy.");
        }
        std::fs::rename(self.real_path(&junction), self.folder.join("unlinked").join(name)).unwrap();
        self.filesets.get_mut(name).unwrap().junction = None;
        Ok(())
    }

    /// Changes a fileset, as a person would.
    pub fn edit(&mut self, name: &str, edit: impl FnOnce(&mut SimulatedFileset)) {
        edit(self.filesets.get_mut(name).unwrap());
        self.shown = self.filesets.clone();
    }

    pub fn fileset(&self, name: &str) -> SimulatedFileset {
        self.filesets[name].clone()
    }

    fn rename(&mut self, name: &str, new: &str) -> Result<(), &'static str> {
        if self.filesets.contains_key(new) {
            return Err("EFSSP1102C The fileset already exists.");
        }
        let it = self.filesets.remove(name).ok_or("EFSSG0072C no such fileset")?;
        if it.junction.is_none() {
            let unlinked = self.folder.join("unlinked");
            std::fs::rename(unlinked.join(name), unlinked.join(new)).unwrap();
        }
        self.filesets.insert(new.into(), it);
        Ok(())
    }

    fn delete(&mut self, name: &str) -> Result<(), &'static str> {
        let it = self.filesets.get(name).ok_or("EFSSG0072C no such fileset")?;
        if it.junction.is_some() {
            return Err("EFSSG0442C the fileset is linked");
        }
        let depends = |other: &SimulatedFileset| other.id != it.id && other.inode_space == it.id;
        if !it.snapshots.is_empty() || self.filesets.values().any(depends) {
            return Err("EFSSG0443C the fileset has snapshots or dependent filesets");
        }
        std::fs::remove_dir_all(self.folder.join("unlinked").join(name)).unwrap();
        self.filesets.remove(name);
        Ok(())
    }

    fn answer(&mut self, request: &Request) -> Reply {
        if self.wrong_passwords >= 3 {
            return Reply::Json(403, "", json!({"status": {"code": 403, "message": "Forbidden"}}));
        }
        // Basic authentication with "proxy" and "hush".
        if request.authorization.as_deref() != Some("Basic cHJveHk6aHVzaA==") {
            self.wrong_passwords += 1;
            return Reply::Json(401, "", json!({"status": {"code": 401, "message": "Unauthorized"}}));
        }
        if let Some(refusal) = self.faults.refusal() {
            return refusal;
        }
        let path: Vec<_> = request.path.iter().map(String::as_str).collect();
        let reply = match (&*request.method, &path[..]) {
            ("GET", ["scalemgmt", "v2", "jobs", id]) => self.job(id.parse().unwrap()),
            ("GET", ["scalemgmt", "v2", "filesystems", "fs1", rest @ ..]) => self.read(rest, request),
            ("POST", ["scalemgmt", "v2", "refreshTask", "enqueue"]) => {
                self.lag = 0;
                Reply::Json(202, "", json!({"status": {"code": 202}}))
            }
            (_, ["scalemgmt", "v2", "filesystems", "fs1", rest @ ..]) => self.start_job(request, rest),
            _ => Reply::Json(404, "", json!({"status": {"code": 404, "message": "no such endpoint"}})),
        };
        self.faults.deliver(&request.method, reply)
    }

    fn job(&mut self, id: usize) -> Reply {
        let (polls, outcome) = &mut self.jobs[id];
        *polls = polls.saturating_sub(1);
        let (status, stderr) = match outcome {
            _ if *polls > 0 => ("RUNNING", vec![]),
            Ok(()) => ("COMPLETED", vec![]),
            Err(text) => ("FAILED", vec![*text]),
        };
        let job = json!({"jobId": id, "status": status, "result": {"exitCode": 0, "stderr": stderr, "stdout": []}});
        Reply::Json(200, "", json!({"status": {"code": 200}, "jobs": [job]}))
    }

    fn start_job(&mut self, request: &Request, path: &[&str]) -> Reply {
        let outcome = if self.faults.occurs() {
            Err("EFSSG0001C the command could not be run")
        } else {
            self.change(&request.method, path, &request.body)
        };
        self.lag = self.lag.max(2);
        let id = self.jobs.len();
        self.jobs.push((u32::try_from(id % 3).unwrap(), outcome));
        let answer = json!({"status": {"code": 202}, "jobs": [{"jobId": id, "status": "RUNNING"}]});
        Reply::Json(202, "", answer)
    }

    fn change(&mut self, method: &str, path: &[&str], body: &Value) -> Result<(), &'static str> {
        let text = |key: &str| body[key].as_str().unwrap_or_default();
        let number = |key: &str| text(key).parse::<u64>().unwrap_or_default();
        match (method, path) {
            ("POST", ["filesets"]) => {
                let name = text("filesetName");
                if self.filesets.contains_key(name) {
                    self.duplicates += 1;
                    return Err("EFSSP1102C The fileset already exists.");
                }
                assert!(body.get("path").is_none(), "created unlinked");
                if number("allocInodes") > number("maxNumInodes") {
                    return Err("EFSSG0073C allocInodes exceeds maxNumInodes");
                }
                self.create(name, text("comment"), number("maxNumInodes"));
                self.filesets.get_mut(name).unwrap().alloc_inodes = number("allocInodes");
                Ok(())
            }
            ("PUT", ["filesets", name]) => {
                if body.get("newFilesetName").is_some() {
                    self.rename(name, text("newFilesetName"))?;
                }
                let name = body["newFilesetName"].as_str().unwrap_or(name);
                let it = self.filesets.get_mut(name).ok_or("EFSSG0072C no such fileset")?;
                if body.get("comment").is_some() {
                    it.comment = text("comment").into();
                }
                it.max_inodes = it.max_inodes.max(number("maxNumInodes"));
                Ok(())
            }
            ("POST", ["filesets", name, "link"]) => self.link(name, text("path")),
            ("DELETE", ["filesets", name, "link"]) => self.unlink(name),
            ("DELETE", ["filesets", name]) => self.delete(name),
            ("POST", ["quotas"]) if self.per_fileset => Err("EFSSG0074C Per fileset quota enabled on this filesystem"),
            ("POST", ["filesets", _, "quotas"]) if !self.per_fileset => Err("EFSSG0075C no quotas of filesets"),
            ("POST", ["quotas"] | ["filesets", _, "quotas"]) => {
                assert_eq!((text("operationType"), text("quotaType")), ("setQuota", "FILESET"));
                let it = self.filesets.get_mut(text("objectName")).ok_or("EFSSG0072C no such fileset")?;
                let [soft, hard] = ["blockSoftLimit", "blockHardLimit"].map(|key| number(key).next_multiple_of(BLOCK));
                it.limits = [soft, hard, number("filesSoftLimit"), number("filesHardLimit")];
                Ok(())
            }
            _ => Err("EFSSG0002C no such command"),
        }
    }

    fn read(&mut self, path: &[&str], request: &Request) -> Reply {
        match self.lag {
            0 => self.shown = self.filesets.clone(),
            _ => self.lag -= 1,
        }
        let from: u64 = request.query("lastId").map_or(0, |last| last.parse().unwrap());
        match path {
            [] => {
                let filesystem = json!({
                    "name": "fs1", "block": {"blockSize": BLOCK}, "mount": {"mountPoint": "/gpfs/fs1"},
                    "quota": {"quotasEnforced": "user;group;fileset", "perfilesetQuotas": self.per_fileset},
                });
                Reply::Json(200, "", json!({"status": {"code": 200}, "filesystems": [filesystem]}))
            }
            ["filesets", name, "snapshots"] => {
                let named = |name: &&'static str| json!({ "snapshotName": name });
                let snapshots = self.filesets.get(*name).map(|it| it.snapshots.iter().map(named).collect::<Vec<_>>());
                shown_or_absent(snapshots.map(|snapshots| json!({"snapshots": snapshots})))
            }
            ["filesets", name] => {
                shown_or_absent(self.shown.get(*name).map(|it| json!({"filesets": [fileset(name, it)]})))
            }
            ["filesets"] => {
                self.lists += 1;
                let rows = self.shown.iter().map(|(name, it)| (it.id, fileset(name, it)));
                page("filesets", rows.collect(), from)
            }
            ["quotas"] => {
                self.lists += 1;
                let only = request.query("filter").and_then(|filter| filter.strip_prefix("objectName="));
                let named = self.shown.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
                page("quotas", named.flat_map(|(name, it)| quotas(name, it)).collect(), from)
            }
            _ => Reply::Json(404, "", json!({"status": {"code": 404, "message": "no such endpoint"}})),
        }
    }
}

fn shown_or_absent(found: Option<Value>) -> Reply {
    let message = "Invalid value in 'filesetName'";
    let absent = || Reply::Json(400, "", json!({"status": {"code": 400, "message": message}}));
    found.map_or_else(absent, |found| Reply::Json(200, "", found))
}

fn fileset(name: &str, it: &SimulatedFileset) -> Value {
    let path = it.junction.as_deref().unwrap_or("--");
    let config = json!({
        "path": path, "comment": it.comment, "maxNumInodes": it.max_inodes, "id": it.id,
        "inodeSpace": it.inode_space, "isInodeSpaceOwner": it.inode_space == it.id,
        "status": if it.junction.is_some() { "Linked" } else { "Unlinked" },
    });
    json!({"filesetName": name, "filesystemName": "fs1", "config": config})
}

/// The quota of a fileset, and that of a user with the same name.
fn quotas(name: &str, it: &SimulatedFileset) -> [(u64, Value); 2] {
    let [soft, hard, files_soft, files_hard] = it.limits;
    let quota = |kind: &str, limits: [u64; 4]| {
        json!({
            "quotaType": kind, "objectName": name, "filesystemName": "fs1", "filesetName": "root",
            "blockUsage": 8, "blockInDoubt": 4, "blockQuota": limits[0] / 1024, "blockLimit": limits[1] / 1024,
            "filesUsage": 1, "filesInDoubt": 2, "filesQuota": limits[2], "filesLimit": limits[3],
        })
    };
    [
        (2 * it.id, quota("FILESET", [soft, hard, files_soft, files_hard])),
        (2 * it.id + 1, quota("USR", [1024, 1024, 1, 1])),
    ]
}

fn page(of: &str, mut rows: Vec<(u64, Value)>, from: u64) -> Reply {
    rows.sort_by_key(|(id, _)| *id);
    rows.retain(|(id, _)| *id > from);
    let more = rows.len() > ROWS;
    rows.truncate(ROWS);
    let last = rows.last().map_or(0, |(id, _)| *id);
    let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    let mut page = json!({"status": {"code": 200}, of: rows});
    if more {
        page["paging"] = json!({"lastId": last, "baseUrl": "https://gui/scalemgmt/v2/x"});
    }
    Reply::Json(200, "", page)
}
