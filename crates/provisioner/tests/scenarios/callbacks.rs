//! Callbacks, and lost or wrong answers to them.

use serde_json::{Map, json};
use simulator::Fault;
use simulator::world::{OrderState, ResourceState};

use crate::support::{BASIC, SLURM, Site, mode, set_mode};

const ACTIONS: [&str; 3] = ["approve_by_provider/", "set_backend_id/", "set_state_done/"];

#[test]
fn a_lost_answer_changes_nothing_in_the_end() {
    for action in ACTIONS {
        for fault in [Fault::Reset, Fault::status(502), Fault::not_json(), Fault::CutOff { after: 1 }] {
            let site = Site::new();
            let made = [site.order(SLURM, 0, 10), site.order(BASIC, 0, 10)];
            site.simulator.set_fault_times(&format!("POST /api/*{action}"), fault.clone(), 2);
            site.run(&["apply"]);
            site.simulator.clear_faults();
            site.apply();
            for made in made {
                let states = site.states(made);
                assert_eq!(states, (OrderState::Done, ResourceState::Ok), "{action} {fault:?}");
                assert!(site.backend_id(made.resource).ends_with("/store/cscs/uni/p0"), "{action} {fault:?}");
            }
            site.apply().stdout_has("0 to do, 0 held");
        }
    }
}

#[test]
fn an_html_page_is_not_an_answer_of_waldur() {
    for action in ACTIONS {
        let mut site = Site::without_relay();
        site.use_waldur_token();
        let made = site.order(SLURM, 0, 10);
        site.simulator.set_fault_times(&format!("POST /api/*{action}"), Fault::not_json(), 1);
        site.run(&["apply"]).exits_with(1).stdout_has("is not from Waldur");
        site.apply().stdout_has("1 done");
        assert_eq!(site.states(made), (OrderState::Done, ResourceState::Ok), "{action}");
        assert!(!site.backend_id(made.resource).is_empty(), "{action}");
    }
}

#[test]
fn an_order_that_is_cancelled_during_the_pass_is_not_carried_out() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    // After the document is read, before the approval.
    let order = made.order;
    site.simulator.after_answer("GET /api/marketplace-provider-resources/?*modified=*", move |world| {
        world.cancel(order).unwrap();
    });
    site.run(&["apply"]).exits_with(1).stdout_has("0 done, 1 failed");
    assert_eq!(site.states(made), (OrderState::Canceled, ResourceState::Terminated));
    assert!(crate::support::names(&site.root(SLURM)).is_empty());
    site.apply().stdout_has("0 to do");
}

#[test]
fn missing_permissions_fail_the_pass_and_reject_no_order() {
    let site = Site::new();
    let made = [site.order(SLURM, 0, 10), site.order(SLURM, 1, 10)];
    let refused = Fault::Answer {
        status: 403,
        headers: vec![("Content-Type".into(), "application/json".into())],
        body: r#"{"detail": "You do not have permission to perform this action."}"#.into(),
    };
    site.simulator.set_fault("POST /api/*", refused);
    site.run(&["apply"]).exits_with(1).stdout_has("approve_by_provider is refused (403)");
    for made in made {
        assert_eq!(site.states(made).0, OrderState::PendingProvider);
    }
    assert!(site.calls().iter().all(|path| path.ends_with("approve_by_provider/")), "{:?}", site.calls());
}

#[test]
fn with_policy_refuse_an_impossible_approved_order_is_set_erred() {
    let mut site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    site.set("PROVISIONER_REFUSE", "true");
    let nothing = site.order_size(made.resource, 0);
    site.apply().stdout_has("reject");
    assert_eq!(site.states(nothing), (OrderState::Rejected, ResourceState::Ok));
    let nothing = site.order_size(made.resource, 0);
    site.simulator.world(|world| world.approve(nothing.order, Map::new()).unwrap());
    site.apply().stdout_has("erred");
    assert_eq!(site.states(nothing), (OrderState::Erred, ResourceState::Erred));
    let message = site.simulator.world(|world| world.resources[&made.resource].text("error_message").to_owned());
    assert!(message.contains("quota"), "{message:?}");
    assert!(site.at("/capstor/store/cscs/uni/p0").exists());
    site.apply().stdout_has("correct it there").stdout_has("0 to do, 1 held");
}

#[test]
fn an_order_for_options_changes_mode_and_quota() {
    for system in [SLURM, BASIC] {
        let site = Site::new();
        let made = site.order(system, 0, 10);
        site.apply();
        let options =
            Map::from_iter([("hard_quota_space".to_owned(), json!(25)), ("permissions".to_owned(), json!("700"))]);
        let order = site.simulator.world(|world| {
            let order = world.order_update_options(made.resource, &options).unwrap();
            world.consumer_approve(order).unwrap();
            order
        });
        site.apply();
        let changed = crate::support::Ordered { order, ..made };
        assert_eq!(site.states(changed), (OrderState::Done, ResourceState::Ok), "{system}");
        let json = site.json(&["explain", &made.resource.to_string()]);
        assert_eq!(json["seen"]["ours"]["limits"], json["wanted"]["limits"], "{system}: {json:#}");
        assert_eq!(json["seen"]["ours"]["limits"]["space_hard"], 25_000_000_000_000_u64, "{system}");
        site.apply().stdout_has("0 to do, 0 held");
    }
}

#[test]
fn drift_is_reported_and_corrected_only_with_drift_heal() {
    let mut site = Site::new();
    site.order(SLURM, 0, 10);
    site.apply();
    let path = site.at("/capstor/store/cscs/uni/p0");
    set_mode(&path, 0o755);
    site.apply().stdout_has("drift").stdout_has("mode differs from the document").stdout_has("0 to do, 1 held");
    site.set("PROVISIONER_DRIFT_HEAL", "true");
    site.apply().stdout_has("1 done");
    assert_eq!(mode(&path), 0o2770);
}

#[test]
fn of_two_resources_with_one_path_the_second_is_held() {
    let mut site = Site::new();
    site.set("PROVISIONER_REFUSE", "true");
    let made = [site.order(SLURM, 0, 10), site.order(SLURM, 0, 20)];
    site.apply().stdout_has("conflict").stdout_has("is also the path of another item");
    assert_eq!(made.map(|made| site.states(made).0), [OrderState::Done, OrderState::PendingProvider]);
}

#[test]
fn a_missing_component_is_held_and_the_present_ones_are_named() {
    let mut site = Site::new();
    site.set("PROVISIONER_REFUSE", "true");
    let made = site.order(SLURM, 0, 10);
    site.simulator.world(|world| world.change(made.resource, "limits", json!({"storage_tb": 10})));
    site.apply()
        .stdout_has("refused")
        .stdout_has("no component storage")
        .stdout_has("(present: storage_tb)")
        .stdout_has("0 to do, 1 held");
    site.run(&["check"]).exits_with(0).stdout_has("warn    quotas: 1 resources have quotas that cannot be trusted");
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
}

#[test]
fn a_plan_switch_changes_no_quotas_and_is_carried_out() {
    for system in [SLURM, BASIC] {
        let site = Site::new();
        let made = site.order(system, 0, 10);
        site.apply();
        let switch = site.order_size(made.resource, 10);
        site.simulator.world(|world| world.orders.get_mut(&switch.order).unwrap().set("attributes", json!({})));
        site.apply().stdout_has("1 done");
        assert_eq!(site.states(switch), (OrderState::Done, ResourceState::Ok), "{system}");
        site.apply().stdout_has("0 to do, 0 held");
    }
}

#[test]
fn an_order_is_held_if_an_option_pins_the_quota() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.simulator.world(|world| world.change(made.resource, "options", json!({"hard_quota_space": 10})));
    site.apply().stdout_has("1 done");
    let update = site.order_size(made.resource, 20);
    let explained = site.run(&["explain", &made.resource.to_string()]);
    explained.exits_with(0).stdout_has("hard_quota_space (10 TB) pins the hard quota below the new limit (20 TB)");
    site.apply().stdout_has("0 to do, 1 held");
    assert_eq!(site.states(update).0, OrderState::PendingProvider);
}

#[test]
fn reject_ends_an_order_with_a_reason_for_the_customer() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 0);
    let id = made.resource.to_string();
    site.run(&["reject", &id, "--reason", " "]).exits_with(1).stderr_has("--reason is empty");
    site.run(&["reject", &id, "--reason", "not paid"]).exits_with(0).stdout_has("would be ended by: reject");
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
    // By the UUID of the order, as Waldur shows it.
    let order = made.order.to_string();
    site.run(&["reject", &order, "--reason", "not paid", "--yes"]).exits_with(0).stdout_has("was rejected (reject)");
    assert_eq!(site.states(made).0, OrderState::Rejected);
    assert_eq!(site.comment(made), "not paid");
    site.run(&["reject", &id, "--reason", "again", "--yes"]).exits_with(1).stderr_has("it has no order in progress");
}

#[test]
fn reject_sets_an_approved_order_erred_and_does_no_other_work() {
    let site = Site::new();
    let made = [site.order(SLURM, 0, 10), site.order(SLURM, 1, 0)];
    site.simulator.world(|world| world.approve(made[1].order, Map::new()).unwrap());
    let id = made[1].resource.to_string();
    site.run(&["reject", &id, "--reason", "no space", "--yes"]).exits_with(0).stdout_has("erred");
    assert_eq!(site.states(made[1]).0, OrderState::Erred);
    assert_eq!(site.states(made[0]).0, OrderState::PendingProvider);
}
