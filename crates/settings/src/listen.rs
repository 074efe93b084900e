//! What a program listens on.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::fault::{Wrong, quoted, wrong};
use crate::value::Value;

/// What can be listened on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// An address with a port.
    Tcp(SocketAddr),
    /// A socket of this name in the file system; the path is absolute.
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

/// An address to listen on: a name may stand for several, or for another one tomorrow. Or the path of a socket, for which
/// the remedy has this example.
pub fn address(text: &str, socket_example: &str) -> Result<Listen, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket(Path::new(path), socket_example).map(Listen::Unix);
    }
    text.parse().map(Listen::Tcp).map_err(|_| {
        let remedy = "give one such as 127.0.0.1:8000 or [::]:8000, not a name, or unix:/path/of/a/socket";
        wrong(format!("{} is not an address with a port", quoted(text)), remedy)
    })
}

/// One or more of what the function reads: a YAML list, or one text with commas.
pub(crate) fn addresses(value: &Value, read: fn(&str) -> Result<Listen, Wrong>) -> Result<Vec<Listen>, Wrong> {
    let addresses = value.list()?.iter().map(|text| read(text)).collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty() {
        let remedy = "give at least one as ADDRESS:PORT or unix:PATH, or leave the setting out";
        return Err(wrong("no address", remedy));
    }
    Ok(addresses)
}

/// The path of a socket, which the system keeps in 108 bytes, the last of which is zero.
fn socket(path: &Path, example: &str) -> Result<PathBuf, Wrong> {
    let remedy = format!("give one such as unix:{example}");
    if !path.is_absolute() {
        Err(wrong("the path of a socket does not begin with `/`", remedy))
    } else if path.as_os_str().len() > 107 {
        Err(wrong("the path of a socket is longer than 107 bytes", remedy))
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
