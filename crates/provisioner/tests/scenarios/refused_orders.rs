//! Orders that Waldur refuses to complete, and resources that change in Waldur without an order.

use serde_json::{Map, json};
use simulator::World;
use simulator::world::{OrderState, ResourceState};
use uuid::Uuid;

use crate::support::{BASIC, Ordered, SLURM, Site};

/// A site whose provisioner calls Waldur through the proxy, or directly.
fn site(relays: bool) -> Site {
    if relays {
        return Site::new();
    }
    let mut site = Site::without_relay();
    site.use_waldur_token();
    site
}

fn expire(site: &Site, resource: Uuid, expired: bool) {
    site.simulator.world(|world| {
        let project = world.resources[&resource].project;
        world.projects.get_mut(&project).unwrap().expired = expired;
    });
}

/// How and why `plan` holds a resource.
fn held(site: &Site, resource: Uuid) -> (String, String) {
    let plan = site.json(&["plan"]);
    let held = plan["held"].as_array().unwrap().iter().find(|held| held["id"] == json!(resource));
    let text = |key: &str| held.and_then(|held| held[key].as_str()).unwrap_or_default().to_owned();
    (text("hold"), text("reason"))
}

#[test]
fn a_refused_approval_is_held_with_waldurs_reason_and_changes_nothing() {
    for relays in [true, false] {
        for system in [SLURM, BASIC] {
            let site = site(relays);
            let made = site.order(system, 0, 10);
            site.apply();
            let path = site.at(&format!("/{system}/store/cscs/uni/p0"));
            let ended = site.order_end(made.resource);
            expire(&site, made.resource, true);
            site.run(&["apply"])
                .exits_with(1)
                .stdout_has("Waldur refuses approve_by_provider: Project 'Project 0 | University' is expired.");
            assert!(path.exists() && site.trash(system).is_empty(), "{system}");
            let (hold, reason) = held(&site, made.resource);
            assert!(hold == "declined" && reason.contains("is expired. Tried once"), "{hold}: {reason}");
            site.run(&["status"]).exits_with(0).stdout_has("declined").stdout_has("is expired");
            site.run(&["explain", &made.resource.to_string()]).exits_with(0).stdout_has("is expired");
            assert_eq!(site.states(ended).0, OrderState::PendingProvider);

            // `apply` does not wait for the pause, and counts the second refusal.
            site.run(&["apply"]).exits_with(1);
            assert!(held(&site, made.resource).1.contains("Tried 2 times"));
            expire(&site, made.resource, false);
            site.apply().stdout_has("1 done");
            assert_eq!(site.states(ended), (OrderState::Done, ResourceState::Terminated), "{system}");
            assert!(!path.exists() && site.trash(system).len() == 1, "{system}");
            site.apply().stdout_has("0 to do, 0 held");
        }
    }
}

#[test]
fn a_duplicate_backend_id_is_held_with_waldurs_reason() {
    for relays in [true, false] {
        let site = site(relays);
        let made = site.order(SLURM, 0, 10);
        // A resource of another project, which the proxy skips because it has no GID.
        let other = site.simulator.world(|world| {
            world.unique_backend_ids = true;
            world.hpc.set_gid("p5", None);
            let offering = world.resources[&made.resource].offering;
            let project = world.projects.values().find(|project| project.slug == "p5").unwrap().uuid;
            let record = Map::from_iter([("backend_id".to_owned(), json!("/capstor/store/cscs/uni/p0"))]);
            world.add_resource((offering, project), "other", ResourceState::Ok, record)
        });
        site.run(&["apply"])
            .exits_with(1)
            .stdout_has("Waldur refuses set_backend_id: backend_id: This backend ID is not unique");
        let (hold, reason) = held(&site, made.resource);
        assert!(hold == "declined" && reason.contains("not unique"), "{hold}: {reason}");
        assert_eq!(site.states(made).0, OrderState::Executing);
        site.simulator.world(|world| world.change(other, "backend_id", "".into()));
        site.apply().stdout_has("1 done");
        assert_eq!(site.states(made), (OrderState::Done, ResourceState::Ok));
    }
}

/// A lagging worker resets the resource to its state during the order.
fn let_the_worker_lag(site: &Site) {
    site.simulator.world(|world| world.worker_lags = true);
}

#[test]
fn a_resource_that_a_lagging_worker_leaves_updating_is_set_ok() {
    for relays in [true, false] {
        let site = site(relays);
        let made = site.order(SLURM, 0, 10);
        site.apply();
        let_the_worker_lag(&site);
        let grown = site.order_size(made.resource, 40);
        site.apply().stdout_has("1 done");
        site.simulator.world(World::run_worker);
        assert_eq!(site.states(grown), (OrderState::Done, ResourceState::Updating));
        site.apply().stdout_has("set_state_ok").stdout_has("1 done");
        assert_eq!(site.states(grown), (OrderState::Done, ResourceState::Ok));
        site.apply().stdout_has("0 to do, 0 held");
        // The same for Creating.
        let new = site.order(SLURM, 1, 10);
        site.apply();
        site.simulator.world(|world| world.change(new.resource, "state", "Creating".into()));
        site.apply().stdout_has("set_state_ok").stdout_has("1 done");
        assert_eq!(site.states(new).1, ResourceState::Ok);
    }
}

#[test]
fn without_set_state_ok_and_for_terminating_the_reason_names_the_state_to_set() {
    for relays in [true, false] {
        let site = site(relays);
        let made = [0, 1].map(|number| site.order(SLURM, number, 10));
        site.apply();
        let_the_worker_lag(&site);
        site.simulator.world(|world| world.has_set_state_ok = false);
        let grown = site.order_size(made[0].resource, 40);
        let ended = site.order_end(made[1].resource);
        site.apply().stdout_has("2 done");
        site.simulator.world(World::run_worker);
        assert_eq!([grown, ended].map(|it| site.states(it).1), [ResourceState::Updating, ResourceState::Terminating]);
        site.run(&["apply"]).exits_with(1).stdout_has("this Waldur does not have this call");
        let (hold, reason) = held(&site, grown.resource);
        assert!(hold == "conflict" && reason.contains("set its state to OK in Waldur's administration"), "{reason}");
        let (hold, reason) = held(&site, ended.resource);
        assert!(hold == "conflict" && reason.contains("set its state to Terminated"), "{reason}");
        assert_eq!(site.trash(SLURM).len(), 1);
        site.simulator.world(|world| {
            world.change(grown.resource, "state", "OK".into());
            world.change(ended.resource, "state", "Terminated".into());
        });
        site.apply().stdout_has("0 to do, 0 held");
    }
}

#[test]
fn a_resource_that_a_lagging_worker_leaves_terminating_does_not_block_its_path() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    let_the_worker_lag(&site);
    let ended = site.order_end(made.resource);
    site.apply();
    site.simulator.world(World::run_worker);
    assert_eq!(site.states(ended), (OrderState::Done, ResourceState::Terminating));
    let next = site.order(SLURM, 0, 20);
    site.apply().stdout_has("1 done");
    let grown = site.order_size(next.resource, 40);
    site.apply().stdout_has("1 done");
    assert_eq!(site.states(grown), (OrderState::Done, ResourceState::Ok));
    let (hold, reason) = held(&site, ended.resource);
    assert!(hold == "conflict" && reason.contains("set its state to Terminated"), "{hold}: {reason}");
}

#[test]
fn a_resource_that_changes_for_another_reason_is_held() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    // The order is deleted before the provisioner reads it.
    let grown = site.order_size(made.resource, 40);
    site.simulator.world(|world| world.delete_order(grown.order).unwrap());
    let calls = site.calls().len();
    site.apply().stdout_has("0 done");
    let (hold, reason) = held(&site, made.resource);
    assert!(hold == "conflict" && reason.contains("it has no order in progress"), "{hold}: {reason}");
    assert_eq!(site.calls().len(), calls);
}

#[test]
fn an_approved_order_waits_for_a_lagging_worker_of_waldur() {
    let site = Site::new();
    let made = site.order(BASIC, 0, 10);
    site.simulator.world(|world| world.worker_lags = true);
    site.apply();
    assert_eq!(site.states(made), (OrderState::Executing, ResourceState::Creating));
    let (hold, reason) = held(&site, made.resource);
    assert!(hold == "waiting" && reason.contains("Waldur completes it by itself"), "{hold}: {reason}");
    site.simulator.world(World::run_worker);
    assert_eq!(site.states(made), (OrderState::Done, ResourceState::Ok));

    // Once the termination is accepted, no worker is needed.
    let ended = site.order_end(made.resource);
    site.apply();
    assert_eq!(site.states(ended), (OrderState::Executing, ResourceState::Terminating));
    assert_eq!(site.trash(BASIC).len(), 1);
    site.simulator.world(World::run_worker);
    assert_eq!(site.states(ended), (OrderState::Done, ResourceState::Terminated));
    site.apply().stdout_has("0 to do, 0 held");
}

#[test]
fn a_ghost_is_held_and_does_not_block_its_path() {
    for system in [SLURM, BASIC] {
        let site = Site::new();
        let ghost = site.order(system, 0, 10);
        site.simulator.world(|world| world.delete_order(ghost.order).unwrap());
        let made = site.order(system, 0, 20);
        site.apply().stdout_has("Other resources can use its path").stdout_has("1 done");
        assert_eq!(site.states(made), (OrderState::Done, ResourceState::Ok), "{system}");
        let (hold, reason) = held(&site, ghost.resource);
        assert!(hold == "conflict" && reason.contains("set its state to Terminated"), "{hold}: {reason}");
        // The same when the other one exists.
        site.apply().stdout_has("Other resources can use its path").stdout_has("0 to do, 1 held");
    }
}

#[test]
fn a_resource_is_held_while_another_has_a_claim_to_its_path() {
    for claim in ["backend_id", "directory"] {
        let site = Site::new();
        let first = site.order(SLURM, 0, 10);
        if claim == "directory" {
            // It is made, and then Waldur loses it.
            site.apply();
            site.simulator.world(|world| {
                world.change(first.resource, "backend_id", "".into());
                world.change(first.resource, "state", "Creating".into());
                world.orders.shift_remove(&first.order);
                world.resources.get_mut(&first.resource).unwrap().orders.clear();
            });
            std::fs::remove_file(site.state("journal")).unwrap();
        } else {
            site.simulator.world(|world| {
                world.change(first.resource, "backend_id", "/capstor/store/cscs/uni/p0".into());
                world.delete_order(first.order).unwrap();
            });
        }
        let second = site.order(SLURM, 0, 20);
        site.apply().stdout_has("0 done");
        assert_eq!(site.states(second).0, OrderState::PendingProvider, "{claim}: never rejected");
        assert_eq!(held(&site, second.resource).0, "conflict", "{claim}");
        assert!(!held(&site, first.resource).1.contains("ghost"), "{claim}");
    }
}

#[test]
fn a_restore_order_restores_the_directory_from_the_trash() {
    for system in [SLURM, BASIC] {
        let site = Site::new();
        let made = site.order(system, 0, 10);
        site.apply();
        let path = site.at(&format!("/{system}/store/cscs/uni/p0"));
        std::fs::write(path.join("data"), "precious").unwrap();
        site.order_end(made.resource);
        site.apply();
        assert!(!path.exists());
        let restore = |site: &Site| {
            let order = site.simulator.world(|world| {
                let order = world.order_restore(made.resource).unwrap();
                world.consumer_approve(order).unwrap();
                order
            });
            Ordered { order, ..made }
        };
        let back = restore(&site);
        site.apply().stdout_has("restore").stdout_has("1 done");
        assert_eq!(site.states(back), (OrderState::Done, ResourceState::Ok), "{system}");
        assert_eq!(std::fs::read_to_string(path.join("data")).unwrap(), "precious");
        site.apply().stdout_has("0 to do, 0 held");

        site.order_end(made.resource);
        site.apply();
        std::fs::remove_dir_all(site.root(system).join(".trash")).unwrap();
        let back = restore(&site);
        site.apply().stdout_has("0 done");
        assert!(held(&site, made.resource).1.contains("its directory is not in the trash"));
        assert_eq!(site.states(back).0, OrderState::PendingProvider, "no empty directory replaces the old one");
    }
}

#[test]
fn an_options_order_that_waldur_completes_on_approval_is_not_reported_again() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    let order = |site: &Site, permissions: &str| {
        let options = Map::from_iter([("permissions".to_owned(), json!(permissions))]);
        site.simulator.world(|world| {
            let order = world.order_update_options(made.resource, &options).unwrap();
            world.consumer_approve(order).unwrap();
            order
        })
    };
    let done = |site: &Site| site.calls().iter().filter(|call| call.ends_with("set_state_done/")).count();
    let before = done(&site);
    let at_once = order(&site, "2750");
    site.apply().stdout_has("1 done");
    assert_eq!((done(&site), site.states(Ordered { order: at_once, ..made }).0), (before, OrderState::Done));

    // Or a moment later, while the directory changes.
    site.simulator.world(|world| world.options_end_on_approval = false);
    let late = order(&site, "2770");
    site.simulator.after_answer("POST /api/*set_backend_id/", move |world| {
        world.force_order(late, OrderState::Done);
        let options = json!({ "permissions": "2770" });
        world.change(world.orders[&late].resource, "options", options);
        world.change(world.orders[&late].resource, "state", "OK".into());
    });
    site.apply().stdout_has("1 done");
    assert_eq!(done(&site), before, "{:?}", site.calls());
    site.apply().stdout_has("0 to do, 0 held");

    // A Waldur that waits for the report gets it.
    let waits = order(&site, "2750");
    site.apply().stdout_has("1 done");
    assert_eq!((done(&site), site.states(Ordered { order: waits, ..made }).0), (before + 1, OrderState::Done));
}

#[test]
fn nothing_is_made_inside_the_directory_of_an_unlisted_resource() {
    for system in [SLURM, BASIC] {
        let site = Site::new();
        let made = site.order(system, 0, 10);
        site.apply();
        site.simulator.world(|world| {
            world.resources.shift_remove(&made.resource);
            world.orders.shift_remove(&made.order);
        });
        let inner = site.order(system, 1, 10);
        let path = format!("/{system}/store/cscs/uni/p0/sub");
        site.simulator.world(|world| world.change(inner.resource, "backend_id", path.clone().into()));
        site.apply().stdout_has("0 done");
        let (hold, reason) = held(&site, inner.resource);
        assert!(hold == "conflict" && reason.contains(&made.resource.to_string()), "{hold}: {reason}");
        assert!(!site.at(&path).exists());
        assert_eq!(site.states(inner).0, OrderState::PendingProvider);
    }
}
