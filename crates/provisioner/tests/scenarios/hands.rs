//! What a person decides: `adopt`, `restore`, `purge`.

use std::fs;

use simulator::world::OrderState;
use uuid::Uuid;

use crate::support::{Ordered, SLURM, Site};

const PATH: &str = "/capstor/store/cscs/uni/p0";

#[test]
fn a_directory_that_is_there_is_adopted_when_a_person_says_so() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    let id = made.resource.to_string();
    site.run(&["adopt", &id]).ends_with(1).told("there is no directory at its place");
    fs::create_dir_all(site.at(PATH)).unwrap();
    fs::write(site.at(PATH).join("data"), "precious").unwrap();
    site.apply().says("conflict").says("`adopt` it").says("0 to do, 1 held");
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
    site.run(&["adopt", &id]).ends_with(0).says(PATH);
    site.run(&["adopt", &id]).ends_with(0).says("already");
    site.apply().says("1 done");
    assert_eq!(site.states(made).0, OrderState::Done);
    assert_eq!(fs::read_to_string(site.at(PATH).join("data")).unwrap(), "precious");
    site.run(&["explain", &id]).ends_with(0).says("mark ");
    site.run(&["adopt"]).ends_with(2);
    site.run(&["adopt", "p0"]).ends_with(1).told("is not among");
    site.run(&["adopt", &Uuid::from_u128(7).to_string()]).ends_with(1).told("is not among the 1 resources");
}

#[test]
fn what_is_in_the_way_is_never_touched() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    fs::create_dir_all(site.at(PATH).parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/etc", site.at(PATH)).unwrap();
    site.apply().says("conflict").says("a symlink");
    site.run(&["adopt", &made.resource.to_string()]).ends_with(1).told("a symlink");
    assert!(fs::symlink_metadata(site.at(PATH)).unwrap().is_symlink());
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
}

#[test]
fn a_missing_directory_is_made_by_a_person_alone() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    let id = made.resource.to_string();
    site.run(&["restore", &id]).ends_with(1).told("not in use in Waldur");
    site.apply();
    site.run(&["restore", &id]).ends_with(0).says("is there already");
    fs::remove_dir(site.at(PATH)).unwrap();
    site.apply().says("drift").says("0 to do, 1 held");
    assert!(!site.at(PATH).exists());
    site.run(&["restore", &id]).ends_with(1).told("--make makes an empty directory");
    site.run(&["restore", &id, "--make"]).ends_with(0).says("1 restored, 0 failed");
    assert!(site.at(PATH).is_dir());
    site.apply().says("0 to do, 0 held");
}

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
    let first = ended(&site, 0);
    age(&site, 91);
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
    age(&site, 89);
    site.run(&["purge", "--yes"]).ends_with(0).says("0 deleted");
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
    site.set("PROVISIONER_PURGE_AT_MOST", "2");
    for number in 0..3 {
        ended(&site, number);
    }
    age(&site, 100);
    site.run(&["purge", "--yes"]).ends_with(0).says("2 deleted, 1 more are due");
    assert_eq!(site.trash(SLURM).len(), 1);
}
