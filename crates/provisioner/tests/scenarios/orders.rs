//! Orders of every type, for both types of offerings.

use simulator::world::{OrderState, ResourceState};

use crate::support::{BASIC, SLURM, Site, mode};

/// The observed space quota in bytes.
fn quota(site: &Site, resource: uuid::Uuid) -> u64 {
    let json = site.json(&["explain", &resource.to_string()]);
    json["seen"]["ours"]["limits"]["space_hard"].as_u64().unwrap_or_else(|| panic!("{json:#}"))
}

#[test]
fn a_directory_is_created_resized_and_moved_to_the_trash() {
    for system in [SLURM, BASIC] {
        let site = Site::new();
        let made = site.order(system, 0, 10);
        site.apply().stdout_has("1 done, 0 failed");
        assert_eq!(site.states(made), (OrderState::Done, ResourceState::Ok), "{system}");
        let path = format!("/{system}/store/cscs/uni/p0");
        assert_eq!(site.backend_id(made.resource), path);
        assert_eq!(mode(&site.at(&path)), 0o2770, "{system}");
        let before = quota(&site, made.resource);
        assert_eq!(before, 10_000_000_000_000);
        std::fs::write(site.at(&path).join("data"), "precious").unwrap();

        let grown = site.order_size(made.resource, 40);
        site.apply();
        assert_eq!(site.states(grown), (OrderState::Done, ResourceState::Ok), "{system}");
        assert_eq!(quota(&site, made.resource), 4 * before);

        let ended = site.order_end(made.resource);
        site.apply();
        assert_eq!(site.states(ended), (OrderState::Done, ResourceState::Terminated), "{system}");
        assert!(!site.at(&path).exists());
        let trash = site.trash(system);
        assert_eq!(trash.len(), 1, "{trash:?}");
        assert!(trash[0].starts_with(&format!("{}.", made.resource)), "{trash:?}");
        let kept = site.root(system).join(".trash").join(&trash[0]).join("data");
        assert_eq!(std::fs::read_to_string(kept).unwrap(), "precious");

        let calls = site.calls().len();
        site.apply().stdout_has("0 done, 0 failed");
        assert_eq!(site.calls().len(), calls, "a pass without work calls nothing");
    }
}

#[test]
fn a_quota_of_0_is_held_and_rejected_only_with_policy_refuse() {
    for system in [SLURM, BASIC] {
        let mut site = Site::new();
        let made = site.order(system, 0, 0);
        site.apply().stdout_has("refused").stdout_has("the order asks for a quota of 0").stdout_has("0 to do, 1 held");
        assert_eq!(site.states(made).0, OrderState::PendingProvider, "{system}");
        site.set("PROVISIONER_REFUSE", "true");
        site.apply().stdout_has("1 done");
        assert_eq!(site.states(made), (OrderState::Rejected, ResourceState::Terminated), "{system}");
        assert!(site.comment(made).contains("quota of 0"), "{}", site.comment(made));
        assert!(crate::support::names(&site.root(system)).is_empty(), "nothing is made");
    }
}

#[test]
fn nothing_is_removed_without_an_order() {
    let site = Site::new();
    let made = [0, 1].map(|number| site.order(SLURM, number, 10));
    site.apply();
    // One is missing from the list, and one is terminating without an order.
    site.simulator.world(|world| {
        world.resources.shift_remove(&made[0].resource);
        world.change(made[1].resource, "state", "Terminating".into());
    });
    let calls = site.calls().len();
    site.apply().stdout_has("0 done");
    assert!(site.at("/capstor/store/cscs/uni/p0").exists() && site.at("/capstor/store/cscs/uni/p1").exists());
    assert_eq!(site.calls().len(), calls);
}
