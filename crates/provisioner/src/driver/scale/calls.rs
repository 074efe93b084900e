//! The calls to a Storage Scale management server. What was changed is awaited until the server shows it: its lists come
//! from a store of its own, which lags behind.

use std::time::Instant;

use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::Settings;
use super::wire::{self, Changed, Fileset, Filesystem, Filesystems, Mark, Page, Progress, Quota};
use crate::driver::rest::{self, Answer, Ask, NotSetUp, Pace, Rest};
use crate::driver::{Fault, Wanted};
use crate::limits::{Inodes, Limits};

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
}

/// What the system says why it does not do something.
struct Refused(String);

impl Refused {
    fn fault(self, what: &str) -> Fault {
        Fault::unclear(format!("{what}: Storage Scale says: {}", self.0))
    }
}

impl Management {
    pub(super) fn new(settings: &Settings, pace: Pace) -> Result<Self, NotSetUp> {
        Ok(Self {
            rest: Rest::new(&settings.api, pace)?,
            authorization: rest::basic(&settings.user, &settings.password)?,
            filesystem: settings.filesystem.clone(),
            inode_space: settings.inode_space.clone(),
        })
    }

    pub(super) fn filesystem(&self) -> Result<Filesystem, Fault> {
        let what = "look at the file system";
        let answer = self.ask(what, Method::GET, &[], &[("fields", ":all:")], None)?;
        let list: Filesystems = fine(what, &answer)?;
        list.filesystems.into_iter().next().ok_or_else(|| Fault::unclear(format!("{what}: there is none")))
    }

    pub(super) fn filesets(&self) -> Result<Vec<Fileset>, Fault> {
        self.list("list the filesets", "filesets", &[("fields", ":all:")], |page| page.filesets)
    }

    pub(super) fn quotas(&self) -> Result<Vec<Quota>, Fault> {
        let mut quotas = self.list("list the quotas", "quotas", &[("fields", ":all:")], |page| page.quotas)?;
        quotas.retain(Quota::is_of_a_fileset);
        Ok(quotas)
    }

    /// Makes an unlinked fileset. One that is there already must be this resource's: an answer may have been lost.
    pub(super) fn make(&self, name: &str, wanted: &Wanted) -> Result<(), Fault> {
        let what = format!("make the fileset {name}");
        let mark = Mark::of(wanted.id);
        match self.change(&what, Method::POST, &["filesets"], Some(&wire::make(name, wanted, &self.inode_space)))? {
            Err(refused) if !wire::says_exists(&refused.0) => return Err(refused.fault(&what)),
            Ok(()) | Err(_) => {}
        }
        let made = self.shown(&what, FILESETS, || self.fileset(name))?;
        if made.mark() != Some(mark) {
            return Err(Fault::Conflict(format!(
                "a fileset {name} is there, whose comment does not say that it is ours"
            )));
        }
        Ok(())
    }

    pub(super) fn limit(&self, name: &str, limits: Limits) -> Result<(), Fault> {
        let what = format!("limit the fileset {name} to {limits}");
        self.change(&what, Method::POST, &["quotas"], Some(&wire::limit(name, limits)))?
            .map_err(|refused| refused.fault(&what))?;
        let filter = format!("objectName={name}");
        let query = [("fields", ":all:"), ("filter", &*filter)];
        self.shown(&what, QUOTA, || {
            let quotas = self.list(&what, "quotas", &query, |page| page.quotas)?;
            let mut ours = quotas.iter().filter(|quota| quota.is_of_a_fileset() && quota.object_name == name);
            Ok(ours.any(|quota| quota.limits() == Some(limits)).then_some(()))
        })
    }

    pub(super) fn mark(&self, name: &str, mark: Mark) -> Result<(), Fault> {
        let what = format!("mark the fileset {name}");
        self.put(&what, name, &json!({ "comment": mark.to_string() }), |fileset| fileset.mark() == Some(mark))
    }

    pub(super) fn make_room(&self, name: &str, inodes: Inodes) -> Result<(), Fault> {
        let what = format!("make room in the fileset {name}");
        let body = json!({ "maxNumInodes": inodes.0.to_string() });
        self.put(&what, name, &body, |fileset| fileset.most_inodes().is_some_and(|most| most >= inodes))
    }

    fn put(&self, what: &str, name: &str, body: &Value, done: impl Fn(&Fileset) -> bool) -> Result<(), Fault> {
        self.change(what, Method::PUT, &["filesets", name], Some(body))?.map_err(|refused| refused.fault(what))?;
        self.shown(what, FILESETS, || Ok(self.fileset(name)?.is_some_and(|fileset| done(&fileset)).then_some(())))
    }

    pub(super) fn link(&self, name: &str, junction: &str) -> Result<(), Fault> {
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
    pub(super) fn unlink(&self, name: &str) -> Result<(), Fault> {
        let what = format!("unlink the fileset {name}");
        let outcome = self.change(&what, Method::DELETE, &["filesets", name, "link"], None)?;
        let unlinked = || Ok(self.fileset(name)?.filter(|fileset| fileset.junction().is_none()).map(drop));
        match outcome {
            Ok(()) => self.shown(&what, FILESETS, unlinked),
            Err(refused) => unlinked()?.ok_or_else(|| refused.fault(&what)),
        }
    }

    /// Deletes an unlinked fileset and all that is in it, if it is still the one with this mark.
    pub(super) fn delete(&self, name: &str, mark: Mark) -> Result<(), Fault> {
        let what = format!("delete the fileset {name}");
        match self.fileset(name)? {
            None => return Ok(()),
            Some(fileset) if fileset.mark() == Some(mark) && fileset.junction().is_none() => {}
            Some(_) => return Err(Fault::Conflict(format!("the fileset {name} is not in the trash any more"))),
        }
        let outcome = self.change(&what, Method::DELETE, &["filesets", name], None)?;
        let gone = || Ok(self.fileset(name)?.is_none().then_some(()));
        match outcome {
            Ok(()) => self.shown(&what, FILESETS, gone),
            Err(refused) => gone()?.ok_or_else(|| refused.fault(&what)),
        }
    }

    /// One fileset, which may be absent; a fault says nothing about it.
    fn fileset(&self, name: &str) -> Result<Option<Fileset>, Fault> {
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
    ) -> Result<Vec<T>, Fault> {
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
        Err(Fault::unclear(format!("{what}: the pages of the list have no end")))
    }

    /// Looks again and again until what was done is shown; the server is asked once to renew what it shows.
    fn shown<T>(&self, what: &str, of: &str, look: impl Fn() -> Result<Option<T>, Fault>) -> Result<T, Fault> {
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
        Err(Fault::unclear(format!("{what}: done, but Storage Scale does not show it yet")))
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
    ) -> Result<Result<(), Refused>, Fault> {
        let answer = self.ask(what, method, path, &[], body)?;
        if answer.status.is_client_error() {
            return refusal(what, &answer).map(Err);
        }
        let changed: Changed = fine(what, &answer)?;
        let Some(job) = changed.jobs.first().map(|job| job.id.to_string()) else {
            return Err(Fault::unclear(format!("{what}: taken, but no job was named")));
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
        Err(Fault::unclear(format!("{what}: the job {job} does not come to its end")))
    }

    fn ask(
        &self,
        what: &str,
        method: Method,
        below: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, Fault> {
        self.ask_of(what, method, &[&["filesystems", &*self.filesystem], below].concat(), query, body)
    }

    fn ask_of(
        &self,
        what: &str,
        method: Method,
        below: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, Fault> {
        let path = [&["scalemgmt", "v2"], below].concat();
        self.rest.ask(what, &Ask { method, path: &path, query, body, authorization: Some(&self.authorization) })
    }
}

/// What a good answer says.
fn fine<T: serde::de::DeserializeOwned>(what: &str, answer: &Answer) -> Result<T, Fault> {
    match answer.status {
        status if status.is_success() => answer.json(what),
        _ => Err(refusal(what, answer)?.fault(what)),
    }
}

/// What a refusal says.
fn refusal(what: &str, answer: &Answer) -> Result<Refused, Fault> {
    match answer.status {
        StatusCode::UNAUTHORIZED => Err(Fault::unclear(format!("{what}: `user` or `password` is wrong (401)"))),
        StatusCode::FORBIDDEN => {
            Err(Fault::unclear(format!("{what}: `user` may not do this (403); give it the role StorageAdmin")))
        }
        status => {
            let said = answer.json::<Changed>(what).map(|changed| rest::quoted(&changed.status.message));
            Ok(Refused(said.unwrap_or_else(|_| status.to_string())))
        }
    }
}
