//! The attacked program.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use simulator::{Simulator, World};

use crate::program::{Program, settings, token};

/// Tolerated growth of memory and of open files after an attack, for allocators and connections that are closing.
const GROWTH_MIB: usize = 64;
const GROWTH_FILES: usize = 10;

/// A program with authentication, and its resources before the attack.
pub(crate) struct Target {
    program: Program,
    memory: usize,
    files: usize,
    /// A valid token.
    pub(crate) token: String,
    /// Keeps the upstreams running.
    _simulator: Simulator,
}

impl Target {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With more settings.
    pub(crate) async fn with(more: &[(&'static str, &str)]) -> Self {
        let simulator = Simulator::start(World::demo()).await;
        let mut settings = settings(&simulator);
        settings.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let program = Program::serve(&settings);
        let token = token(&simulator);
        let mut target = Self { program, memory: 0, files: 0, token, _simulator: simulator };
        target.is_alive();
        (target.memory, target.files) = (target.memory(), target.program.open_files());
        target
    }

    /// A connection with timeouts.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.program.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(2))).unwrap();
        stream.set_write_timeout(Some(Duration::from_mins(2))).unwrap();
        stream
    }

    /// Sends these bytes and returns everything that the program sends until it closes the connection.
    pub(crate) fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The program may refuse the request and close the connection before everything is sent.
        let _ = stream.write_all(bytes);
        rest(&mut stream)
    }

    /// The status codes of the answers to these bytes, in order.
    pub(crate) fn statuses(&self, bytes: &[u8]) -> Vec<u16> {
        let answer = self.send(bytes);
        let heads = answer.split("HTTP/1.1 ").skip(1);
        heads.map(|head| head[..3].parse().unwrap()).collect()
    }

    fn is_alive(&self) {
        let answer = self.send(b"GET /api/version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }

    fn memory(&self) -> usize {
        self.program.memory() >> 20
    }

    /// Asserts that other clients are served and that the attack left nothing behind.
    pub(crate) async fn is_unharmed(&self) {
        self.is_alive();
        for _ in 0..6000 {
            if self.program.open_files() <= self.files + GROWTH_FILES {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (memory, files) = (self.memory(), self.program.open_files());
        assert!(memory <= self.memory + GROWTH_MIB, "{memory} MiB in use, {} before", self.memory);
        assert!(files <= self.files + GROWTH_FILES, "{files} open files, {} before", self.files);
    }
}

/// Everything up to the end of the connection.
pub(crate) fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            // The program may have closed the connection before it had read everything.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {}", bytes.escape_ascii()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
