//! Validates values that are specific to the proxy. Errors never include a text or a URL, because either may be a misplaced
//! secret.

use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use settings::check::of_scheme;
pub(super) use settings::check::{base_url, endpoint, plain, secret};
use settings::{Invalid, Listen, invalid};
use url::{Host, Url};

pub(super) fn waldur_token(text: &str) -> Result<(), Invalid> {
    if text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    let remedy = "give the 40 hexadecimal digits that Waldur shows under the user's credentials";
    if text.is_empty() {
        Err(invalid("empty", remedy))
    } else if text.trim() != text {
        Err(invalid("white space before or after the token", remedy))
    } else {
        Err(invalid(format!("not a token: {} characters", text.chars().count()), remedy))
    }
}

/// A secret that is also the origin of a key, so guessing it must be out of reach.
pub(super) fn session_secret(text: &str) -> Result<(), Invalid> {
    secret(text)?;
    if text.len() < 16 {
        return Err(invalid("shorter than 16 characters", "generate a new secret in Keycloak, which has 32"));
    }
    Ok(())
}

/// A base URL, with a trailing slash.
pub(super) fn directory_url(text: &str) -> Result<Url, Invalid> {
    let mut url = base_url(text)?;
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// The URL of a server, without the path.
pub(super) fn origin(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_path("/");
    url
}

/// Whether the host is `localhost` or an address of loopback.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

pub(super) fn header(text: &str) -> Result<(), Invalid> {
    plain(text)?;
    HeaderValue::from_str(text)
        .ok()
        .filter(|value| value.to_str().is_ok())
        .map(|_| ())
        .ok_or_else(|| invalid("not valid as a header", "use visible ASCII characters and spaces only"))
}

/// Accepts text that [`header_list`] reads.
pub(super) fn headers(text: &str) -> Result<(), Invalid> {
    let remedy = "give name=value, separated by commas, with %20 for a space";
    let list = header_list(text).ok_or_else(|| invalid("not a list of headers", remedy))?;
    if list.is_empty() { Err(invalid("no header", remedy)) } else { Ok(()) }
}

/// Headers as OpenTelemetry writes them: `name=value,name=value` with percent-encoded values. `None` if one of them is not a
/// valid header.
pub(crate) fn header_list(text: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let header = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let value = HeaderValue::from_str(&value).ok().filter(|value| value.to_str().is_ok())?;
        Some((name.trim().parse().ok()?, value))
    };
    text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(header).collect()
}

pub(super) fn user_path(text: &str) -> Result<(), Invalid> {
    plain(text)?;
    let remedy = "give a path such as /api/v1/export/cscs/users/{username}";
    if !text.starts_with('/') || text.starts_with("//") {
        Err(invalid("it does not begin with one `/`", remedy))
    } else if !text.contains("{username}") {
        Err(invalid("it does not contain `{username}`", remedy))
    } else {
        Ok(())
    }
}

pub(super) fn dsn(text: &str) -> Result<(), Invalid> {
    let remedy = "give the DSN from Sentry's project settings, https://KEY@HOST/PROJECT";
    let url = of_scheme(text, &["http", "https"], remedy)?;
    if url.username().is_empty() {
        return Err(invalid("it has no key before the host", remedy));
    }
    match text.trim().parse::<sentry::types::Dsn>() {
        Ok(_) => Ok(()),
        Err(_) => Err(invalid("not a DSN", remedy)),
    }
}

/// The root of Waldur, without trailing slashes and one suffix `/api`.
pub(super) fn waldur_url(text: &str) -> Result<Url, Invalid> {
    base_url(text).map(without_api)
}

/// `https://x/api/`, `https://x/api` and `https://x` are the same. The Python proxy strips the characters `/`, `a`, `p`, `i`
/// one by one instead.
fn without_api(mut url: Url) -> Url {
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/api").unwrap_or(path).trim_end_matches('/').to_owned();
    url.set_path(&path);
    url
}

/// URL of a WebSocket.
pub(super) fn push_url(text: &str) -> Result<Url, Invalid> {
    let remedy = "give one such as wss://waldur.example.org/rmqws-stomp";
    let url = of_scheme(text, &["ws", "wss"], remedy)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("it has credentials", "remove them: Waldur's token is the password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("it has a query or a fragment", remedy));
    }
    Ok(url)
}

/// The WebSocket on Waldur's host.
pub(super) fn default_push_url(api_url: &Url) -> Url {
    let mut url = api_url.clone();
    // Possible between these schemes, and the ports stay equal.
    let _ = url.set_scheme(if api_url.scheme() == "https" { "wss" } else { "ws" });
    url.set_path("/rmqws-stomp");
    url
}

/// URL of a Valkey or Redis server; may have credentials.
pub(super) fn cache_server(text: &str) -> Result<Url, Invalid> {
    let remedy = "give one such as redis://host:6379/0, or rediss:// for TLS";
    let url = of_scheme(text, &["redis", "rediss", "valkey", "valkeys"], remedy)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("it has a query or a fragment after the database number", remedy));
    }
    if redis::Client::open(text).is_err() {
        return Err(invalid("not the URL of a Valkey or Redis server", remedy));
    }
    Ok(url)
}

pub(super) fn address(text: &str) -> Result<Listen, Invalid> {
    settings::address(text, "/run/hpc-storage-proxy/api.sock")
}

/// Reads an address from the command line; clap adds the option and the value to the error.
pub(crate) fn listen_address(text: &str) -> Result<Listen, String> {
    address(text).map_err(|Invalid { what, remedy, .. }| format!("{what}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use settings::check::masked;

    use super::*;

    #[test]
    fn only_the_suffix_api_is_removed_from_waldurs_url() {
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
            assert_eq!(waldur_url(given).unwrap().as_str(), root, "{given}");
        }
    }

    #[test]
    fn websockets() {
        for text in ["ws://h", "wss://h:15671/ws", "wss://[::1]/rmqws-stomp"] {
            assert_eq!(push_url(text).unwrap().as_str().trim_end_matches('/'), text);
        }
        for text in
            ["", "h:1", "https://h", "wss://", "wss://u:hunter2@h", "wss://u@h", "wss://h?token=hunter2", "wss://h#x"]
        {
            assert!(!format!("{:?}", push_url(text).unwrap_err()).contains("hunter2"), "{text}");
        }
        for (api, push) in [
            ("https://x.example/", "wss://x.example/rmqws-stomp"),
            ("https://x.example:8443/waldur", "wss://x.example:8443/rmqws-stomp"),
            ("http://x.example:80/", "ws://x.example/rmqws-stomp"),
        ] {
            assert_eq!(default_push_url(&api.parse().unwrap()).as_str(), push);
        }
    }

    #[test]
    fn the_remedy_for_a_socket_names_a_path_of_the_proxy() {
        let remedy = "give one such as unix:/run/hpc-storage-proxy/api.sock";
        let what = "the path of the socket does not begin with `/`";
        assert_eq!(listen_address("unix:api.sock"), Err(format!("{what}; {remedy}")));
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
    fn lists_of_headers() {
        let read = |text: &str| {
            let list = header_list(text)?;
            Some(list.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect::<Vec<_>>())
        };
        let both = ["authorization: Bearer a=b", "x-scope: 1,2"].map(String::from).to_vec();
        assert_eq!(read("Authorization=Bearer%20a=b, x-scope = 1%2C2,"), Some(both));
        assert_eq!(read(""), Some(Vec::new()));
        assert!(headers(",,").is_err());
        for text in ["authorization", "a b=c", "=c", "a=b\nc", "a=%0a", "a=%ff", "a=café"] {
            assert_eq!(read(text), None, "{text}");
            assert!(!headers(text).unwrap_err().what.contains(text));
        }
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
