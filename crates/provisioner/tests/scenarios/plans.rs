//! Plan files, confirmations and limits.

use simulator::world::OrderState;

use crate::support::{SLURM, Site};

#[test]
fn apply_carries_out_a_plan_file() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    let output = site
        .run(&["plan", "--out", "plan.json"])
        .exits_with(0)
        .stdout_has("approve, ensure")
        .stdout_has("1 to do, 0 held");
    assert!(output.err.is_empty(), "{}", output.err);
    assert!(!site.state("journal").exists() && crate::support::names(&site.root(SLURM)).is_empty());
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
    site.run(&["apply", "plan.json"]).exits_with(0).stdout_has("1 done");
    assert_eq!(site.states(made).0, OrderState::Done);
}

#[test]
fn an_outdated_plan_is_refused_before_any_side_effect() {
    let site = Site::new();
    let made = [site.order(SLURM, 0, 10), site.order(SLURM, 1, 10)];
    site.run(&["plan", "--out", "plan.json"]).exits_with(0);
    site.simulator.world(|world| world.cancel(made[1].order).unwrap());
    site.run(&["apply", "plan.json"]).exits_with(3).stderr_has("nothing was done").stderr_has("plan --out");
    assert_eq!(site.states(made[0]).0, OrderState::PendingProvider);
    assert!(site.calls().is_empty() && crate::support::names(&site.root(SLURM)).is_empty());
}

#[test]
fn an_invalid_plan_file_is_refused() {
    let site = Site::new();
    site.run(&["apply", "absent.json"]).exits_with(1).stderr_has("absent.json");
    std::fs::write(site.directory.path().join("broken.json"), "{").unwrap();
    site.run(&["apply", "broken.json"]).exits_with(1).stderr_has("is not a plan of `plan --out`");
    site.run(&["plan", "--out", "absent/plan.json"]).exits_with(1).stderr_has("absent/plan.json");
    site.run(&["apply", "one", "two"]).exits_with(2);
}

#[test]
fn many_removals_in_one_pass_need_confirmation() {
    let site = Site::new();
    let made: Vec<_> = (0..7).map(|number| site.order(SLURM, number, 10)).collect();
    site.apply().stdout_has("7 done");
    let ended: Vec<_> = made[..6].iter().map(|made| site.order_end(made.resource)).collect();
    let grown = site.order_size(made[6].resource, 20);
    let output = site
        .apply()
        .stdout_has("6 removals on capstor in one pass, more than the 5 that are allowed without confirmation")
        .stdout_has("1 done");
    assert!(output.out.contains("apply FILE --yes-to-many"), "{}", output.out);
    assert_eq!(site.states(grown).0, OrderState::Done, "other work continues");
    assert!(ended.iter().all(|ended| site.states(*ended).0 == OrderState::PendingProvider));
    assert!(site.trash(SLURM).is_empty());

    // The file has all tasks, but is no confirmation by itself.
    site.run(&["plan", "--out", "plan.json"]).exits_with(0).stdout_has("6 to do");
    site.run(&["apply", "plan.json"]).exits_with(1).stderr_has("--yes-to-many");
    assert!(site.trash(SLURM).is_empty());
    site.run(&["apply", "plan.json", "--yes-to-many"]).exits_with(0).stdout_has("6 done");
    assert!(ended.iter().all(|ended| site.states(*ended).0 == OrderState::Done));
    assert_eq!(site.trash(SLURM).len(), 6);
}

#[test]
fn many_removals_in_24_hours_need_confirmation() {
    let site = Site::with(&[("PROVISIONER_MASS", "1")]);
    let made: Vec<_> = (0..6).map(|number| site.order(SLURM, number, 10)).collect();
    site.apply().stdout_has("6 done");
    for made in &made[..4] {
        site.order_end(made.resource);
        site.apply().stdout_has("1 done");
    }
    let fifth = site.order_end(made[4].resource);
    let reason = "5 removals on capstor within 24 hours, more than the 4 that are allowed without confirmation";
    site.apply().stdout_has(reason).stdout_has("0 done");
    site.run(&["explain", &fifth.resource.to_string()]).exits_with(0).stdout_has("asks").stdout_has("within 24 hours");
    assert_eq!((site.states(fifth).0, site.trash(SLURM).len()), (OrderState::PendingProvider, 4));
    site.run(&["apply", "--yes-to-many"]).exits_with(0).stdout_has("1 done");
    // Confirmed removals do not count.
    let sixth = site.order_end(made[5].resource);
    site.apply().stdout_has(reason);
    assert_eq!(site.states(sixth).0, OrderState::PendingProvider);
}

#[test]
fn nothing_is_made_if_all_directories_in_use_are_missing() {
    let site = Site::new();
    site.order(SLURM, 0, 10);
    site.apply().stdout_has("1 done");
    let (store, elsewhere) = (site.root(SLURM).join("store"), site.directory.path().join("elsewhere"));
    std::fs::rename(&store, &elsewhere).unwrap();
    let next = site.order(SLURM, 1, 10);
    site.apply().stdout_has("none of the 1 directories in use on capstor exists").stdout_has("0 done");
    assert!(!store.exists() && site.states(next).0 == OrderState::PendingProvider);
    std::fs::rename(&elsewhere, &store).unwrap();
    site.apply().stdout_has("1 done");
    assert_eq!(site.states(next).0, OrderState::Done);
}

#[test]
fn plan_and_apply_print_json() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    let plan = site.json(&["plan"]);
    assert_eq!(plan["tasks"][0]["id"], made.resource.to_string());
    let report = site.json(&["apply"]);
    assert_eq!(report["ended"][0], made.resource.to_string());
    assert_eq!(report["failed"], serde_json::json!({}));
}
