//! Addresses and sockets to listen on.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::problem::{Invalid, invalid, quoted};

/// An address or a Unix socket to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A Unix socket; the path is absolute.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Reads an address or the path of a Unix socket. Host names are rejected, because they can have several addresses or
/// change. `socket_example` is a path for the remedy.
pub fn address(text: &str, socket_example: &str) -> Result<Listen, Invalid> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket(Path::new(path), socket_example).map(Listen::Unix);
    }
    text.parse().map(Listen::Tcp).map_err(|_| {
        let remedy = "give one such as 127.0.0.1:8000 or [::]:8000, not a name, or unix:/path/of/a/socket";
        invalid(format!("{} is not an address with a port", quoted(text)), remedy)
    })
}

/// Validates the path of a Unix socket: the kernel stores it in 108 bytes including the final zero.
fn socket(path: &Path, example: &str) -> Result<PathBuf, Invalid> {
    let remedy = format!("give one such as unix:{example}");
    if !path.is_absolute() {
        Err(invalid("the path of the socket does not begin with `/`", remedy))
    } else if path.as_os_str().len() > 107 {
        Err(invalid("the path of the socket is longer than 107 bytes", remedy))
    } else {
        Ok(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_sockets() {
        for text in ["127.0.0.1:8000", "[::]:0", "unix:/run/api.sock"] {
            assert_eq!(address(text, "/run/x").unwrap().to_string(), text);
        }
        let long = format!("unix:/{}", "x".repeat(107));
        for text in ["", "localhost:8000", "127.0.0.1", "unix:", "unix:api.sock", "/run/api.sock", &long] {
            assert!(address(text, "/run/x").is_err(), "{text}");
        }
        assert_eq!(address("unix:x", "/run/x").unwrap_err().remedy, "give one such as unix:/run/x");
    }
}
