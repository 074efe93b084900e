//! Calls whose answers are lost or wrong: nobody knows what came of them until the document is read again.

use serde_json::{Map, json};
use simulator::Fault;
use simulator::world::{OrderState, ResourceState};

use crate::support::{BASIC, SLURM, Site, WALDUR_TOKEN};

const ACTIONS: [&str; 3] = ["approve_by_provider/", "set_backend_id/", "set_state_done/"];

#[test]
fn an_answer_that_is_lost_leads_to_the_same_end() {
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
            site.apply().says("0 to do, 0 held");
        }
    }
}

#[test]
fn a_page_of_html_is_no_word_of_waldur() {
    for action in ACTIONS {
        let mut site = Site::without_relay();
        site.set("PROVISIONER_WALDUR_API_URL", &format!("{}/api/", site.simulator.base_url()));
        site.set("PROVISIONER_WALDUR_API_TOKEN", WALDUR_TOKEN);
        let made = site.order(SLURM, 0, 10);
        site.simulator.set_fault_times(&format!("POST /api/*{action}"), Fault::not_json(), 1);
        site.run(&["apply"]).ends_with(1).says("is not from Waldur");
        site.apply().says("1 done");
        assert_eq!(site.states(made), (OrderState::Done, ResourceState::Ok), "{action}");
        assert!(!site.backend_id(made.resource).is_empty(), "{action}");
    }
}

#[test]
fn an_order_that_the_customer_withdraws_meanwhile_is_left_alone() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    // After the first reading, before the approval.
    let order = made.order;
    site.simulator.after_answer("GET /api/marketplace-provider-resources/", move |world| world.cancel(order).unwrap());
    site.run(&["apply"]).ends_with(1).says("0 done, 1 failed");
    assert_eq!(site.states(made), (OrderState::Canceled, ResourceState::Terminated));
    assert!(crate::support::names(&site.root(SLURM)).is_empty());
    site.apply().says("0 to do");
}

#[test]
fn whoever_may_not_is_told_and_no_order_is_blamed() {
    let site = Site::new();
    let made = [site.order(SLURM, 0, 10), site.order(SLURM, 1, 10)];
    let refused = Fault::Answer {
        status: 403,
        headers: vec![("Content-Type".into(), "application/json".into())],
        body: r#"{"detail": "You do not have permission to perform this action."}"#.into(),
    };
    site.simulator.set_fault("POST /api/*", refused);
    site.run(&["apply"]).ends_with(1).says("approve_by_provider is refused (403)");
    for made in made {
        assert_eq!(site.states(made).0, OrderState::PendingProvider);
    }
    assert!(site.calls().iter().all(|path| path.ends_with("approve_by_provider/")), "{:?}", site.calls());
}

#[test]
fn with_the_policy_an_impossible_order_is_erred_after_its_approval() {
    let mut site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    site.set("PROVISIONER_REFUSE", "true");
    let nothing = site.order_size(made.resource, 0);
    site.apply().says("reject");
    assert_eq!(site.states(nothing), (OrderState::Rejected, ResourceState::Ok));
    let nothing = site.order_size(made.resource, 0);
    site.simulator.world(|world| world.approve(nothing.order, Map::new()).unwrap());
    site.apply().says("erred");
    assert_eq!(site.states(nothing), (OrderState::Erred, ResourceState::Erred));
    let message = site.simulator.world(|world| world.resources[&made.resource].text("error_message").to_owned());
    assert!(message.contains("quota"), "{message:?}");
    assert!(site.at("/capstor/store/cscs/uni/p0").exists());
    site.apply().says("correct it there").says("0 to do, 1 held");
}

#[test]
fn an_order_for_other_options_changes_the_mode() {
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
        let told = site.json(&["explain", &made.resource.to_string()]);
        assert_eq!(told["seen"]["ours"]["limits"], told["wanted"]["limits"], "{system}: {told:#}");
        assert_eq!(told["seen"]["ours"]["limits"]["space_hard"], 25_000_000_000_000_u64, "{system}");
        site.apply().says("0 to do, 0 held");
    }
}

#[test]
fn drift_is_told_and_put_right_only_where_that_is_wanted() {
    use std::os::unix::fs::PermissionsExt;
    let mut site = Site::new();
    site.order(SLURM, 0, 10);
    site.apply();
    let path = site.at("/capstor/store/cscs/uni/p0");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    site.apply().says("drift").says("mode differs from the document").says("0 to do, 1 held");
    site.set("PROVISIONER_DRIFT_HEAL", "true");
    site.apply().says("1 done");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o2770);
}

#[test]
fn of_two_resources_with_one_path_the_second_is_held() {
    let mut site = Site::new();
    site.set("PROVISIONER_REFUSE", "true");
    let made = [site.order(SLURM, 0, 10), site.order(SLURM, 0, 20)];
    site.apply().says("conflict").says("is also the path of another item");
    assert_eq!(made.map(|made| site.states(made).0), [OrderState::Done, OrderState::PendingProvider]);
}

#[test]
fn a_component_with_another_name_is_held_with_the_names() {
    let mut site = Site::new();
    site.set("PROVISIONER_REFUSE", "true");
    let made = site.order(SLURM, 0, 10);
    site.simulator.world(|world| world.change(made.resource, "limits", json!({"storage_tb": 10})));
    site.apply().says("refused").says("no component storage").says("(present: storage_tb)").says("0 to do, 1 held");
    site.run(&["check"]).ends_with(0).says("warn    quotas: quotas of 1 of the resources cannot be trusted");
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
        site.apply().says("1 done");
        assert_eq!(site.states(switch), (OrderState::Done, ResourceState::Ok), "{system}");
        site.apply().says("0 to do, 0 held");
    }
}

#[test]
fn an_option_that_pins_the_quota_is_named_and_the_order_held() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.simulator.world(|world| world.change(made.resource, "options", json!({"hard_quota_space": 10})));
    site.apply().says("1 done");
    let update = site.order_size(made.resource, 20);
    let explained = site.run(&["explain", &made.resource.to_string()]);
    explained.ends_with(0).says("hard_quota_space (10 TB) pins the hard quota below the new limit (20 TB)");
    site.apply().says("0 to do, 1 held");
    assert_eq!(site.states(update).0, OrderState::PendingProvider);
}

#[test]
fn a_person_rejects_an_order_with_a_reason_that_the_customer_sees() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 0);
    let id = made.resource.to_string();
    site.run(&["reject", &id, "--reason", " "]).ends_with(1).told("--reason is empty");
    site.run(&["reject", &id, "--reason", "not paid"]).ends_with(0).says("would be ended by: reject");
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
    // By the order's own UUID, as Waldur's page shows it.
    let order = made.order.to_string();
    site.run(&["reject", &order, "--reason", "not paid", "--yes"]).ends_with(0).says("was rejected (reject)");
    assert_eq!(site.states(made).0, OrderState::Rejected);
    assert_eq!(site.comment(made), "not paid");
    site.run(&["reject", &id, "--reason", "again", "--yes"]).ends_with(1).told("it has no order in progress");
}

#[test]
fn an_approved_order_that_a_person_rejects_is_erred_and_other_work_is_untouched() {
    let site = Site::new();
    let made = [site.order(SLURM, 0, 10), site.order(SLURM, 1, 0)];
    site.simulator.world(|world| world.approve(made[1].order, Map::new()).unwrap());
    let id = made[1].resource.to_string();
    site.run(&["reject", &id, "--reason", "no space", "--yes"]).ends_with(0).says("erred");
    assert_eq!(site.states(made[1]).0, OrderState::Erred);
    assert_eq!(site.states(made[0]).0, OrderState::PendingProvider);
}
