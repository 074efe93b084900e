//! Checks each upstream with the requests that the proxy sends.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::sync::Arc;

use catalog::{Identities, Policy, QuotaProblem, QuotaProblemCode, Skipped};
use futures::future;
use tokio::sync::oneshot::{Receiver, Sender};
use waldur_answers::{Callbacks, OWNER_NEEDED, TEST_APPROVAL, TokenUser};

use super::Finding;
use super::remedy::{self, Keys};
use crate::auth::{CodeFlow, GrantError, RealmReport, Verifier};
use crate::cli::counted;
use crate::config::{self, OnProcessingError, Settings, StorageSystem};
use crate::hpc_user::{Gids, HpcUserApi, HpcUserError};
use crate::shared_cache::SharedCache;
use crate::source;
use crate::upstream::public_part;
use crate::waldur::{self, Listing, Offering, Waldur, WaldurError, Which};
use program::Clock;
use program::error_chain;

const WALDUR: Keys = Keys { section: "waldur_api", place: "waldur_api.api_url" };
const HPC_USER: Keys = Keys { section: "hpc_user_api", place: "hpc_user_api.api_url" };
const TOKEN_ENDPOINT: Keys = Keys { section: "hpc_user_api", place: "hpc_user_api.oidc_token_url" };
/// Maximum number of projects that a finding names; more are counted.
const NAMED: usize = 10;
/// Why checks of Waldur's resources cannot run.
const NO_LISTING: &str = "Waldur could not be read";
/// Why checks of GIDs cannot run.
const NO_GIDS: &str = "the HPC User API could not be read";

const KEYCLOAK: Keys = Keys { section: "auth", place: "auth.keycloak_url and auth.keycloak_realm" };

/// Checks that Waldur responds, accepts the token and has the offerings; counts the resources of each. Sends the listing to
/// `sender`.
pub(super) async fn waldur(settings: &Settings, sender: Sender<Listing>) -> Vec<Finding> {
    const CHECK: &str = "Waldur";
    let waldur = match Waldur::new(&settings.waldur_api) {
        Ok(waldur) => waldur,
        Err(error) => return vec![failed(CHECK, &error, WALDUR), not_checked("offerings", NO_LISTING)],
    };
    let systems = &settings.storage_systems;
    let slugs: Vec<_> = systems.iter().map(|system| system.offering_slug.as_str()).collect();
    let offerings = future::join_all(slugs.iter().map(|slug| waldur.offerings(slug)));
    let (listing, offerings, user) =
        future::join3(waldur.resources(&slugs, Which::WithOrders, &|_| {}), offerings, waldur.token_user()).await;
    let listing = match listing {
        Ok(listing) => listing,
        Err(error) => return vec![failed(CHECK, &error, WALDUR), not_checked("offerings", NO_LISTING)],
    };
    let url = public_part(&settings.waldur_api.api_url);
    let mut findings = vec![Finding::ok(CHECK, format!("{url} responds and accepts the token"))];
    if listing.lacks_offering_slugs {
        findings.push(Finding::failed("Waldur release", waldur::TOO_OLD));
    }
    findings.extend(
        systems.iter().zip(&offerings).map(|(system, offerings)| offering(system, offerings.as_deref(), &listing)),
    );
    findings.extend(quota_problems(&listing, &source::policy(settings)));
    findings.push(callbacks(&user, &offerings, settings.relay_callbacks));
    // Fails only if the receiver was dropped.
    let _ = sender.send(listing);
    findings
}

/// The resources whose quotas cannot be trusted: one finding for each kind of problem.
fn quota_problems(listing: &Listing, policy: &Policy) -> Vec<Finding> {
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for resource in listing.resources() {
        if let Some(problem) = QuotaProblem::of(resource, policy.inodes) {
            found.entry(problem.code).or_default().push((&resource.slug, problem.detail));
        }
    }
    let finding = |(code, resources): (QuotaProblemCode, Vec<(&String, String)>)| {
        let (slug, detail) = &resources[0];
        let count = counted(resources.len(), "resource");
        let remedy = match code {
            QuotaProblemCode::MissingComponent => {
                "name the offering's component `storage` in Waldur; until then no directory is created"
            }
            QuotaProblemCode::PinnedByOption => "change or clear the option of the resource in Waldur",
            QuotaProblemCode::UnreadableOrder => "check the order in Waldur; it waits until it is changed or rejected",
            QuotaProblemCode::ZeroLimit | QuotaProblemCode::ZeroOrdered => {
                "raise the limit in Waldur, or terminate the resource"
            }
        };
        Finding::warning("quotas", format!("{count} with {}; the first, {slug}: {detail}", code.as_str()))
            .with_remedy(remedy.to_owned())
    };
    found.into_iter().map(finding).collect()
}

fn offering(system: &StorageSystem, offerings: Result<&[Offering], &WaldurError>, listing: &Listing) -> Finding {
    let StorageSystem { name, offering_slug: slug } = system;
    let check = if name == slug { format!("offering {slug}") } else { format!("offering {slug} (of {name})") };
    let mapped = listing.resources().filter(|resource| resource.offering_slug == *slug).count();
    let malformed = listing.malformed().filter(|record| record.offering_slug.as_ref() == Some(slug)).count();
    let resources = mapped + malformed;
    let mut count = counted(resources, "resource");
    if malformed > 0 {
        count = format!("{count}, {malformed} of them malformed");
    }
    match offerings {
        Ok([]) if resources == 0 => Finding::failed(check, "the token can see no offering with this slug").with_remedy(
            String::from("check storage_systems, and that the token's user belongs to the offering's service provider"),
        ),
        Ok([_, _, ..]) => {
            Finding::warning(check, format!("{count}, but several offerings have this slug and are published together"))
        }
        Err(error) if resources == 0 => {
            let detail = format!("{count}; it is unknown whether the offering exists: {}", error_chain(error));
            Finding::warning(check, detail).with_remedy(remedy::of(error, WALDUR))
        }
        // Resources prove that the offering exists, even if the list of offerings lacks it.
        Ok(_) | Err(_) => Finding::ok(check, count),
    }
}

/// Checks whether callbacks with this token can succeed. A test call would change orders, so only the roles of the user are
/// checked.
fn callbacks(
    user: &Result<TokenUser, WaldurError>,
    offerings: &[Result<Vec<Offering>, WaldurError>],
    relayed: bool,
) -> Finding {
    const CHECK: &str = "callbacks";
    let user = match user {
        Ok(user) => user,
        Err(error) => {
            let detail = format!("it is unknown whether the token may approve orders: {}", error_chain(error));
            return Finding::warning(CHECK, detail).with_remedy(String::from(TEST_APPROVAL));
        }
    };
    let offerings = offerings.iter().flatten().flatten().map(|offering| {
        let known = offering.uuid.zip(offering.customer_uuid);
        (offering.slug.as_str(), known.ok_or_else(|| format!("offering {} without a provider", offering.slug)))
    });
    match user.callbacks(offerings) {
        Callbacks::Allowed(detail) => Finding::ok(CHECK, detail),
        Callbacks::Unknown(detail) => Finding::warning(CHECK, detail).with_remedy(String::from(TEST_APPROVAL)),
        Callbacks::Refused(detail) if relayed => {
            Finding::failed(CHECK, detail).with_remedy(format!("callbacks.relay is on: {OWNER_NEEDED}"))
        }
        Callbacks::Refused(detail) => {
            Finding::warning(CHECK, detail).with_remedy(format!("reading works; for callbacks {OWNER_NEEDED}"))
        }
    }
}

const HPC_USER_API: &str = "HPC User API";
const RESOURCES: &str = "resources";

/// Checks that there is a machine token, and that the HPC User API accepts it and knows the projects of the resources in
/// `listing`; reports which of these will be skipped.
pub(super) async fn hpc_user(settings: &Settings, listing: Receiver<Listing>) -> Vec<Finding> {
    let api = match HpcUserApi::new(&settings.hpc_user_api) {
        Ok(api) => api,
        Err(error) => return vec![failed(HPC_USER_API, &error, HPC_USER)],
    };
    let (mut findings, works) = exchange(&api, &settings.hpc_user_api).await;
    let Ok(listing) = listing.await else {
        findings.push(not_checked(RESOURCES, NO_LISTING));
        return findings;
    };
    let policy = source::policy(settings);
    let mut gids = None;
    if works {
        let wanted = listing.resources().filter_map(|resource| catalog::project_to_resolve(resource, &policy));
        match api.resolve(wanted).await {
            Ok(found) => {
                findings.extend(without_gid(&found, policy.development_mode));
                gids = Some(found);
            }
            Err(error) => findings.push(failed(HPC_USER_API, &error, HPC_USER)),
        }
    }
    findings.extend(skipped(&listing, gids, policy, settings.backend_settings.on_processing_error));
    findings
}

/// The projects without a GID.
fn without_gid(gids: &Gids, development_mode: bool) -> Option<Finding> {
    let mut without: Vec<_> = gids.iter().filter(|(_, gid)| gid.is_err()).map(|(slug, _)| slug.as_str()).collect();
    without.sort_unstable();
    let named = without.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = without.len().checked_sub(NAMED).filter(|more| *more > 0);
    let more = more.map(|more| format!(" and {more} more")).unwrap_or_default();
    let (all, count) = (counted(gids.len(), "project"), without.len());
    let remedy = if development_mode {
        "in development mode they are invented; for production, have them assigned there"
    } else {
        "have the GIDs assigned there"
    };
    (count > 0).then(|| {
        Finding::warning(HPC_USER_API, format!("{all}, {count} without a GID: {named}{more}"))
            .with_remedy(String::from(remedy))
    })
}

/// The resources that will be skipped. If the GIDs could not be read, missing ones are unknown, except in development mode,
/// which invents them.
fn skipped(listing: &Listing, gids: Option<Gids>, policy: Policy, on_error: OnProcessingError) -> Option<Finding> {
    let known = gids.is_some();
    let gids = gids.unwrap_or_default().into_iter();
    let gids = gids.map(|(slug, gid)| (slug, gid.map_err(|reason| reason.to_string()))).collect();
    let identities = Identities { gids, users: HashMap::new() };
    let customers = catalog::customers_of_resources(listing.resources().map(AsRef::as_ref));
    let unknown = !known && !policy.development_mode;
    let catalogue = catalog::build(listing.resources(), customers.into(), identities.into(), policy.into(), None);
    let skipped = catalogue.skipped.into_iter().filter(|_| known);
    let unread = listing.malformed().map(Skipped::malformed);
    let out: Vec<_> = unread.chain(catalogue.malformed).chain(skipped).collect();
    let Some(first) = out.first() else {
        return unknown.then(|| not_checked("GIDs of the projects", NO_GIDS));
    };
    let all = counted(listing.resources().count() + listing.malformed().count(), "resource");
    let mut detail = format!("{} of {all} will be skipped; the first: {}", out.len(), first.detail);
    let nameless = listing.malformed().filter(|record| record.offering_slug.is_none()).count();
    if nameless > 0 {
        detail = format!("{detail}; {nameless} of these have no offering");
    }
    if unknown {
        detail = format!("{detail}; missing GIDs are not counted, since {NO_GIDS}");
    }
    let remedy = match on_error {
        OnProcessingError::Skip => "fix them; `hpc-storage-proxy list` shows all of them",
        OnProcessingError::Fail => {
            "fix them, until then the API returns 500 (backend_settings.on_processing_error: fail); \
             `hpc-storage-proxy list` shows all of them"
        }
    };
    Some(Finding::warning(RESOURCES, detail).with_remedy(String::from(remedy)))
}

/// Checks that there is a machine token and that the API accepts it. Returns the findings, and whether both succeeded.
async fn exchange(api: &HpcUserApi, settings: &config::HpcUserApi) -> (Vec<Finding>, bool) {
    const CHECK: &str = HPC_USER_API;
    const TOKEN: &str = "machine token";
    let found = api.check().await;
    let token = match &found.token {
        Ok(()) => Finding::ok(TOKEN, "the token endpoint issues one"),
        Err(HpcUserError::NotConfigured(missing)) if settings.development_mode => {
            let detail = format!("not configured ({missing} is missing): all GIDs are invented");
            return (vec![Finding::warning(CHECK, detail)], false);
        }
        Err(error) => failed(TOKEN, error, TOKEN_ENDPOINT),
    };
    let works = matches!(found.api, Some(Ok(())));
    let api = found.api.map(|api| match api {
        Ok(()) => {
            let url = settings.api_url.as_ref().map(public_part).unwrap_or_default();
            Finding::ok(CHECK, format!("{url} responds and accepts the machine token"))
        }
        // These messages contain the remedy.
        Err(error @ (HpcUserError::NotFound(_) | HpcUserError::Refused(_))) => {
            Finding::failed(CHECK, error_chain(&error))
        }
        Err(error) => failed(CHECK, &error, HPC_USER),
    });
    let api = api.unwrap_or_else(|| not_checked(CHECK, "there is no machine token"));
    (vec![token, api], works)
}

/// Checks that the realm responds and has keys, and that operators can sign in to the dashboard.
pub(super) async fn keycloak(settings: &Settings) -> Vec<Finding> {
    const CHECK: &str = "Keycloak";
    if settings.auth.disable_auth {
        return vec![Finding::warning(CHECK, "not checked: authentication is disabled")];
    }
    let verifier = match Verifier::new(&settings.auth, Clock::system()) {
        Ok(verifier) => Arc::new(verifier),
        Err(error) => return vec![failed(CHECK, &error, KEYCLOAK)],
    };
    let realm = match verifier.check().await {
        Ok(Some(RealmReport { issuer, keys, skipped })) if keys.is_empty() => Finding::failed(
            CHECK,
            format!("{issuer} has no key of a supported type ({skipped} of other types): every token is rejected"),
        )
        .with_remedy(String::from("add an active RSA, EC or Ed25519 signing key to the realm")),
        Ok(Some(RealmReport { issuer, keys, .. })) => {
            let shown: Vec<_> = keys.iter().map(ToString::to_string).collect();
            Finding::ok(CHECK, format!("{issuer} responds with {}: {}", counted(keys.len(), "key"), shown.join(", ")))
        }
        Ok(None) => Finding::warning(CHECK, "not checked: authentication is disabled"),
        Err(error) => failed(CHECK, &error, KEYCLOAK),
    };
    let sign_in = settings.dashboard.as_ref().and_then(|dashboard| dashboard.sign_in.as_ref());
    let sign_in = async { Some(dashboard(CodeFlow::new(verifier, sign_in?)).await) };
    [realm].into_iter().chain(sign_in.await).collect()
}

async fn dashboard(flow: CodeFlow) -> Finding {
    const CHECK: &str = "dashboard";
    match flow.check().await {
        Ok(()) => Finding::ok(CHECK, "the realm accepts the client and the redirect URI"),
        // Reported above.
        Err(GrantError::Unavailable(error)) => Finding::failed(CHECK, error_chain(&*error)),
        // These messages contain the remedy.
        Err(error) => Finding::failed(CHECK, error_chain(&error)),
    }
}

/// Checks the shared cache, if the settings name one.
pub(super) async fn shared_cache(settings: &Settings) -> Vec<Finding> {
    const CHECK: &str = "shared cache";
    let outcome = match SharedCache::new(settings) {
        Ok(None) => return Vec::new(),
        Ok(Some(shared)) => shared.check().await.map(String::from).map_err(|error| error_chain(&error)),
        Err(error) => Err(error_chain(&error)),
    };
    vec![match outcome {
        Ok(place) => Finding::ok(CHECK, format!("{place} responds")),
        // A warning only: the proxy works without it.
        Err(reason) => Finding::warning(CHECK, reason).with_remedy(String::from(
            "check cache.shared_url and its credentials; until then each replica works without it",
        )),
    }]
}

fn failed(check: &str, error: &(dyn Error + 'static), keys: Keys) -> Finding {
    Finding::failed(check, error_chain(error)).with_remedy(remedy::of(error, keys))
}

/// A check that could not run, so that it is not mistaken for a success.
fn not_checked(check: &str, reason: &str) -> Finding {
    Finding::warning(check, format!("not checked: {reason}"))
}
