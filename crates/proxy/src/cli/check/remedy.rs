//! Remedies for failed exchanges.

use std::error::Error;

use http::StatusCode;

use crate::upstream::UpstreamError;
use program::error_chain;

/// The settings of an upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    /// The section with `verify_ssl` and `socks_proxy`.
    pub(super) section: &'static str,
    /// The keys that determine the URL.
    pub(super) place: &'static str,
}

/// The remedy for an error caused by an exchange; `None` if there is none or the error message contains it.
pub(super) fn of(error: &(dyn Error + 'static), keys: Keys) -> Option<String> {
    let fault = std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<UpstreamError>())?;
    let Keys { section, place } = keys;
    Some(match fault {
        // The HTTP library provides no other way to distinguish these.
        UpstreamError::Unreachable(error) if error_chain(error).contains("certificate") => format!(
            "install the certificate of the signing authority on this machine ({section}.verify_ssl: false is for \
             tests only)"
        ),
        UpstreamError::Unreachable(error) if error_chain(error).contains("InvalidContentType") => {
            format!("the server seems to use plain HTTP: check the scheme (http:// or https://) and port in {place}")
        }
        UpstreamError::CircuitOpen(_) => String::from("see the errors of the previous exchanges"),
        UpstreamError::Unreachable(_) | UpstreamError::TimedOut => {
            format!("check {place}, name resolution, firewalls and {section}.socks_proxy")
        }
        UpstreamError::Redirected(_) => format!("set {place} to the target of the redirect, if that is right"),
        UpstreamError::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            format!("check the credentials in {section}")
        }
        // An error that contradicts a setting names it and the remedy.
        UpstreamError::Invalid(text) if text.contains(&format!("{section}.")) => return None,
        UpstreamError::Status(StatusCode::NOT_FOUND) if section == "auth" => {
            format!("check {place}: no realm has this name there (it is case-sensitive), or another server responds")
        }
        UpstreamError::Status(StatusCode::NOT_FOUND) | UpstreamError::NotJson { .. } | UpstreamError::Invalid(_) => {
            format!("check {place}: another server seems to respond there")
        }
        UpstreamError::Interrupted(_) | UpstreamError::TooLarge(_) | UpstreamError::Status(_) => {
            String::from("see its log, and that of any reverse proxy in front of it")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::ExchangeError;

    fn remedy(fault: UpstreamError) -> Option<String> {
        let error = ExchangeError {
            upstream: "Waldur",
            method: http::Method::GET,
            url: String::from("http://w/"),
            cause: fault,
        };
        of(&error, Keys { section: "waldur_api", place: "waldur_api.api_url" })
    }

    #[test]
    fn the_remedy_names_the_setting() {
        let timed_out = remedy(UpstreamError::TimedOut).unwrap();
        assert!(
            timed_out.contains("waldur_api.api_url") && timed_out.contains("waldur_api.socks_proxy"),
            "{timed_out}"
        );
        assert!(remedy(UpstreamError::Invalid(String::from("it is no list"))).unwrap().contains("waldur_api.api_url"));
        assert_eq!(remedy(UpstreamError::Invalid(String::from("it calls itself x; set waldur_api.api_url"))), None);
        assert!(remedy(UpstreamError::Status(StatusCode::NOT_FOUND)).unwrap().contains("waldur_api.api_url"));
        assert!(remedy(UpstreamError::Status(StatusCode::BAD_GATEWAY)).unwrap().contains("log"));
    }

    #[test]
    fn an_error_without_an_exchange_has_no_remedy() {
        assert_eq!(of(&std::fmt::Error, Keys { section: "auth", place: "auth.keycloak_url" }), None);
    }
}
