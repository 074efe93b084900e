//! Authentication and visibility.

use axum::http::StatusCode;
use uuid::Uuid;

use super::refusals;
use crate::World;
use crate::http::{Call, Reply};
use crate::world::{Offering, Resource, Role, User};

/// The user of the request's token, or the 401 answer.
pub(super) fn authenticate<'a>(world: &'a World, call: &Call) -> Result<&'a User, Reply> {
    let refuse = |text: &str| Err(refusals::detail(StatusCode::UNAUTHORIZED, text).with("WWW-Authenticate", "Token"));
    let header = call.headers.get("authorization").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let words: Vec<&str> = header.as_deref().unwrap_or_default().split_whitespace().collect();
    let token = match words.as_slice() {
        [scheme, rest @ ..] if scheme.eq_ignore_ascii_case("token") => match rest {
            [] => return refuse("Invalid token. No credentials provided."),
            [token] if !token.is_ascii() => {
                return refuse("Invalid token header. Token string should not contain invalid characters.");
            }
            [token] => *token,
            _ => return refuse("Invalid token. Token string should not contain spaces."),
        },
        _ if wants_german(call) => return refuse("Anmeldedaten fehlen."),
        _ => return refuse("Authentication credentials were not provided."),
    };
    match world.users.iter().find(|user| user.token == token) {
        None => refuse("Invalid token."),
        Some(user) if !user.is_active => refuse("User inactive or deleted."),
        Some(user) if user.token_expired => refuse("Token has expired."),
        Some(user) => Ok(user),
    }
}

/// Waldur answers in the caller's language. Only one text is known in another language than English: German.
pub(super) fn wants_german(call: &Call) -> bool {
    call.header("accept-language").is_some_and(|language| language.starts_with("de"))
}

#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) world: &'a World,
    pub(super) user: &'a User,
}

impl<'a> Caller<'a> {
    pub(super) fn new(world: &'a World, user: &'a User) -> Self {
        Self { world, user }
    }

    /// Staff and support see everything.
    pub(super) fn sees_all(self) -> bool {
        self.user.is_staff || self.user.is_support
    }

    fn has(self, role: Role) -> bool {
        self.user.roles.contains(&role)
    }

    /// Whether the user is owner of the offering's provider, or staff.
    pub(super) fn owns(self, offering: &Offering) -> bool {
        self.user.is_staff || self.has(Role::ProviderOwner(offering.provider))
    }

    /// Whether the user is owner of the offering's provider, manager of the offering, or staff.
    pub(super) fn serves(self, offering: &Offering) -> bool {
        self.owns(offering) || self.has(Role::OfferingManager(offering.uuid))
    }

    /// Whether the offering is visible to the user as a provider.
    pub(super) fn sees_as_provider(self, offering: Uuid) -> bool {
        self.sees_all() || self.world.offerings.get(&offering).is_some_and(|offering| self.serves(offering))
    }

    /// Whether the user is owner of the resource's customer, or staff.
    pub(super) fn consumes(self, resource: &Resource) -> bool {
        let project = self.world.projects.get(&resource.project);
        self.user.is_staff || project.is_some_and(|project| self.has(Role::CustomerOwner(project.customer)))
    }

    /// Whether the resource is visible to the user as a consumer.
    pub(super) fn sees_as_consumer(self, resource: &Resource) -> bool {
        self.sees_all() || self.consumes(resource) || self.has(Role::ProjectMember(resource.project))
    }
}
