//! `adopt` and `restore`.

use std::fs;

use simulator::world::OrderState;
use uuid::Uuid;

use crate::support::{SLURM, Site};

const PATH: &str = "/capstor/store/cscs/uni/p0";

#[test]
fn adopt_marks_an_existing_directory() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    let id = made.resource.to_string();
    site.run(&["adopt", &id]).exits_with(1).stderr_has("there is no directory at its path");
    fs::create_dir_all(site.at(PATH)).unwrap();
    fs::write(site.at(PATH).join("data"), "precious").unwrap();
    site.apply().stdout_has("conflict").stdout_has("`adopt` it").stdout_has("0 to do, 1 held");
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
    site.run(&["adopt", &id]).exits_with(0).stdout_has(PATH);
    site.run(&["adopt", &id]).exits_with(0).stdout_has("already");
    site.apply().stdout_has("1 done");
    assert_eq!(site.states(made).0, OrderState::Done);
    assert_eq!(fs::read_to_string(site.at(PATH).join("data")).unwrap(), "precious");
    site.run(&["explain", &id]).exits_with(0).stdout_has("mark ");
    site.run(&["adopt"]).exits_with(2).stderr_has("--all");
    site.run(&["adopt", "p0"]).exits_with(1).stderr_has("is not among");
    site.run(&["adopt", &Uuid::from_u128(7).to_string()]).exits_with(1).stderr_has("is not among the 1 resources");
}

#[test]
fn a_symlink_at_the_path_is_not_touched() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    fs::create_dir_all(site.at(PATH).parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/etc", site.at(PATH)).unwrap();
    site.apply().stdout_has("conflict").stdout_has("a symlink");
    site.run(&["adopt", &made.resource.to_string()]).exits_with(1).stderr_has("a symlink");
    assert!(fs::symlink_metadata(site.at(PATH)).unwrap().is_symlink());
    assert_eq!(site.states(made).0, OrderState::PendingProvider);
}

#[test]
fn only_restore_makes_a_missing_directory() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    let id = made.resource.to_string();
    site.run(&["restore", &id]).exits_with(1).stderr_has("not in use in Waldur");
    site.apply();
    site.run(&["restore", &id]).exits_with(0).stdout_has("already in place");
    fs::remove_dir(site.at(PATH)).unwrap();
    site.apply().stdout_has("drift").stdout_has("0 to do, 1 held");
    assert!(!site.at(PATH).exists());
    site.run(&["restore", &id]).exits_with(1).stderr_has("--make creates an empty directory");
    site.run(&["restore", &id, "--make"]).exits_with(0).stdout_has("1 restored, 0 failed");
    assert!(site.at(PATH).is_dir());
    site.apply().stdout_has("0 to do, 0 held");
}
