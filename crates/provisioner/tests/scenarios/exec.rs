//! A program of the site drives the storage.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use simulator::world::{OrderState, ResourceState};

use crate::support::{SLURM, Site, mode, names, wait_until};

/// The example for directories, which stops before it moves a directory while the file `pause` exists, and creates `paused` then.
const PROGRAM: &str = r#"
import os, sys, time
sys.path.insert(0, EXAMPLES)
import directories

class Pausing(directories.Directories):
    def move(self, source, target):
        while os.path.exists(PAUSE):
            open(PAUSE + "d", "w").close()
            time.sleep(0.01)
        super().move(source, target)

directories.main(Pausing)
"#;

/// The settings of a system with that program, which is written below `directory`. `None` if this user cannot run it.
#[expect(clippy::print_stderr, reason = "tests that are skipped are reported")]
fn settings(directory: &Path) -> Option<Value> {
    let can_mark = rustix::fs::setxattr(directory, "trusted.test", b"1", rustix::fs::XattrFlags::empty()).is_ok();
    if !rustix::process::geteuid().is_root() || !can_mark {
        eprintln!("SKIPPED: needs root, to set owners and attributes");
        return None;
    }
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/drivers");
    let constants = format!("EXAMPLES, PAUSE = {}, {}\n", json!(examples), json!(directory.join("pause")));
    let program = directory.canonicalize().unwrap().join("program.py");
    std::fs::write(&program, constants + PROGRAM).unwrap();
    let python = Path::new("/usr/bin/python3").canonicalize().unwrap();
    Some(json!({"driver": "exec", "terabyte": "TB", "command": [python, PathBuf::from("-BS"), program]}))
}

#[test]
fn a_program_carries_out_orders_also_if_the_provisioner_is_killed_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let Some(system) = settings(directory.path()) else { return };
    let site = Site::below(directory.path(), &system);
    site.run(&["check"]).exits_with(0);
    let path = site.at(&format!("/{SLURM}/store/cscs/uni/p0"));
    // The program survives, and ends while the next pass has begun.
    let kill_meanwhile = || {
        let [pause, paused] = ["pause", "paused"].map(|name| directory.path().join(name));
        let _ = std::fs::remove_file(&paused);
        std::fs::write(&pause, "").unwrap();
        let mut apply = site.spawn(&["apply"]);
        wait_until("the program has begun", || paused.exists());
        apply.child.kill().unwrap();
        apply.child.wait().unwrap();
        std::fs::remove_file(pause).unwrap();
    };
    let made = site.order(SLURM, 0, 10);
    kill_meanwhile();
    site.apply().stdout_has("1 done, 0 failed");
    assert_eq!(site.states(made), (OrderState::Done, ResourceState::Ok));
    assert_eq!(mode(&path), 0o2770);
    let grown = site.order_size(made.resource, 40);
    site.apply().stdout_has("1 done, 0 failed");
    assert_eq!(site.states(grown), (OrderState::Done, ResourceState::Ok));
    let json = site.json(&["explain", &made.resource.to_string()]);
    assert_eq!(json["seen"]["ours"]["limits"]["space_hard"], 40_000_000_000_000_u64, "{json:#}");
    let ended = site.order_end(made.resource);
    kill_meanwhile();
    site.apply().stdout_has("1 done, 0 failed");
    assert_eq!(site.states(ended), (OrderState::Done, ResourceState::Terminated));
    assert!(!path.exists());
    assert_eq!(site.trash(SLURM).len(), 1);
    assert_eq!(names(&site.root(SLURM)), [".trash", "store"], "nothing unfinished is left");
    site.apply().stdout_has("0 done, 0 failed");
}
