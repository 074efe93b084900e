//! Orders that are cancelled, denied, or placed again during a pass.

use serde_json::{Map, json};
use simulator::Fault;
use simulator::world::{OrderState, ResourceState};
use uuid::Uuid;

use crate::support::{BASIC, Ordered, SLURM, Site, mode};

/// Cancels an order after the document is read, before anything is done for it.
fn cancel_once_read(site: &Site, order: Uuid) {
    site.simulator.after_answer("GET /api/marketplace-provider-resources/?*modified=*", move |world| {
        world.cancel(order).unwrap();
    });
}

fn limits(site: &Site, resource: Uuid) -> serde_json::Value {
    site.json(&["explain", &resource.to_string()])["seen"]["ours"]["limits"]["space_hard"].clone()
}

#[test]
fn a_cancelled_resize_is_not_applied_or_is_reverted() {
    for system in [SLURM, BASIC] {
        let site = Site::new();
        let made = site.order(system, 0, 10);
        site.apply();
        let before = limits(&site, made.resource);
        let grown = site.order_size(made.resource, 40);
        cancel_once_read(&site, grown.order);
        site.run(&["apply"]).exits_with(1).stdout_has("failed (");
        assert_eq!(site.states(grown).0, OrderState::Canceled, "{system}");
        site.apply();
        assert_eq!(limits(&site, made.resource), before, "{system}");
        site.apply().stdout_has("0 to do, 0 held");
    }
}

#[test]
fn a_cancelled_change_of_permissions_is_not_applied_or_is_reverted() {
    for system in [SLURM, BASIC] {
        let site = Site::new();
        let made = site.order(system, 0, 10);
        site.apply();
        let options = Map::from_iter([("permissions".to_owned(), json!("0777"))]);
        let order = site.simulator.world(|world| {
            let order = world.order_update_options(made.resource, &options).unwrap();
            world.consumer_approve(order).unwrap();
            order
        });
        cancel_once_read(&site, order);
        site.run(&["apply"]).exits_with(1);
        site.apply();
        let directory = site.at(&format!("/{system}/store/cscs/uni/p0"));
        let found = mode(&directory);
        assert_eq!(found, 0o2770, "{system}");
    }
}

#[test]
fn a_termination_and_a_new_order_for_the_same_path_are_carried_out_in_turn() {
    for system in [SLURM, BASIC] {
        let site = Site::new();
        let made = site.order(system, 0, 10);
        site.apply();
        let (end, new) = (site.order_end(made.resource), site.order(system, 0, 20));
        site.apply().stdout_has("that is to be terminated").stdout_has("1 done");
        site.apply().stdout_has("1 done");
        assert_eq!([end, new].map(|it| site.states(it).0), [OrderState::Done; 2], "{system}");
        assert_eq!((site.states(new).1, site.trash(system).len()), (ResourceState::Ok, 1), "{system}");
    }
}

#[test]
fn a_directory_stays_if_its_termination_cannot_be_reported() {
    for system in [SLURM, BASIC] {
        let mut site = Site::without_relay();
        site.use_waldur_token();
        let made = site.order(system, 0, 10);
        site.apply();
        let end = site.order_end(made.resource);
        site.unset("PROVISIONER_WALDUR_API_URL");
        site.unset("PROVISIONER_WALDUR_API_TOKEN");
        site.run(&["apply"]).exits_with(1).stdout_has("for which there is no token");
        assert!(site.trash(system).is_empty(), "{system}");
        assert_eq!(site.states(end).0, OrderState::PendingProvider, "{system}");
    }
}

#[test]
fn retire_removes_the_directory_of_an_order_that_was_cancelled_meanwhile() {
    let site = Site::new();
    let made = site.order(BASIC, 0, 10);
    let order = made.order;
    site.simulator
        .after_answer("POST /api/marketplace-provider-resources/*", move |world| world.cancel(order).unwrap());
    site.run(&["apply"]).exits_with(1);
    let again = site.order(BASIC, 0, 10);
    let id = made.resource.to_string();
    let waits = site.apply();
    assert!(
        waits.out.contains(&format!("`retire {id}`")) && site.states(again).0 == OrderState::PendingProvider,
        "{waits:?}"
    );
    site.run(&["retire", &again.resource.to_string()]).exits_with(1).stderr_has("not terminated in Waldur");
    site.run(&["retire", &id]).exits_with(0).stdout_has("is in the trash now");
    site.run(&["retire", &id]).exits_with(0).stdout_has("already in the trash, since 20");
    site.apply().stdout_has("1 done");
    assert_eq!(site.states(again), (OrderState::Done, ResourceState::Ok));
    assert_eq!(site.trash(BASIC).len(), 1);
}

/// Neither answer means that the order was approved, so a later termination by staff removes nothing.
#[test]
fn a_denied_or_unknown_approval_removes_nothing_later() {
    for status in [403, 404] {
        let site = Site::new();
        let made = site.order(BASIC, 0, 10);
        site.apply();
        let ended = site.order_end(made.resource);
        let denied = Fault::Answer {
            status,
            headers: vec![("Content-Type".into(), "application/json".into())],
            body: r#"{"detail": "No."}"#.into(),
        };
        site.simulator.set_fault("POST /api/marketplace-orders/*", denied);
        site.run(&["apply"]).exits_with(1);
        site.simulator.clear_faults();
        site.simulator.world(|world| {
            world.cancel(ended.order).unwrap();
            world.change(made.resource, "state", "Terminated".into());
        });
        site.apply().stdout_has("terminated in Waldur without an order").stdout_has("0 to do, 1 held");
        assert!(site.trash(BASIC).is_empty(), "{status}");
    }
}

#[test]
fn missing_directories_are_reported_as_gone_only_if_others_exist() {
    let mut site = Site::with(&[("PROVISIONER_ABSENT_IS_GONE", "true")]);
    let made: Vec<_> = (0..3).map(|number| site.order(SLURM, number, 10)).collect();
    site.apply().stdout_has("3 done");
    let (store, elsewhere) = (site.root(SLURM).join("store"), site.directory.path().join("elsewhere"));
    std::fs::rename(&store, &elsewhere).unwrap();
    let ended: Vec<Ordered> = made[..2].iter().map(|made| site.order_end(made.resource)).collect();
    site.apply().stdout_has("none of the 3 directories in use on capstor exists").stdout_has("0 done");
    assert!(ended.iter().all(|ended| site.states(*ended).0 == OrderState::PendingProvider));
    std::fs::rename(&elsewhere, &store).unwrap();
    std::fs::remove_dir(site.at("/capstor/store/cscs/uni/p0")).unwrap();
    site.apply().stdout_has("approve, gone, done").stdout_has("2 done");
    assert_eq!((site.states(ended[0]).0, site.trash(SLURM).len()), (OrderState::Done, 1));
    site.unset("PROVISIONER_ABSENT_IS_GONE");
}

#[test]
fn an_env_file_in_the_working_directory_is_not_read() {
    let site = Site::new();
    std::fs::write(site.directory.path().join(".env"), "PROVISIONER_PROXY_URL=http://127.0.0.1:1\n").unwrap();
    site.order(SLURM, 0, 10);
    site.apply().stdout_has("1 done");
}
