//! What to do about an exchange that failed.

use std::error::Error;

use http::StatusCode;

use crate::upstream::UpstreamError;
use program::error_chain;

/// The settings that lead to an upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    /// Section, which has `verify_ssl` and `socks_proxy`.
    pub(super) section: &'static str,
    /// Keys that make the URL.
    pub(super) place: &'static str,
}

/// The remedy for an error that an exchange is at the bottom of; `None` when the error says it itself.
pub(super) fn of(error: &(dyn Error + 'static), keys: Keys) -> Option<String> {
    let fault = std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<UpstreamError>())?;
    let Keys { section, place } = keys;
    Some(match fault {
        // The HTTP library has no other way to tell these.
        UpstreamError::Unreachable(error) if error_chain(error).contains("certificate") => format!(
            "install the certificate of the authority that signed it on this machine ({section}.verify_ssl: false is for \
             tests only)"
        ),
        UpstreamError::Unreachable(error) if error_chain(error).contains("InvalidContentType") => {
            format!(
                "plain HTTP seems to answer there: check in {place} whether it begins with http:// or https://, and the port"
            )
        }
        UpstreamError::CircuitOpen(_) => String::from("the exchanges before this one say why"),
        UpstreamError::Unreachable(_) | UpstreamError::TimedOut => {
            format!("check {place}, name resolution, firewalls and {section}.socks_proxy")
        }
        UpstreamError::Redirected(_) => format!("set {place} to where it redirects, if that is right"),
        UpstreamError::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            format!("check the credentials in {section}")
        }
        // What contradicts a setting names it, and says what to do.
        UpstreamError::Invalid(text) if text.contains(&format!("{section}.")) => return None,
        UpstreamError::Status(StatusCode::NOT_FOUND) if section == "auth" => {
            format!("check {place}: no realm is spelt like this there (capitals count), or something else answers")
        }
        UpstreamError::Status(StatusCode::NOT_FOUND) | UpstreamError::NotJson { .. } | UpstreamError::Invalid(_) => {
            format!("check {place}: something else seems to answer there")
        }
        UpstreamError::Interrupted(_) | UpstreamError::TooLarge(_) | UpstreamError::Status(_) => {
            String::from("look into its log, and that of any reverse proxy before it")
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
