//! Orders that Waldur refuses for good, and resources that Waldur shows as changing without an order.

use serde_json::{Map, json};
use simulator::World;
use simulator::world::{OrderState, ResourceState};
use uuid::Uuid;

use crate::support::{BASIC, Ordered, SLURM, Site, WALDUR_TOKEN};

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

/// A worker that lags sets the resource back to what it was while its order was open.
fn let_the_worker_lag(site: &Site) {
    site.simulator.world(|world| world.worker_lags = true);
}

#[test]
fn what_a_lagging_worker_shows_as_updating_is_set_ok() {
    for relays in [true, false] {
        let site = site(relays);
        let made = site.order(SLURM, 0, 10);
        site.apply();
        let_the_worker_lag(&site);
        let grown = site.order_size(made.resource, 40);
        site.apply().says("1 done");
        site.simulator.world(World::run_worker);
        assert_eq!(site.states(grown), (OrderState::Done, ResourceState::Updating));
        site.apply().says("set_state_ok").says("1 done");
        assert_eq!(site.states(grown), (OrderState::Done, ResourceState::Ok));
        site.apply().says("0 to do, 0 held");
        // Waldur may show a resource that was made as Creating, likewise.
        let new = site.order(SLURM, 1, 10);
        site.apply();
        site.simulator.world(|world| world.change(new.resource, "state", "Creating".into()));
        site.apply().says("set_state_ok").says("1 done");
        assert_eq!(site.states(new).1, ResourceState::Ok);
    }
}

#[test]
fn without_the_call_and_for_terminating_a_person_is_told_what_to_set() {
    for relays in [true, false] {
        let site = site(relays);
        let made = [0, 1].map(|number| site.order(SLURM, number, 10));
        site.apply();
        let_the_worker_lag(&site);
        site.simulator.world(|world| world.has_set_state_ok = false);
        let grown = site.order_size(made[0].resource, 40);
        let ended = site.order_end(made[1].resource);
        site.apply().says("2 done");
        site.simulator.world(World::run_worker);
        assert_eq!([grown, ended].map(|it| site.states(it).1), [ResourceState::Updating, ResourceState::Terminating]);
        site.run(&["apply"]).ends_with(1).says("this Waldur does not have this call");
        let (hold, reason) = held(&site, grown.resource);
        assert!(hold == "conflict" && reason.contains("set its state to OK in Waldur's administration"), "{reason}");
        let (hold, reason) = held(&site, ended.resource);
        assert!(hold == "conflict" && reason.contains("set its state to Terminated"), "{reason}");
        assert_eq!(site.trash(SLURM).len(), 1);
        site.simulator.world(|world| {
            world.change(grown.resource, "state", "OK".into());
            world.change(ended.resource, "state", "Terminated".into());
        });
        site.apply().says("0 to do, 0 held");
    }
}

#[test]
fn what_a_lagging_worker_shows_as_terminating_keeps_no_path_from_the_next_resource() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    let_the_worker_lag(&site);
    let ended = site.order_end(made.resource);
    site.apply();
    site.simulator.world(World::run_worker);
    assert_eq!(site.states(ended), (OrderState::Done, ResourceState::Terminating));
    let next = site.order(SLURM, 0, 20);
    site.apply().says("1 done");
    let grown = site.order_size(next.resource, 40);
    site.apply().says("1 done");
    assert_eq!(site.states(grown), (OrderState::Done, ResourceState::Ok));
    let (hold, reason) = held(&site, ended.resource);
    assert!(hold == "conflict" && reason.contains("set its state to Terminated"), "{hold}: {reason}");
}

#[test]
fn a_resource_that_is_changing_for_another_cause_is_left_to_a_person() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    // Its order was deleted before the provisioner saw it.
    let grown = site.order_size(made.resource, 40);
    site.simulator.world(|world| world.delete_order(grown.order).unwrap());
    let calls = site.calls().len();
    site.apply().says("0 done");
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

    // The termination is accepted: what follows needs no worker.
    let ended = site.order_end(made.resource);
    site.apply();
    assert_eq!(site.states(ended), (OrderState::Executing, ResourceState::Terminating));
    assert_eq!(site.trash(BASIC).len(), 1);
    site.simulator.world(World::run_worker);
    assert_eq!(site.states(ended), (OrderState::Done, ResourceState::Terminated));
    site.apply().says("0 to do, 0 held");
}

#[test]
fn a_ghost_is_reported_and_does_not_keep_its_path_from_another() {
    for system in [SLURM, BASIC] {
        let site = Site::new();
        let ghost = site.order(system, 0, 10);
        site.simulator.world(|world| world.delete_order(ghost.order).unwrap());
        let made = site.order(system, 0, 20);
        site.apply().says("Other resources can use its path").says("1 done");
        assert_eq!(site.states(made), (OrderState::Done, ResourceState::Ok), "{system}");
        let (hold, reason) = held(&site, ghost.resource);
        assert!(hold == "conflict" && reason.contains("set its state to Terminated"), "{hold}: {reason}");
        // Also when the other is there by now.
        site.apply().says("Other resources can use its path").says("0 to do, 1 held");
    }
}

#[test]
fn of_two_with_one_path_the_other_is_held_while_the_first_has_a_claim() {
    for claim in ["backend_id", "directory"] {
        let site = Site::new();
        let first = site.order(SLURM, 0, 10);
        if claim == "directory" {
            // Made, and then Waldur forgets about it.
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
        site.apply().says("0 done");
        assert_eq!(site.states(second).0, OrderState::PendingProvider, "{claim}: never rejected");
        assert_eq!(held(&site, second.resource).0, "conflict", "{claim}");
        assert!(!held(&site, first.resource).1.contains("ghost"), "{claim}");
    }
}

#[test]
fn a_restore_order_brings_the_directory_back_from_the_trash() {
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
        site.apply().says("restore").says("1 done");
        assert_eq!(site.states(back), (OrderState::Done, ResourceState::Ok), "{system}");
        assert_eq!(std::fs::read_to_string(path.join("data")).unwrap(), "precious");
        site.apply().says("0 to do, 0 held");

        site.order_end(made.resource);
        site.apply();
        std::fs::remove_dir_all(site.root(system).join(".trash")).unwrap();
        let back = restore(&site);
        site.apply().says("0 done");
        assert!(held(&site, made.resource).1.contains("its directory is not in the trash"));
        assert_eq!(site.states(back).0, OrderState::PendingProvider, "no empty directory for a full one");
    }
}

#[test]
fn an_options_order_that_waldur_ends_on_approval_is_not_said_to_be_done_again() {
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
    site.apply().says("1 done");
    assert_eq!((done(&site), site.states(Ordered { order: at_once, ..made }).0), (before, OrderState::Done));

    // Or a moment later, while the directory is being changed.
    site.simulator.world(|world| world.options_end_on_approval = false);
    let late = order(&site, "2770");
    site.simulator.after_answer("POST /api/*set_backend_id/", move |world| {
        world.force_order(late, OrderState::Done);
        let options = json!({ "permissions": "2770" });
        world.change(world.orders[&late].resource, "options", options);
        world.change(world.orders[&late].resource, "state", "OK".into());
    });
    site.apply().says("1 done");
    assert_eq!(done(&site), before, "{:?}", site.calls());
    site.apply().says("0 to do, 0 held");

    // A Waldur that waits for it is told.
    let waits = order(&site, "2750");
    site.apply().says("1 done");
    assert_eq!((done(&site), site.states(Ordered { order: waits, ..made }).0), (before + 1, OrderState::Done));
}

#[test]
fn nothing_is_made_within_the_directory_of_a_resource_that_is_missing_from_the_list() {
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
        site.apply().says("0 done");
        let (hold, reason) = held(&site, inner.resource);
        assert!(hold == "conflict" && reason.contains(&made.resource.to_string()), "{hold}: {reason}");
        assert!(!site.at(&path).exists());
        assert_eq!(site.states(inner).0, OrderState::PendingProvider);
    }
}
