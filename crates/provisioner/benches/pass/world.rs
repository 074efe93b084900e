//! The document of the proxy: projects of a hundred customers, all in the same state.

use provisioner_core::document::{
    Document, Kind, Links, Node, Offering, Order, OrderKind, OrderState, Quotas, Resource, Status,
};
use storage_driver::Mode;
use uuid::Uuid;

pub(crate) const CUSTOMERS: usize = 100;

/// A number of projects.
pub(crate) struct World {
    pub(crate) count: usize,
}

impl World {
    pub(crate) fn new(count: usize) -> Self {
        Self { count }
    }

    /// Ordered, not yet approved.
    pub(crate) fn pending(&self) -> Document {
        self.document(Status::Pending, Some(OrderState::PendingProvider))
    }

    /// Ordered and approved.
    pub(crate) fn executing(&self) -> Document {
        self.document(Status::Pending, Some(OrderState::Executing))
    }

    /// In use.
    pub(crate) fn active(&self) -> Document {
        self.document(Status::Active, None)
    }

    /// UUIDs, each with the name of the customer and of the project.
    pub(crate) fn names(&self) -> impl Iterator<Item = (Uuid, String, String)> {
        (0..self.count).map(|n| {
            // Spread over all bits, like real UUIDs.
            let id = Uuid::from_u128((n as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
            (id, format!("customer-{}", n % CUSTOMERS), format!("project-{n}"))
        })
    }

    fn document(&self, status: Status, state: Option<OrderState>) -> Document {
        let node = |path: String| Node { system: "capstor".into(), path, mode: Mode(0o775) };
        let customers = (0..CUSTOMERS).map(|n| node(format!("/capstor/store/cscs/customer-{n}")));
        let nodes = std::iter::once(node("/capstor/store/cscs".into())).chain(customers).collect();
        let resources = self.names().zip(0..).map(|(names, n)| resource(names, n, status, state)).collect();
        Document { resources, nodes, ..Document::default() }
    }
}

fn resource(
    (id, customer, project): (Uuid, String, String),
    n: u32,
    status: Status,
    state: Option<OrderState>,
) -> Resource {
    let order = Uuid::from_u128(id.as_u128() ^ 1);
    let link = |action: &str| Some(format!("https://waldur.example.org/api/marketplace-orders/{order}/{action}/"));
    let links = state.map_or_else(Links::default, |state| {
        let pending = state == OrderState::PendingProvider;
        Links {
            approve: link("approve_by_provider").filter(|_| pending),
            reject: link("reject_by_provider").filter(|_| pending),
            done: link("set_state_done"),
            erred: link("set_state_erred").filter(|_| !pending),
            backend_id: link("set_backend_id"),
            ok: None,
        }
    });
    Resource {
        id,
        system: "capstor".into(),
        path: format!("/capstor/store/cscs/{customer}/{project}"),
        status,
        kind: Kind::Project,
        name: Some(project),
        mode: Mode(0o2770),
        gid: Some(30_000 + n),
        uid: None,
        quotas: Some(Quotas { space: [10.0, 12.0], inodes: [1e6, 1.2e6] }),
        new_quotas: None,
        quota_problem: None,
        order: state.map(|state| Order {
            id: order,
            kind: OrderKind::Create,
            state,
            offering: Offering::SiteAgent,
            new_options: None,
        }),
        links,
        unclaimed: false,
    }
}
