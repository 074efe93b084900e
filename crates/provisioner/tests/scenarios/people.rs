//! What people see: plans in groups, old and new values, hostile names, saved plans, taking over what is there.

use std::time::Duration;

use serde_json::{Value, json};
use simulator::world::OrderState;

use crate::support::{BASIC, SLURM, Site, until};

const PATH: &str = "/capstor/store/cscs/uni/p0";
/// The mark of a directory.
const MARK: &str = "user.hpc-storage.resource";

#[test]
fn old_and_new_values_are_shown_before_and_past_tense_after() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.run(&["plan"]).ends_with(0).says("create on capstor: 1").says("space 10 TB, inodes").says("mode 2770");
    site.apply().says("created on capstor: 1").says(PATH).says("1 done, 0 failed");
    site.order_size(made.resource, 20);
    site.run(&["plan"]).ends_with(0).says("resize on capstor: 1").says("space 10 TB → 20 TB");
    let plan = site.json(&["plan"]);
    assert_eq!(plan["counts"], json!([{"system": SLURM, "action": "resize", "count": 1}]));
    let change = &plan["tasks"][0]["changes"][0];
    let space = |value: &Value| value["space_hard"].as_u64().unwrap() / 1_000_000_000_000;
    assert_eq!((&change["what"], space(&change["old"]), space(&change["new"])), (&json!("quota"), 10, 20));
    site.run(&["explain", PATH]).ends_with(0).says("resize: space 10 TB → 20 TB");
    site.apply().says("resized on capstor: 1").says("space 10 TB → 20 TB");
    std::fs::set_permissions(site.at(PATH), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    site.run(&["plan"]).ends_with(0).says("held (drift) on capstor: 1").says("mode 700 → 2770");
    site.order_end(made.resource);
    site.run(&["plan"]).ends_with(0).says("trash on capstor: 1");
    site.apply().says("moved to trash on capstor: 1");
}

#[test]
fn a_plan_is_filtered_and_limited_and_says_how_to_see_all() {
    let site = Site::new();
    for number in 0..7 {
        site.order(SLURM, number, 10);
    }
    std::fs::create_dir_all(site.at(PATH)).unwrap();
    site.order(BASIC, 0, 10);
    let said = site.run(&["plan"]).ends_with(0).says("create on capstor: 6").says("… and 1 more").says("--limit 0");
    assert!(said.out.contains("7 to do, 1 held, 8 resources"), "{}", said.out);
    let all = site.run(&["plan", "--limit", "0"]).ends_with(0).says("/capstor/store/cscs/uni/p6");
    assert!(!all.out.contains("more"), "{}", all.out);
    let held = site.run(&["plan", "--hold", "conflict"]).ends_with(0).says("0 to do, 1 held").says(PATH);
    assert!(!held.out.contains("create"), "{}", held.out);
    site.run(&["plan", "--action", "create", "--system", BASIC]).ends_with(0).says("1 to do, 0 held");
    site.run(&["plan", "--action", "resize"]).ends_with(0).says("0 to do, 0 held");
    site.run(&["plan", "--hold", "nothing"]).ends_with(2).told("possible values: waiting, fault, drift");
    let filtered = site.json(&["plan", "--hold", "conflict"]);
    assert_eq!((filtered["tasks"].as_array().unwrap().len(), filtered["held"].as_array().unwrap().len()), (0, 1));
    // A file has what was asked for, and nothing else is done.
    site.run(&["plan", "--action", "create", "--system", BASIC, "--out", "tape.json"]).ends_with(0);
    let said = site.run(&["apply", "tape.json"]).ends_with(0).says("created on tape: 1").says("1 done");
    assert!(said.err.contains("6 to do that are not in the file"), "{}", said.err);
    assert!(!site.at("/capstor/store/cscs/uni/p1").exists());
}

#[test]
fn a_hostile_name_forges_nothing_in_any_command() {
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
        let said = site.run(command);
        is_plain(&said.out, command);
        is_plain(&said.err, command);
    }
    let running = site.spawn(&["run"]);
    until("a pass is in the log", || running.said().contains("held ("));
    is_plain(&running.said(), &["run"]);
    assert_ne!(site.states(ended).0, OrderState::Done);
}

fn is_plain(text: &str, command: &[&str]) {
    let steers = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!text.contains(steers), "{command:?}: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("FORGED")), "{command:?}: {text}");
}

#[test]
fn only_what_the_tasks_of_a_file_depend_on_is_compared() {
    let mut site = Site::new();
    site.order(SLURM, 0, 10);
    site.apply();
    let made = site.order(SLURM, 1, 10);
    site.run(&["plan", "--out", "plan.json"]).ends_with(0).says("1 to do");
    // Neither another resource that loses its GID nor another order is in the file.
    site.simulator.world(|world| world.hpc.set_gid("p0", None));
    site.stop_proxy();
    site.start_proxy();
    let other = site.order(SLURM, 2, 10);
    site.run(&["apply", "plan.json"]).ends_with(0).says("1 done").told("1 to do that are not in the file");
    assert_eq!((site.states(made).0, site.states(other).0), (OrderState::Done, OrderState::PendingProvider));
}

#[test]
fn each_difference_from_a_file_is_named() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    let grown = site.order_size(made.resource, 20);
    let ordered = [site.order(SLURM, 1, 10), site.order(SLURM, 2, 10)];
    site.run(&["plan", "--out", "plan.json"]).ends_with(0).says("3 to do");
    site.simulator.world(|world| {
        world.cancel(ordered[0].order).unwrap();
        world.resources.shift_remove(&ordered[1].resource);
    });
    std::fs::set_permissions(site.at(PATH), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let said = site.run(&["apply", "plan.json"]).ends_with(3).told("nothing was done").told("plan --out");
    let lines: Vec<_> = said.err.lines().collect();
    let named = |path: &str, words: &str| lines.iter().any(|line| line.contains(path) && line.contains(words));
    assert!(
        named(PATH, "action: \"resize\" → \"change\"") && named(PATH, "changes[1].old: absent → \"700\""),
        "{}",
        said.err
    );
    assert!(named("/capstor/store/cscs/uni/p1", "nothing is to be done for it any more"), "{}", said.err);
    assert!(named("/capstor/store/cscs/uni/p2", "not in the document any more"), "{}", said.err);
    assert_eq!(site.states(grown).0, OrderState::PendingProvider);
}

#[test]
fn looking_takes_the_newest_reading_of_the_proxy_unless_it_is_to_be_fresh() {
    let mut site = Site::new();
    site.stop_proxy();
    site.max_age = 3600;
    site.start_proxy();
    let made = site.order(SLURM, 0, 10);
    let reads =
        |site: &Site| site.simulator.requests().iter().filter(|it| it.path.contains("provider-resources")).count();
    site.run(&["plan"]).ends_with(0).says("1 to do");
    let before = reads(&site);
    for command in [&["plan"][..], &["status"], &["explain", PATH], &["usage"], &["adopt", "--all"]] {
        site.run(command).ends_with(0);
    }
    assert_eq!(reads(&site), before);
    site.order(SLURM, 1, 10);
    site.run(&["plan"]).ends_with(0).says("1 to do");
    site.run(&["plan", "--fresh"]).ends_with(0).says("2 to do");
    assert!(reads(&site) > before);
    site.order(SLURM, 2, 10);
    site.apply().says("3 done");
    assert_eq!(site.states(made).0, OrderState::Done);
}

/// Directories in use that have no mark, as on a system that is taken over.
fn unmarked(site: &Site, count: usize) -> Vec<String> {
    for number in 0..count {
        site.order(SLURM, number, 10);
    }
    site.apply().says(&format!("{count} done"));
    let paths: Vec<_> = (0..count).map(|number| format!("/capstor/store/cscs/uni/p{number}")).collect();
    for path in &paths {
        rustix::fs::removexattr(site.at(path), MARK).unwrap();
    }
    paths
}

#[test]
fn many_directories_are_adopted_with_one_confirmation() {
    let site = Site::new();
    let ended = site.order(SLURM, 9, 10);
    site.apply();
    site.order_end(ended.resource);
    site.apply();
    let others = site.at("/capstor/store/cscs/uni/p9");
    std::fs::create_dir(&others).unwrap();
    let paths = unmarked(&site, 8);
    std::fs::set_permissions(site.at(&paths[0]), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let is_marked = |path: &String| rustix::fs::getxattr(site.at(path), MARK, &mut [0; 64][..]).is_ok();
    let journal = std::fs::read(site.state("journal")).unwrap();
    let said = site.run(&["adopt", "--all"]).ends_with(1).says("adopt on capstor: 8").says("8 to adopt").told("--yes");
    assert!(said.out.contains("mode 755 → 2770") && said.out.contains("… and 3 more"), "{}", said.out);
    assert_eq!(std::fs::read(site.state("journal")).unwrap(), journal, "nothing was begun");
    assert!(!paths.iter().any(is_marked));
    site.run(&["adopt", "--all", "--yes", "--system", BASIC]).ends_with(0).says("0 adopted, 0 failed");
    site.run(&["adopt", "--hold", "drift", "--yes"]).ends_with(0).says("0 adopted, 0 failed");
    // Two that are named, or none of them.
    site.run(&["adopt", &paths[6], "/capstor/other"]).ends_with(1).told("/capstor/other is not among");
    assert!(!is_marked(&paths[6]));
    site.run(&["adopt", &paths[6], &paths[7]]).ends_with(0).says("2 adopted, 0 failed");
    site.run(&["adopt", "--hold", "conflict", "--yes"]).ends_with(0).says("adopted on capstor: 6").says("6 adopted");
    assert!(paths.iter().all(is_marked));
    assert!(rustix::fs::getxattr(&others, MARK, &mut [0; 64][..]).is_err(), "its resource is terminated");
    site.run(&["plan", "--hold", "conflict"]).ends_with(0).says("0 to do, 0 held");
    site.run(&["adopt"]).ends_with(2);
    site.run(&["adopt", "--all", &paths[0]]).ends_with(2);
}

#[test]
fn many_directories_are_made_on_a_new_file_system() {
    let site = Site::new();
    let paths = unmarked(&site, 3);
    std::fs::remove_dir_all(site.root(SLURM).join("store")).unwrap();
    site.run(&["restore", "--all", "--yes"]).ends_with(0).says("0 restored, 0 failed");
    site.run(&["restore", "--make", "--hold", "drift"]).ends_with(1).says("3 to restore").told("--yes");
    site.run(&["restore", "--make", "--hold", "drift", "--yes"]).ends_with(0).says("3 restored, 0 failed");
    assert!(paths.iter().all(|path| site.at(path).is_dir()));
    site.apply().says("0 to do, 0 held");
}

#[test]
fn the_loop_says_what_it_has_done() {
    let site = Site::new();
    site.order(SLURM, 0, 10);
    let mut running = site.spawn(&["run"]);
    until("the task is in the log", || running.said().contains("created: Create order"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&running.child), rustix::process::Signal::TERM)
        .unwrap();
    assert_eq!(running.ends(Duration::from_secs(20)), Some(0));
}
