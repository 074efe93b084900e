//! The calls to a Storage Scale management server. After each change they wait until the server shows it, because its lists
//! come from a cache that lags behind.

use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::Quotas;
use super::Settings;
use super::wire::{self, ChangeResponse, Fileset, Filesystem, Filesystems, Job, Mark, Page, Progress, Quota};
use driver_rest::{self as rest, ApiRequest, ApiResponse, Backoff, InvalidSettings, RestClient, is_below, single_line};
use storage_driver::credential::CredentialGuard;
use storage_driver::limits::{Inodes, QuotaLimits};
use storage_driver::{Desired, DriverError};

const WRONG_PASSWORD: &str = "Storage Scale reports that `user` or `password` is wrong (401)";
/// Maximum number of pages of a list, to stop endless ones. Each page has 1,000 rows.
const MAX_PAGES: usize = 1_000;
/// Tasks of the server that refresh its cache. The name `FILESETS` comes from public clients, `QUOTA` from the server's task
/// list.
pub(super) const FILESETS: &str = "FILESETS";
const QUOTA: &str = "QUOTA";
const ALL_FIELDS: (&str, &str) = ("fields", ":all:");

#[derive(Debug)]
pub(super) struct Management {
    client: RestClient,
    authorization: HeaderValue,
    filesystem: String,
    inode_space: String,
    /// Prevents that a rejected password is sent again, because a few more attempts would lock the user.
    credential: CredentialGuard,
}

/// Storage Scale refused or failed to carry out a change, for this reason.
struct Refused(String);

impl Refused {
    fn error(self, what: &str) -> DriverError {
        DriverError::temporary(format!("cannot {what}: Storage Scale reports: {}", self.0))
    }
}

impl Management {
    pub(super) fn new(settings: &Settings, backoff: Backoff) -> Result<Self, InvalidSettings> {
        Ok(Self {
            client: RestClient::new(&settings.api, backoff)?,
            authorization: rest::basic_authorization(&settings.user, &settings.password)?,
            filesystem: settings.filesystem.clone(),
            inode_space: settings.inode_space.clone(),
            credential: CredentialGuard::default(),
        })
    }

    pub(super) fn filesystem(&self) -> Result<Filesystem, DriverError> {
        let what = "read the properties of the file system";
        let list: Filesystems = success(what, &self.get(what, &[], &[ALL_FIELDS])?)?;
        let missing = || DriverError::temporary(format!("cannot {what}: the response contains none"));
        list.filesystems.into_iter().next().ok_or_else(missing)
    }

    pub(super) fn filesets(&self) -> Result<Vec<Fileset>, DriverError> {
        self.list("list the filesets", "filesets", &[ALL_FIELDS], |page| page.filesets)
    }

    /// The quotas of filesets by fileset name.
    pub(super) fn quotas(&self) -> Result<Quotas, DriverError> {
        let rows = self.list("list the quotas", "quotas", &[ALL_FIELDS], |page| page.quotas)?;
        Ok(rows.iter().filter_map(Quota::parse).collect())
    }

    /// Creates an unlinked fileset. If it exists, it must be this resource's: the response to an earlier call may have been
    /// lost.
    pub(super) fn create(&self, name: &str, desired: &Desired) -> Result<(), DriverError> {
        let what = format!("create the fileset {name}");
        let body = wire::new_fileset(name, desired, &self.inode_space);
        match self.change(&what, Method::POST, &["filesets"], Some(&body))? {
            Err(refused) if !wire::says_exists(&refused.0) => return Err(refused.error(&what)),
            Ok(()) | Err(_) => {}
        }
        let created = self.wait_until_shown(&what, FILESETS, || self.fileset(name))?;
        if created.mark() != Some(Mark::in_use(desired.id)) {
            return Err(DriverError::Conflict(format!(
                "the fileset {name} exists, but its comment does not hold the UUID of this resource"
            )));
        }
        Ok(())
    }

    pub(super) fn set_limits(&self, name: &str, limits: QuotaLimits) -> Result<(), DriverError> {
        let what = format!("set the limits of the fileset {name} to {limits}");
        let path: &[&str] =
            if self.filesystem()?.has_quotas_per_fileset() { &["filesets", name, "quotas"] } else { &["quotas"] };
        self.change(&what, Method::POST, path, Some(&wire::limits(name, limits)))?
            .map_err(|refused| refused.error(&what))?;
        let filter = format!("objectName={name}");
        self.wait_until_shown(&what, QUOTA, || {
            let rows = self.list(&what, "quotas", &[ALL_FIELDS, ("filter", &filter)], |page| page.quotas)?;
            let mut ours = rows.iter().filter_map(Quota::parse).filter(|(of, _)| of == name);
            Ok(ours.any(|(_, quota)| quota.is_ok_and(|quota| quota.limits() == Some(limits))).then_some(()))
        })
    }

    /// Marks a fileset and renames it to `new_name`, if that differs.
    pub(super) fn mark(&self, name: &str, mark: Mark, new_name: &str) -> Result<(), DriverError> {
        let what = format!("mark the fileset {name}");
        let mut body = json!({ "comment": mark.to_string() });
        if new_name != name {
            body["newFilesetName"] = new_name.into();
        }
        let outcome = self.change(&what, Method::PUT, &["filesets", name], Some(&body))?;
        self.settle(&what, outcome, || Ok(self.fileset(new_name)?.is_some_and(|it| it.mark() == Some(mark))))
    }

    pub(super) fn raise_max_inodes(&self, name: &str, inodes: Inodes) -> Result<(), DriverError> {
        let what = format!("raise the maximum number of inodes of the fileset {name}");
        let body = json!({ "maxNumInodes": inodes.0.to_string() });
        self.change(&what, Method::PUT, &["filesets", name], Some(&body))?.map_err(|refused| refused.error(&what))?;
        let raised = |fileset: Fileset| fileset.max_inodes().is_some_and(|max| max >= inodes).then_some(());
        self.wait_until_shown(&what, FILESETS, || Ok(self.fileset(name)?.and_then(raised)))
    }

    pub(super) fn link(&self, name: &str, junction: &str) -> Result<(), DriverError> {
        let what = format!("link the fileset {name}");
        let path = ["filesets", name, "link"];
        let outcome = self.change(&what, Method::POST, &path, Some(&json!({ "path": junction })))?;
        self.settle(&what, outcome, || Ok(self.fileset(name)?.is_some_and(|it| it.junction() == Some(junction))))
    }

    /// Unlinks a fileset, never by force, which would break processes that have files open.
    pub(super) fn unlink(&self, name: &str) -> Result<(), DriverError> {
        let what = format!("unlink the fileset {name}");
        let outcome = self.change(&what, Method::DELETE, &["filesets", name, "link"], None)?;
        let outcome = outcome.map_err(|Refused(text)| {
            let lower = text.to_lowercase();
            if !lower.contains("busy") && !lower.contains("open") {
                return Refused(text);
            }
            Refused(format!(
                "{}; files in it are open, and it is never unlinked by force: find the processes (`lsof` on the nodes) and \
                 end them. Unlinking is retried",
                text.trim_end_matches('.')
            ))
        });
        self.settle(&what, outcome, || Ok(self.fileset(name)?.is_some_and(|it| it.junction().is_none())))
    }

    /// Checks that Storage Scale would delete `fileset`, and that no other data would be deleted with it.
    pub(super) fn check_deletable(&self, fileset: &Fileset, all: &[Fileset]) -> Result<(), DriverError> {
        let name = fileset.name();
        let names_of = |matches: &dyn Fn(&Fileset) -> bool| {
            let names: Vec<_> = all.iter().filter(|it| matches(it)).map(Fileset::name).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        if let Some(junction) = fileset.junction()
            && let Some(below) = names_of(&|it| it.junction().is_some_and(|at| is_below(at, junction)))
        {
            return Err(DriverError::Conflict(format!(
                "other filesets are linked below the fileset {name} ({below}): unlink them, or link them elsewhere"
            )));
        }
        if !fileset.is_independent() {
            return Ok(());
        }
        if let Some(dependent) = names_of(&|it| it.depends_on(fileset)) {
            return Err(DriverError::Conflict(format!(
                "Storage Scale does not delete the fileset {name} while other filesets use its inode space ({dependent}): \
                 delete these first"
            )));
        }
        let what = format!("list the snapshots of the fileset {name}");
        // The list of filesets may be out of date.
        let Some(page) = self.page_if_exists(&what, &["filesets", name, "snapshots"], &[])? else { return Ok(()) };
        if page.snapshots.is_empty() {
            return Ok(());
        }
        let snapshots: Vec<_> = page.snapshots.iter().map(|snapshot| single_line(&snapshot.name)).collect();
        let list = snapshots.join(", ");
        Err(DriverError::Conflict(format!(
            "Storage Scale does not delete the fileset {name} while it has snapshots ({list}): delete them first \
             (`mmdelsnapshot {} {name}:NAME`)",
            self.filesystem
        )))
    }

    /// Deletes an unlinked fileset with its contents, if it still has this mark.
    pub(super) fn delete(&self, name: &str, mark: Mark) -> Result<(), DriverError> {
        let what = format!("delete the fileset {name}");
        match self.fileset(name)? {
            None => return Ok(()),
            Some(fileset) if fileset.mark() == Some(mark) && fileset.junction().is_none() => {}
            Some(_) => return Err(DriverError::Conflict(format!("the fileset {name} is no longer in the trash"))),
        }
        let outcome = self.change(&what, Method::DELETE, &["filesets", name], None)?;
        self.settle(&what, outcome, || Ok(self.fileset(name)?.is_none()))
    }

    /// Reads one fileset; `None` only if the server says that it does not exist.
    fn fileset(&self, name: &str) -> Result<Option<Fileset>, DriverError> {
        let what = format!("read the fileset {name}");
        let page = self.page_if_exists(&what, &["filesets", name], &[ALL_FIELDS])?;
        Ok(page.and_then(|page| page.filesets.into_iter().find(|fileset| fileset.name() == name)))
    }

    fn page_if_exists(&self, what: &str, below: &[&str], query: &[(&str, &str)]) -> Result<Option<Page>, DriverError> {
        let response = self.get(what, below, query)?;
        if response.status.is_client_error() {
            let refused = refusal(what, &response)?;
            return if wire::says_absent(&refused.0) { Ok(None) } else { Err(refused.error(what)) };
        }
        success(what, &response).map(Some)
    }

    fn list<T>(
        &self,
        what: &str,
        collection: &str,
        query: &[(&str, &str)],
        rows: impl Fn(Page) -> Vec<T>,
    ) -> Result<Vec<T>, DriverError> {
        let (mut all, mut last) = (Vec::new(), None::<u64>);
        for _ in 0..MAX_PAGES {
            let from = last.map(|last| last.to_string());
            let mut query = query.to_vec();
            query.extend(from.as_deref().map(|from| ("lastId", from)));
            let page: Page = success(what, &self.get(what, &[collection], &query)?)?;
            let next = page.next();
            all.extend(rows(page));
            match next {
                None => return Ok(all),
                Some(next) if last.is_some_and(|last| next <= last) => break,
                Some(next) => last = Some(next),
            }
        }
        Err(DriverError::temporary(format!("cannot {what}: the list has too many pages, or they repeat")))
    }

    /// Waits until the server shows an accepted change. A refused change succeeds, too, if the server already shows it, because
    /// the response to an earlier call may have been lost.
    fn settle(
        &self,
        what: &str,
        outcome: Result<(), Refused>,
        is_done: impl Fn() -> Result<bool, DriverError>,
    ) -> Result<(), DriverError> {
        match outcome {
            Ok(()) => self.wait_until_shown(what, FILESETS, || Ok(is_done()?.then_some(()))),
            Err(refused) => is_done()?.then_some(()).ok_or_else(|| refused.error(what)),
        }
    }

    /// Polls until `read` returns a value; requests a refresh of the server's cache once.
    fn wait_until_shown<T>(
        &self,
        what: &str,
        task: &str,
        read: impl Fn() -> Result<Option<T>, DriverError>,
    ) -> Result<T, DriverError> {
        let mut requested = false;
        let shown = self.client.backoff.poll(|| {
            let found = read()?;
            if found.is_none() && !std::mem::replace(&mut requested, true) {
                self.request_refresh(task);
            }
            Ok(found)
        })?;
        shown.ok_or_else(|| DriverError::temporary(format!("{what}: done, but Storage Scale does not show it yet")))
    }

    /// Requests a refresh of the server's cache. A failure does not matter: callers check what the server shows.
    pub(super) fn request_refresh(&self, task: &str) {
        let query = [("taskId", task), ("maxDelay", "0")];
        let _ = self.send("refresh the cache", Method::POST, &["refreshTask", "enqueue"], &query, None);
    }

    /// Starts a change and waits until its job has ended.
    fn change(
        &self,
        what: &str,
        method: Method,
        below: &[&str],
        body: Option<&Value>,
    ) -> Result<Result<(), Refused>, DriverError> {
        let response = self.send(what, method, &self.path(below), &[], body)?;
        if response.status.is_client_error() {
            return refusal(what, &response).map(Err);
        }
        let started: ChangeResponse = success(what, &response)?;
        let Some(job) = started.jobs.first().map(|job| job.id.to_string()) else {
            return Err(DriverError::temporary(format!("{what}: accepted, but the response names no job")));
        };
        let ended = self.client.backoff.poll(|| {
            let response = self.send(what, Method::GET, &["jobs", &job], &[ALL_FIELDS], None)?;
            let response: ChangeResponse = success(what, &response)?;
            Ok(match response.jobs.first().map(Job::progress) {
                Some(Progress::Ended) => Some(Ok(())),
                Some(Progress::Failed(text)) => Some(Err(Refused(text))),
                Some(Progress::Running) | None => None,
            })
        })?;
        ended.ok_or_else(|| DriverError::temporary(format!("{what}: job {job} has not ended yet")))
    }

    fn get(&self, what: &str, below: &[&str], query: &[(&str, &str)]) -> Result<ApiResponse, DriverError> {
        self.send(what, Method::GET, &self.path(below), query, None)
    }

    /// The API path of an object of the file system.
    fn path<'a>(&'a self, below: &[&'a str]) -> Vec<&'a str> {
        [&["filesystems", &*self.filesystem], below].concat()
    }

    fn send(
        &self,
        what: &str,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<ApiResponse, DriverError> {
        self.credential.check()?;
        let path = [&["scalemgmt", "v2"], path].concat();
        let request = ApiRequest { method, path: &path, query, body, authorization: Some(&self.authorization) };
        let response = self.client.send(what, &request)?;
        if response.status == StatusCode::UNAUTHORIZED {
            self.credential.record(WRONG_PASSWORD);
        }
        Ok(response)
    }
}

/// Parses a successful response.
fn success<T: serde::de::DeserializeOwned>(what: &str, response: &ApiResponse) -> Result<T, DriverError> {
    match response.status {
        status if status.is_success() => response.json(what),
        _ => Err(refusal(what, response)?.error(what)),
    }
}

/// The reason in a response that is not successful; an error if it is about the credentials.
fn refusal(what: &str, response: &ApiResponse) -> Result<Refused, DriverError> {
    match response.status {
        StatusCode::UNAUTHORIZED => Err(DriverError::temporary(format!("cannot {what}: {WRONG_PASSWORD}"))),
        StatusCode::FORBIDDEN => Err(DriverError::temporary(format!(
            "cannot {what}: `user` is not allowed to do this (403). Either it lacks the role StorageAdmin: assign it. Or it \
             is locked after wrong passwords: unlock it, and correct `password`"
        ))),
        status => {
            let message = response.json::<ChangeResponse>(what).map(|body| single_line(&body.status.message));
            Ok(Refused(message.unwrap_or_else(|_| status.to_string())))
        }
    }
}
