//! Mount points.

use serde_json::json;
use simulator::world::OrderState;

use crate::bench::{Bench, Expected, Ordered};
use crate::case::{Case, Level};
use crate::outcome::{Failure, Outcome, seen};

const MARK: &str = "8.3: Use an existing directory only if it has the resource's own mark. Anything else at its path needs an operator's decision";
const PATH: &str = "4: mountPoint.default is the absolute path, or the backend_id that Waldur holds, unchanged: whatever somebody has written there";
const OWN: &str = "6: Path: backend_id if it is not empty";

/// Paths that no directory may have. Each would leave the root, or is the root itself.
const OUTSIDE: [(&str, &str); 7] = [
    ("parent", "/capstor/../../escaped"),
    ("parent-at-the-end", "/capstor/store/cscs/uni/.."),
    ("dots-inside", "/capstor/store/../../../../../../../../../tmp/escaped-from-conformance"),
    ("relative", "capstor/store/escaped"),
    ("the-root", "/"),
    ("not-a-path", "fileset:uni-p0"),
    ("control-character", "/capstor/store/cscs/uni/a\nb"),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("paths/backend-id", Level::Must, OWN, backend_id),
        Case::new("paths/backend-id-terminate", Level::Must, OWN, backend_id_terminate),
        Case::new("paths/two-resources-one-path", Level::Must, MARK, two_resources),
        Case::new("paths/foreign-directory", Level::Must, MARK, foreign_directory),
        Case::new("paths/foreign-directory-terminate", Level::Must, MARK, foreign_directory_terminate),
        Case::new(
            "paths/again-after-a-termination",
            Level::Must,
            "8.3: On termination, move the directory to a trash; its path is free for another resource, which does not get the data",
            again,
        ),
    ];
    cases.push(Case::new("paths/outside-link", Level::Must, PATH, outside_link));
    for (name, path) in OUTSIDE {
        let level = if name == "control-character" { Level::Should } else { Level::Must };
        cases.push(Case::new(format!("paths/outside-{name}"), level, PATH, move |bench| outside(bench, path)));
    }
    cases
}

/// An order for a resource that has this `backend_id` already.
fn order_at(bench: &Bench<'_>, number: u32, path: &str) -> Ordered {
    let attributes = json!({ "storage_data_type": "store", "permissions": "2770" });
    let ordered = bench.request(number, json!({ "storage": 10 }), attributes);
    bench.world(|world| world.change(ordered.resource, "backend_id", json!(path)));
    bench.approved(ordered)
}

fn backend_id(bench: &mut Bench<'_>) -> Outcome {
    let ordered = order_at(bench, 0, "/capstor/store/cscs/uni/another-name");
    bench.start()?;
    bench.done(ordered)?;
    bench.is(ordered, &Expected::of(0, 10))?;
    match bench.path(ordered.resource) {
        path if path.ends_with("/another-name") => Ok(()),
        path => seen(format!("Waldur's backend_id is now {path:?}")),
    }
}

fn backend_id_terminate(bench: &mut Bench<'_>) -> Outcome {
    let ordered = order_at(bench, 0, "/capstor/store/cscs/uni/another-name");
    bench.start()?;
    bench.done(ordered)?;
    let ended = bench.order_end(ordered.resource);
    bench.done(ended)?;
    bench.is_in_trash(ended)
}

fn outside(bench: &mut Bench<'_>, path: &str) -> Outcome {
    bench.allow_refusal();
    let before = entries_of_tmp();
    let (strange, other) = (order_at(bench, 0, path), bench.order(1, 10));
    bench.start()?;
    bench.done(other)?;
    bench.settle()?;
    if bench.order_state(strange) == Some(OrderState::Done) {
        return seen(format!("a directory at {path:?} was reported as done"));
    }
    let new = entries_of_tmp().into_iter().find(|name| name.contains("escaped") && !before.contains(name));
    if let Some(name) = new {
        return seen(format!("it made /tmp/{name}"));
    }
    bench.is(other, &Expected::of(1, 10))
}

fn entries_of_tmp() -> Vec<String> {
    let entries = std::fs::read_dir("/tmp").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// At most one of them gets the directory.
fn two_resources(bench: &mut Bench<'_>) -> Outcome {
    let (first, second) = (bench.order(0, 10), bench.order(0, 20));
    let other = bench.order(1, 10);
    bench.start()?;
    bench.done(other)?;
    bench.settle()?;
    let done = [first, second].map(|ordered| bench.order_state(ordered) == Some(OrderState::Done));
    if done == [true, true] {
        return seen("both orders for one path were reported as done");
    }
    for (ordered, done, size) in [(first, done[0], 10), (second, done[1], 20)] {
        if done {
            bench.is(ordered, &Expected::of(0, size))?;
        }
    }
    Ok(())
}

fn planted(bench: &Bench<'_>, path: &str) -> Outcome {
    done_or_skipped(bench.probe.plant(path, false), "json, posix and xfs")
}

fn done_or_skipped(done: anyhow::Result<bool>, probes: &str) -> Outcome {
    match done {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Skipped(format!("it needs one of the probes {probes}"))),
        Err(error) => Err(Failure::Broken(format!("{error:#}"))),
    }
}

fn still_there(bench: &Bench<'_>, path: &str) -> Outcome {
    match bench.probe.is_planted(path) {
        Ok(true) => Ok(()),
        Ok(false) => seen(format!("the directory of somebody else at {path} was changed")),
        Err(error) => Err(bench.probe.failure(&error)),
    }
}

fn foreign_directory(bench: &mut Bench<'_>) -> Outcome {
    let paths = ["/capstor/store/cscs/uni/p0", "/capstor/store/cscs/uni/p2"];
    for (path, is_empty) in paths.into_iter().zip([false, true]) {
        done_or_skipped(bench.probe.plant(path, is_empty), "json, posix and xfs")?;
    }
    let (orders, other) = ([bench.order(0, 10), bench.order(2, 10)], bench.order(1, 10));
    bench.start()?;
    bench.done(other)?;
    bench.settle()?;
    for (path, ordered) in paths.into_iter().zip(orders) {
        still_there(bench, path)?;
        if bench.order_state(ordered) == Some(OrderState::Done) {
            return seen("the directory of somebody else was reported as done");
        }
    }
    Ok(())
}

/// The directory of a customer is a link to a directory outside of the root.
fn outside_link(bench: &mut Bench<'_>) -> Outcome {
    let outside = tempfile::TempDir::new().map_err(|error| Failure::Broken(error.to_string()))?;
    let parent = "/capstor/store/cscs/linked";
    done_or_skipped(bench.probe.plant_link(parent, outside.path()), "posix and xfs")?;
    let (ordered, other) = (order_at(bench, 0, &format!("{parent}/p0")), bench.order(1, 10));
    bench.start()?;
    bench.done(other)?;
    bench.settle()?;
    if std::fs::read_dir(outside.path()).into_iter().flatten().next().is_some() {
        return seen(format!("it made a directory behind the symbolic link {parent}, outside of STORAGE_ROOT"));
    }
    match bench.order_state(ordered) {
        Some(OrderState::Done) => seen(format!("a directory behind the symbolic link {parent} was reported as done")),
        _ => Ok(()),
    }
}

/// The resource to terminate is in use in Waldur, but the directory at its path is somebody else's.
fn foreign_directory_terminate(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(2)?;
    bench.stop();
    let path = "/capstor/store/cscs/uni/foreign";
    planted(bench, path)?;
    bench.world(|world| world.change(made[0].resource, "backend_id", json!(path)));
    bench.order_end(made[0].resource);
    bench.start()?;
    // Twice: the approval, and the work after it.
    bench.settle()?;
    bench.settle()?;
    still_there(bench, path)
}

fn again(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(1)?[0];
    let ended = bench.order_end(made.resource);
    bench.done(ended)?;
    let next = bench.order(0, 20);
    bench.done(next)?;
    bench.settle()?;
    bench.is(next, &Expected::of(0, 20))?;
    // The old data stays in the trash.
    match bench.probe.read("/capstor/store/cscs/uni/p0", &made.resource.to_string()).map(|probed| probed.trash) {
        Ok(Some(false)) if bench.options.probe == crate::probe::Kind::Json => {
            seen("the data of the terminated resource is lost")
        }
        _ => Ok(()),
    }
}
