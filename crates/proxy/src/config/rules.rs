//! What the settings must be together.

use std::collections::HashSet;

use settings::{Invalid, invalid};

use super::load::SCHEMA;
use super::{Listen, Server, Settings, StorageSystem};

/// The rules that are broken, each with the key that it is told under. `sound` says whether a key has no fault of its
/// own: a value that could not be read breaks no rule.
pub(super) fn broken(settings: &Settings, sound: &dyn Fn(&str) -> bool) -> Vec<(&'static str, Invalid)> {
    let mut broken = Vec::new();

    let backend = &settings.backend_settings;
    let (soft, hard) = (backend.inode_soft_coefficient, backend.inode_hard_coefficient);
    let coefficients = ["backend_settings.inode_soft_coefficient", "backend_settings.inode_hard_coefficient"];
    if coefficients.into_iter().all(&sound) && hard <= soft {
        let what =
            format!("inode_hard_coefficient must be greater than inode_soft_coefficient: {hard} is not above {soft}");
        broken.push(("backend_settings.inode_hard_coefficient", invalid(what, "raise the hard or lower the soft one")));
    }

    let hpc = &settings.hpc_user_api;
    if sound("hpc_user_api.development_mode") && !hpc.development_mode {
        let needed = [
            ("hpc_user_api.api_url", hpc.api_url.is_some()),
            ("hpc_user_api.client_id", hpc.client_id.is_some()),
            ("hpc_user_api.client_secret", hpc.client_secret.is_some()),
            ("hpc_user_api.oidc_token_url", hpc.oidc_token_url.is_some()),
        ];
        for (key, _) in needed.into_iter().filter(|(key, given)| !given && sound(key)) {
            let what = "required when hpc_user_api.development_mode is false";
            broken.push((key, invalid(what, SCHEMA.how_to_set(key))));
        }
    }

    let auth = &settings.auth;
    let switches = ["auth.disable_auth", "auth.introspection"];
    if switches.into_iter().all(&sound) && !auth.disable_auth && auth.introspection {
        let needed = [
            ("auth.keycloak_client_id", auth.keycloak_client_id.is_some()),
            ("auth.keycloak_client_secret", auth.keycloak_client_secret.is_some()),
        ];
        for (key, _) in needed.into_iter().filter(|(key, given)| !given && sound(key)) {
            let remedy = format!("{}, or set auth.introspection to false", SCHEMA.how_to_set(key));
            broken.push((key, invalid("required when auth.introspection is true", remedy)));
        }
    }

    let cache = &settings.cache;
    let ages = ["cache.max_age", "cache.refresh_interval"];
    if ages.into_iter().all(&sound)
        && let Some(interval) = cache.refresh_interval.filter(|interval| *interval >= cache.max_age)
    {
        let what = format!(
            "{} s is not less than cache.max_age, which is {} s: requests would wait all the same",
            interval.as_secs_f64(),
            cache.max_age.as_secs_f64()
        );
        broken.push(("cache.refresh_interval", invalid(what, "lower it, or raise cache.max_age")));
    }

    let mut seen = HashSet::new();
    // Port 0 is whatever port is free, each time another one.
    let any = |listen: &Listen| matches!(listen, Listen::Tcp(address) if address.port() == 0);
    let twice = settings.server.listen.iter().find(|listen| !any(listen) && !seen.insert(*listen));
    if let Some(address) = twice.filter(|_| sound("server.listen")) {
        broken.push(("server.listen", invalid(format!("{address} is there twice"), "remove one")));
    }
    let Server { listen, admin_listen, .. } = &settings.server;
    let shared = admin_listen.iter().find(|address| !any(address) && listen.contains(address));
    if let Some(address) = shared.filter(|_| ["server.listen", "server.admin_listen"].into_iter().all(&sound)) {
        let what = format!("{address} is in server.listen too");
        broken.push(("server.admin_listen", invalid(what, "give another port, or leave server.admin_listen out")));
    }

    let server = &settings.server;
    if ["callbacks.relay", "server.public_url"].into_iter().all(&sound)
        && settings.relay_callbacks
        && server.public_url.is_none()
    {
        let remedy = format!("{}, or set callbacks.relay to false", SCHEMA.how_to_set("server.public_url"));
        broken.push(("server.public_url", invalid("required when callbacks.relay is true", remedy)));
    }
    let pair =
        [("server.tls_certificate", server.tls_certificate.is_some()), ("server.tls_key", server.tls_key.is_some())];
    if let [(given, true), (key, false)] | [(key, false), (given, true)] = pair
        && sound(key)
    {
        let remedy = format!("{}, or remove {given}", SCHEMA.how_to_set(key));
        broken.push((key, invalid(format!("required when {given} is given"), remedy)));
    }
    broken
}

/// What is odd about settings that are otherwise in order. `given` says whether a key was given at all.
pub(super) fn oddities(settings: &Settings, given: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut odd = Vec::new();
    let Settings { storage_systems, auth, backend_settings: backend, .. } = settings;
    let differing = storage_systems.iter().find(|system| system.name != system.offering_slug);
    if let Some(StorageSystem { name, offering_slug: slug }) = differing.filter(|_| backend.system_identifier.is_none())
    {
        // Decision D2.
        odd.push(format!(
            "paths and `storageSystem` hold the name of the storage system, as in /{name}/…; to have its offering's slug \
             there, as in /{slug}/…, set backend_settings.system_identifier (SYSTEM_IDENTIFIER) to offering_slug; to keep \
             the name and silence this, set it to storage_system"
        ));
    }
    if !auth.disable_auth && !given("auth.keycloak_url") {
        let url = &auth.keycloak_url;
        odd.push(format!(
            "auth.keycloak_url is not given: tokens of {url} are accepted; set CSCS_KEYCLOAK_URL to your Keycloak"
        ));
    }
    let anybody = auth.disable_auth || auth.required_roles.is_empty() && auth.callback_roles.is_empty();
    if settings.relay_callbacks && anybody {
        odd.push(String::from(
            "callbacks.relay is true and no role is required: whoever may read the API may approve, refuse and end orders; \
             set callbacks.required_roles (CALLBACKS_REQUIRED_ROLES) to a role of your provisioners",
        ));
    }
    odd
}
