//! What to do about an exchange that failed.

use std::error::Error;

use http::StatusCode;

use crate::upstream::Fault;
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
    let fault =
        std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref::<Fault>())?;
    let Keys { section, place } = keys;
    Some(match fault {
        // The HTTP library has no other way to tell these.
        Fault::Unreachable(error) if error_chain(error).contains("certificate") => format!(
            "install the certificate of the authority that signed it on this machine ({section}.verify_ssl: false is for \
             tests only)"
        ),
        Fault::Unreachable(error) if error_chain(error).contains("InvalidContentType") => {
            format!(
                "plain HTTP seems to answer there: check in {place} whether it begins with http:// or https://, and the port"
            )
        }
        Fault::LeftAlone(_) => String::from("the exchanges before this one say why"),
        Fault::Unreachable(_) | Fault::TimedOut => {
            format!("check {place}, name resolution, firewalls and {section}.socks_proxy")
        }
        Fault::Redirected(_) => format!("set {place} to where it redirects, if that is right"),
        Fault::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            format!("check the credentials in {section}")
        }
        // What contradicts a setting names it, and says what to do.
        Fault::Senseless(text) if text.contains(&format!("{section}.")) => return None,
        Fault::Status(StatusCode::NOT_FOUND) if section == "auth" => {
            format!("check {place}: no realm is spelt like this there (capitals count), or something else answers")
        }
        Fault::Status(StatusCode::NOT_FOUND) | Fault::NotJson { .. } | Fault::Senseless(_) => {
            format!("check {place}: something else seems to answer there")
        }
        Fault::BrokenOff(_) | Fault::TooLarge(_) | Fault::Status(_) => {
            String::from("look into its log, and that of any reverse proxy before it")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::ExchangeError;

    fn remedy(fault: Fault) -> Option<String> {
        let error =
            ExchangeError { upstream: "Waldur", method: http::Method::GET, url: String::from("http://w/"), fault };
        of(&error, Keys { section: "waldur_api", place: "waldur_api.api_url" })
    }

    #[test]
    fn the_remedy_names_the_setting() {
        let timed_out = remedy(Fault::TimedOut).unwrap();
        assert!(
            timed_out.contains("waldur_api.api_url") && timed_out.contains("waldur_api.socks_proxy"),
            "{timed_out}"
        );
        assert!(remedy(Fault::Senseless(String::from("it is no list"))).unwrap().contains("waldur_api.api_url"));
        assert_eq!(remedy(Fault::Senseless(String::from("it calls itself x; set waldur_api.api_url"))), None);
        assert!(remedy(Fault::Status(StatusCode::NOT_FOUND)).unwrap().contains("waldur_api.api_url"));
        assert!(remedy(Fault::Status(StatusCode::BAD_GATEWAY)).unwrap().contains("log"));
    }

    #[test]
    fn an_error_without_an_exchange_has_no_remedy() {
        assert_eq!(of(&std::fmt::Error, Keys { section: "auth", place: "auth.keycloak_url" }), None);
    }
}
