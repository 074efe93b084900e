//! Commands that look and never touch: `explain`, `status`, `usage`, `config`.

use serde_json::json;
use uuid::Uuid;

use crate::support::{BASIC, SLURM, Site, WALDUR_TOKEN};

const PATH: &str = "/capstor/store/cscs/uni/p0";

#[test]
fn explain_tells_the_whole_story_by_any_name() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    let id = made.resource.to_string();
    for name in [&*id, &made.resource.simple().to_string(), PATH] {
        let said = site.run(&["explain", name]).ends_with(0);
        for words in [&*id, PATH, "create order", "pending-provider", "nothing is there", "approve, ensure", "30500"] {
            assert!(said.out.contains(words), "{words:?} is missing: {}", said.out);
        }
    }
    site.apply();
    let said = site.run(&["explain", PATH]).ends_with(0);
    for words in [
        "no order in progress",
        "mode 2770",
        "space 10 TB, inodes",
        "begun by apply by user",
        "ended",
        "set_state_done: accepted",
    ] {
        assert!(said.out.contains(words), "{words:?} is missing: {}", said.out);
    }
    assert!(said.out.contains("nothing: all is as it should be"), "{}", said.out);
    let told = site.json(&["explain", &id]);
    assert_eq!(told["resource"], id);
    assert_eq!(told["path"], PATH);
    assert_eq!((&told["begun"], &told["order"], &told["next"]["tasks"]), (&json!(false), &json!(null), &json!([])));
    assert!(told["story"].as_array().unwrap().len() > 5, "{told:#}");
    let strange = Uuid::from_u128(7).to_string();
    site.run(&["explain", &strange]).ends_with(1).told("is not among the 1 resources");
    site.run(&["explain", "/capstor/other"]).ends_with(1).told("is it in the proxy's list?");
}

#[test]
#[expect(clippy::print_stderr, reason = "what is skipped is said aloud")]
fn explain_shows_acls_and_how_they_should_be() {
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
    site.run(&["explain", PATH]).ends_with(0).says("ACL none instead of u:900:r-x,g::rwx").says("ACL differs");
    site.set("PROVISIONER_DRIFT_HEAL", "true");
    site.apply().says("1 done");
    site.run(&["explain", PATH]).ends_with(0).says("ACL u:900:r-x,g::rwx\n").says("nothing: all is as it should be");
}

#[test]
fn of_resources_with_one_path_the_one_in_use_is_meant_or_each_is_named() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    site.order_end(made.resource);
    site.apply();
    assert_eq!(site.json(&["explain", PATH])["resource"], made.resource.to_string());
    let anew = site.order(SLURM, 0, 10);
    assert_eq!(site.json(&["explain", PATH])["resource"], anew.resource.to_string());
    assert_eq!(site.json(&["explain", &made.resource.to_string()])["resource"], made.resource.to_string());
    let other = site.order(SLURM, 0, 10);
    let said = site.run(&["explain", PATH]).ends_with(1);
    for resource in [anew.resource, other.resource] {
        assert!(said.err.contains(&format!("{resource} (pending)")), "{}", said.err);
    }
}

#[test]
fn explain_says_why_there_is_no_directory() {
    let site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.simulator.world(|world| world.hpc.set_gid("p0", None));
    site.run(&["explain", &made.resource.to_string()]).ends_with(1).told("skipped by the proxy");
    site.run(&["plan"]).ends_with(0).says("skipped by the proxy").says("0 to do, 1 held");
    site.simulator.world(|world| world.hpc.set_gid("p0", Some(7)));
    let said = site.run(&["explain", PATH]).ends_with(0).says("the GID 7 is reserved for the system").says("lowest_id");
    assert!(said.out.contains("refused"), "a person corrects it: {}", said.out);
}

#[test]
fn status_counts_what_waits() {
    let site = Site::new();
    let made = [0, 1, 2].map(|number| site.order(SLURM, number, 10));
    site.apply();
    site.order_end(made[0].resource);
    site.apply();
    site.order(BASIC, 0, 10);
    std::fs::rename(site.at("/capstor/store/cscs/uni/p1"), site.directory.path().join("away")).unwrap();
    let said = site.run(&["status"]).ends_with(0).says("restore PATH --make");
    let words: Vec<_> = said.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in ["to do 1", "begun 0", "drift 1", "trash 1 on capstor", "trash 0 on tape"] {
        assert!(words.iter().any(|said| said == line), "{line:?} is missing: {}", said.out);
    }
    let told = site.json(&["status"]);
    assert_eq!((&told["to_do"], &told["begun"], &told["held"]), (&json!(1), &json!(0), &json!({"drift": 1})));
    assert_eq!(told["in_trash"], json!({"capstor": 1, "tape": 0}));
}

#[test]
fn usage_is_shown_and_reported() {
    let mut site = Site::new();
    let made = site.order(SLURM, 0, 10);
    site.apply();
    std::fs::write(site.at(PATH).join("data"), vec![1; 3 << 20]).unwrap();
    std::fs::create_dir(site.at(PATH).join("folder")).unwrap();
    let told = site.json(&["usage"]);
    assert_eq!((&told[0]["resource"], &told[0]["path"]), (&json!(made.resource), &json!(PATH)));
    let space = told[0]["usage"]["space"].as_u64().unwrap();
    assert!((3 << 20..4 << 20).contains(&space), "{space}");
    assert_eq!(told[0]["usage"]["inodes"], 3);
    assert_eq!(told[0]["limits"]["space_hard"], 10_000_000_000_000_u64);
    site.run(&["usage"]).ends_with(0).says(PATH).says(" MB of 10 TB (0 %), 3 of ").says("1 in use on capstor: 3.");
    let second = site.order(SLURM, 1, 10);
    site.apply();
    site.order_end(second.resource);
    site.apply();
    let told = site.json(&["usage", "--sort", "space"]);
    assert_eq!((&told[0]["path"], &told[0]["in_trash_since"]), (&json!(PATH), &json!(null)));
    assert_eq!((&told[1]["resource"], &told[1]["usage"]["inodes"]), (&json!(second.resource), &json!(1)));
    assert!(told[1]["in_trash_since"].is_u64() && told[0]["percent"]["space"].is_number(), "{told}");
    site.run(&["usage", "--sort", "percent"])
        .ends_with(0)
        .says("in the trash of capstor since 20")
        .says("1 in the trash on");

    site.run(&["usage", "--report"]).ends_with(1).told("--report needs waldur.api_url and waldur.api_token");
    site.set("PROVISIONER_WALDUR_API_URL", &format!("{}/api/", site.simulator.base_url()));
    site.set("PROVISIONER_WALDUR_API_TOKEN", WALDUR_TOKEN);
    site.run(&["usage", "--report"]).ends_with(0).says("1 reported to Waldur.");
    let reported = site.simulator.world(|world| world.usages.clone());
    assert_eq!(reported.len(), 1);
    assert_eq!((reported[0].resource, &*reported[0].component), (made.resource, "storage"));
    assert!((reported[0].amount - 0.01).abs() < f64::EPSILON, "rounded up: {}", reported[0].amount);

    // Waldur takes none of a resource that is erred, which is shown all the same.
    site.simulator.world(|world| world.resources.get_mut(&made.resource).unwrap().set("state", "Erred"));
    site.run(&["usage", "--report"]).ends_with(0).says(PATH).says("0 reported to Waldur.");
    site.simulator.world(|world| world.resources.get_mut(&made.resource).unwrap().set("state", "OK"));

    site.set("PROVISIONER_USAGE_COMPONENT", "moons");
    let said = site.run(&["usage", "--report"]).ends_with(1).told(PATH).told("400");
    assert!(said.err.contains("1 could not be read or reported"), "{}", said.err);
}

#[test]
fn what_the_proxy_does_not_list_is_found_and_an_empty_list_is_no_success() {
    let site = Site::new();
    site.run(&["plan"]).ends_with(0).told("the proxy's list is empty");
    let made = [0, 1].map(|number| site.order(SLURM, number, 10));
    site.apply();
    site.order_end(made[1].resource);
    site.apply();
    site.run(&["status", "--orphans"]).ends_with(0).says("0 on the storage");
    site.simulator.world(|world| world.resources.shift_remove(&made[1].resource));
    site.run(&["apply"]).ends_with(0);
    site.run(&["status", "--orphans"]).ends_with(0).says("1 on the storage").says("in the trash since 20");
    site.simulator.world(|world| world.resources.shift_remove(&made[0].resource));
    for command in ["apply", "plan", "status"] {
        site.run(&[command]).ends_with(1).told("the proxy's list is empty").told("the journal shows");
    }
    assert!(site.at(PATH).is_dir());
    let said = site.run(&["status", "--orphans", "--json"]).ends_with(1);
    let orphans: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&orphans[0]["resource"], &orphans[0]["path"]), (&json!(made[0].resource), &json!("store/cscs/uni/p0")));
    assert_eq!(orphans[1]["resource"], json!(made[1].resource));
    std::fs::remove_file(site.state("journal")).unwrap();
    site.run(&["plan"]).ends_with(1).told("capstor has directories of resources");
}

#[test]
fn the_settings_are_shown_with_their_sources_and_without_secrets() {
    let mut site = Site::new();
    site.set("PROVISIONER_WALDUR_API_URL", "https://waldur.example.org/api/");
    site.set("PROVISIONER_WALDUR_API_TOKEN", WALDUR_TOKEN);
    site.set("PROVISIONER_LEASE_URL", "redis://:pa55@127.0.0.1:1/0");
    let said = site.run(&["config"]).ends_with(0);
    for key in ["proxy.client_secret", "waldur.api_token", "lease.url", "systems", "PROVISIONER_PROXY_URL", "default"] {
        assert!(said.out.contains(key), "{key} is missing: {}", said.out);
    }
    site.set("PROVISIONER_RUN_INTERVAL", "soon");
    let said = site.run(&["plan"]).ends_with(78).told("PROVISIONER_RUN_INTERVAL");
    assert!(said.out.is_empty(), "{}", said.out);
    site.unset("PROVISIONER_PROXY_URL");
    site.run(&["plan"]).ends_with(78).told("proxy.url").told("PROVISIONER_RUN_INTERVAL");
    site.run(&["paint"]).ends_with(2);
}

#[test]
fn the_log_of_every_exchange_has_no_secret() {
    let mut site = Site::without_relay();
    site.set("PROVISIONER_DEBUG", "true");
    site.set("PROVISIONER_WALDUR_API_URL", &format!("{}/api/", site.simulator.base_url()));
    site.set("PROVISIONER_WALDUR_API_TOKEN", WALDUR_TOKEN);
    site.order(SLURM, 0, 10);
    let said = site.apply();
    assert!(said.err.contains("callback"), "{}", said.err);
    assert!(!said.err.contains("eyJ"), "a token of the realm: {}", said.err);
    let journal = std::fs::read_to_string(site.state("journal")).unwrap();
    assert!(!journal.contains(WALDUR_TOKEN) && !journal.contains("eyJ"));
}
