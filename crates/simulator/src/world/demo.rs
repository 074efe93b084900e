//! The demo world: every state, every type of order, and unusual records as in real data.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{NewResource, OfferingType, OrderState, ResourceState, Role, World};

/// Each system and its provider.
const SYSTEMS: [(&str, &str); 3] = [("capstor", "cscs"), ("vast", "cscs"), ("iopsstor", "eth")];
const DATA_TYPES: [&str; 4] = ["store", "scratch", "archive", "users"];
const CUSTOMERS: [(&str, &str); 6] = [
    ("uni-alpha", "University Alpha"),
    ("uni-beta", "University Beta"),
    ("lab-gamma", "Laboratory Gamma"),
    ("inst-delta", "Institute Delta"),
    ("mch", "Weather Service"),
    ("kaeufer", "Käufer «Ω» & Söhne"),
];
/// Positions of the projects without a GID.
/// Positions of the projects that have no GID.
const UNKNOWN: usize = 7;
const WITHOUT_GID: usize = 9;

/// Chooses projects with a GID, so that no two resources share a directory.
struct DirectoryAllocator {
    projects: Vec<Uuid>,
    taken: HashSet<(Uuid, String, Uuid)>,
}

impl DirectoryAllocator {
    fn new(projects: &[Uuid]) -> Self {
        let known = projects.iter().enumerate().filter(|(number, _)| ![UNKNOWN, WITHOUT_GID].contains(number));
        Self { projects: known.map(|(_, project)| *project).collect(), taken: HashSet::new() }
    }

    /// The first project from position `from` on that does not have this directory yet; returns offering and project.
    fn next(&mut self, offering: Uuid, data_type: &str, from: usize) -> (Uuid, Uuid) {
        let start = from % self.projects.len();
        let mut around = self.projects.iter().cycle().skip(start).take(self.projects.len());
        let project = around.find(|project| !self.taken.contains(&(offering, data_type.to_owned(), **project)));
        let project = *project.unwrap_or(&self.projects[start]);
        self.taken.insert((offering, data_type.to_owned(), project));
        (offering, project)
    }
}

impl World {
    /// Three storage systems (`capstor` and `vast` of provider `cscs`, `iopsstor` of `eth`), a fourth offering that the
    /// proxy does not serve, six customers, twelve projects and about forty resources in every state, with open orders of
    /// every type. `storage-proxy` owns both providers, `cscs-owner` owns one; `capstor-manager`, `alpha-owner` and
    /// `alpha-member` have the roles in their names.
    pub fn demo() -> Self {
        let mut world = Self::empty();
        let cscs = world.add_provider("cscs", "Storage Centre");
        let eth = world.add_provider("eth", "Polytechnic");
        let offerings: Vec<Uuid> = SYSTEMS
            .iter()
            .map(|(slug, provider)| {
                let owner = if *provider == "eth" { eth } else { cscs };
                world.add_offering(owner, slug, &format!("{} storage", slug.to_uppercase()), OfferingType::Slurm)
            })
            .collect();
        let basic = world.add_offering(cscs, "tape-basic", "Tape, served by hand", OfferingType::Basic);
        let projects = world.demo_projects();
        world.demo_users(cscs, eth, offerings[0], projects[0]);

        let mut places = DirectoryAllocator::new(&projects);
        world.demo_settled(&offerings, &mut places);
        world.demo_orders(&offerings, &mut places);
        world.demo_unusual_records(&offerings, &projects, &mut places);
        world.add_resource((basic, projects[1]), "tape-1", ResourceState::Ok, storage(5, "archive"));
        world
    }

    fn demo_projects(&mut self) -> Vec<Uuid> {
        let mut projects = Vec::new();
        for (number, (slug, name)) in CUSTOMERS.iter().enumerate() {
            let customer = self.add_customer(slug, name);
            for half in 0..2 {
                let project = format!("{slug}-p{}", half + 1);
                projects.push(self.add_project(customer, &project, &format!("{name}, project {}", half + 1)));
                let gid = u32::try_from(30_500 + 2 * number + half).unwrap_or(u32::MAX);
                match projects.len() - 1 {
                    UNKNOWN => {} // missing from the HPC User API
                    WITHOUT_GID => self.hpc.add_project(&project, None),
                    _ => self.hpc.add_project(&project, Some(gid)),
                }
            }
        }
        projects
    }

    fn demo_users(&mut self, cscs: Uuid, eth: Uuid, capstor: Uuid, project: Uuid) {
        self.grant("storage-proxy", Role::ProviderOwner(cscs));
        self.grant("storage-proxy", Role::ProviderOwner(eth));
        self.add_user("cscs-owner").roles.push(Role::ProviderOwner(cscs));
        self.add_user("capstor-manager").roles.push(Role::OfferingManager(capstor));
        let customer = self.projects[&project].customer;
        self.add_user("alpha-owner").roles.push(Role::CustomerOwner(customer));
        self.add_user("alpha-member").roles.push(Role::ProjectMember(project));
        self.hpc.users.insert(
            "alpha-member".to_owned(),
            json!({ "username": "alpha-member", "uidNumber": 23_001, "email": "alpha-member@example.org" }),
        );
    }

    /// Resources without an open order, of each data type on each system.
    fn demo_settled(&mut self, offerings: &[Uuid], places: &mut DirectoryAllocator) {
        let mut number = 0;
        for (offering, (system, provider)) in offerings.iter().zip(SYSTEMS) {
            for data_type in DATA_TYPES {
                for _ in 0..2 {
                    let place = places.next(*offering, data_type, number * 7);
                    let slug = format!("{system}-{data_type}-{number}");
                    let mut record = storage(10 * (number + 1), data_type);
                    // Waldur has the path of every second one. The path need not end with the project's slug.
                    if number % 2 == 0 {
                        let project = &self.projects[&place.1];
                        let customer = &self.customers[&project.customer].slug;
                        let last = if data_type == "users" { &slug } else { &project.slug };
                        let path = format!("/{system}/{data_type}/{provider}/{customer}/{last}");
                        record.insert("backend_id".into(), path.into());
                    }
                    if number % 6 == 0 {
                        let options = json!({ "permissions": "2770", "hard_quota_space": 10 * (number + 2),
                            "soft_quota_inodes": 1_000_000, "hard_quota_inodes": 1_500_000 });
                        record.insert("options".into(), options);
                    }
                    self.add_resource(place, &slug, ResourceState::Ok, record);
                    number += 1;
                }
            }
        }
        for (from, slug, state) in [
            (2, "broken", ResourceState::Erred),
            (3, "half-made", ResourceState::Erred),
            (4, "gone", ResourceState::Terminated),
        ] {
            let place = places.next(offerings[0], "store", from);
            let id = self.add_resource(place, slug, state, storage(7, "store"));
            if state == ResourceState::Erred {
                self.change(id, "error_message", "Quota could not be set".into());
            }
        }
    }

    /// Open and closed orders of every type and in every state.
    fn demo_orders(&mut self, offerings: &[Uuid], places: &mut DirectoryAllocator) {
        for (number, state) in [
            OrderState::PendingConsumer,
            OrderState::PendingProvider,
            OrderState::PendingProject,
            OrderState::PendingStartDate,
            OrderState::Executing,
            OrderState::Rejected,
        ]
        .into_iter()
        .enumerate()
        {
            let data_type = DATA_TYPES[number % 4];
            let (offering, project) = places.next(offerings[number % offerings.len()], data_type, number);
            let order = self.order_create(NewResource {
                offering,
                project,
                slug: format!("create-{}", state.as_str()),
                limits: json!({ "storage": 20 + number }),
                attributes: json!({ "storage_data_type": data_type, "permissions": "0770" }),
            });
            if state == OrderState::Rejected {
                let _ = self.consumer_reject(order);
            } else {
                self.force_order(order, state);
            }
        }
        let open = [OrderState::PendingConsumer, OrderState::PendingProvider, OrderState::Executing];
        for (number, state) in open.into_iter().enumerate() {
            for what in ["limits", "options", "terminate"] {
                let slug = format!("{what}-{}", state.as_str());
                let place = places.next(offerings[number % offerings.len()], DATA_TYPES[number], number + 2);
                let mut record = storage(30, DATA_TYPES[number]);
                record.insert("options".into(), json!({ "permissions": "775" }));
                let id = self.add_resource(place, &slug, ResourceState::Ok, record);
                let options = Map::from_iter([("hard_quota_space".to_owned(), json!(45.5))]);
                let order = match what {
                    "limits" => self.order_update_limits(id, json!({ "storage": 40 })),
                    "options" => self.order_update_options(id, &options),
                    _ => self.order_terminate(id),
                };
                if let Some(order) = order {
                    self.force_order(order, state);
                }
            }
        }
    }

    /// Unusual records as in real data: items and text in `backend_metadata`, a malformed row, projects without a GID.
    fn demo_unusual_records(&mut self, offerings: &[Uuid], projects: &[Uuid], places: &mut DirectoryAllocator) {
        let mut record = storage(12, "store");
        record.insert(
            "backend_metadata".into(),
            json!({ "project_item": { "itemId": "5d8a5c9e-0a3e-5d6f-9c52-6f0b5a9d1c11", "key": null,
                "name": "own-item", "status": "active", "unixGid": 31_999, "active": true } }),
        );
        let place = places.next(offerings[0], "store", 3);
        self.add_resource(place, "own-item", ResourceState::Ok, record);

        let mut record = storage(3, "users");
        record.insert("backend_metadata".into(), "written by hand".into());
        let place = places.next(offerings[1], "users", 0);
        self.add_resource(place, "text-metadata", ResourceState::Ok, record);

        let mut record = storage(3, "store");
        record.insert("limits".into(), json!({ "storage": "a lot" }));
        let place = places.next(offerings[1], "store", 4);
        self.add_resource(place, "malformed", ResourceState::Ok, record);

        for (slug, project) in [("project-unknown", UNKNOWN), ("project-without-gid", WITHOUT_GID)] {
            self.add_resource((offerings[0], projects[project]), slug, ResourceState::Ok, storage(9, "store"));
        }
    }
}

fn storage(terabytes: usize, data_type: &str) -> Map<String, Value> {
    Map::from_iter([
        ("limits".to_owned(), json!({ "storage": terabytes })),
        ("attributes".to_owned(), json!({ "storage_data_type": data_type, "permissions": "775" })),
    ])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::world::{Order, OrderState, OrderType, ResourceState, World};

    #[test]
    fn shows_every_state_and_every_type_of_open_order() {
        let world = World::demo();
        for state in ResourceState::ALL {
            assert!(world.resources.values().any(|row| row.state() == Some(state)), "{state:?}");
        }
        let open: Vec<&Order> = world.resources.values().filter_map(|row| world.order_in_progress(row)).collect();
        for state in OrderState::ALL.into_iter().filter(|state| state.in_progress()) {
            assert!(open.iter().any(|order| order.state() == Some(state)), "{state:?}");
        }
        for kind in [OrderType::Create, OrderType::Update, OrderType::Terminate] {
            assert!(open.iter().any(|order| order.kind() == Some(kind)), "{kind:?}");
        }
        assert!(open.iter().any(|order| order.is_options_order()));
        assert!((35..=60).contains(&world.resources.len()), "{} resources", world.resources.len());
    }

    #[test]
    fn directories_are_unique_and_below_their_customer() {
        let world = World::demo();
        let mut seen = HashSet::new();
        for row in world.resources.values() {
            let (offering, project) = (&world.offerings[&row.offering], &world.projects[&row.project]);
            let (provider, customer) = (&world.providers[&offering.provider], &world.customers[&project.customer]);
            let data_type = row.record["attributes"]["storage_data_type"].as_str().unwrap();
            let above = format!("/{}/{data_type}/{}/{}/", offering.slug, provider.slug, customer.slug);
            let path = match row.text("backend_id") {
                "" => format!("{above}{}", project.slug),
                given => given.to_owned(),
            };
            assert!(path.starts_with(&above), "{path}");
            assert!(seen.insert(path.clone()), "duplicate path {path}");
        }
    }

    #[test]
    fn is_deterministic() {
        let keys = |world: World| world.resources.into_keys().collect::<Vec<_>>();
        assert_eq!(keys(World::demo()), keys(World::demo()));
        assert_eq!(keys(World::large(50)), keys(World::large(50)));
    }
}
