//! Leases as expiring keys on a Valkey or Redis server.

use redis::{Commands, Connection, ConnectionLike, Script};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{LIFE, LeaseError, ServerLeases, TIMEOUT, Tokens};

struct Held {
    url: SecretString,
    /// `None` after an error: a late answer would be taken for the next one, and the server may have another address now.
    connection: Option<Connection>,
    owner: String,
    names: Vec<String>,
}

/// Takes all leases, or none.
pub(super) fn take(names: &[String], url: &SecretString) -> Result<(Tokens, Box<dyn ServerLeases>), LeaseError> {
    let mut connection = connected(url)?;
    let mut held =
        Held { url: url.clone(), connection: None, owner: Uuid::new_v4().to_string(), names: names.to_vec() };
    let acquired = held.acquire(&mut connection);
    if acquired.as_ref().map_or_else(LeaseError::is_held, |_| true) {
        held.connection = Some(connection);
    }
    match acquired {
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
    fn open(&mut self) -> Result<Connection, LeaseError> {
        self.connection.take().filter(Connection::is_open).map_or_else(|| connected(&self.url), Ok)
    }

    fn acquire(&self, connection: &mut Connection) -> Result<Tokens, LeaseError> {
        let mut tokens = Tokens::new();
        for name in &self.names {
            let free: bool = redis::cmd("SET")
                .arg(key(name))
                .arg(&self.owner)
                .arg("NX")
                .arg("PX")
                .arg(LIFE.as_millis())
                .query::<Option<String>>(connection)
                .map_err(LeaseError::Server)?
                .is_some();
            if !free {
                return Err(LeaseError::held(name));
            }
            let token = connection.incr(format!("{}:token", key(name)), 1).map_err(LeaseError::Server)?;
            tokens.insert(name.clone(), token);
        }
        Ok(tokens)
    }
}

impl ServerLeases for Held {
    fn renew(&mut self) -> Result<bool, LeaseError> {
        let mut connection = self.open()?;
        let script = Script::new(
            "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0",
        );
        for name in &self.names {
            let mut call = script.key(key(name));
            call.arg(&self.owner).arg(LIFE.as_millis());
            if call.invoke::<i64>(&mut connection).map_err(LeaseError::Server)? != 1 {
                return Ok(false);
            }
        }
        self.connection = Some(connection);
        Ok(true)
    }

    fn release(&mut self) {
        let script = Script::new("return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0");
        let Ok(mut connection) = self.open() else { return };
        for name in &self.names {
            // A lease that cannot be released ends by itself.
            if script.key(key(name)).arg(&self.owner).invoke::<i64>(&mut connection).is_err() {
                break;
            }
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    /// Answers each command as if it succeeded; if `silent`, none to renew a lease.
    fn serve(stream: TcpStream, silent: bool) {
        let mut writer = stream.try_clone().unwrap();
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        while let Some(count) = lines.next() {
            // An array of strings, each after a line with its length.
            let words: Vec<_> = (0..count[1..].parse().unwrap()).filter_map(|_| lines.nth(1)).collect();
            let answer = match &*words[0] {
                "EVALSHA" if silent => continue,
                "EVALSHA" | "INCRBY" => ":1\r\n",
                _ => "+OK\r\n",
            };
            if writer.write_all(answer.as_bytes()).is_err() {
                break;
            }
        }
    }

    #[test]
    fn a_connection_without_an_answer_is_replaced() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("redis://{}/", listener.local_addr().unwrap()).into();
        std::thread::spawn(move || {
            for (n, stream) in listener.incoming().enumerate() {
                let stream = stream.unwrap();
                std::thread::spawn(move || serve(stream, n == 0));
            }
        });
        let (tokens, mut leases) = take(&["capstor".to_owned()], &url).unwrap();
        assert_eq!(tokens["capstor"], 1);
        assert!(matches!(leases.renew(), Err(LeaseError::Server(_))));
        assert!(leases.renew().unwrap());
    }
}
