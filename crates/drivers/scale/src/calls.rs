//! The calls to a Storage Scale management server. What was changed is awaited until the server shows it: its lists come
//! from a store of its own, which lags behind.

use std::time::Instant;

use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::Quotas;
use super::Settings;
use super::wire::{self, Changed, Fileset, Filesystem, Filesystems, Mark, Page, Progress, Quota};
use driver_rest::{self as rest, Answer, Ask, NotSetUp, Pace, Rest};
use storage_driver::credential::CredentialGuard;
use storage_driver::limits::{Inodes, QuotaLimits};
use storage_driver::{Desired, DriverError};

/// What a 401 means.
const WRONG_PASSWORD: &str = "Storage Scale says that `user` or `password` is wrong (401)";
/// No list has more pages: 1,000 rows stand on each.
const PAGES: usize = 1_000;
/// The server's tasks that renew what it shows: the first as public clients name it, the second as its task list does.
pub(super) const FILESETS: &str = "FILESETS";
const QUOTA: &str = "QUOTA";

#[derive(Debug)]
pub(super) struct Management {
    rest: Rest,
    authorization: HeaderValue,
    filesystem: String,
    inode_space: String,
    /// Whether user and password were refused: a few more attempts lock the user.
    guard: CredentialGuard,
}

/// What the system says why it does not do something.
struct Refused(String);

impl Refused {
    fn fault(self, what: &str) -> DriverError {
        DriverError::unclear(format!("{what}: Storage Scale says: {}", self.0))
    }
}

impl Management {
    pub(super) fn new(settings: &Settings, pace: Pace) -> Result<Self, NotSetUp> {
        Ok(Self {
            rest: Rest::new(&settings.api, pace)?,
            authorization: rest::basic(&settings.user, &settings.password)?,
            filesystem: settings.filesystem.clone(),
            inode_space: settings.inode_space.clone(),
            guard: CredentialGuard::default(),
        })
    }

    pub(super) fn filesystem(&self) -> Result<Filesystem, DriverError> {
        let what = "look at the file system";
        let answer = self.ask(what, Method::GET, &[], &[("fields", ":all:")], None)?;
        let list: Filesystems = fine(what, &answer)?;
        list.filesystems.into_iter().next().ok_or_else(|| DriverError::unclear(format!("{what}: there is none")))
    }

    pub(super) fn filesets(&self) -> Result<Vec<Fileset>, DriverError> {
        self.list("list the filesets", "filesets", &[("fields", ":all:")], |page| page.filesets)
    }

    /// The quotas of filesets, by the names of these.
    pub(super) fn quotas(&self) -> Result<Quotas, DriverError> {
        let rows = self.list("list the quotas", "quotas", &[("fields", ":all:")], |page| page.quotas)?;
        Ok(rows.iter().filter_map(Quota::read).collect())
    }

    /// Makes an unlinked fileset. One that is there already must be this resource's: an answer may have been lost.
    pub(super) fn make(&self, name: &str, desired: &Desired) -> Result<(), DriverError> {
        let what = format!("make the fileset {name}");
        let mark = Mark::of(desired.id);
        match self.change(&what, Method::POST, &["filesets"], Some(&wire::make(name, desired, &self.inode_space)))? {
            Err(refused) if !wire::says_exists(&refused.0) => return Err(refused.fault(&what)),
            Ok(()) | Err(_) => {}
        }
        let made = self.shown(&what, FILESETS, || self.fileset(name))?;
        if made.mark() != Some(mark) {
            return Err(DriverError::Conflict(format!(
                "a fileset {name} is there, whose comment does not say that it is ours"
            )));
        }
        Ok(())
    }

    pub(super) fn limit(&self, name: &str, limits: QuotaLimits) -> Result<(), DriverError> {
        let what = format!("limit the fileset {name} to {limits}");
        let path: &[&str] =
            if self.filesystem()?.has_quotas_per_fileset() { &["filesets", name, "quotas"] } else { &["quotas"] };
        self.change(&what, Method::POST, path, Some(&wire::limit(name, limits)))?
            .map_err(|refused| refused.fault(&what))?;
        let filter = format!("objectName={name}");
        let query = [("fields", ":all:"), ("filter", &*filter)];
        self.shown(&what, QUOTA, || {
            let rows = self.list(&what, "quotas", &query, |page| page.quotas)?;
            let mut ours = rows.iter().filter_map(Quota::read).filter(|(of, _)| of == name);
            Ok(ours.any(|(_, quota)| quota.is_ok_and(|quota| quota.limits() == Some(limits))).then_some(()))
        })
    }

    /// Marks a fileset and gives it a new name, where that is another one.
    pub(super) fn mark(&self, name: &str, mark: Mark, new_name: &str) -> Result<(), DriverError> {
        let what = format!("mark the fileset {name}");
        let mut body = json!({ "comment": mark.to_string() });
        if new_name != name {
            body["newFilesetName"] = new_name.into();
        }
        let outcome = self.change(&what, Method::PUT, &["filesets", name], Some(&body))?;
        let marked = || Ok(self.fileset(new_name)?.filter(|fileset| fileset.mark() == Some(mark)).map(drop));
        match outcome {
            Ok(()) => self.shown(&what, FILESETS, marked),
            // Perhaps by a call whose answer was lost.
            Err(refused) => marked()?.ok_or_else(|| refused.fault(&what)),
        }
    }

    pub(super) fn make_room(&self, name: &str, inodes: Inodes) -> Result<(), DriverError> {
        let what = format!("make room in the fileset {name}");
        let body = json!({ "maxNumInodes": inodes.0.to_string() });
        self.put(&what, name, &body, |fileset| fileset.most_inodes().is_some_and(|most| most >= inodes))
    }

    fn put(&self, what: &str, name: &str, body: &Value, done: impl Fn(&Fileset) -> bool) -> Result<(), DriverError> {
        self.change(what, Method::PUT, &["filesets", name], Some(body))?.map_err(|refused| refused.fault(what))?;
        self.shown(what, FILESETS, || Ok(self.fileset(name)?.is_some_and(|fileset| done(&fileset)).then_some(())))
    }

    pub(super) fn link(&self, name: &str, junction: &str) -> Result<(), DriverError> {
        let what = format!("link the fileset {name}");
        let path = ["filesets", name, "link"];
        let outcome = self.change(&what, Method::POST, &path, Some(&json!({ "path": junction })))?;
        let linked = || Ok(self.fileset(name)?.filter(|fileset| fileset.junction() == Some(junction)).map(drop));
        match outcome {
            Ok(()) => self.shown(&what, FILESETS, linked),
            // Perhaps by a call whose answer was lost.
            Err(refused) => linked()?.ok_or_else(|| refused.fault(&what)),
        }
    }

    /// Never by force: that would take files away from those who have them open.
    pub(super) fn unlink(&self, name: &str) -> Result<(), DriverError> {
        let what = format!("unlink the fileset {name}");
        let outcome = self.change(&what, Method::DELETE, &["filesets", name, "link"], None)?;
        let unlinked = || Ok(self.fileset(name)?.filter(|fileset| fileset.junction().is_none()).map(drop));
        match outcome {
            Ok(()) => self.shown(&what, FILESETS, unlinked),
            Err(refused) => unlinked()?.ok_or_else(|| {
                let text = refused.0.to_lowercase();
                let open = if text.contains("busy") || text.contains("open") {
                    "files in it are open, and it is never unlinked by force; find the processes (`lsof` on the nodes) and \
                     end them. It is tried again; "
                } else {
                    ""
                };
                DriverError::unclear(format!("{what}: {open}Storage Scale says: {}", refused.0))
            }),
        }
    }

    /// Whether Storage Scale would delete this one of all filesets, and no other data go with it.
    pub(super) fn can_be_deleted(&self, fileset: &Fileset, all: &[Fileset]) -> Result<(), DriverError> {
        let name = fileset.name();
        let names = |filesets: Vec<&Fileset>| filesets.iter().map(|it| it.name()).collect::<Vec<_>>().join(", ");
        if let Some(junction) = fileset.junction() {
            let is_below = |it: &&Fileset| {
                it.junction().and_then(|at| at.strip_prefix(junction)).is_some_and(|below| below.starts_with('/'))
            };
            let below: Vec<_> = all.iter().filter(is_below).collect();
            if !below.is_empty() {
                return Err(DriverError::Conflict(format!(
                    "other filesets are linked below the fileset {name} ({}): unlink them, or link them elsewhere",
                    names(below)
                )));
            }
        }
        if !fileset.is_independent() {
            return Ok(());
        }
        let dependent: Vec<_> = all.iter().filter(|it| it.depends_on(fileset)).collect();
        if !dependent.is_empty() {
            return Err(DriverError::Conflict(format!(
                "Storage Scale does not delete the fileset {name} while other filesets use its inode space ({}): delete \
                 these first",
                names(dependent)
            )));
        }
        let what = format!("list the snapshots of the fileset {name}");
        let answer = self.ask(&what, Method::GET, &["filesets", name, "snapshots"], &[], None)?;
        if answer.status.is_client_error() {
            let refused = refusal(&what, &answer)?;
            // The list of filesets may be out of date.
            return if wire::says_absent(&refused.0) { Ok(()) } else { Err(refused.fault(&what)) };
        }
        let snapshots = fine::<Page>(&what, &answer)?.snapshots;
        if snapshots.is_empty() {
            return Ok(());
        }
        let snapshots: Vec<_> = snapshots.iter().map(|snapshot| rest::quoted(&snapshot.name)).collect();
        let list = snapshots.join(", ");
        Err(DriverError::Conflict(format!(
            "Storage Scale does not delete the fileset {name} while it has snapshots ({list}): delete them first \
             (`mmdelsnapshot {} {name}:NAME`)",
            self.filesystem
        )))
    }

    /// Deletes an unlinked fileset and all that is in it, if it is still the one with this mark.
    pub(super) fn delete(&self, name: &str, mark: Mark) -> Result<(), DriverError> {
        let what = format!("delete the fileset {name}");
        match self.fileset(name)? {
            None => return Ok(()),
            Some(fileset) if fileset.mark() == Some(mark) && fileset.junction().is_none() => {}
            Some(_) => return Err(DriverError::Conflict(format!("the fileset {name} is not in the trash any more"))),
        }
        let outcome = self.change(&what, Method::DELETE, &["filesets", name], None)?;
        let gone = || Ok(self.fileset(name)?.is_none().then_some(()));
        match outcome {
            Ok(()) => self.shown(&what, FILESETS, gone),
            Err(refused) => gone()?.ok_or_else(|| refused.fault(&what)),
        }
    }

    /// One fileset, which may be absent; a fault says nothing about it.
    fn fileset(&self, name: &str) -> Result<Option<Fileset>, DriverError> {
        let what = format!("look at the fileset {name}");
        let answer = self.ask(&what, Method::GET, &["filesets", name], &[("fields", ":all:")], None)?;
        if answer.status.is_client_error() {
            let refused = refusal(&what, &answer)?;
            return if wire::says_absent(&refused.0) { Ok(None) } else { Err(refused.fault(&what)) };
        }
        let page: Page = fine(&what, &answer)?;
        Ok(page.filesets.into_iter().find(|fileset| fileset.name() == name))
    }

    fn list<T>(
        &self,
        what: &str,
        of: &str,
        query: &[(&str, &str)],
        rows: impl Fn(Page) -> Vec<T>,
    ) -> Result<Vec<T>, DriverError> {
        let (mut all, mut last) = (Vec::new(), None::<u64>);
        for _ in 0..PAGES {
            let from = last.map(|last| last.to_string());
            let mut query = query.to_vec();
            query.extend(from.as_deref().map(|from| ("lastId", from)));
            let page: Page = fine(what, &self.ask(what, Method::GET, &[of], &query, None)?)?;
            let next = page.next();
            all.extend(rows(page));
            match next {
                None => return Ok(all),
                Some(next) if last.is_some_and(|last| next <= last) => break,
                Some(next) => last = Some(next),
            }
        }
        Err(DriverError::unclear(format!("{what}: the pages of the list have no end")))
    }

    /// Looks again and again until what was done is shown; the server is asked once to renew what it shows.
    fn shown<T>(
        &self,
        what: &str,
        of: &str,
        look: impl Fn() -> Result<Option<T>, DriverError>,
    ) -> Result<T, DriverError> {
        let began = Instant::now();
        let mut asked = false;
        for pause in self.rest.pace.pauses() {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if !std::mem::replace(&mut asked, true) {
                self.renew(of);
            }
            if began.elapsed() + pause > self.rest.pace.patience {
                break;
            }
            std::thread::sleep(pause);
        }
        Err(DriverError::unclear(format!("{what}: done, but Storage Scale does not show it yet")))
    }

    /// Asks the server to renew what it shows. Whether it takes this or not, what it shows decides.
    pub(super) fn renew(&self, of: &str) {
        let query = [("taskId", of), ("maxDelay", "0")];
        let _ = self.ask_of("renew what is shown", Method::POST, &["refreshTask", "enqueue"], &query, None);
    }

    /// Has a change made and waits for its end; what the system says where it refuses or fails.
    fn change(
        &self,
        what: &str,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Result<(), Refused>, DriverError> {
        let answer = self.ask(what, method, path, &[], body)?;
        if answer.status.is_client_error() {
            return refusal(what, &answer).map(Err);
        }
        let changed: Changed = fine(what, &answer)?;
        let Some(job) = changed.jobs.first().map(|job| job.id.to_string()) else {
            return Err(DriverError::unclear(format!("{what}: taken, but no job was named")));
        };
        let began = Instant::now();
        for pause in self.rest.pace.pauses() {
            let answer = self.ask_of(what, Method::GET, &["jobs", &job], &[("fields", ":all:")], None)?;
            let jobs: Changed = fine(what, &answer)?;
            match jobs.jobs.first().map(wire::Job::progress) {
                Some(Progress::Over) => return Ok(Ok(())),
                Some(Progress::Failed(text)) => return Ok(Err(Refused(text))),
                Some(Progress::Running) | None => {}
            }
            if began.elapsed() + pause > self.rest.pace.patience {
                break;
            }
            std::thread::sleep(pause);
        }
        Err(DriverError::unclear(format!("{what}: the job {job} does not come to its end")))
    }

    fn ask(
        &self,
        what: &str,
        method: Method,
        below: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, DriverError> {
        self.ask_of(what, method, &[&["filesystems", &*self.filesystem], below].concat(), query, body)
    }

    fn ask_of(
        &self,
        what: &str,
        method: Method,
        below: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, DriverError> {
        self.guard.check()?;
        let path = [&["scalemgmt", "v2"], below].concat();
        let ask = Ask { method, path: &path, query, body, authorization: Some(&self.authorization) };
        let answer = self.rest.ask(what, &ask)?;
        if answer.status == StatusCode::UNAUTHORIZED {
            self.guard.record(WRONG_PASSWORD);
        }
        Ok(answer)
    }
}

/// What a good answer says.
fn fine<T: serde::de::DeserializeOwned>(what: &str, answer: &Answer) -> Result<T, DriverError> {
    match answer.status {
        status if status.is_success() => answer.json(what),
        _ => Err(refusal(what, answer)?.fault(what)),
    }
}

/// What a refusal says.
fn refusal(what: &str, answer: &Answer) -> Result<Refused, DriverError> {
    match answer.status {
        StatusCode::UNAUTHORIZED => Err(DriverError::unclear(format!("{what}: {WRONG_PASSWORD}"))),
        StatusCode::FORBIDDEN => Err(DriverError::unclear(format!(
            "{what}: `user` may not do this (403). Either it lacks the role StorageAdmin: give it that role. Or it is locked \
             after wrong passwords: unlock it, and correct `password`"
        ))),
        status => {
            let said = answer.json::<Changed>(what).map(|changed| rest::quoted(&changed.status.message));
            Ok(Refused(said.unwrap_or_else(|_| status.to_string())))
        }
    }
}
