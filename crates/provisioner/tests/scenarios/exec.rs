//! A program of the site drives the storage.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use simulator::world::{OrderState, ResourceState};

use crate::support::{SLURM, Site, mode, names, wait_until};

/// The settings of a system with the example for directories. `None` if this user cannot run it.
#[expect(clippy::print_stderr, reason = "tests that are skipped are reported")]
fn settings(directory: &Path) -> Option<Value> {
    let can_mark = rustix::fs::setxattr(directory, "trusted.test", b"1", rustix::fs::XattrFlags::empty()).is_ok();
    if !rustix::process::geteuid().is_root() || !can_mark {
        eprintln!("SKIPPED: needs root, to set owners and attributes");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/drivers/directories.py");
    let command = [Path::new("/usr/bin/python3").canonicalize().unwrap(), script];
    Some(json!({"driver": "exec", "terabyte": "TB", "command": command}))
}

#[test]
fn a_program_carries_out_orders_also_if_the_provisioner_is_killed_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let Some(system) = settings(directory.path()) else { return };
    let site = Site::below(directory.path(), &system);
    site.run(&["check"]).exits_with(0);
    let path = site.at(&format!("/{SLURM}/store/cscs/uni/p0"));
    let killed_in = |verb: &str| {
        let mut apply = site.spawn(&["apply"]);
        let journal = || std::fs::read_to_string(site.state("journal")).unwrap_or_default();
        wait_until("the program is started", || journal().contains(&format!(" {verb}\"")));
        std::thread::sleep(Duration::from_millis(30));
        apply.child.kill().unwrap();
        apply.child.wait().unwrap();
    };
    let made = site.order(SLURM, 0, 10);
    killed_in("ensure");
    site.apply().stdout_has("1 done, 0 failed");
    assert_eq!(site.states(made), (OrderState::Done, ResourceState::Ok));
    assert_eq!(mode(&path), 0o2770);
    let grown = site.order_size(made.resource, 40);
    site.apply().stdout_has("1 done, 0 failed");
    assert_eq!(site.states(grown), (OrderState::Done, ResourceState::Ok));
    let json = site.json(&["explain", &made.resource.to_string()]);
    assert_eq!(json["seen"]["ours"]["limits"]["space_hard"], 40_000_000_000_000_u64, "{json:#}");
    let ended = site.order_end(made.resource);
    killed_in("retire");
    site.apply().stdout_has("1 done, 0 failed");
    assert_eq!(site.states(ended), (OrderState::Done, ResourceState::Terminated));
    assert!(!path.exists());
    assert_eq!(site.trash(SLURM).len(), 1);
    assert_eq!(names(&site.root(SLURM)), [".trash", "store"], "nothing unfinished is left");
    site.apply().stdout_has("0 done, 0 failed");
}
