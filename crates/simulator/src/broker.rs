//! Waldur's RabbitMQ, as far as a consumer of events sees it: registration and queues.
//!
//! As in newer Waldur, the same user and offerings have the same queue, and several sessions share its events.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::http::{Call, Reply};
use crate::world::{Event, World};

/// How the broker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BrokerMode {
    #[default]
    Works,
    /// Every login is refused.
    RefusesLogins,
}

/// Queues by name, and the sessions.
#[derive(Debug, Default)]
pub(crate) struct Broker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    mode: BrokerMode,
    queues: HashMap<String, Queue>,
    /// Subscribed sessions.
    sessions: usize,
    /// Sessions that began before this number of endings end, with this reason if there is one.
    endings: u64,
    reason: Option<String>,
}

#[derive(Debug)]
struct Queue {
    username: String,
    password: String,
    vhost: String,
    object_types: Vec<String>,
    offerings: Vec<Uuid>,
    /// Number of the first event that is not yet delivered.
    position: u64,
}

#[derive(Deserialize)]
struct Registration {
    #[serde(default)]
    object_types: Vec<String>,
    #[serde(default)]
    scopes: Vec<Scope>,
}

#[derive(Deserialize)]
struct Scope {
    r#type: String,
    uuid: Uuid,
}

impl Broker {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_mode(&self, mode: BrokerMode) {
        self.lock().mode = mode;
    }

    pub(crate) fn sessions(&self) -> usize {
        self.lock().sessions
    }

    /// Number of endings so far.
    pub(crate) fn endings(&self) -> u64 {
        self.lock().endings
    }

    /// An error with the reason, if there is one, once sessions that began at this number of endings have ended.
    pub(crate) fn check(&self, endings: u64) -> Result<(), Option<String>> {
        let state = self.lock();
        if state.endings > endings { Err(state.reason.clone()) } else { Ok(()) }
    }

    /// Ends all sessions, with an ERROR frame if there is a reason.
    pub(crate) fn end_sessions(&self, reason: Option<&str>) {
        let mut state = self.lock();
        state.endings += 1;
        state.reason = reason.map(str::to_owned);
    }

    /// Deletes all queues and their users.
    pub(crate) fn delete_queues(&self) {
        self.lock().queues.clear();
        self.end_sessions(Some("Server cancelled subscription"));
    }
}

/// Counts a subscribed session.
pub(crate) struct Subscribed<'a>(&'a Broker);

impl<'a> Subscribed<'a> {
    pub(crate) fn new(broker: &'a Broker) -> Self {
        broker.lock().sessions += 1;
        Self(broker)
    }
}

impl Drop for Subscribed<'_> {
    fn drop(&mut self) {
        self.0.lock().sessions -= 1;
    }
}

/// Answers `POST /api/event-consumers/register/` for this user, who sees offerings as `sees` says.
pub(crate) fn register(
    broker: &Broker,
    call: &Call,
    (user, token): (Uuid, &str),
    sees: impl Fn(Uuid) -> bool,
    next_event: u64,
) -> Reply {
    let detail = |status, text: &str| Reply::json(status, &json!({ "detail": text }));
    let Ok(Registration { object_types, scopes }) = serde_json::from_slice(&call.body) else {
        return detail(StatusCode::BAD_REQUEST, "JSON parse error");
    };
    let mut offerings: Vec<Uuid> = scopes.iter().map(|scope| scope.uuid).collect();
    offerings.sort_unstable();
    // Only staff may have the events of everybody.
    if scopes.is_empty() || !scopes.iter().all(|scope| scope.r#type == "offering" && sees(scope.uuid)) {
        return detail(StatusCode::FORBIDDEN, "You do not have permission to perform this action.");
    }
    let named = |kind| Uuid::new_v5(&user, format!("{kind} {offerings:?}").as_bytes()).simple().to_string();
    let (queue_name, username) = (format!("consumer_{}", named("queue")), named("user"));
    let vhost = user.simple().to_string();
    let answer = json!({ "rmq_username": username, "queue_name": queue_name, "vhost": vhost });
    let mut state = broker.lock();
    let status = if state.queues.contains_key(&queue_name) { StatusCode::OK } else { StatusCode::CREATED };
    let position = state.queues.get(&queue_name).map_or(next_event, |queue| queue.position);
    let queue = Queue { username, password: token.to_owned(), vhost, object_types, offerings, position };
    state.queues.insert(queue_name, queue);
    Reply::json(status, &answer)
}

/// The queue of this user.
pub(crate) fn login(broker: &Broker, username: &str, password: &str, vhost: &str) -> Option<String> {
    let state = broker.lock();
    let is_theirs = |queue: &Queue| queue.username == username && queue.password == password && queue.vhost == vhost;
    let mut found =
        state.queues.iter().filter(|(_, queue)| is_theirs(queue) && state.mode != BrokerMode::RefusesLogins);
    found.next().map(|(name, _)| name.clone())
}

/// Takes the next event of a queue.
pub(crate) fn next_event(broker: &Broker, world: &World, name: &str) -> Option<(u64, String)> {
    let mut state = broker.lock();
    let queue = state.queues.get_mut(name)?;
    let wanted = |(_, event): &(u64, &Event)| {
        queue.object_types.iter().any(|kind| kind == event.object_type) && queue.offerings.contains(&event.offering)
    };
    let found = world.events.since(queue.position).find(wanted);
    let found = found.map(|(number, event)| (number, event.body.to_string()));
    queue.position = found.as_ref().map_or(world.events.next(), |(number, _)| number + 1);
    found
}
