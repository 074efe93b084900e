//! A Storage Scale management server with its file system: filesets are directories that are moved to and from their
//! junctions. It does what the documentation says, and the oddities that users have met.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Removal, Scale, Settings};
use driver_rest::faults::Chance;
use driver_rest::simulated::{FAST, Reply, Request, serve};
use storage_driver::conformance::directories;

/// Rows on a page of a list.
const ROWS: usize = 3;
/// The file system's block size, to which quotas are rounded up.
pub const BLOCK: u64 = 4 << 20;
/// The system's root, and the file system's mount point.
pub const ROOT: &str = "/gpfs/fs1";

#[derive(Debug)]
pub struct Simulated {
    pub url: url::Url,
    pub folder: TempDir,
    world: Arc<Mutex<World>>,
}

#[derive(Debug)]
pub struct World {
    filesets: BTreeMap<String, It>,
    /// What the lists say: what was there some requests ago.
    pub shown: BTreeMap<String, It>,
    pub lag: u32,
    jobs: Vec<(u32, Result<(), &'static str>)>,
    last_id: u64,
    folder: PathBuf,
    chance: Chance,
    /// One in so many requests goes wrong; `None`: none.
    pub faults: Option<u64>,
    /// Whether files are open in every fileset.
    pub busy: bool,
    /// Lists of any kind that were asked for.
    pub lists: u32,
    /// Requests that went wrong.
    pub wrong: u32,
    /// Whether the answer to the next change gets lost.
    pub loses_next: bool,
    /// Filesets that were to be made and were there.
    pub twice: u32,
    /// Whether quotas of users and groups count by fileset.
    pub per_fileset: bool,
    /// Requests with a wrong password; after three the user is locked, and the right one does not help.
    pub wrong_passwords: u32,
}

#[derive(Debug, Clone)]
pub struct It {
    id: u64,
    /// The number of the fileset whose inodes it uses, its own if it is independent.
    pub inode_space: u64,
    pub snapshots: Vec<&'static str>,
    alloc_inodes: u64,
    comment: String,
    pub junction: Option<String>,
    most_inodes: u64,
    /// Bytes soft and hard, inodes soft and hard.
    limits: [u64; 4],
}

impl Simulated {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["mount", "unlinked"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let world = World {
            filesets: BTreeMap::new(),
            shown: BTreeMap::new(),
            lag: 0,
            jobs: Vec::new(),
            last_id: 0,
            folder: folder.path().to_owned(),
            chance: Chance(0x5ca1e),
            faults: None,
            busy: false,
            lists: 0,
            wrong: 0,
            loses_next: false,
            twice: 0,
            per_fileset: false,
            wrong_passwords: 0,
        };
        let world = Arc::new(Mutex::new(world));
        world.lock().unwrap().make("root", "root fileset", 0);
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

pub fn kind(path: &Path) -> i64 {
    rustix::fs::statfs(path).unwrap().f_type
}

pub fn scale(simulated: &Simulated) -> Scale {
    Scale::on(&settings(simulated), FAST, kind(&simulated.mount())).unwrap()
}

/// The driver that unlinks what is removed.
pub fn unlinking(simulated: &Simulated) -> Scale {
    let settings = Settings { removal: Removal::Unlink, ..settings(simulated) };
    Scale::on(&settings, FAST, kind(&simulated.mount())).unwrap()
}

impl World {
    /// Makes and links a fileset, as a person would.
    pub fn put(&mut self, name: &str, comment: &str, place: &str) {
        let path = self.folder.join("mount").join(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        self.make(name, comment, 0);
        self.link(name, &format!("{ROOT}/{place}")).unwrap();
        self.shown = self.filesets.clone();
    }

    pub fn names(&self) -> Vec<&str> {
        self.filesets.keys().map(String::as_str).filter(|name| *name != "root").collect()
    }

    /// Everything that is there: filesets, but for their numbers, and directories, linked or not.
    pub fn census(&self) -> Vec<String> {
        let numberless =
            |(name, it): (&String, &It)| format!("{name} {:?}", It { id: 0, inode_space: 0, ..it.clone() });
        self.filesets.iter().map(numberless).chain(directories(&self.folder)).collect()
    }

    fn make(&mut self, name: &str, comment: &str, most_inodes: u64) {
        self.last_id += 1;
        let it = It {
            id: self.last_id,
            inode_space: self.last_id,
            snapshots: Vec::new(),
            alloc_inodes: 0,
            comment: comment.into(),
            junction: None,
            most_inodes,
            limits: [0; 4],
        };
        self.filesets.insert(name.into(), it);
        std::fs::create_dir(self.folder.join("unlinked").join(name)).unwrap();
    }

    fn real(&self, junction: &str) -> PathBuf {
        self.folder.join("mount").join(Path::new(junction).strip_prefix(ROOT).unwrap())
    }

    fn link(&mut self, name: &str, junction: &str) -> Result<(), &'static str> {
        let real = self.real(junction);
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
        std::fs::rename(self.real(&junction), self.folder.join("unlinked").join(name)).unwrap();
        self.filesets.get_mut(name).unwrap().junction = None;
        Ok(())
    }

    /// Changes a fileset as a person would, by its name.
    pub fn edit(&mut self, name: &str, edit: impl FnOnce(&mut It)) {
        edit(self.filesets.get_mut(name).unwrap());
        self.shown = self.filesets.clone();
    }

    pub fn fileset(&self, name: &str) -> It {
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
        let depends = |other: &It| other.id != it.id && other.inode_space == it.id;
        if !it.snapshots.is_empty() || self.filesets.values().any(depends) {
            return Err("EFSSG0443C the fileset has snapshots or dependent filesets");
        }
        std::fs::remove_dir_all(self.folder.join("unlinked").join(name)).unwrap();
        self.filesets.remove(name);
        Ok(())
    }

    fn goes_wrong(&mut self) -> bool {
        let wrong = self.faults.is_some_and(|n| self.chance.one_in(n));
        self.wrong += u32::from(wrong);
        wrong
    }

    fn answer(&mut self, request: &Request) -> Reply {
        if self.wrong_passwords >= 3 {
            return Reply::Json(403, "", json!({"status": {"code": 403, "message": "Forbidden"}}));
        }
        // The basic scheme for "proxy" and "hush".
        if request.authorization.as_deref() != Some("Basic cHJveHk6aHVzaA==") {
            self.wrong_passwords += 1;
            return Reply::Json(401, "", json!({"status": {"code": 401, "message": "Unauthorized"}}));
        }
        if self.goes_wrong() {
            let status = if self.chance.one_in(2) { 429 } else { 503 };
            return Reply::Json(status, "retry-after: 0\r\n", json!({"status": {"code": status}}));
        }
        let path: Vec<_> = request.path.iter().map(String::as_str).collect();
        let reply = match (&*request.method, &path[..]) {
            ("GET", ["scalemgmt", "v2", "jobs", id]) => self.job(id.parse().unwrap()),
            ("GET", ["scalemgmt", "v2", "filesystems", "fs1", rest @ ..]) => self.look(rest, request),
            ("POST", ["scalemgmt", "v2", "refreshTask", "enqueue"]) => {
                self.lag = 0;
                Reply::Json(202, "", json!({"status": {"code": 202}}))
            }
            (_, ["scalemgmt", "v2", "filesystems", "fs1", rest @ ..]) => self.begin(request, rest),
            _ => Reply::Json(404, "", json!({"status": {"code": 404, "message": "no such endpoint"}})),
        };
        let lost = request.method != "GET" && std::mem::take(&mut self.loses_next);
        if lost || self.goes_wrong() { Reply::Lost } else { reply }
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

    fn begin(&mut self, request: &Request, path: &[&str]) -> Reply {
        let outcome = if self.goes_wrong() {
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
                    self.twice += 1;
                    return Err("EFSSP1102C The fileset already exists.");
                }
                assert!(body.get("path").is_none(), "made unlinked");
                if number("allocInodes") > number("maxNumInodes") {
                    return Err("EFSSG0073C more inodes are to be allocated than there may be");
                }
                self.make(name, text("comment"), number("maxNumInodes"));
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
                it.most_inodes = it.most_inodes.max(number("maxNumInodes"));
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

    fn look(&mut self, path: &[&str], request: &Request) -> Reply {
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

fn fileset(name: &str, it: &It) -> Value {
    let path = it.junction.as_deref().unwrap_or("--");
    let config = json!({
        "path": path, "comment": it.comment, "maxNumInodes": it.most_inodes, "id": it.id,
        "inodeSpace": it.inode_space, "isInodeSpaceOwner": it.inode_space == it.id,
        "status": if it.junction.is_some() { "Linked" } else { "Unlinked" },
    });
    json!({"filesetName": name, "filesystemName": "fs1", "config": config})
}

/// A fileset's quota, and a user's who has the same name.
fn quotas(name: &str, it: &It) -> [(u64, Value); 2] {
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
