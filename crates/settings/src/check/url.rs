//! Validates URLs and hides their secrets.

use url::Url;

use crate::problem::{Invalid, invalid};

/// Shown in place of a secret.
pub const MASK: &str = "********";

/// A URL with one of `schemes` (two or more) and a host.
pub fn of_scheme(text: &str, schemes: &[&str], remedy: &str) -> Result<Url, Invalid> {
    let url = Url::parse(text).map_err(|error| invalid(format!("not a URL ({error})"), remedy))?;
    if !schemes.contains(&url.scheme()) {
        let what = match schemes {
            [one, other] => format!("its scheme is neither {one} nor {other}"),
            _ => format!("its scheme is none of {}", schemes.join(", ")),
        };
        return Err(invalid(what, remedy));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(invalid("it has no host", remedy));
    }
    Ok(url)
}

/// A URL that is requested unchanged: http or https, without credentials and fragment.
pub fn endpoint(text: &str) -> Result<Url, Invalid> {
    let url = of_scheme(text, &["http", "https"], "give one such as https://host.example.org/")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("it contains credentials", "remove the part before the `@`"));
    }
    if url.fragment().is_some() {
        return Err(invalid("it has a fragment", "remove the `#` and the part after it"));
    }
    Ok(url)
}

/// A URL to which paths are appended: like [`endpoint`], but without a query.
pub fn base_url(text: &str) -> Result<Url, Invalid> {
    let url = endpoint(text)?;
    if url.query().is_some() {
        return Err(invalid("it has a query", "remove the `?` and the part after it"));
    }
    Ok(url)
}

/// URL of a SOCKS or HTTP proxy; may contain credentials.
pub fn proxy(text: &str) -> Result<Url, Invalid> {
    let remedy = "give one such as socks5://host:1080";
    let url = of_scheme(text, &["socks5", "socks5h", "http", "https"], remedy)?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("it has a path, a query or a fragment after host and port", remedy));
    }
    Ok(url)
}

/// The URL without credentials, query and fragment, safe to show.
pub fn public_part(url: &Url) -> String {
    let mut url = url.clone();
    // Both calls fail only for URLs that cannot have credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// Like [`public_part`], with a mask in place of credentials.
pub fn masked(url: &Url) -> String {
    let shown = public_part(url);
    if url.username().is_empty() && url.password().is_none() {
        return shown;
    }
    shown.replacen("://", &format!("://{MASK}@"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_contains_no_secret() {
        let url = "https://user:pass@waldur.example.org:8443/api/x/?token=abc#d".parse().unwrap();
        assert_eq!(public_part(&url), "https://waldur.example.org:8443/api/x/");
        assert_eq!(masked(&url), "https://********@waldur.example.org:8443/api/x/");
    }

    #[test]
    fn invalid_urls_are_rejected() {
        for text in
            ["", "x.example", "ftp://x", "https://", "https://u:p@x/", "https://u@x/", "https://x/?a=1", "http://x/#a"]
        {
            assert!(base_url(text).is_err(), "{text}");
        }
        assert!(endpoint("https://x/token?policy=1").is_ok());
        let what = |wrong: Invalid| wrong.what;
        assert_eq!(endpoint("ftp://x").map_err(what), Err("its scheme is neither http nor https".to_owned()));
        assert_eq!(
            proxy("ftp://x").map_err(what),
            Err("its scheme is none of socks5, socks5h, http, https".to_owned())
        );
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
}
