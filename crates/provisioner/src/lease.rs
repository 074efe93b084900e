//! Leases: one provisioner at a time may change a system. Each lease has a fencing token, which only grows.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::{Commands, Connection, Script};
use rustix::fs::FlockOperation;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use uuid::Uuid;

use program::lock;
use storage_driver::DriverError;

/// How long a lease on a server is valid without being renewed.
const LIFE: Duration = Duration::from_millis(LIFE_MILLIS);
const LIFE_MILLIS: u64 = 60_000;
/// How long before its end a lease is no longer trusted, because a side effect takes time.
const MARGIN: Duration = Duration::from_secs(15);
/// How often leases are renewed.
const RENEWED: Duration = Duration::from_secs(15);
/// Timeout for the server.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
pub enum LeaseError {
    #[error("{system} is driven by another provisioner now; this one does nothing until the other one stops")]
    Held { system: String },
    #[error(
        "another provisioner uses the state directory {path} now; this one does nothing until the other one stops. Two \
         provisioners for different systems each need their own `state_directory`"
    )]
    State { path: String },
    #[error("the lease {path} cannot be taken")]
    File { path: String, source: io::Error },
    #[error("the server for leases (lease.url) cannot be reached")]
    Server(#[source] redis::RedisError),
}

/// The exclusive right to write to a state directory, until it is dropped.
#[derive(Debug)]
pub struct StateLock(#[expect(dead_code, reason = "held, never read")] File);

impl StateLock {
    /// Two programs that write the same journal would break it, whichever systems they drive.
    pub fn take(directory: &Path) -> Result<Self, LeaseError> {
        let path = directory.display().to_string();
        let file = File::open(directory).map_err(|source| LeaseError::File { path: path.clone(), source })?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LeaseError::State { path }),
            Err(error) => Err(LeaseError::File { path, source: error.into() }),
        }
    }
}

impl LeaseError {
    /// Whether another provisioner has it and will release it.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Held { .. } | Self::State { .. })
    }
}

/// The leases of all systems, until they are dropped.
#[derive(Debug)]
pub struct Leases {
    /// Fencing token of each system's lease: higher than those of all earlier holders.
    pub tokens: BTreeMap<String, u64>,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// File locks, which end with the process.
    Files(#[expect(dead_code, reason = "held, never read")] Vec<File>),
    Server(Arc<Mutex<Server>>),
}

struct Server {
    connection: Connection,
    owner: String,
    /// Until when the leases are certainly valid.
    until: Instant,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

impl Leases {
    /// Takes the leases of all these systems, or none.
    pub fn take(systems: &[String], directory: &Path, url: Option<&SecretString>) -> Result<Self, LeaseError> {
        match url {
            None => Self::of_files(systems, directory),
            Some(url) => Self::of_server(systems, url),
        }
    }

    fn of_files(systems: &[String], directory: &Path) -> Result<Self, LeaseError> {
        let (mut tokens, mut files) = (BTreeMap::new(), Vec::new());
        for system in systems {
            let path = directory.join(format!("{system}.lease"));
            let failed = |source| LeaseError::File { path: path.display().to_string(), source };
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
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(LeaseError::Held { system: system.clone() }),
                Err(error) => return Err(failed(error.into())),
            }
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(failed)?;
            let token = next(&text).map_err(failed)?;
            // Overwrites the old token, which is never longer: on a full disk, the old one stays.
            file.rewind().map_err(failed)?;
            file.write_all(format!("{token}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
            tokens.insert(system.clone(), token);
            files.push(file);
        }
        Ok(Self { tokens, held: Held::Files(files) })
    }

    fn of_server(systems: &[String], url: &SecretString) -> Result<Self, LeaseError> {
        let mut connection = connected(url)?;
        let owner = Uuid::new_v4().to_string();
        let sent = Instant::now();
        match Self::acquire(systems, &mut connection, &owner) {
            Ok(tokens) => {
                let server = Arc::new(Mutex::new(Server { connection, owner, until: sent + LIFE }));
                keep_renewed(&server, tokens.clone());
                Ok(Self { tokens, held: Held::Server(server) })
            }
            Err(fault) => {
                // Some may have been taken.
                release(&mut connection, systems.iter(), &owner);
                Err(fault)
            }
        }
    }

    /// Returns the tokens.
    fn acquire(
        systems: &[String],
        connection: &mut Connection,
        owner: &str,
    ) -> Result<BTreeMap<String, u64>, LeaseError> {
        let mut tokens = BTreeMap::new();
        for system in systems {
            let free: bool = redis::cmd("SET")
                .arg(key(system))
                .arg(owner)
                .arg("NX")
                .arg("PX")
                .arg(LIFE_MILLIS)
                .query::<Option<String>>(connection)
                .map_err(LeaseError::Server)?
                .is_some();
            if !free {
                return Err(LeaseError::Held { system: system.clone() });
            }
            let token = connection.incr(format!("{}:token", key(system)), 1).map_err(LeaseError::Server)?;
            tokens.insert(system.clone(), token);
        }
        Ok(tokens)
    }

    /// Checks that the server answers.
    pub fn ping(url: &SecretString) -> Result<(), LeaseError> {
        let mut connection = connected(url)?;
        redis::cmd("PING").query::<String>(&mut connection).map(drop).map_err(LeaseError::Server)
    }

    /// Fails if the lease of a system is lost. Called before each side effect; renews the leases on the server each
    /// time, so that a lost lease is noticed at once.
    pub fn hold(&self, system: &str) -> Result<(), DriverError> {
        let lost = || DriverError::Stopped(format!("the lease of {system} is lost"));
        if !self.tokens.contains_key(system) {
            return Err(lost());
        }
        let Held::Server(server) = &self.held else { return Ok(()) };
        let mut server = lock(server);
        server.renew(&self.tokens);
        if Instant::now() + MARGIN < server.until { Ok(()) } else { Err(lost()) }
    }
}

/// The token after the one in the text of a lease's file; 1 for an empty file.
fn next(text: &str) -> io::Result<u64> {
    if text.trim().is_empty() {
        return Ok(1);
    }
    let token = text.trim().parse::<u64>().ok().and_then(|token| token.checked_add(1));
    token.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it contains no token: remove the file"))
}

/// Renews the leases in the background: observing a large system can take longer than a lease is valid.
fn keep_renewed(server: &Arc<Mutex<Server>>, tokens: BTreeMap<String, u64>) {
    let server = Arc::downgrade(server);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(RENEWED);
            let Some(server) = server.upgrade() else { break };
            lock(&server).renew(&tokens);
        }
    });
}

impl Server {
    /// Renews all leases. If one is no longer ours, they are lost at once. While the server does not answer, they stay
    /// valid until they end.
    fn renew(&mut self, tokens: &BTreeMap<String, u64>) {
        let script = Script::new(
            "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0",
        );
        let sent = Instant::now();
        let mut ours = tokens.keys().map(|system| {
            let mut call = script.key(key(system));
            call.arg(&self.owner).arg(LIFE_MILLIS).invoke::<i64>(&mut self.connection)
        });
        match ours.try_fold(true, |ours, renewed| renewed.map(|renewed| ours && renewed == 1)) {
            Ok(true) if sent < self.until => self.until = sent + LIFE,
            // A lost lease stays lost: another provisioner may have had it in between.
            Ok(_) => self.until = sent,
            Err(_) => {}
        }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        if let Held::Server(server) = &self.held {
            let server = &mut *lock(server);
            release(&mut server.connection, self.tokens.keys(), &server.owner);
        }
    }
}

fn connected(url: &SecretString) -> Result<Connection, LeaseError> {
    let client = redis::Client::open(url.expose_secret()).map_err(LeaseError::Server)?;
    let connection = client.get_connection_with_timeout(PATIENCE).map_err(LeaseError::Server)?;
    connection.set_read_timeout(Some(PATIENCE)).map_err(LeaseError::Server)?;
    connection.set_write_timeout(Some(PATIENCE)).map_err(LeaseError::Server)?;
    Ok(connection)
}

/// A lease that cannot be released ends by itself.
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
    fn one_program_at_a_time_writes_to_a_state_directory() {
        let folder = tempfile::tempdir().unwrap();
        let lock = StateLock::take(folder.path()).unwrap();
        assert!(matches!(StateLock::take(folder.path()), Err(LeaseError::State { .. })));
        drop(lock);
        assert!(StateLock::take(folder.path()).is_ok());
    }

    #[test]
    fn a_token_that_cannot_be_parsed_does_not_restart_at_one() {
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
    fn one_holder_at_a_time_and_tokens_grow() {
        let folder = tempfile::tempdir().unwrap();
        let systems = ["capstor".to_owned(), "vast".to_owned()];
        let take = || Leases::take(&systems, folder.path(), None);
        let first = take().unwrap();
        assert!(matches!(take(), Err(LeaseError::Held { .. })));
        assert!(first.hold("vast").is_ok() && first.hold("other").is_err());
        let before = first.tokens.clone();
        drop(first);
        let second = take().unwrap();
        assert!(before.iter().all(|(system, token)| second.tokens[system] > *token));
    }
}
