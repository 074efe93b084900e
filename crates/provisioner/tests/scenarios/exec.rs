//! A program of the site drives the storage.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use simulator::world::{OrderState, ResourceState};

use crate::kills::{Random, tree};
use crate::purge::age;
use crate::support::{Ordered, SLURM, Site, mode, names, wait_until};

/// The example for directories, with two faults. It stops before it moves a directory while the file `pause` exists, and creates `paused`
/// then. With the file `kill`, which has a verb, the number of a line and a victim, it kills itself in that verb before that line of the
/// example, and before that the provisioner if the victim is `both`. It counts the lines in files like `lines-ensure`.
const PROGRAM: &str = r#"
import os, signal, sys, time
sys.path.insert(0, EXAMPLES)
import directories

class Faulty(directories.Directories):
    lines, kill = 0, ["", "0", ""]

    def move(self, source, target):
        while os.path.exists(f"{FAULTS}/pause"):
            open(f"{FAULTS}/paused", "w").close()
            time.sleep(0.01)
        super().move(source, target)

    def answer(self):
        if os.path.exists(f"{FAULTS}/kill"):
            with open(f"{FAULTS}/kill") as file:
                self.kill = file.read().split()
        sys.settrace(self.trace)
        answer = super().answer()
        sys.settrace(None)
        self.line()
        with open(f"{FAULTS}/lines-{self.verb}", "w") as file:
            file.write(str(self.lines))
        return answer

    def trace(self, frame, event, _):
        if frame.f_code.co_filename != directories.__file__:
            return None
        if event == "line":
            self.line()
        return self.trace

    def line(self):
        verb, at, victim = self.kill
        self.lines += 1
        if self.verb == verb and self.lines == int(at):
            os.remove(f"{FAULTS}/kill")
            if victim == "both":
                os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

directories.main(Faulty)
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
    let constants = format!("EXAMPLES, FAULTS = {}, {}\n", json!(examples), json!(directory));
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

type Run<'a> = &'a mut dyn FnMut(&Site, &[&str], &[&str]);

/// Places orders and calls `run` with each command that carries them out, and the verbs with side effects that it needs.
fn play(site: &mut Site, run: Run<'_>) -> Vec<Ordered> {
    site.set("PROVISIONER_PURGE_ENABLED", "true");
    site.set("PROVISIONER_PURGE_RETENTION_DAYS", "1");
    let site = &*site;
    let made = site.order(SLURM, 0, 10);
    let id = &*made.resource.to_string();
    let state = |state: &str| site.simulator.world(|world| world.change(made.resource, "state", state.into()));
    run(site, &["ensure"], &["apply"]);
    std::fs::create_dir(site.at(&format!("/{SLURM}/store/cscs/uni/p0/folder"))).unwrap();
    let grown = site.order_size(made.resource, 40);
    run(site, &["ensure"], &["apply"]);
    let ended = site.order_end(made.resource);
    run(site, &["retire"], &["apply"]);
    state("OK");
    run(site, &["restore"], &["restore", id]);
    state("Terminated");
    run(site, &["retire"], &["retire", id]);
    age(site, 2);
    run(site, &["claim", "purge"], &["purge", "--yes"]);
    let adopted = site.order(SLURM, 1, 10);
    std::fs::create_dir(site.at(&format!("/{SLURM}/store/cscs/uni/p1"))).unwrap();
    run(site, &["adopt"], &["adopt", &adopted.resource.to_string()]);
    run(site, &["ensure"], &["apply"]);
    let last = site.order(SLURM, 2, 10);
    run(site, &["ensure"], &["apply"]);
    let last_ended = site.order_end(last.resource);
    run(site, &["retire"], &["apply"]);
    vec![made, grown, ended, adopted, last, last_ended]
}

#[test]
fn kills_of_the_program_and_the_provisioner_do_not_change_the_outcome() {
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [Some(calm), Some(killed)] = [0, 1].map(|n| settings(directories[n].path())) else { return };
    let mut calm = Site::below(directories[0].path(), &calm);
    let expected = play(&mut calm, &mut |site, _, command| {
        site.run(command).exits_with(0);
    });
    let lines = |verb: &str| -> u64 {
        let path = directories[0].path().join(format!("lines-{verb}"));
        std::fs::read_to_string(path).unwrap().parse().unwrap()
    };
    let mut killed = Site::below(directories[1].path(), &killed);
    let fault = directories[1].path().join("kill");
    let (mut random, mut kills) = (Random(0x2545_f491_4f6c_dd1d), 0);
    let orders = play(&mut killed, &mut |site, verbs, command| {
        for kill in 0..2 * verbs.len() {
            let (verb, victim) = (verbs[kill % verbs.len()], ["program", "both"][kill / verbs.len() % 2]);
            let line = 1 + random.below(lines(verb));
            std::fs::write(&fault, format!("{verb} {line} {victim}")).unwrap();
            let output = site.run(command);
            // Otherwise an earlier one was killed after its work, so that the verb has fewer lines now.
            if std::fs::remove_file(&fault).is_err() {
                assert_ne!(output.code, Some(0), "{verb} was killed at line {line}: {output:?}");
                kills += 1;
            }
        }
        site.run(command).exits_with(0);
    });
    assert!(kills > 10, "only {kills} kills");
    for (expected, order) in expected.iter().zip(&orders) {
        assert_eq!(calm.states(*expected), killed.states(*order));
        assert_eq!(calm.backend_id(expected.resource), killed.backend_id(order.resource));
    }
    assert_eq!(tree(&calm), tree(&killed));
    assert_eq!(names(&killed.root(SLURM)), [".trash", "store"], "nothing unfinished is left");
    assert!(
        !killed
            .calls()
            .iter()
            .any(|path| path.ends_with("/set_state_erred/") || path.ends_with("/reject_by_provider/"))
    );
    killed.apply().stdout_has("0 to do, 0 held");
}
