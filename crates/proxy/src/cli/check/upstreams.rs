//! Each upstream, asked as the proxy asks it.

use std::error::Error;

use futures::future;

use super::Finding;
use super::remedy::{self, Keys};
use crate::auth::{RealmReport, Verifier};
use crate::clock::Clock;
use crate::errors;
use crate::hpc_user::{HpcUserApi, HpcUserError};
use crate::settings::{self, Settings, StorageSystem};
use crate::upstream::public_part;
use crate::waldur::{Listing, Offering, Waldur, WaldurError};

const WALDUR: Keys = Keys { section: "waldur_api", place: "waldur_api.api_url" };
const HPC_USER: Keys = Keys { section: "hpc_user_api", place: "hpc_user_api.api_url" };
const TOKEN_ENDPOINT: Keys = Keys { section: "hpc_user_api", place: "hpc_user_api.oidc_token_url" };
const KEYCLOAK: Keys = Keys { section: "auth", place: "auth.keycloak_url and auth.keycloak_realm" };

/// Whether Waldur answers, takes the token, and has the offerings; and how many resources each has.
pub(super) async fn waldur(settings: &Settings) -> Vec<Finding> {
    const CHECK: &str = "Waldur";
    let waldur = match Waldur::new(&settings.waldur_api) {
        Ok(waldur) => waldur,
        Err(error) => return vec![failed(CHECK, &error, WALDUR)],
    };
    let systems = &settings.storage_systems;
    let slugs: Vec<_> = systems.iter().map(|system| system.offering_slug.as_str()).collect();
    let offerings = future::join_all(slugs.iter().map(|slug| waldur.offerings(slug)));
    let (listing, offerings) = future::join(waldur.resources(&slugs, &|_| {}), offerings).await;
    let listing = match listing {
        Ok(listing) => listing,
        Err(error) => return vec![failed(CHECK, &error, WALDUR)],
    };
    let url = public_part(&settings.waldur_api.api_url);
    let mut findings = vec![Finding::ok(CHECK, format!("{url} answers and accepts the token"))];
    findings.extend(
        systems.iter().zip(offerings).map(|(system, offerings)| offering(system, offerings.as_deref(), &listing)),
    );
    if let Some(first) = listing.malformed.first() {
        let count = counted(listing.malformed.len(), "resource");
        let detail = format!("{count} cannot be mapped and will be left out; the first: {}", first.detail);
        let remedy = String::from("correct them in Waldur; `hpc-storage-proxy list` names all");
        findings.push(Finding::warning("resources", detail).with_remedy(remedy));
    }
    findings
}

fn offering(system: &StorageSystem, offerings: Result<&[Offering], &WaldurError>, listing: &Listing) -> Finding {
    let StorageSystem { name, offering_slug: slug } = system;
    let check = if name == slug { format!("offering {slug}") } else { format!("offering {slug} (of {name})") };
    let resources = listing.resources.iter().filter(|resource| resource.offering_slug == *slug).count();
    let count = counted(resources, "resource");
    match offerings {
        Ok([]) if resources == 0 => Finding::failed(check, "the token sees no offering with this slug").with_remedy(
            String::from("check storage_systems, and that the token's user belongs to the offering's service provider"),
        ),
        Ok([_, _, ..]) => Finding::warning(
            check,
            format!("{count}, but more than one offering has this slug and all are published together"),
        ),
        Err(error) if resources == 0 => {
            let detail = format!("{count}; whether there is such an offering is unknown: {}", errors::chain(error));
            Finding::warning(check, detail).with_remedy(remedy::of(error, WALDUR))
        }
        // Resources say that there is an offering, whatever the list of offerings says.
        Ok(_) | Err(_) => Finding::ok(check, count),
    }
}

/// Whether there is a machine token, and the HPC User API takes it.
pub(super) async fn hpc_user(settings: &settings::HpcUserApi) -> Vec<Finding> {
    const CHECK: &str = "HPC User API";
    const TOKEN: &str = "machine token";
    let api = match HpcUserApi::new(settings) {
        Ok(api) => api,
        Err(error) => return vec![failed(CHECK, &error, HPC_USER)],
    };
    let found = api.check().await;
    let token = match &found.token {
        Ok(()) => Finding::ok(TOKEN, "the token endpoint gives one"),
        Err(HpcUserError::NotConfigured(missing)) if settings.development_mode => {
            return vec![Finding::warning(
                CHECK,
                format!("not configured ({missing} is missing): all GIDs are invented"),
            )];
        }
        Err(error) => failed(TOKEN, error, TOKEN_ENDPOINT),
    };
    let api = found.api.map(|api| match api {
        Ok(()) => {
            let url = settings.api_url.as_ref().map(public_part).unwrap_or_default();
            Finding::ok(CHECK, format!("{url} answers and accepts the machine token"))
        }
        // These two say themselves what to check.
        Err(error @ (HpcUserError::NotFound(_) | HpcUserError::Refused(_))) => {
            Finding::failed(CHECK, errors::chain(&error))
        }
        Err(error) => failed(CHECK, &error, HPC_USER),
    });
    std::iter::once(token).chain(api).collect()
}

/// Whether the realm answers and has keys.
pub(super) async fn keycloak(settings: &settings::Auth) -> Vec<Finding> {
    const CHECK: &str = "Keycloak";
    if settings.disable_auth {
        return vec![Finding::warning(CHECK, "not asked, since authentication is disabled")];
    }
    let verifier = match Verifier::new(settings, Clock::system()) {
        Ok(verifier) => verifier,
        Err(error) => return vec![failed(CHECK, &error, KEYCLOAK)],
    };
    vec![match verifier.check().await {
        Ok(Some(RealmReport { issuer, keys, skipped })) if keys.is_empty() => Finding::failed(
            CHECK,
            format!("{issuer} has no key whose signatures are accepted ({skipped} others): every token is refused"),
        )
        .with_remedy(String::from("add an active RSA, EC or Ed25519 signing key to the realm")),
        Ok(Some(RealmReport { issuer, keys, .. })) => {
            let shown: Vec<_> = keys.iter().map(ToString::to_string).collect();
            Finding::ok(CHECK, format!("{issuer} answers with {}: {}", counted(keys.len(), "key"), shown.join(", ")))
        }
        Ok(None) => Finding::warning(CHECK, "not asked, since authentication is disabled"),
        Err(error) => failed(CHECK, &error, KEYCLOAK),
    }]
}

fn failed(check: &str, error: &(dyn Error + 'static), keys: Keys) -> Finding {
    Finding::failed(check, errors::chain(error)).with_remedy(remedy::of(error, keys))
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
