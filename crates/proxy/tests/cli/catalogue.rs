//! `list` and `tree`.

use std::process::Stdio;

use serde_json::{Map, Value, json};
use simulator::World;
use simulator::world::ResourceState;

use crate::site::{Ended, Site, golden};

/// The value with all numbers as floats, so that different spellings are equal.
fn with_floats(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(with_floats).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.clone(), with_floats(value))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

fn items(document: &Value) -> &Vec<Value> {
    document["resources"].as_array().unwrap()
}

#[test]
fn the_list_matches_the_listing_of_the_api() {
    for case in ["plain", "missing-gids", "odd-values", "one-project", "empty"] {
        let site = Site::golden(case);
        let answers = golden(case, "answers.json");
        for (query, arguments) in [
            ("?page_size=500", &["list", "--json"][..]),
            ("?storage_system=capstor&page_size=500", &["list", "--json", "--storage-system", "capstor"]),
            ("?data_type=Scratch&page_size=500", &["list", "--json", "--data-type", "Scratch"]),
        ] {
            let answer = answers.as_array().unwrap().iter().find(|answer| answer["query"] == query).unwrap();
            let ended = site.run(arguments);
            assert_eq!(ended.code, Some(0), "{case} {arguments:?}: {}", ended.stderr);
            let document = ended.json();
            assert_eq!(document["status"], "success");
            let (ours, recorded) = (items(&document), items(&answer["body"]));
            for (item, expected) in ours.iter().zip(recorded) {
                assert_eq!(with_floats(item), with_floats(expected), "{case} {arguments:?}");
            }
            assert_eq!(ours.len(), recorded.len(), "{case} {arguments:?}");
        }
    }
}

#[test]
fn skipped_resources_are_reported_with_their_reasons() {
    let site = Site::golden("missing-gids");
    let ended = site.run(&["list"]);
    let document = site.run(&["list", "--json"]).json();
    let skipped = document["skipped"].as_array().unwrap();
    assert!(!skipped.is_empty());
    assert_eq!(ended.code, Some(0));
    let reported: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(reported.len(), skipped.len() + 1, "{reported:#?}");
    assert_eq!(reported[0], format!("{} resources skipped:", skipped.len()));
    for (line, skipped) in reported[1..].iter().zip(skipped) {
        let [id, error, detail] = ["itemId", "error", "detail"].map(|key| skipped[key].as_str().unwrap());
        assert_eq!(*line, format!("  {id}  {error}: {detail}"));
    }
    assert_eq!(ended.stdout.lines().count(), 1 + items(&document).len());

    let site = site.with("ON_PROCESSING_ERROR", "fail");
    let ended = site.run(&["tree"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.ends_with("the API returns 500 until they are fixed.\n"), "{}", ended.stderr);
    assert!(ended.stdout.lines().count() > 1);
}

#[test]
fn one_resource_is_found_by_its_id_in_both_spellings() {
    let site = Site::golden("missing-gids");
    let document = site.run(&["list", "--json"]).json();
    let item = items(&document).last().unwrap()["itemId"].as_str().unwrap();
    let skipped = &document["skipped"][0];
    let skipped_id = skipped["itemId"].as_str().unwrap();
    for (id, shown, reported) in [(item, 2, 0), (skipped_id, 0, 2)] {
        for spelling in [id.to_owned(), id.replace('-', "")] {
            let ended = site.run(&["list", "--id", &spelling]);
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert_eq!(ended.stdout.lines().count(), shown, "{ended:?}");
            assert_eq!(ended.stderr.lines().count(), reported, "{ended:?}");
            assert!(format!("{}{}", ended.stdout, ended.stderr).contains(id), "{ended:?}");
        }
    }
    let ended = site.run(&["list", "--id", skipped_id]);
    assert!(ended.stderr.contains(skipped["detail"].as_str().unwrap()), "{ended:?}");
    let json = site.run(&["list", "--json", "--id", skipped_id]).json();
    assert_eq!((items(&json).len(), json["skipped"].as_array().unwrap().len()), (0, 1));
    let unknown = "00000000000000000000000000000bad";
    let ended = site.run(&["list", "--id", unknown]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    assert!(
        ended.stderr.contains("neither an item nor a skipped resource") && ended.stderr.contains("storage_systems"),
        "{ended:?}"
    );
    for arguments in [&["list", "--id", "no-uuid"][..], &["list", "--id", unknown, "--status", "active"]] {
        assert_eq!(site.run(arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn the_table_shows_each_item_on_a_line() {
    let ended = Site::golden("one-project").with("STORAGE_SYSTEMS", r#"{"capstor": "capstor"}"#).run(&["list"]);
    let rows: Vec<Vec<_>> = ended
        .stdout
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let header = ["MOUNT POINT", "STATUS", "TYPE", "MODE", "UID", "GID", "SPACE", "INODES", "ORDER"];
    assert_eq!(rows[0], header);
    assert_eq!(rows[1][1..], ["pending", "tenant", "775", "-", "-", "-", "-", "-"]);
    assert_eq!(rows[3][2..8], ["project", "775", "-", "30500", "10 TB", "20M"]);
    assert_eq!(rows.len(), 4);
    assert_eq!(ended.stderr, "");
}

#[test]
fn orders_and_their_changes_are_shown() {
    let site = Site::new(World::demo());
    let ended = site.run(&["list", "--status", "updating"]);
    for text in ["to approve", "executing", "30 → 40 TB"] {
        assert!(ended.stdout.contains(text), "{text}: {}", ended.stdout);
    }
    let statuses = ended.stdout.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap());
    assert!(statuses.clone().count() > 0 && statuses.clone().all(|status| status == "updating"), "{}", ended.stdout);
    let creating = site.run(&["list", "--state", "Creating", "--json"]).json();
    let leaf = |item: &&Value| !["tenant", "customer"].contains(&item["target"]["targetType"].as_str().unwrap());
    assert!(items(&creating).iter().filter(leaf).all(|item| item["status"] == "pending"));
    assert!(items(&creating).iter().any(|item| leaf(&item)));
}

#[test]
fn invalid_filter_values_are_rejected_with_the_valid_ones() {
    let site = Site::golden("plain");
    for (arguments, named) in [
        (["list", "--storage-system", "nope"], "capstor, vast, iopsstor"),
        (["tree", "--storage-system", ""], "capstor, vast, iopsstor"),
        (["list", "--status", "bogus"], "pending, active, removing, removed, error, updating, unknown"),
        (["tree", "--state", "ok"], "Creating, Erred, OK, Terminated, Terminating, Updating"),
    ] {
        let ended = site.run(&arguments);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(named) && ended.stdout.is_empty(), "{ended:?}");
    }
    assert_eq!(site.simulator.requests().len(), 0);
}

#[test]
fn an_upstream_failure_is_one_line() {
    let site = Site::golden("plain").with("WALDUR_API_TOKEN", "2".repeat(40));
    for arguments in [["list", "--json"], ["tree", "--json"]] {
        let Ended { code, stdout, stderr } = site.run(&arguments);
        assert_eq!((code, stdout.as_str()), (Some(1), ""));
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains("check WALDUR_API_TOKEN") && stderr.contains("`hpc-storage-proxy check`"), "{stderr}");
    }
}

#[test]
fn the_log_is_not_mixed_with_the_result() {
    let site = Site::golden("plain").with("DEBUG", "true");
    let ended = site.run(&["list", "--json"]);
    assert!(!items(&ended.json()).is_empty());
    assert!(ended.stderr.contains("upstream exchange") && ended.stderr.contains("mapped"), "{}", ended.stderr);
    assert!(!ended.stderr.contains('\u{1b}') && !ended.stdout.contains('\u{1b}'));
}

#[test]
fn control_characters_in_a_path_are_escaped() {
    let mut world = World::demo();
    let (offering, project) = (world.offering_by_slug("vast").unwrap().uuid, *world.projects.keys().next().unwrap());
    let record = json!({"limits": {"storage": 1}, "attributes": {"storage_data_type": "store"}, "backend_id": "/vast/\u{1b}[2Jx"});
    let Value::Object(record) = record else { unreachable!() };
    world.add_resource((offering, project), "nasty", ResourceState::Ok, record);
    let ended = Site::new(world).run(&["list"]);
    assert!(ended.stdout.contains(r"/vast/\u{1b}[2Jx") && !ended.stdout.contains('\u{1b}'), "{}", ended.stdout);
}

#[test]
fn closing_the_output_early_is_no_failure() {
    let site = Site::new(World::large(200));
    for arguments in
        [&["list"][..], &["tree", "--json"], &["config"], &["completions", "bash"], &["openapi"], &["check"]]
    {
        let mut command = site.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = Ended::of(child.wait_with_output().unwrap());
        let read = site.run(arguments);
        assert!(!read.stdout.is_empty(), "{arguments:?}");
        assert_eq!((ended.code, ended.stderr), (read.code, read.stderr), "{arguments:?}");
    }
}

/// Every item of the tree with its parent in the tree.
fn walk<'a>(nodes: &'a Value, parent: Option<&'a Value>, out: &mut Vec<(&'a Value, Option<&'a Value>)>) {
    for node in nodes.as_array().unwrap() {
        out.push((&node["item"], parent));
        walk(&node["children"], Some(&node["item"]), out);
    }
}

#[test]
fn the_tree_contains_each_item_below_its_parent() {
    for site in [Site::golden("odd-values"), Site::new(World::demo())] {
        let list = site.run(&["list", "--json"]).json();
        let tree = site.run(&["tree", "--json"]).json();
        let mut walked = Vec::new();
        walk(&tree["tree"], None, &mut walked);
        let key = |item: &&Value| item.to_string();
        let (mut one, mut other): (Vec<_>, Vec<_>) =
            (items(&list).iter().collect(), walked.iter().map(|(item, _)| *item).collect());
        one.sort_by_key(key);
        other.sort_by_key(key);
        assert_eq!(one, other);
        assert_eq!(list["skipped"], tree["skipped"]);
        for (item, parent) in &walked {
            let Some(parent) = parent else {
                assert_eq!(item["parentItemId"], Value::Null, "{item}");
                continue;
            };
            assert_eq!(item["parentItemId"], parent["itemId"]);
            assert_eq!(item["storageSystem"], parent["storageSystem"]);
            assert_eq!(item["storageDataType"], parent["storageDataType"]);
        }
        let text = site.run(&["tree"]);
        assert_eq!(text.stdout.lines().count(), 1 + walked.len());
    }
}

#[test]
fn a_filtered_tree_keeps_the_nodes_above() {
    let site = Site::new(World::demo());
    let tree = site.run(&["tree", "--json", "--status", "error"]).json();
    let mut walked = Vec::new();
    walk(&tree["tree"], None, &mut walked);
    let kinds: Vec<_> = walked.iter().map(|(item, _)| item["target"]["targetType"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["tenant", "customer", "project", "project"]);
    assert!(walked[2..].iter().all(|(item, _)| item["status"] == "error"));
    let text = site.run(&["tree", "--status", "error"]).stdout;
    let guides: Vec<_> = text.lines().skip(1).map(|line| line.split('/').next().unwrap()).collect();
    assert_eq!(guides, ["", "└── ", "    ├── ", "    └── "]);
}
