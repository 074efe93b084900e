//! Warnings about settings that are valid but probably not intended.

use super::{Settings, StorageSystem};

/// `given` returns whether a key was given.
pub(super) fn oddities(settings: &Settings, given: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut odd = Vec::new();
    let Settings { storage_systems, auth, backend_settings: backend, .. } = settings;
    let differing = storage_systems.iter().find(|system| system.name != system.offering_slug);
    if let Some(StorageSystem { name, offering_slug: slug }) = differing.filter(|_| backend.system_identifier.is_none())
    {
        // Decision D2.
        odd.push(format!(
            "paths and `storageSystem` contain the name of the storage system, as in /{name}/…; to use its offering's slug \
             instead, as in /{slug}/…, set backend_settings.system_identifier (SYSTEM_IDENTIFIER) to offering_slug; to keep \
             the name without this warning, set it to storage_system"
        ));
    }
    if !auth.disable_auth && !given("auth.keycloak_url") {
        let url = &auth.keycloak_url;
        odd.push(format!(
            "auth.keycloak_url is not given: tokens of {url} are accepted; set CSCS_KEYCLOAK_URL to your Keycloak"
        ));
    }
    if given("waldur_api.push_url") && settings.waldur_api.push.is_none() {
        odd.push(String::from(
            "waldur_api.push_url is given, but waldur_api.push is false: no events are received; set WALDUR_PUSH to true",
        ));
    }
    let anybody = auth.disable_auth || auth.required_roles.is_empty() && auth.callback_roles.is_empty();
    if settings.relay_callbacks && anybody {
        odd.push(String::from(
            "callbacks.relay is true and no role is required: anyone who may read the API may approve, refuse and end orders; \
             set callbacks.required_roles (CALLBACKS_REQUIRED_ROLES) to a role of your provisioners",
        ));
    }
    if settings.dashboard.is_some() && !auth.disable_auth && auth.report_roles.is_empty() {
        odd.push(String::from(
            "dashboard.enabled is true and provisioners.required_roles is not given: anyone who may read the API may send \
             reports, which operators see with commands to paste; set PROVISIONERS_REQUIRED_ROLES to a role of your \
             provisioners",
        ));
    }
    odd
}
