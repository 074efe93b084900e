//! `purge`: what it deletes, and what goes on meanwhile.

use std::fs;

use serde_json::json;
use simulator::world::OrderState;

use crate::support::{Ordered, SLURM, Site, names, until};

/// A resource that was terminated and lies in the trash.
fn ended(site: &Site, number: usize) -> Ordered {
    let made = site.order(SLURM, number, 10);
    site.apply();
    fs::create_dir(site.at(&format!("/capstor/store/cscs/uni/p{number}")).join("folder")).unwrap();
    let ended = site.order_end(made.resource);
    site.apply();
    ended
}

/// Makes what is in the trash older.
fn age(site: &Site, days: u64) {
    for name in site.trash(SLURM) {
        let trash = site.root(SLURM).join(".trash");
        let (id, since) = name.split_once('.').unwrap();
        let since: u64 = since.parse().unwrap();
        fs::rename(trash.join(&name), trash.join(format!("{id}.{}", since - days * 86_400))).unwrap();
    }
}

#[test]
fn the_trash_is_emptied_late_and_when_waldur_agrees() {
    let mut site = Site::new();
    site.set("PROVISIONER_PURGE_RETENTION_DAYS", "1");
    let first = ended(&site, 0);
    age(&site, 2);
    site.run(&["purge"]).ends_with(0).says("1 would be deleted");
    site.run(&["purge", "--yes"]).ends_with(1).told("purge is off").told("purge.enabled");
    assert_eq!(site.trash(SLURM).len(), 1);

    site.set("PROVISIONER_PURGE_ENABLED", "true");
    let second = ended(&site, 1);
    // The same age, but Waldur has it in use again.
    let third = ended(&site, 2);
    site.simulator.world(|world| world.change(third.resource, "state", "OK".into()));
    site.run(&["purge", "--yes"]).ends_with(0).says("1 deleted").says(&first.resource.to_string());
    let left = site.trash(SLURM);
    assert!(left.len() == 2 && !left.iter().any(|name| name.starts_with(&first.resource.to_string())), "{left:?}");
    site.set("PROVISIONER_PURGE_RETENTION_DAYS", "3");
    site.run(&["purge", "--yes"]).ends_with(0).says("0 deleted");
    site.set("PROVISIONER_PURGE_RETENTION_DAYS", "1");
    age(&site, 2);
    let told = site.json(&["purge"]);
    assert_eq!(told["trees"][0]["resource"], second.resource.to_string());
    assert_eq!((&told["deleted"], told["trees"].as_array().unwrap().len()), (&false.into(), 1));
    site.run(&["purge", "--yes"]).ends_with(0).says("1 deleted");
    let left = site.trash(SLURM);
    assert!(left.len() == 1 && left[0].starts_with(&third.resource.to_string()), "{left:?}");
    site.simulator.world(|world| world.resources.shift_remove(&third.resource));
    site.run(&["purge", "--yes"]).ends_with(0).says("0 deleted");
    assert_eq!(site.trash(SLURM).len(), 1, "what Waldur does not know is not terminated");
    site.run(&["check"]).ends_with(0);
}

#[test]
fn no_more_than_allowed_is_deleted_by_one_call() {
    let mut site = Site::new();
    site.set("PROVISIONER_PURGE_ENABLED", "true");
    site.set("PROVISIONER_PURGE_RETENTION_DAYS", "1");
    site.set("PROVISIONER_PURGE_AT_MOST", "2");
    for number in 0..3 {
        ended(&site, number);
    }
    age(&site, 2);
    site.run(&["purge", "--yes"]).ends_with(0).says("2 deleted, 1 left for the next call");
    assert_eq!(site.trash(SLURM).len(), 1);
}

/// Whether a purge has claimed a tree.
fn is_claimed(site: &Site) -> bool {
    site.trash(SLURM).iter().any(|name| name.starts_with("purge-"))
}

#[test]
fn passes_go_on_while_a_large_tree_is_deleted_and_keep_away_from_it() {
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
    // 500 seconds, unless it is killed before.
    site.set("PROVISIONER_PURGE_RATE", "1");
    let mut purge = site.spawn(&["purge", "--yes"]);
    until("the tree is claimed", || is_claimed(&site));
    let claimed = || site.root(SLURM).join(".trash").join(&site.trash(SLURM)[0]);
    let whole = names(&claimed()).len();
    until("it is being deleted", || names(&claimed()).len() < whole);

    let made = site.order(SLURM, 1, 10);
    site.apply().says("1 done");
    assert_eq!(site.states(made).0, OrderState::Done);
    site.run(&["retire", &id]).ends_with(0).says("already in the trash, since 20");
    site.run(&["purge", "--yes"]).ends_with(1).told("another purge is deleting it");

    let state = |state: &str| site.simulator.world(|world| world.change(gone.resource, "state", state.into()));
    state("OK");
    site.apply().says("conflict").says("`purge` is deleting").says("0 to do, 1 held");
    site.run(&["restore", &id]).ends_with(1).told("deleting its directory permanently");
    site.run(&["restore", &id, "--make"]).ends_with(1).told("deleting its directory permanently");
    site.run(&["purge", "--yes"]).ends_with(1).told("no longer terminated in Waldur").says("0 deleted");
    assert!(!site.at("/capstor/store/cscs/uni/p0").exists() && purge.child.try_wait().unwrap().is_none());

    drop(purge);
    assert!(is_claimed(&site));
    site.apply().says("conflict").says("0 to do, 1 held");
    state("Terminated");
    site.apply().says("0 to do, 0 held");
    let due = site.json(&["purge"]);
    assert_eq!((&due["trees"][0]["resource"], &due["trees"][0]["unfinished"]), (&json!(id), &json!(true)));
    site.set("PROVISIONER_PURGE_RATE", "1000000");
    site.run(&["purge", "--yes"]).ends_with(0).says("claimed by an earlier purge").says("1 deleted");
    assert!(site.trash(SLURM).is_empty() && names(&site.state("purge")).is_empty());
    site.run(&["check"]).ends_with(0);
    let story = site.json(&["explain", &id])["story"].to_string();
    assert!(story.contains("permanently") && site.json(&["status"])["begun"] == 0, "{story}");
}

#[test]
fn a_wrong_clock_deletes_nothing() {
    let mut site = Site::new();
    site.set("PROVISIONER_PURGE_ENABLED", "true");
    let ended = ended(&site, 0);
    // As if the clock had been 26 years back when it was retired.
    age(&site, 26 * 365);
    for _ in 0..2 {
        let said = site.run(&["purge", "--yes"]).ends_with(1).says("0 deleted, 0 left for the next call, 1 refused");
        said.told(&ended.resource.to_string()).told("its directory was changed on 20").told("by its name");
    }
    assert_eq!(site.trash(SLURM).len(), 1);
    let said = site.run(&["purge", "--json"]).ends_with(1);
    let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(told["refused"][0]["resource"], json!(ended.resource));
}
