//! Leases as expiring keys on a Valkey or Redis server.

use redis::{Commands, Connection, ConnectionLike, Script};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{LIFE, LeaseError, ServerLeases, TIMEOUT, Tokens};

struct Held {
    url: SecretString,
    connection: Connection,
    owner: String,
    names: Vec<String>,
}

/// Takes all leases, or none.
pub(super) fn take(names: &[String], url: &SecretString) -> Result<(Tokens, Box<dyn ServerLeases>), LeaseError> {
    let connection = connected(url)?;
    let mut held = Held { url: url.clone(), connection, owner: Uuid::new_v4().to_string(), names: names.to_vec() };
    match held.acquire() {
        Ok(tokens) => Ok((tokens, Box::new(held))),
        Err(fault) => {
            // Some may have been taken.
            held.release();
            Err(fault)
        }
    }
}

/// Checks that the server answers.
pub(super) fn ping(url: &SecretString) -> Result<(), LeaseError> {
    let mut connection = connected(url)?;
    redis::cmd("PING").query::<String>(&mut connection).map(drop).map_err(LeaseError::Server)
}

impl Held {
    fn acquire(&mut self) -> Result<Tokens, LeaseError> {
        let mut tokens = Tokens::new();
        for name in &self.names {
            let free: bool = redis::cmd("SET")
                .arg(key(name))
                .arg(&self.owner)
                .arg("NX")
                .arg("PX")
                .arg(LIFE.as_millis())
                .query::<Option<String>>(&mut self.connection)
                .map_err(LeaseError::Server)?
                .is_some();
            if !free {
                return Err(LeaseError::held(name));
            }
            let token = self.connection.incr(format!("{}:token", key(name)), 1).map_err(LeaseError::Server)?;
            tokens.insert(name.clone(), token);
        }
        Ok(tokens)
    }
}

impl ServerLeases for Held {
    fn renew(&mut self) -> Result<bool, LeaseError> {
        if !self.connection.is_open() {
            self.connection = connected(&self.url)?;
        }
        let script = Script::new(
            "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0",
        );
        for name in &self.names {
            let mut call = script.key(key(name));
            call.arg(&self.owner).arg(LIFE.as_millis());
            if call.invoke::<i64>(&mut self.connection).map_err(LeaseError::Server)? != 1 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn release(&mut self) {
        let script = Script::new("return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0");
        for name in &self.names {
            // A lease that cannot be released ends by itself.
            let _ = script.key(key(name)).arg(&self.owner).invoke::<i64>(&mut self.connection);
        }
    }
}

fn connected(url: &SecretString) -> Result<Connection, LeaseError> {
    let client = redis::Client::open(url.expose_secret()).map_err(LeaseError::Server)?;
    let connection = client.get_connection_with_timeout(TIMEOUT).map_err(LeaseError::Server)?;
    connection.set_read_timeout(Some(TIMEOUT)).map_err(LeaseError::Server)?;
    connection.set_write_timeout(Some(TIMEOUT)).map_err(LeaseError::Server)?;
    Ok(connection)
}

fn key(name: &str) -> String {
    format!("hpc-storage-provisioner:lease:{name}")
}
