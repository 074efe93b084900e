//! Plans that a person looks at first.

use simulator::world::OrderState;

use crate::support::{SLURM, Site};

#[test]
fn a_plan_from_a_file_is_carried_out_to_the_letter() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    let said = site.run(&["plan", "--out", "plan.json"]).ends_with(0).says("approve, ensure").says("1 to do, 0 held");
    assert!(said.err.is_empty(), "{}", said.err);
    assert!(!site.state("journal").exists() && crate::support::names(&site.root(SLURM)).is_empty());
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
    site.run(&["apply", "plan.json"]).ends_with(0).says("1 done");
    assert_eq!(site.states(made).0, OrderState::Done);
}

#[test]
fn a_plan_for_another_world_is_refused_before_anything_is_done() {
    let site = Site::new();
    let made = [site.order(SLURM, 0, 10), site.order(SLURM, 1, 10)];
    site.run(&["plan", "--out", "plan.json"]).ends_with(0);
    site.simulator.world(|world| world.cancel(made[1].order).unwrap());
    site.run(&["apply", "plan.json"]).ends_with(3).told("nothing was done").told("plan --out");
    assert_eq!(site.states(made[0]).0, OrderState::PendingProvider);
    assert!(site.calls().is_empty() && crate::support::names(&site.root(SLURM)).is_empty());
}

#[test]
fn what_is_no_plan_is_refused() {
    let site = Site::new();
    site.run(&["apply", "absent.json"]).ends_with(1).told("absent.json");
    std::fs::write(site.directory.path().join("broken.json"), "{").unwrap();
    site.run(&["apply", "broken.json"]).ends_with(1).told("is no plan of `plan --out`");
    site.run(&["plan", "--out", "absent/plan.json"]).ends_with(1).told("absent/plan.json");
    site.run(&["apply", "one", "two"]).ends_with(2);
}

#[test]
fn many_removals_at_once_are_asked_for() {
    let site = Site::new();
    let made: Vec<_> = (0..7).map(|number| site.order(SLURM, number, 10)).collect();
    site.apply().says("7 done");
    let ended: Vec<_> = made[..6].iter().map(|made| site.order_end(made.resource)).collect();
    let grown = site.order_size(made[6].resource, 20);
    let said = site
        .apply()
        .says("6 removals on capstor in one pass, more than the 5 that are allowed without confirmation")
        .says("1 done");
    assert!(said.out.contains("apply FILE --yes-to-many"), "{}", said.out);
    assert_eq!(site.states(grown).0, OrderState::Done, "what is not many goes on");
    assert!(ended.iter().all(|ended| site.states(*ended).0 == OrderState::PendingProvider));
    assert!(site.trash(SLURM).is_empty());

    // The file has everything, and is no yes by itself.
    site.run(&["plan", "--out", "plan.json"]).ends_with(0).says("6 to do");
    site.run(&["apply", "plan.json"]).ends_with(1).told("--yes-to-many");
    assert!(site.trash(SLURM).is_empty());
    site.run(&["apply", "plan.json", "--yes-to-many"]).ends_with(0).says("6 done");
    assert!(ended.iter().all(|ended| site.states(*ended).0 == OrderState::Done));
    assert_eq!(site.trash(SLURM).len(), 6);
}

#[test]
fn few_removals_pass_after_pass_are_asked_for_in_the_end() {
    let site = Site::with(&[("PROVISIONER_MASS", "1")]);
    let made: Vec<_> = (0..6).map(|number| site.order(SLURM, number, 10)).collect();
    site.apply().says("6 done");
    for made in &made[..4] {
        site.order_end(made.resource);
        site.apply().says("1 done");
    }
    let fifth = site.order_end(made[4].resource);
    let reason = "5 removals on capstor within 24 hours, more than the 4 that are allowed without confirmation";
    site.apply().says(reason).says("0 done");
    site.run(&["explain", &fifth.resource.to_string()]).ends_with(0).says("asks").says("within 24 hours");
    assert_eq!((site.states(fifth).0, site.trash(SLURM).len()), (OrderState::PendingProvider, 4));
    site.run(&["apply", "--yes-to-many"]).ends_with(0).says("1 done");
    // What a person said yes to does not count.
    let sixth = site.order_end(made[5].resource);
    site.apply().says(reason);
    assert_eq!(site.states(sixth).0, OrderState::PendingProvider);
}

#[test]
fn nothing_is_made_on_a_file_system_that_is_not_the_one() {
    let site = Site::new();
    site.order(SLURM, 0, 10);
    site.apply().says("1 done");
    let (store, elsewhere) = (site.root(SLURM).join("store"), site.directory.path().join("elsewhere"));
    std::fs::rename(&store, &elsewhere).unwrap();
    let next = site.order(SLURM, 1, 10);
    site.apply().says("none of the 1 directories in use on capstor exists").says("0 done");
    assert!(!store.exists() && site.states(next).0 == OrderState::PendingProvider);
    std::fs::rename(&elsewhere, &store).unwrap();
    site.apply().says("1 done");
    assert_eq!(site.states(next).0, OrderState::Done);
}

#[test]
fn json_is_for_programs() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    let plan = site.json(&["plan"]);
    assert_eq!(plan["tasks"][0]["id"], made.resource.to_string());
    let report = site.json(&["apply"]);
    assert_eq!(report["ended"][0], made.resource.to_string());
    assert_eq!(report["failed"], serde_json::json!({}));
}
