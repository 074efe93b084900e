//! Who may drive a system: one provisioner at a time, with a token that only grows.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Commands, Connection, Script};
use rustix::fs::FlockOperation;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use uuid::Uuid;

use crate::driver::DriverError;

/// How long a lease holds without being renewed, on a server.
const LIFE: Duration = Duration::from_millis(LIFE_MILLIS);
/// The same in milliseconds, as the server counts.
const LIFE_MILLIS: u64 = 60_000;
/// How early before its end a lease is not trusted any more: an effect takes time.
const MARGIN: Duration = Duration::from_secs(15);
/// How often a lease is renewed.
const RENEWED: Duration = Duration::from_secs(15);
/// Longest time to wait for the server.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no lease.
#[derive(Debug, Error)]
pub enum NoLease {
    /// Another provisioner has it.
    #[error("{system} is driven by another provisioner now; nothing is done here until it stops")]
    Held {
        /// The system.
        system: String,
    },
    /// Another provisioner writes into the state directory.
    #[error(
        "another provisioner works with the state directory {path} now; nothing is done here until it stops. Two that drive \
         different systems need a `state_directory` each"
    )]
    State {
        /// The directory.
        path: String,
    },
    /// A file of the state directory.
    #[error("the lease {path} cannot be taken")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The server.
    #[error("the server of the leases (lease.url) cannot be asked")]
    Server(#[source] redis::RedisError),
}

/// The right to write into a state directory, until it is dropped.
#[derive(Debug)]
pub struct StateLock(#[expect(dead_code, reason = "held, never read")] File);

impl StateLock {
    /// Takes it: two programs that wrote one journal would break it, whatever systems they drive.
    pub fn take(directory: &Path) -> Result<Self, NoLease> {
        let path = directory.display().to_string();
        let file = File::open(directory).map_err(|source| NoLease::File { path: path.clone(), source })?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(NoLease::State { path }),
            Err(error) => Err(NoLease::File { path, source: error.into() }),
        }
    }
}

impl NoLease {
    /// Whether somebody else has it, who will give it back.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Held { .. } | Self::State { .. })
    }
}

/// The leases of all systems.
#[derive(Debug)]
pub struct Leases {
    /// Fencing token of each system's lease: higher than that of every holder before.
    pub tokens: BTreeMap<String, u64>,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// Locks that end with the process.
    Files(#[expect(dead_code, reason = "held, never read")] Vec<File>),
    Server(Arc<Mutex<Server>>),
}

struct Server {
    connection: Connection,
    owner: String,
    /// Until when the leases hold for sure.
    until: Instant,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

impl Leases {
    /// Takes the leases of these systems, all or none.
    pub fn take(systems: &[String], directory: &Path, url: Option<&SecretString>) -> Result<Self, NoLease> {
        match url {
            None => Self::of_files(systems, directory),
            Some(url) => Self::of_server(systems, url),
        }
    }

    fn of_files(systems: &[String], directory: &Path) -> Result<Self, NoLease> {
        let (mut tokens, mut files) = (BTreeMap::new(), Vec::new());
        for system in systems {
            let path = directory.join(format!("{system}.lease"));
            let failed = |source| NoLease::File { path: path.display().to_string(), source };
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(failed)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(NoLease::Held { system: system.clone() }),
                Err(error) => return Err(failed(error.into())),
            }
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(failed)?;
            let token = next(&text).map_err(failed)?;
            // Written over the old one, which is never longer: on a full disk the old one stays.
            file.rewind().map_err(failed)?;
            file.write_all(format!("{token}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
            tokens.insert(system.clone(), token);
            files.push(file);
        }
        Ok(Self { tokens, held: Held::Files(files) })
    }

    fn of_server(systems: &[String], url: &SecretString) -> Result<Self, NoLease> {
        let mut connection = connected(url)?;
        let owner = Uuid::new_v4().to_string();
        let asked = Instant::now();
        match Self::each(systems, &mut connection, &owner) {
            Ok(tokens) => {
                let server = Arc::new(Mutex::new(Server { connection, owner, until: asked + LIFE }));
                renewed_for_its_life(&server, tokens.clone());
                Ok(Self { tokens, held: Held::Server(server) })
            }
            Err(fault) => {
                // Those that were taken before it failed.
                release(&mut connection, systems.iter(), &owner);
                Err(fault)
            }
        }
    }

    /// Takes the lease of each system; the tokens.
    fn each(systems: &[String], connection: &mut Connection, owner: &str) -> Result<BTreeMap<String, u64>, NoLease> {
        let mut tokens = BTreeMap::new();
        for system in systems {
            let free: bool = redis::cmd("SET")
                .arg(key(system))
                .arg(owner)
                .arg("NX")
                .arg("PX")
                .arg(LIFE_MILLIS)
                .query::<Option<String>>(connection)
                .map_err(NoLease::Server)?
                .is_some();
            if !free {
                return Err(NoLease::Held { system: system.clone() });
            }
            let token = connection.incr(format!("{}:token", key(system)), 1).map_err(NoLease::Server)?;
            tokens.insert(system.clone(), token);
        }
        Ok(tokens)
    }

    /// Whether the server of the leases answers.
    pub fn ask(url: &SecretString) -> Result<(), NoLease> {
        let mut connection = connected(url)?;
        redis::cmd("PING").query::<String>(&mut connection).map(drop).map_err(NoLease::Server)
    }

    /// Whether the system may still be driven; asked before each effect. The server is asked each time, so that a lease
    /// that somebody took away is not used once more.
    pub fn hold(&self, system: &str) -> Result<(), DriverError> {
        let lost = || DriverError::Stopped(format!("the lease of {system} is lost"));
        if !self.tokens.contains_key(system) {
            return Err(lost());
        }
        let Held::Server(server) = &self.held else { return Ok(()) };
        let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
        server.renew(&self.tokens);
        if Instant::now() + MARGIN < server.until { Ok(()) } else { Err(lost()) }
    }
}

/// The token after the one in a lease's file; 1 in an empty file.
fn next(text: &str) -> io::Result<u64> {
    if text.trim().is_empty() {
        return Ok(1);
    }
    let token = text.trim().parse::<u64>().ok().and_then(|token| token.checked_add(1));
    token.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it holds no token: remove the file"))
}

/// Renews the leases while nobody asks: a look at a large system can take longer than a lease lives.
fn renewed_for_its_life(server: &Arc<Mutex<Server>>, tokens: BTreeMap<String, u64>) {
    let server = Arc::downgrade(server);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(RENEWED);
            let Some(server) = server.upgrade() else { break };
            server.lock().unwrap_or_else(PoisonError::into_inner).renew(&tokens);
        }
    });
}

impl Server {
    /// Renews all leases. One that is not ours any more is lost at once; while the server does not answer, they hold for
    /// what is left of their time.
    fn renew(&mut self, tokens: &BTreeMap<String, u64>) {
        let script = Script::new(
            "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0",
        );
        let asked = Instant::now();
        let mut ours = tokens.keys().map(|system| {
            let mut call = script.key(key(system));
            call.arg(&self.owner).arg(LIFE_MILLIS).invoke::<i64>(&mut self.connection)
        });
        match ours.try_fold(true, |ours, renewed| renewed.map(|renewed| ours && renewed == 1)) {
            Ok(true) if asked < self.until => self.until = asked + LIFE,
            // Once lost it stays so: somebody else may have had it meanwhile.
            Ok(_) => self.until = asked,
            Err(_) => {}
        }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        if let Held::Server(server) = &self.held {
            let server = &mut *server.lock().unwrap_or_else(PoisonError::into_inner);
            release(&mut server.connection, self.tokens.keys(), &server.owner);
        }
    }
}

/// A connection to the server of the leases.
fn connected(url: &SecretString) -> Result<Connection, NoLease> {
    let client = redis::Client::open(url.expose_secret()).map_err(NoLease::Server)?;
    let connection = client.get_connection_with_timeout(PATIENCE).map_err(NoLease::Server)?;
    connection.set_read_timeout(Some(PATIENCE)).map_err(NoLease::Server)?;
    connection.set_write_timeout(Some(PATIENCE)).map_err(NoLease::Server)?;
    Ok(connection)
}

/// Gives leases back. One that cannot be given back ends by itself.
fn release<'a>(connection: &mut Connection, systems: impl Iterator<Item = &'a String>, owner: &str) {
    let script = Script::new("return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0");
    for system in systems {
        let _ = script.key(key(system)).arg(owner).invoke::<i64>(connection);
    }
}

fn key(system: &str) -> String {
    format!("hpc-storage-provisioner:lease:{system}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_program_at_a_time_writes_into_a_state_directory() {
        let folder = tempfile::tempdir().unwrap();
        let lock = StateLock::take(folder.path()).unwrap();
        assert!(matches!(StateLock::take(folder.path()), Err(NoLease::State { .. })));
        drop(lock);
        assert!(StateLock::take(folder.path()).is_ok());
    }

    #[test]
    fn a_token_that_cannot_be_read_does_not_begin_again_at_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vast.lease");
        let take = || Leases::take(&["vast".to_owned()], folder.path(), None);
        for (text, token) in
            [("", Some(1)), ("9\n", Some(10)), ("99", Some(100)), ("x", None), ("18446744073709551615", None)]
        {
            std::fs::write(&file, text).unwrap();
            assert_eq!(take().ok().map(|leases| leases.tokens["vast"]), token, "{text:?}");
            let kept = token.map_or_else(|| text.to_owned(), |token| format!("{token}\n"));
            assert_eq!(std::fs::read_to_string(&file).unwrap(), kept);
        }
    }

    #[test]
    fn one_at_a_time_and_the_token_grows() {
        let folder = tempfile::tempdir().unwrap();
        let systems = ["capstor".to_owned(), "vast".to_owned()];
        let take = || Leases::take(&systems, folder.path(), None);
        let first = take().unwrap();
        assert!(matches!(take(), Err(NoLease::Held { .. })));
        assert!(first.hold("vast").is_ok() && first.hold("other").is_err());
        let before = first.tokens.clone();
        drop(first);
        let second = take().unwrap();
        assert!(before.iter().all(|(system, token)| second.tokens[system] > *token));
    }
}
