//! Read-only commands: `explain`, `status`, `usage`, `config`.

use serde_json::json;
use uuid::Uuid;

use crate::support::{BASIC, SLURM, Site, WALDUR_TOKEN};

const PATH: &str = "/capstor/store/cscs/uni/p0";

#[test]
fn explain_finds_a_resource_by_uuid_and_path() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    let id = made.resource.to_string();
    for name in [&*id, &made.resource.simple().to_string(), PATH] {
        let output = site.run(&["explain", name]).exits_with(0);
        for text in [&*id, PATH, "create order", "pending-provider", "nothing is there", "approve, ensure", "30500"] {
            assert!(output.out.contains(text), "{text:?} is missing: {}", output.out);
        }
    }
    site.apply();
    let output = site.run(&["explain", PATH]).exits_with(0);
    for text in [
        "no order in progress",
        "mode 2770",
        "space 10 TB, inodes",
        "begun by user",
        "ended",
        "set_state_done: accepted",
    ] {
        assert!(output.out.contains(text), "{text:?} is missing: {}", output.out);
    }
    assert!(output.out.contains("nothing: the storage is as it should be"), "{}", output.out);
    let json = site.json(&["explain", &id]);
    assert_eq!(json["resource"], id);
    assert_eq!(json["path"], PATH);
    assert_eq!((&json["begun"], &json["order"], &json["next"]["tasks"]), (&json!(false), &json!(null), &json!([])));
    assert!(json["story"].as_array().unwrap().len() > 5, "{json:#}");
    let unknown = Uuid::from_u128(7).to_string();
    site.run(&["explain", &unknown]).exits_with(1).stderr_has("is not among the 1 resources");
    site.run(&["explain", "/capstor/other"]).exits_with(1).stderr_has("check that the proxy lists it");
}

#[test]
#[expect(clippy::print_stderr, reason = "skipped tests are reported")]
fn explain_shows_the_observed_and_the_desired_acl() {
    let mut site = Site::new();
    site.order(SLURM, 0, 10);
    site.apply();
    let system = json!({
        "driver": "posix", "terabyte": "TB", "root": site.root(SLURM), "must_be_mounted": false, "change_owner": false,
        "acl": ["u:900:r-x"],
    });
    site.set("PROVISIONER_SYSTEMS", &json!({SLURM: system}).to_string());
    if site.run(&["check"]).out.contains("has no POSIX ACLs") {
        eprintln!("SKIPPED: temporary files are on a file system without ACLs");
        return;
    }
    site.run(&["explain", PATH])
        .exits_with(0)
        .stdout_has("ACL none instead of u:900:r-x,g::rwx")
        .stdout_has("ACL differs");
    site.set("PROVISIONER_DRIFT_HEAL", "true");
    site.apply().stdout_has("1 done");
    site.run(&["explain", PATH])
        .exits_with(0)
        .stdout_has("ACL u:900:r-x,g::rwx\n")
        .stdout_has("nothing: the storage is as it should be");
}

#[test]
fn a_shared_path_means_the_resource_in_use_or_is_ambiguous() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    site.order_end(made.resource);
    site.apply();
    assert_eq!(site.json(&["explain", PATH])["resource"], made.resource.to_string());
    let new = site.order(SLURM, 0, 10);
    assert_eq!(site.json(&["explain", PATH])["resource"], new.resource.to_string());
    assert_eq!(site.json(&["explain", &made.resource.to_string()])["resource"], made.resource.to_string());
    let other = site.order(SLURM, 0, 10);
    let output = site.run(&["explain", PATH]).exits_with(1);
    for resource in [new.resource, other.resource] {
        assert!(output.err.contains(&format!("{resource} (pending)")), "{}", output.err);
    }
}

#[test]
fn explain_says_why_there_is_no_directory() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.simulator.world(|world| world.hpc.set_gid("p0", None));
    site.run(&["explain", &made.resource.to_string()]).exits_with(1).stderr_has("skipped by the proxy");
    site.run(&["plan"]).exits_with(0).stdout_has("skipped by the proxy").stdout_has("0 to do, 1 held");
    site.simulator.world(|world| world.hpc.set_gid("p0", Some(7)));
    let output = site
        .run(&["explain", PATH])
        .exits_with(0)
        .stdout_has("the GID 7 is reserved for the system")
        .stdout_has("lowest_id");
    assert!(output.out.contains("refused"), "held until a person corrects it: {}", output.out);
}

#[test]
fn status_counts_held_resources() {
    let site = Site::new();
    let made = [0, 1, 2].map(|number| site.order(SLURM, number, 10));
    site.apply();
    site.order_end(made[0].resource);
    site.apply();
    site.order(BASIC, 0, 10);
    std::fs::rename(site.at("/capstor/store/cscs/uni/p1"), site.directory.path().join("away")).unwrap();
    let output = site.run(&["status"]).exits_with(0).stdout_has("restore PATH --make");
    let lines: Vec<_> = output.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in ["to do 1", "begun 0", "drift 1", "trash 1 on capstor", "trash 0 on tape"] {
        assert!(lines.iter().any(|it| it == line), "{line:?} is missing: {}", output.out);
    }
    let json = site.json(&["status"]);
    assert_eq!((&json["to_do"], &json["begun"], &json["held"]), (&json!(1), &json!(0), &json!({"drift": 1})));
    assert_eq!(json["in_trash"], json!({"capstor": 1, "tape": 0}));
}

#[test]
fn usage_is_shown_and_reported() {
    let mut site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    std::fs::write(site.at(PATH).join("data"), vec![1; 3 << 20]).unwrap();
    std::fs::create_dir(site.at(PATH).join("folder")).unwrap();
    let json = site.json(&["usage"]);
    assert_eq!((&json[0]["resource"], &json[0]["path"]), (&json!(made.resource), &json!(PATH)));
    let space = json[0]["usage"]["space"].as_u64().unwrap();
    assert!((3 << 20..4 << 20).contains(&space), "{space}");
    assert_eq!(json[0]["usage"]["inodes"], 3);
    assert_eq!(json[0]["limits"]["space_hard"], 10_000_000_000_000_u64);
    site.run(&["usage"])
        .exits_with(0)
        .stdout_has(PATH)
        .stdout_has(" MB of 10 TB (0 %), 3 of ")
        .stdout_has("1 in use on capstor: 3.");
    let second = site.order(SLURM, 1, 10);
    site.apply();
    site.order_end(second.resource);
    site.apply();
    let json = site.json(&["usage", "--sort", "space"]);
    assert_eq!((&json[0]["path"], &json[0]["in_trash_since"]), (&json!(PATH), &json!(null)));
    assert_eq!((&json[1]["resource"], &json[1]["usage"]["inodes"]), (&json!(second.resource), &json!(1)));
    assert!(json[1]["in_trash_since"].is_u64() && json[0]["percent"]["space"].is_number(), "{json}");
    site.run(&["usage", "--sort", "percent"])
        .exits_with(0)
        .stdout_has("in the trash of capstor since 20")
        .stdout_has("1 in the trash on");

    site.run(&["usage", "--report"]).exits_with(1).stderr_has("--report needs waldur.api_url and waldur.api_token");
    site.use_waldur_token();
    site.run(&["usage", "--report"]).exits_with(0).stdout_has("1 reported to Waldur.");
    let reported = site.simulator.world(|world| world.usages.clone());
    assert_eq!(reported.len(), 1);
    assert_eq!((reported[0].resource, &*reported[0].component), (made.resource, "storage"));
    assert!((reported[0].amount - 0.01).abs() < f64::EPSILON, "rounded up: {}", reported[0].amount);

    // Waldur accepts no usage of an erred resource; it is shown nevertheless.
    site.simulator.world(|world| world.resources.get_mut(&made.resource).unwrap().set("state", "Erred"));
    site.run(&["usage", "--report"]).exits_with(0).stdout_has(PATH).stdout_has("0 reported to Waldur.");
    site.simulator.world(|world| world.resources.get_mut(&made.resource).unwrap().set("state", "OK"));

    site.set("PROVISIONER_USAGE_COMPONENT", "moons");
    let output = site.run(&["usage", "--report"]).exits_with(1).stderr_has(PATH).stderr_has("400");
    assert!(output.err.contains("1 could not be read or reported"), "{}", output.err);
}

#[test]
fn orphans_are_found_and_an_empty_list_is_a_failure() {
    let site = Site::new();
    site.run(&["plan"]).exits_with(0).stderr_has("the proxy's list is empty");
    let made = [0, 1].map(|number| site.order(SLURM, number, 10));
    site.apply();
    site.order_end(made[1].resource);
    site.apply();
    site.run(&["status", "--orphans"]).exits_with(0).stdout_has("0 on the storage");
    site.simulator.world(|world| world.resources.shift_remove(&made[1].resource));
    site.run(&["apply"]).exits_with(0);
    site.run(&["status", "--orphans"]).exits_with(0).stdout_has("1 on the storage").stdout_has("in the trash since 20");
    site.simulator.world(|world| world.resources.shift_remove(&made[0].resource));
    for command in ["apply", "plan", "status"] {
        site.run(&[command]).exits_with(1).stderr_has("the proxy's list is empty").stderr_has("the journal shows");
    }
    assert!(site.at(PATH).is_dir());
    let output = site.run(&["status", "--orphans", "--json"]).exits_with(1);
    let orphans: serde_json::Value = serde_json::from_str(&output.out).unwrap();
    assert_eq!((&orphans[0]["resource"], &orphans[0]["path"]), (&json!(made[0].resource), &json!("store/cscs/uni/p0")));
    assert_eq!(orphans[1]["resource"], json!(made[1].resource));
    std::fs::remove_file(site.state("journal")).unwrap();
    site.run(&["plan"]).exits_with(1).stderr_has("capstor has directories of resources");
}

#[test]
fn config_shows_settings_with_sources_and_without_secrets() {
    let mut site = Site::new();
    site.set("PROVISIONER_WALDUR_API_URL", "https://waldur.example.org/api/");
    site.set("PROVISIONER_WALDUR_API_TOKEN", WALDUR_TOKEN);
    site.set("PROVISIONER_LEASE_URL", "redis://:pa55@127.0.0.1:1/0");
    let output = site.run(&["config"]).exits_with(0);
    for key in ["proxy.client_secret", "waldur.api_token", "lease.url", "systems", "PROVISIONER_PROXY_URL", "default"] {
        assert!(output.out.contains(key), "{key} is missing: {}", output.out);
    }
    site.set("PROVISIONER_RUN_INTERVAL", "soon");
    let output = site.run(&["plan"]).exits_with(78).stderr_has("PROVISIONER_RUN_INTERVAL");
    assert!(output.out.is_empty(), "{}", output.out);
    site.unset("PROVISIONER_PROXY_URL");
    site.run(&["plan"]).exits_with(78).stderr_has("proxy.url").stderr_has("PROVISIONER_RUN_INTERVAL");
    site.run(&["paint"]).exits_with(2);
}

#[test]
fn the_debug_log_has_no_secrets() {
    let mut site = Site::without_relay();
    site.set("PROVISIONER_DEBUG", "true");
    site.use_waldur_token();
    site.order(SLURM, 0, 10);
    let output = site.apply();
    assert!(output.err.contains("callback"), "{}", output.err);
    assert!(!output.err.contains("eyJ"), "a token of the realm: {}", output.err);
    let journal = std::fs::read_to_string(site.state("journal")).unwrap();
    assert!(!journal.contains(WALDUR_TOKEN) && !journal.contains("eyJ"));
}
