//! `purge`: what it deletes, and passes at the same time.

use std::fs;

use serde_json::json;
use simulator::world::OrderState;

use crate::support::{Ordered, SLURM, Site, names, wait_until};

/// A terminated resource, whose directory is in the trash.
fn ended(site: &Site, number: usize) -> Ordered {
    let made = site.order(SLURM, number, 10);
    site.apply();
    fs::create_dir(site.at(&format!("/capstor/store/cscs/uni/p{number}")).join("folder")).unwrap();
    let ended = site.order_end(made.resource);
    site.apply();
    ended
}

/// Makes all trees in the trash this many days older.
pub(crate) fn age(site: &Site, days: u64) {
    for name in site.trash(SLURM) {
        let trash = site.root(SLURM).join(".trash");
        let (id, since) = name.split_once('.').unwrap();
        let since: u64 = since.parse().unwrap();
        fs::rename(trash.join(&name), trash.join(format!("{id}.{}", since - days * 86_400))).unwrap();
    }
}

#[test]
fn purge_deletes_old_trees_that_are_terminated_in_waldur() {
    let mut site = Site::new();
    site.set("PROVISIONER_PURGE_RETENTION_DAYS", "1");
    let first = ended(&site, 0);
    age(&site, 2);
    site.run(&["purge"]).exits_with(0).stdout_has("1 would be deleted");
    site.run(&["purge", "--yes"]).exits_with(1).stderr_has("purge is off").stderr_has("purge.enabled");
    assert_eq!(site.trash(SLURM).len(), 1);

    site.set("PROVISIONER_PURGE_ENABLED", "true");
    let second = ended(&site, 1);
    // The same age, but in use again in Waldur.
    let third = ended(&site, 2);
    site.simulator.world(|world| world.change(third.resource, "state", "OK".into()));
    site.run(&["purge", "--yes"]).exits_with(0).stdout_has("1 deleted").stdout_has(&first.resource.to_string());
    let left = site.trash(SLURM);
    assert!(left.len() == 2 && !left.iter().any(|name| name.starts_with(&first.resource.to_string())), "{left:?}");
    site.set("PROVISIONER_PURGE_RETENTION_DAYS", "3");
    site.run(&["purge", "--yes"]).exits_with(0).stdout_has("0 deleted");
    site.set("PROVISIONER_PURGE_RETENTION_DAYS", "1");
    age(&site, 2);
    let json = site.json(&["purge"]);
    assert_eq!(json["trees"][0]["resource"], second.resource.to_string());
    assert_eq!((&json["deleted"], json["trees"].as_array().unwrap().len()), (&false.into(), 1));
    site.run(&["purge", "--yes"]).exits_with(0).stdout_has("1 deleted");
    let left = site.trash(SLURM);
    assert!(left.len() == 1 && left[0].starts_with(&third.resource.to_string()), "{left:?}");
    site.simulator.world(|world| world.resources.shift_remove(&third.resource));
    site.run(&["purge", "--yes"]).exits_with(0).stdout_has("0 deleted");
    assert_eq!(site.trash(SLURM).len(), 1, "a resource that Waldur does not list is not terminated");
    site.run(&["check"]).exits_with(0);
}

#[test]
fn one_call_deletes_at_most_the_allowed_number() {
    let mut site = Site::new();
    site.set("PROVISIONER_PURGE_ENABLED", "true");
    site.set("PROVISIONER_PURGE_RETENTION_DAYS", "1");
    site.set("PROVISIONER_PURGE_AT_MOST", "2");
    for number in 0..3 {
        ended(&site, number);
    }
    age(&site, 2);
    site.run(&["purge", "--yes"]).exits_with(0).stdout_has("2 deleted, 1 left for the next call");
    assert_eq!(site.trash(SLURM).len(), 1);
}

/// Whether a purge has claimed a tree.
fn is_claimed(site: &Site) -> bool {
    site.trash(SLURM).iter().any(|name| name.starts_with("purge-"))
}

#[test]
fn passes_continue_during_a_purge_and_do_not_touch_its_tree() {
    let mut site = Site::new();
    site.set("PROVISIONER_PURGE_ENABLED", "true");
    site.set("PROVISIONER_PURGE_RETENTION_DAYS", "1");
    let gone = ended(&site, 0);
    let [tree] = &site.trash(SLURM)[..] else { panic!("{:?}", site.trash(SLURM)) };
    let (tree, id) = (site.root(SLURM).join(".trash").join(tree), gone.resource.to_string());
    for number in 0..500 {
        fs::write(tree.join(format!("file-{number}")), "").unwrap();
    }
    age(&site, 2);
    // It takes 500 seconds, unless it is killed.
    site.set("PROVISIONER_PURGE_RATE", "1");
    let mut purge = site.spawn(&["purge", "--yes"]);
    wait_until("the tree is claimed", || is_claimed(&site));
    let claimed = || site.root(SLURM).join(".trash").join(&site.trash(SLURM)[0]);
    let whole = names(&claimed()).len();
    wait_until("it is being deleted", || names(&claimed()).len() < whole);

    let made = site.order(SLURM, 1, 10);
    site.apply().stdout_has("1 done");
    assert_eq!(site.states(made).0, OrderState::Done);
    site.run(&["retire", &id]).exits_with(0).stdout_has("already in the trash, since 20");
    site.run(&["purge", "--yes"]).exits_with(4).stderr_has("another purge is deleting trees");

    let state = |state: &str| site.simulator.world(|world| world.change(gone.resource, "state", state.into()));
    state("OK");
    site.apply().stdout_has("conflict").stdout_has("`purge` is deleting").stdout_has("0 to do, 1 held");
    site.run(&["restore", &id]).exits_with(1).stderr_has("deleting its directory permanently");
    site.run(&["restore", &id, "--make"]).exits_with(1).stderr_has("deleting its directory permanently");
    site.run(&["purge", "--yes"]).exits_with(1).stderr_has("no longer terminated in Waldur").stdout_has("0 deleted");
    assert!(!site.at("/capstor/store/cscs/uni/p0").exists() && purge.child.try_wait().unwrap().is_none());

    drop(purge);
    assert!(is_claimed(&site));
    site.apply().stdout_has("conflict").stdout_has("0 to do, 1 held");
    state("Terminated");
    site.apply().stdout_has("0 to do, 0 held");
    let due = site.json(&["purge"]);
    assert_eq!((&due["trees"][0]["resource"], &due["trees"][0]["unfinished"]), (&json!(id), &json!(true)));
    site.set("PROVISIONER_PURGE_RATE", "1000000");
    site.run(&["purge", "--yes"]).exits_with(0).stdout_has("claimed by an earlier purge").stdout_has("1 deleted");
    assert!(site.trash(SLURM).is_empty());
    site.run(&["check"]).exits_with(0);
    let story = site.json(&["explain", &id])["story"].to_string();
    assert!(story.contains("permanently") && site.json(&["status"])["begun"] == 0, "{story}");
}

#[test]
fn a_wrong_clock_deletes_nothing() {
    let mut site = Site::new();
    site.set("PROVISIONER_PURGE_ENABLED", "true");
    let ended = ended(&site, 0);
    // As if the clock had been set back 26 years when the directory was moved to the trash.
    age(&site, 26 * 365);
    for _ in 0..2 {
        let output =
            site.run(&["purge", "--yes"]).exits_with(1).stdout_has("0 deleted, 0 left for the next call, 1 refused");
        output
            .stderr_has(&ended.resource.to_string())
            .stderr_has("its directory was changed on 20")
            .stderr_has("by its name");
    }
    assert_eq!(site.trash(SLURM).len(), 1);
    let output = site.run(&["purge", "--json"]).exits_with(1);
    let json: serde_json::Value = serde_json::from_str(&output.out).unwrap();
    assert_eq!(json["refused"][0]["resource"], json!(ended.resource));
}
