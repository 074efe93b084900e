//! Output of plans: groups, old and new values, hostile names, saved plans, takeover of existing directories.

use std::time::Duration;

use serde_json::{Value, json};
use simulator::world::OrderState;

use crate::support::{BASIC, SLURM, Site, set_mode, wait_until};

const PATH: &str = "/capstor/store/cscs/uni/p0";
/// The mark of a directory.
const MARK: &str = "user.hpc-storage.resource";

#[test]
fn plan_shows_old_and_new_values_and_apply_what_was_done() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.run(&["plan"])
        .exits_with(0)
        .stdout_has("create on capstor: 1")
        .stdout_has("space 10 TB, inodes")
        .stdout_has("mode 2770");
    site.apply().stdout_has("created on capstor: 1").stdout_has(PATH).stdout_has("1 done, 0 failed");
    site.order_size(made.resource, 20);
    site.run(&["plan"]).exits_with(0).stdout_has("resize on capstor: 1").stdout_has("space 10 TB → 20 TB");
    let plan = site.json(&["plan"]);
    assert_eq!(plan["counts"], json!([{"system": SLURM, "action": "resize", "count": 1}]));
    let change = &plan["tasks"][0]["changes"][0];
    let space = |value: &Value| value["space_hard"].as_u64().unwrap() / 1_000_000_000_000;
    assert_eq!((&change["what"], space(&change["old"]), space(&change["new"])), (&json!("quota"), 10, 20));
    site.run(&["explain", PATH]).exits_with(0).stdout_has("resize: space 10 TB → 20 TB");
    site.apply().stdout_has("resized on capstor: 1").stdout_has("space 10 TB → 20 TB");
    set_mode(&site.at(PATH), 0o700);
    site.run(&["plan"]).exits_with(0).stdout_has("held (drift) on capstor: 1").stdout_has("mode 700 → 2770");
    site.order_end(made.resource);
    site.run(&["plan"]).exits_with(0).stdout_has("trash on capstor: 1");
    site.apply().stdout_has("moved to trash on capstor: 1");
}

#[test]
fn a_plan_is_limited_and_can_be_filtered() {
    let site = Site::new();
    for number in 0..7 {
        site.order(SLURM, number, 10);
    }
    std::fs::create_dir_all(site.at(PATH)).unwrap();
    site.order(BASIC, 0, 10);
    let output = site
        .run(&["plan"])
        .exits_with(0)
        .stdout_has("create on capstor: 6")
        .stdout_has("… and 1 more")
        .stdout_has("--limit 0");
    assert!(output.out.contains("7 to do, 1 held, 8 resources"), "{}", output.out);
    let all = site.run(&["plan", "--limit", "0"]).exits_with(0).stdout_has("/capstor/store/cscs/uni/p6");
    assert!(!all.out.contains("more"), "{}", all.out);
    let held = site.run(&["plan", "--hold", "conflict"]).exits_with(0).stdout_has("0 to do, 1 held").stdout_has(PATH);
    assert!(!held.out.contains("create"), "{}", held.out);
    site.run(&["plan", "--action", "create", "--system", BASIC]).exits_with(0).stdout_has("1 to do, 0 held");
    site.run(&["plan", "--action", "resize"]).exits_with(0).stdout_has("0 to do, 0 held");
    site.run(&["plan", "--hold", "nothing"]).exits_with(2).stderr_has("possible values: waiting, fault, drift");
    let filtered = site.json(&["plan", "--hold", "conflict"]);
    assert_eq!((filtered["tasks"].as_array().unwrap().len(), filtered["held"].as_array().unwrap().len()), (0, 1));
    // A file has only the selected tasks, and `apply` does nothing else.
    site.run(&["plan", "--action", "create", "--system", BASIC, "--out", "tape.json"]).exits_with(0);
    let output = site.run(&["apply", "tape.json"]).exits_with(0).stdout_has("created on tape: 1").stdout_has("1 done");
    assert!(output.err.contains("6 to do that are not in the file"), "{}", output.err);
    assert!(!site.at("/capstor/store/cscs/uni/p1").exists());
}

#[test]
fn a_hostile_name_is_escaped_by_every_command() {
    const HOSTILE: &str = "x\n\nFORGED\r\u{1b}[2J\u{9b}1m\u{202e}y";
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.order(SLURM, 1, 10);
    site.apply();
    let ended = site.order_size(made.resource, 20);
    site.simulator.world(|world| {
        world.hpc.add_project(HOSTILE, Some(30_700));
        world.change(made.resource, "project_slug", HOSTILE.into());
        world.change(made.resource, "slug", HOSTILE.into());
        world.change(made.resource, "backend_id", format!("/capstor/store/{HOSTILE}").into());
    });
    let published = site.json(&["explain", &made.resource.to_string()]);
    assert!(published["path"].as_str().unwrap().contains("\n\nFORGED"), "the name is in the document: {published:#}");
    let id = made.resource.to_string();
    let commands: [&[&str]; 16] = [
        &["check"],
        &["plan"],
        &["plan", "--json"],
        &["plan", "--out", "plan.json"],
        &["apply", "plan.json"],
        &["apply"],
        &["apply", "--json"],
        &["status"],
        &["explain", &id],
        &["explain", HOSTILE],
        &["adopt", &id, HOSTILE],
        &["restore", &id, "--make"],
        &["restore", "--all", "--make"],
        &["retire", &id],
        &["reject", &id, "--reason", HOSTILE],
        &["usage"],
    ];
    for command in commands {
        let output = site.run(command);
        is_plain(&output.out, command);
        is_plain(&output.err, command);
    }
    let running = site.spawn(&["run"]);
    wait_until("a pass is in the log", || running.output().contains("held ("));
    is_plain(&running.output(), &["run"]);
    assert_ne!(site.states(ended).0, OrderState::Done);
}

fn is_plain(text: &str, command: &[&str]) {
    let controls = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!text.contains(controls), "{command:?}: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("FORGED")), "{command:?}: {text}");
}

#[test]
fn apply_compares_only_what_the_tasks_of_the_file_depend_on() {
    let mut site = Site::new();
    site.order(SLURM, 0, 10);
    site.apply();
    let made = site.order(SLURM, 1, 10);
    site.run(&["plan", "--out", "plan.json"]).exits_with(0).stdout_has("1 to do");
    // Another resource loses its GID, and there is another order; neither is in the file.
    site.simulator.world(|world| world.hpc.set_gid("p0", None));
    site.stop_proxy();
    site.start_proxy();
    let other = site.order(SLURM, 2, 10);
    site.run(&["apply", "plan.json"]).exits_with(0).stdout_has("1 done").stderr_has("1 to do that are not in the file");
    assert_eq!((site.states(made).0, site.states(other).0), (OrderState::Done, OrderState::PendingProvider));
}

#[test]
fn apply_names_each_difference_from_the_file() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    let grown = site.order_size(made.resource, 20);
    let ordered = [site.order(SLURM, 1, 10), site.order(SLURM, 2, 10)];
    site.run(&["plan", "--out", "plan.json"]).exits_with(0).stdout_has("3 to do");
    site.simulator.world(|world| {
        world.cancel(ordered[0].order).unwrap();
        world.resources.shift_remove(&ordered[1].resource);
    });
    set_mode(&site.at(PATH), 0o700);
    let output =
        site.run(&["apply", "plan.json"]).exits_with(3).stderr_has("nothing was done").stderr_has("plan --out");
    let lines: Vec<_> = output.err.lines().collect();
    let named = |path: &str, text: &str| lines.iter().any(|line| line.contains(path) && line.contains(text));
    assert!(named(PATH, "action: resize → change") && named(PATH, "mode, observed: none → 700"), "{}", output.err);
    assert!(named("/capstor/store/cscs/uni/p1", "there is nothing left to do"), "{}", output.err);
    assert!(named("/capstor/store/cscs/uni/p2", "no longer in the document"), "{}", output.err);
    assert_eq!(site.states(grown).0, OrderState::PendingProvider);
}

#[test]
fn read_only_commands_use_the_newest_snapshot_unless_fresh_is_given() {
    let mut site = Site::new();
    site.stop_proxy();
    site.max_age = 3600;
    site.start_proxy();
    let made = site.order(SLURM, 0, 10);
    let reads =
        |site: &Site| site.simulator.requests().iter().filter(|it| it.path.contains("provider-resources")).count();
    site.run(&["plan"]).exits_with(0).stdout_has("1 to do");
    let before = reads(&site);
    for command in [&["plan"][..], &["status"], &["explain", PATH], &["usage"], &["adopt", "--all"]] {
        site.run(command).exits_with(0);
    }
    assert_eq!(reads(&site), before);
    site.order(SLURM, 1, 10);
    site.run(&["plan"]).exits_with(0).stdout_has("1 to do");
    site.run(&["plan", "--fresh"]).exits_with(0).stdout_has("2 to do");
    assert!(reads(&site) > before);
    site.order(SLURM, 2, 10);
    site.apply().stdout_has("3 done");
    assert_eq!(site.states(made).0, OrderState::Done);
}

/// Directories in use without a mark, as on a system that is taken over.
fn unmarked(site: &Site, count: usize) -> Vec<String> {
    for number in 0..count {
        site.order(SLURM, number, 10);
    }
    site.apply().stdout_has(&format!("{count} done"));
    let paths: Vec<_> = (0..count).map(|number| format!("/capstor/store/cscs/uni/p{number}")).collect();
    for path in &paths {
        rustix::fs::removexattr(site.at(path), MARK).unwrap();
    }
    paths
}

#[test]
fn adopt_all_needs_one_confirmation() {
    let site = Site::new();
    let ended = site.order(SLURM, 9, 10);
    site.apply();
    site.order_end(ended.resource);
    site.apply();
    let others = site.at("/capstor/store/cscs/uni/p9");
    std::fs::create_dir(&others).unwrap();
    let paths = unmarked(&site, 8);
    set_mode(&site.at(&paths[0]), 0o755);
    let is_marked = |path: &String| rustix::fs::getxattr(site.at(path), MARK, &mut [0; 64][..]).is_ok();
    let journal = std::fs::read(site.state("journal")).unwrap();
    let output = site
        .run(&["adopt", "--all"])
        .exits_with(1)
        .stdout_has("adopt on capstor: 8")
        .stdout_has("8 to adopt")
        .stderr_has("--yes");
    assert!(output.out.contains("mode 755 → 2770") && output.out.contains("… and 3 more"), "{}", output.out);
    assert_eq!(std::fs::read(site.state("journal")).unwrap(), journal, "nothing was begun");
    assert!(!paths.iter().any(is_marked));
    site.run(&["adopt", "--all", "--yes", "--system", BASIC]).exits_with(0).stdout_has("0 adopted, 0 failed");
    site.run(&["adopt", "--hold", "drift", "--yes"]).exits_with(0).stdout_has("0 adopted, 0 failed");
    // If one of the named resources is unknown, none is adopted.
    site.run(&["adopt", &paths[6], "/capstor/other"]).exits_with(1).stderr_has("/capstor/other is not among");
    assert!(!is_marked(&paths[6]));
    site.run(&["adopt", &paths[6], &paths[7]]).exits_with(0).stdout_has("2 adopted, 0 failed");
    site.run(&["adopt", "--hold", "conflict", "--yes"])
        .exits_with(0)
        .stdout_has("adopted on capstor: 6")
        .stdout_has("6 adopted");
    assert!(paths.iter().all(is_marked));
    assert!(rustix::fs::getxattr(&others, MARK, &mut [0; 64][..]).is_err(), "its resource is terminated");
    site.run(&["plan", "--hold", "conflict"]).exits_with(0).stdout_has("0 to do, 0 held");
    site.run(&["adopt"]).exits_with(2);
    site.run(&["adopt", "--all", &paths[0]]).exits_with(2);
}

#[test]
fn restore_makes_all_directories_on_a_new_file_system() {
    let site = Site::new();
    let paths = unmarked(&site, 3);
    std::fs::remove_dir_all(site.root(SLURM).join("store")).unwrap();
    site.run(&["restore", "--all", "--yes"]).exits_with(0).stdout_has("0 restored, 0 failed");
    site.run(&["restore", "--make", "--hold", "drift"]).exits_with(1).stdout_has("3 to restore").stderr_has("--yes");
    site.run(&["restore", "--make", "--hold", "drift", "--yes"]).exits_with(0).stdout_has("3 restored, 0 failed");
    assert!(paths.iter().all(|path| site.at(path).is_dir()));
    site.apply().stdout_has("0 to do, 0 held");
}

#[test]
fn run_logs_completed_tasks() {
    let site = Site::new();
    site.order(SLURM, 0, 10);
    let mut running = site.spawn(&["run"]);
    wait_until("the task is in the log", || running.output().contains("created: Create order"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&running.child), rustix::process::Signal::TERM)
        .unwrap();
    assert_eq!(running.wait(Duration::from_secs(20)), Some(0));
}
