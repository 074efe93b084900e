//! What a person decides: `adopt`, `restore`.

use std::fs;

use simulator::world::OrderState;
use uuid::Uuid;

use crate::support::{SLURM, Site};

const PATH: &str = "/capstor/store/cscs/uni/p0";

#[test]
fn a_directory_that_is_there_is_adopted_when_a_person_says_so() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    let id = made.resource.to_string();
    site.run(&["adopt", &id]).ends_with(1).told("there is no directory at its path");
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
    site.run(&["restore", &id]).ends_with(0).says("already in place");
    fs::remove_dir(site.at(PATH)).unwrap();
    site.apply().says("drift").says("0 to do, 1 held");
    assert!(!site.at(PATH).exists());
    site.run(&["restore", &id]).ends_with(1).told("--make creates an empty directory");
    site.run(&["restore", &id, "--make"]).ends_with(0).says("1 restored, 0 failed");
    assert!(site.at(PATH).is_dir());
    site.apply().says("0 to do, 0 held");
}
