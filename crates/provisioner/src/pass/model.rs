//! A model of Waldur and its proxy for tests of passes. Calls have the effects that were observed on a real Waldur:
//! approval ends orders of Basic offerings, `done` ends the others, and repeated calls are conflicts.

use std::collections::BTreeMap;
use std::sync::Mutex;

use provisioner_core::document::{
    Document, Kind, Links, Node, Offering, Order, OrderKind, OrderState, QuotaProblem, Quotas, Resource, Status,
};
use storage_driver::Mode;
use uuid::Uuid;

use super::{Answer, Call};

#[derive(Debug, Default)]
pub(crate) struct Model {
    resources: Mutex<BTreeMap<Uuid, Resource>>,
    backend_ids: Mutex<BTreeMap<Uuid, String>>,
    /// All calls that were accepted.
    pub(crate) accepted: Mutex<Vec<(Uuid, &'static str)>>,
}

/// A resource with each status, without an order and with an order of each of these kinds.
pub(crate) fn with_each_status(kinds: &[OrderKind]) -> Vec<Resource> {
    use Status::{Active, Error, Pending, Removed, Removing, Updating};
    let mut orders = vec![None];
    for kind in kinds {
        for state in [OrderState::PendingProvider, OrderState::Executing, OrderState::Other] {
            orders.extend([Offering::SiteAgent, Offering::Basic].map(|offering| Some((*kind, state, offering))));
        }
    }
    let mut resources = Vec::new();
    for status in [Pending, Active, Updating, Removing, Removed, Error] {
        for order in &orders {
            resources.push(resource(resources.len() as u128 + 1, status, *order, 2.0));
        }
    }
    resources
}

/// A resource, with an order of this kind and state if given. `tb`: its quota, or the ordered one.
pub(crate) fn resource(n: u128, status: Status, order: Option<(OrderKind, OrderState, Offering)>, tb: f64) -> Resource {
    let order = order.map(|(kind, state, offering)| Order {
        id: Uuid::from_u128(n << 32),
        kind,
        state,
        offering,
        new_options: None,
    });
    let quotas = Some(Quotas { space: [tb; 2], inodes: [tb * 100.0; 2] });
    Resource {
        id: Uuid::from_u128(n),
        system: "capstor".into(),
        path: format!("/capstor/store/cscs/customer-{}/project-{n}", n % 3),
        status,
        kind: Kind::Project,
        name: None,
        mode: Mode(0o2770),
        gid: Some(30_000 + u32::try_from(n).unwrap()),
        uid: None,
        quotas,
        new_quotas: order
            .as_ref()
            .filter(|order| order.kind == OrderKind::Update)
            .map(|_| Quotas { space: [tb * 2.0; 2], inodes: [tb * 200.0; 2] }),
        quota_problem: (tb <= 0.0)
            .then(|| QuotaProblem { zero_ordered: order.is_some(), detail: "the storage limit is 0".to_owned() }),
        order,
        links: Links::default(),
        unclaimed: false,
    }
}

impl Model {
    pub(crate) fn new(resources: impl IntoIterator<Item = Resource>) -> Self {
        let resources = resources.into_iter().map(|resource| (resource.id, resource)).collect();
        Self { resources: Mutex::new(resources), ..Self::default() }
    }

    /// What the proxy publishes now.
    pub(crate) fn document(&self) -> Document {
        let linked = |resource: &Resource| Resource { links: links(resource), ..resource.clone() };
        let resources = self.resources.lock().unwrap().values().map(linked).collect();
        let node = |path: String| Node { system: "capstor".into(), path, mode: Mode(0o775) };
        let customers = (0..3).map(|n| node(format!("/capstor/store/cscs/customer-{n}")));
        let nodes = std::iter::once(node("/capstor/store/cscs".into())).chain(customers).collect();
        Document { resources, nodes, ..Document::default() }
    }

    /// Carries out a call as Waldur does.
    pub(crate) fn call(&self, call: &Call) -> Answer {
        let mut resources = self.resources.lock().unwrap();
        let Some(resource) = resources.get_mut(&call.resource) else { return Answer::Unclear("404".into()) };
        match call.action {
            "set_backend_id" => {
                let id = call.body.as_ref().and_then(|body| body["backend_id"].as_str()).unwrap();
                self.backend_ids.lock().unwrap().insert(call.resource, id.to_owned());
                return Answer::Accepted;
            }
            "set_state_ok" => {
                resource.status = Status::Active;
                return Answer::Accepted;
            }
            _ => {}
        }
        let Some(order) = resource.order.clone() else { return Answer::Unclear("409".into()) };
        let (from, ends) = match call.action {
            "approve_by_provider" => (OrderState::PendingProvider, order.offering == Offering::Basic),
            "reject_by_provider" => (OrderState::PendingProvider, true),
            _ => (OrderState::Executing, true),
        };
        if order.state != from {
            return Answer::Unclear("409".into());
        }
        self.accepted.lock().unwrap().push((call.resource, call.action));
        if !ends {
            resource.order = Some(Order { state: OrderState::Executing, ..order });
            return Answer::Accepted;
        }
        resource.order = None;
        let new = resource.new_quotas.take();
        let gone = match call.action {
            "reject_by_provider" => order.kind == OrderKind::Create,
            "set_state_erred" => {
                order.kind == OrderKind::Create && !self.backend_ids.lock().unwrap().contains_key(&call.resource)
            }
            _ => {
                resource.quotas = new.or(resource.quotas);
                order.kind == OrderKind::Terminate
            }
        };
        resource.status = match (call.action, order.kind) {
            _ if gone => Status::Removed,
            ("set_state_erred", OrderKind::Create | OrderKind::Update) => Status::Error,
            _ => Status::Active,
        };
        Answer::Accepted
    }

    /// Each resource's status and backend ID.
    pub(crate) fn ends(&self) -> Vec<(Uuid, Status, Option<String>)> {
        let ids = self.backend_ids.lock().unwrap();
        let resources = self.resources.lock().unwrap();
        resources.values().map(|it| (it.id, it.status, ids.get(&it.id).cloned())).collect()
    }
}

/// The links that the proxy publishes for this state of the order.
fn links(resource: &Resource) -> Links {
    let Some(order) = &resource.order else {
        let ok = Some(format!("https://waldur.example.org/{}/set_state_ok/", resource.id));
        return Links { ok, ..Links::default() };
    };
    let link =
        |allowed: bool, action: &str| allowed.then(|| format!("https://waldur.example.org/{}/{action}/", order.id));
    let (pending, executing) = (order.state == OrderState::PendingProvider, order.state == OrderState::Executing);
    Links {
        approve: link(pending, "approve_by_provider"),
        reject: link(pending, "reject_by_provider"),
        done: link(pending || executing, "set_state_done"),
        erred: link(executing, "set_state_erred"),
        backend_id: link(true, "set_backend_id"),
        ok: None,
    }
}
