//! Which links of the document are followed, and with which credential: a document must not choose what a credential is used for.

use program::error_chain;
use provisioner_core::last_order::SET_STATE_OK;
use reqwest::blocking::RequestBuilder;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use url::Url;
use uuid::Uuid;

use super::Source;
use super::response::public;
use crate::pass::Call;

/// Where the proxy relays callbacks, below its URL.
const RELAY: &str = "/api/callbacks/";

/// The credential that a request was sent with.
pub(super) enum Credential {
    /// The token for the proxy; `None` if the proxy needs none.
    Bearer(Option<HeaderValue>),
    /// Waldur's token.
    Waldur,
}

/// The server that a link leads to.
pub(super) enum Origin {
    Proxy,
    Waldur,
}

impl Source {
    /// Checks that a call's link leads to that call, and that there are credentials for it.
    pub fn reaches(&self, call: &Call) -> Result<(), String> {
        if is_meant(call) { self.leads(&call.link) } else { Err(not_meant(call)) }
    }

    /// Whether a link of the document leads to Waldur itself, past the proxy.
    pub fn leads_to_waldur(&self, link: &str) -> bool {
        Url::parse(link).is_ok_and(|url| matches!(self.origin(&url), Ok(Origin::Waldur)))
    }

    /// Checks that there are credentials for a link of the document.
    pub fn leads(&self, link: &str) -> Result<(), String> {
        self.addressed(link).map(|_| ())
    }

    /// A POST to a link, with the credential of its origin.
    pub(super) fn addressed(&self, link: &str) -> Result<(RequestBuilder, Credential), String> {
        let url = Url::parse(link).map_err(|_| "a link of the document is not a URL".to_owned())?;
        let request = self.http.post(url.clone());
        match self.origin(&url)? {
            Origin::Proxy => {
                let bearer = self.bearer().map_err(|failure| error_chain(&failure.into_error()))?;
                let request = bearer.iter().fold(request, |request, bearer| request.header(AUTHORIZATION, bearer));
                Ok((request, Credential::Bearer(bearer)))
            }
            Origin::Waldur => Ok((request.header(AUTHORIZATION, self.waldur_token()?), Credential::Waldur)),
        }
    }

    pub(super) fn origin(&self, link: &Url) -> Result<Origin, String> {
        let proxy = &self.settings.proxy;
        let below = |base: &Url, more: &str| {
            let path = format!("{}{more}", base.path().trim_end_matches('/'));
            link.origin() == base.origin() && link.path().starts_with(&path)
        };
        // Proxy and Waldur can share an origin: the path shows what the proxy relays.
        let relayed = |url: &Url| below(url, RELAY);
        if relayed(&proxy.url) || proxy.public_url.as_ref().is_some_and(relayed) {
            return Ok(Origin::Proxy);
        }
        let leads = format!("a link of the document leads to {}", link.origin().ascii_serialization());
        match &self.settings.waldur {
            // With the slash, so that `/apix/` is not below `/api`.
            Some(waldur) if below(&waldur.api_url, "/") => Ok(Origin::Waldur),
            Some(waldur) => {
                let waldur = public(&waldur.api_url);
                Err(format!("{leads}, neither to the proxy nor to waldur.api_url ({waldur}): refused"))
            }
            None => Err(format!(
                "{leads}, for which there is no token: set waldur.api_url and waldur.api_token, or let the proxy relay \
                 callbacks (`callbacks.relay`)"
            )),
        }
    }
}

/// Whether a link leads to its call, for this order or resource, directly or through the proxy's relay.
pub(super) fn is_meant(call: &Call) -> bool {
    let Ok(url) = Url::parse(&call.link) else { return false };
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return false;
    }
    // Servers interpret such a path differently: it could leave the API.
    if url.path().contains(['%', ';']) || url.path().contains("//") {
        return false;
    }
    let (id, places) = match call.action {
        "set_backend_id" | SET_STATE_OK => (Some(call.resource), ["marketplace-provider-resources", "resources"]),
        _ => (call.order, ["marketplace-orders", "orders"]),
    };
    let mut parts = url.path().trim_end_matches('/').rsplit('/');
    let (action, named, place) = (parts.next(), parts.next(), parts.next());
    action == Some(call.action)
        && id.is_some()
        && named.and_then(|named| Uuid::try_parse(named).ok()) == id
        && place.is_some_and(|place| places.contains(&place))
}

pub(super) fn not_meant(call: &Call) -> String {
    format!("the document's link for {} leads to something else: refused", call.action)
}
