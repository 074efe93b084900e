//! Judging one value. No fault holds the value of a text or a URL: it may be a secret that went astray.

use std::path::{Path, PathBuf};

use http::HeaderValue;
use url::Url;

use super::Listen;
use super::fault::{Wrong, quoted, wrong};
use super::yaml::Value;

/// A boolean, in the words that pydantic takes, in any case.
pub(super) fn flag(text: &str) -> Result<bool, Wrong> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" | "y" => Ok(true),
        "false" | "0" | "no" | "off" | "f" | "n" => Ok(false),
        _ => Err(wrong(format!("{} is not a boolean", quoted(text)), "give true or false")),
    }
}

/// A finite number. In text, underscores may group digits, as pydantic has it.
pub(super) fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number { value, .. } => *value,
        Value::Text(text) => {
            let text = text.trim();
            let digits_around = |(at, _): (usize, &str)| {
                text[..at].ends_with(|c: char| c.is_ascii_digit())
                    && text[at + 1..].starts_with(|c: char| c.is_ascii_digit())
            };
            if !text.match_indices('_').all(digits_around) {
                return None;
            }
            text.replace('_', "").parse().ok()?
        }
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// A text that is not blank and has no control characters.
pub(super) fn plain(text: &str) -> Result<(), Wrong> {
    if text.trim().is_empty() {
        Err(wrong("blank", "give a text, or leave the setting out"))
    } else if text.chars().any(char::is_control) {
        Err(wrong("it holds a control character", "remove it"))
    } else {
        Ok(())
    }
}

/// A secret that is not blank.
pub(super) fn secret(text: &str) -> Result<(), Wrong> {
    if text.trim().is_empty() { Err(wrong("blank", "give the secret, or leave the setting out")) } else { Ok(()) }
}

/// A token of Waldur.
pub(super) fn waldur_token(text: &str) -> Result<(), Wrong> {
    if text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    let remedy = "give the 40 hexadecimal digits that Waldur shows under the user's credentials";
    if text.is_empty() {
        Err(wrong("empty", remedy))
    } else if text.trim() != text {
        Err(wrong("white space around the token", remedy))
    } else {
        Err(wrong(format!("not a token: {} characters", text.chars().count()), remedy))
    }
}

/// The value of a header.
pub(super) fn header(text: &str) -> Result<(), Wrong> {
    plain(text)?;
    HeaderValue::from_str(text)
        .ok()
        .filter(|value| value.to_str().is_ok())
        .map(|_| ())
        .ok_or_else(|| wrong("not valid as a header", "use visible ASCII characters and spaces only"))
}

/// The path of the user endpoint.
pub(super) fn user_path(text: &str) -> Result<(), Wrong> {
    plain(text)?;
    let remedy = "give a path such as /api/v1/export/cscs/users/{username}";
    if !text.starts_with('/') || text.starts_with("//") {
        Err(wrong("it does not begin with one `/`", remedy))
    } else if !text.contains("{username}") {
        Err(wrong("it does not hold `{username}`", remedy))
    } else {
        Ok(())
    }
}

/// A data source name of Sentry.
pub(super) fn dsn(text: &str) -> Result<(), Wrong> {
    let remedy = "give the DSN from Sentry's project settings, https://KEY@HOST/PROJECT";
    let url = http_url(text).map_err(|wrong| Wrong { remedy: remedy.to_owned(), ..wrong })?;
    if url.username().is_empty() {
        return Err(wrong("it holds no key before the host", remedy));
    }
    match text.trim().parse::<sentry::types::Dsn>() {
        Ok(_) => Ok(()),
        Err(_) => Err(wrong("not a DSN", remedy)),
    }
}

fn http_url(text: &str) -> Result<Url, Wrong> {
    let remedy = "give one such as https://host.example.org/";
    let url = Url::parse(text).map_err(|error| wrong(format!("not a URL ({error})"), remedy))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("its scheme is neither http nor https", remedy));
    }
    Ok(url)
}

/// A URL that is called as it stands.
pub(super) fn endpoint(text: &str) -> Result<Url, Wrong> {
    let url = http_url(text)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it holds credentials", "remove what stands before the `@`"));
    }
    if url.fragment().is_some() {
        return Err(wrong("it has a fragment", "remove what follows the `#`"));
    }
    Ok(url)
}

/// A URL to which paths are added.
pub(super) fn base_url(text: &str) -> Result<Url, Wrong> {
    let url = endpoint(text)?;
    if url.query().is_some() {
        return Err(wrong("it has a query", "remove what follows the `?`"));
    }
    Ok(url)
}

/// Drops trailing slashes and one suffix `/api`: `https://x/api/`, `https://x/api` and `https://x` are the same. The
/// Python proxy drops the characters `/`, `a`, `p`, `i` one by one instead.
pub(super) fn without_api(mut url: Url) -> Url {
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/api").unwrap_or(path).trim_end_matches('/').to_owned();
    url.set_path(&path);
    url
}

/// URL of a proxy, of a scheme that works; may have credentials.
pub(super) fn proxy(text: &str) -> Result<Url, Wrong> {
    let remedy = "give one such as socks5://host:1080";
    let url = Url::parse(text).map_err(|error| wrong(format!("not a URL ({error})"), remedy))?;
    if !matches!(url.scheme(), "socks5" | "socks5h" | "http" | "https") {
        return Err(wrong("its scheme is none of socks5, socks5h, http, https", remedy));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it has no host", remedy));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("something follows host and port", remedy));
    }
    Ok(url)
}

/// URL of a Valkey or Redis server; may have credentials.
pub(super) fn cache_server(text: &str) -> Result<Url, Wrong> {
    let remedy = "give one such as redis://host:6379/0, or rediss:// for TLS";
    let url = Url::parse(text).map_err(|error| wrong(format!("not a URL ({error})"), remedy))?;
    if !matches!(url.scheme(), "redis" | "rediss" | "valkey" | "valkeys") {
        return Err(wrong("its scheme is none of redis, rediss, valkey, valkeys", remedy));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it has no host", remedy));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("something follows the number of the database", remedy));
    }
    if redis::Client::open(text).is_err() {
        return Err(wrong("no URL of a server", remedy));
    }
    Ok(url)
}

/// A proxy's URL as it may be shown.
pub(super) fn masked(url: &Url) -> String {
    let shown = crate::upstream::public_part(url);
    if url.username().is_empty() && url.password().is_none() {
        return shown;
    }
    shown.replacen("://", &format!("://{}@", super::setting::MASK), 1)
}

/// An address to listen on: a name may stand for several, or for another one tomorrow. Or the path of a socket.
pub(super) fn address(text: &str) -> Result<Listen, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket(Path::new(path)).map(Listen::Unix);
    }
    text.parse().map(Listen::Tcp).map_err(|_| {
        let remedy = "give one such as 127.0.0.1:8000 or [::]:8000, not a name, or unix:/path/of/a/socket";
        wrong(format!("{} is not an address with a port", quoted(text)), remedy)
    })
}

/// The path of a socket, which the system keeps in 108 bytes, the last of which is zero.
fn socket(path: &Path) -> Result<PathBuf, Wrong> {
    let remedy = "give one such as unix:/run/hpc-storage-proxy/api.sock";
    if !path.is_absolute() {
        Err(wrong("the path of a socket does not begin with `/`", remedy))
    } else if path.as_os_str().len() > 107 {
        Err(wrong("the path of a socket is longer than 107 bytes", remedy))
    } else {
        Ok(path.to_owned())
    }
}

/// The same for the command line, which tells itself what was given.
pub(crate) fn listen_address(text: &str) -> Result<Listen, String> {
    address(text).map_err(|Wrong { what, remedy, .. }| format!("{what}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_pydantics() {
        for text in ["true", "TRUE", "1", "yes", "On", "t", "Y"] {
            assert_eq!(flag(text), Ok(true), "{text}");
        }
        for text in ["false", "0", "No", "OFF", "f", "n"] {
            assert_eq!(flag(text), Ok(false), "{text}");
        }
        for text in ["", " true ", "2", "enabled"] {
            assert!(flag(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_finite() {
        let read = |text: &str| number(&Value::Text(text.to_owned()));
        for (text, value) in [("5", 5.0), (" 5 ", 5.0), ("1_000", 1000.0), ("1e3", 1000.0), ("-.5", -0.5)] {
            assert_eq!(read(text), Some(value), "{text}");
        }
        for text in ["", "inf", "nan", "-inf", "1__0", "_1", "1_", "1,5", "0x10", "1e999"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn waldurs_suffix_is_a_suffix_not_a_set_of_characters() {
        for (given, root) in [
            ("https://x.example", "https://x.example/"),
            ("https://x.example/api", "https://x.example/"),
            ("https://x.example/api/", "https://x.example/"),
            ("https://x.example//api//", "https://x.example/"),
            ("https://x.example/waldur/api/", "https://x.example/waldur"),
            ("https://x.example/waldur/", "https://x.example/waldur"),
            ("https://x.example/happi", "https://x.example/happi"),
            ("https://x.example/myapi", "https://x.example/myapi"),
            ("https://x.example/api/api", "https://x.example/api"),
            ("http://x.api", "http://x.api/"),
        ] {
            assert_eq!(without_api(base_url(given).unwrap()).as_str(), root, "{given}");
        }
    }

    #[test]
    fn urls_that_do_not_do() {
        for text in
            ["", "x.example", "ftp://x", "https://", "https://u:p@x/", "https://u@x/", "https://x/?a=1", "http://x/#a"]
        {
            assert!(base_url(text).is_err(), "{text}");
        }
        assert!(endpoint("https://x/token?policy=1").is_ok());
    }

    #[test]
    fn addresses_and_sockets() {
        for text in ["127.0.0.1:8000", "[::]:0", "unix:/run/api.sock"] {
            assert_eq!(address(text).unwrap().to_string(), text);
        }
        let long = format!("unix:/{}", "x".repeat(107));
        for text in ["", "localhost:8000", "127.0.0.1", "unix:", "unix:api.sock", "/run/api.sock", &long] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn proxies() {
        for text in ["socks5://h:1080", "SOCKS5H://h", "http://u:p@h:3128/", "https://h", "socks5://[::1]:1080"] {
            assert!(proxy(text).is_ok(), "{text}");
        }
        for text in ["", "h:1080", "socks4://h:1", "ftp://h", "socks5://", "socks5:h", "http://h/path", " x"] {
            assert!(proxy(text).is_err(), "{text}");
        }
        assert_eq!(masked(&proxy("socks5://user:hunter2@h:1080").unwrap()), "socks5://********@h:1080");
        assert_eq!(masked(&proxy("socks5://h:1080").unwrap()), "socks5://h:1080");
    }

    #[test]
    fn cache_servers() {
        for text in ["redis://h", "rediss://u:p@h:6380/3", "valkey://h/", "valkeys://:p@[::1]:1", "redis://h/0"] {
            assert!(cache_server(text).is_ok(), "{text}");
        }
        for text in ["", "h:6379", "http://h", "unix:///tmp/x", "redis://", "redis://h/x", "redis://h/#insecure"] {
            assert!(cache_server(text).is_err(), "{text}");
        }
        assert!(cache_server("redis://h/0?protocol=resp3").is_err());
        assert_eq!(masked(&cache_server("redis://u:hunter2@h:1/0").unwrap()), "redis://********@h:1/0");
    }

    #[test]
    fn tokens_headers_paths_and_dsns() {
        assert!(waldur_token(&"0123456789".repeat(4)).is_ok());
        assert!(waldur_token(&"aF".repeat(20)).is_ok());
        for token in [String::new(), "a".repeat(39), "a".repeat(41), "g".repeat(40), format!(" {}", "a".repeat(40))] {
            assert!(waldur_token(&token).is_err(), "{token}");
        }
        assert!(header("proxy/1.0 (site)").is_ok());
        assert!(header("café").is_err());
        assert!(user_path("/users/{username}").is_ok());
        for path in ["users/{username}", "//evil/{username}", "/users/"] {
            assert!(user_path(path).is_err(), "{path}");
        }
        assert!(dsn("https://key@sentry.example/1").is_ok());
        for text in ["https://sentry.example/1", "sentry", "https://key@sentry.example/", "ftp://key@x/1"] {
            assert!(dsn(text).is_err(), "{text}");
        }
    }
}
