//! Orders that Waldur refuses for good, and resources that Waldur shows as changing without an order.

use serde_json::{Map, json};
use simulator::world::{OrderState, ResourceState};
use uuid::Uuid;

use crate::support::{BASIC, SLURM, Site, WALDUR_TOKEN};

/// A site whose provisioner calls Waldur itself, or through the proxy.
fn site(relays: bool) -> Site {
    if relays {
        return Site::new();
    }
    let mut site = Site::without_relay();
    site.set("PROVISIONER_WALDUR_API_URL", &format!("{}/api/", site.simulator.base_url()));
    site.set("PROVISIONER_WALDUR_API_TOKEN", WALDUR_TOKEN);
    site
}

fn expire(site: &Site, resource: Uuid, expired: bool) {
    site.simulator.world(|world| {
        let project = world.resources[&resource].project;
        world.projects.get_mut(&project).unwrap().expired = expired;
    });
}

/// What `plan` holds of a resource: the kind and the reason.
fn held(site: &Site, resource: Uuid) -> (String, String) {
    let plan = site.json(&["plan"]);
    let held = plan["held"].as_array().unwrap().iter().find(|held| held["id"] == json!(resource));
    let text = |key: &str| held.and_then(|held| held[key].as_str()).unwrap_or_default().to_owned();
    (text("hold"), text("reason"))
}

#[test]
fn an_approval_that_waldur_refuses_is_held_with_its_reason_and_touches_nothing() {
    for relays in [true, false] {
        for system in [SLURM, BASIC] {
            let site = site(relays);
            let made = site.order(system, 0, 10);
            site.apply();
            let path = site.at(&format!("/{system}/store/cscs/uni/p0"));
            let ended = site.order_end(made.resource);
            expire(&site, made.resource, true);
            site.run(&["apply"])
                .ends_with(1)
                .says("Waldur refuses approve_by_provider: Project 'Project 0 | University' is expired.");
            assert!(path.exists() && site.trash(system).is_empty(), "{system}");
            let (hold, reason) = held(&site, made.resource);
            assert!(hold == "declined" && reason.contains("is expired. Tried once"), "{hold}: {reason}");
            site.run(&["status"]).ends_with(0).says("declined").says("is expired");
            site.run(&["explain", &made.resource.to_string()]).ends_with(0).says("is expired");
            assert_eq!(site.states(ended).0, OrderState::PendingProvider);

            // A person's command does not wait, and what is refused again is counted.
            site.run(&["apply"]).ends_with(1);
            assert!(held(&site, made.resource).1.contains("Tried 2 times"));
            expire(&site, made.resource, false);
            site.apply().says("1 done");
            assert_eq!(site.states(ended), (OrderState::Done, ResourceState::Terminated), "{system}");
            assert!(!path.exists() && site.trash(system).len() == 1, "{system}");
            site.apply().says("0 to do, 0 held");
        }
    }
}

#[test]
fn a_backend_id_that_is_not_unique_is_held_with_waldurs_reason() {
    for relays in [true, false] {
        let site = site(relays);
        let made = site.order(SLURM, 0, 10);
        // Of another project, which the proxy leaves out because it has no GID.
        let other = site.simulator.world(|world| {
            world.unique_backend_ids = true;
            world.hpc.set_gid("p5", None);
            let offering = world.resources[&made.resource].offering;
            let project = world.projects.values().find(|project| project.slug == "p5").unwrap().uuid;
            let record = Map::from_iter([("backend_id".to_owned(), json!("/capstor/store/cscs/uni/p0"))]);
            world.add_resource((offering, project), "other", ResourceState::Ok, record)
        });
        site.run(&["apply"])
            .ends_with(1)
            .says("Waldur refuses set_backend_id: backend_id: This backend ID is not unique");
        let (hold, reason) = held(&site, made.resource);
        assert!(hold == "declined" && reason.contains("not unique"), "{hold}: {reason}");
        assert_eq!(site.states(made).0, OrderState::Executing);
        site.simulator.world(|world| world.change(other, "backend_id", "".into()));
        site.apply().says("1 done");
        assert_eq!(site.states(made), (OrderState::Done, ResourceState::Ok));
    }
}
