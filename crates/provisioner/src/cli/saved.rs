//! Compares a plan that `plan --out` wrote with the current plan.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use provisioner_core::plan::Plan;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Failure, failure};
use crate::pass::Survey;

/// The tasks of a plan file.
#[derive(Debug, Deserialize)]
pub(super) struct Saved {
    tasks: Vec<SavedTask>,
}

/// A task with everything that it depends on: the order, the observed and the desired values.
#[derive(Debug, Deserialize)]
struct SavedTask {
    id: Uuid,
    path: String,
    #[serde(flatten)]
    rest: Value,
}

impl Saved {
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let text = std::fs::read(file).map_err(|error| failure(format!("{}: {error}", file.display())))?;
        serde_json::from_slice(&text)
            .map_err(|error| failure(format!("{} is not a plan of `plan --out`: {error}", file.display())))
    }

    /// The resources of the tasks.
    pub(super) fn resources(&self) -> BTreeSet<Uuid> {
        self.tasks.iter().map(|task| task.id).collect()
    }

    /// The differences from the current plan, one line each; empty if all tasks of the file would be planned identically now.
    pub(super) fn differences(&self, plan: &Plan, survey: &Survey) -> Result<Vec<String>, serde_json::Error> {
        let now: BTreeMap<_, _> = plan.tasks.iter().map(|task| (task.id, task)).collect();
        let mut lines = Vec::new();
        for saved in &self.tasks {
            let name = format!("{} ({})", saved.path, saved.id);
            let Some(task) = now.get(&saved.id) else {
                lines.push(format!("{name}: {}", missing(saved.id, plan, survey)));
                continue;
            };
            let mut now = values(&serde_json::to_value(task)?);
            let mut old = values(&saved.rest);
            old.insert("path".into(), saved.path.clone());
            now.remove("id");
            let names: BTreeSet<_> = old.keys().chain(now.keys()).collect();
            let value = |of: &BTreeMap<String, String>, name| of.get(name).cloned().unwrap_or_else(|| "none".into());
            for changed in names.into_iter().filter(|name| old.get(*name) != now.get(*name)) {
                lines.push(format!("{name}: {changed}: {} → {}", value(&old, changed), value(&now, changed)));
            }
        }
        Ok(lines)
    }
}

/// Why the current plan does not have a task.
fn missing(id: Uuid, plan: &Plan, survey: &Survey) -> String {
    if let Some(held) = plan.held.iter().find(|held| held.id == Some(id)) {
        return format!("held now ({}): {}", held.hold.name(), held.reason);
    }
    if survey.cases.iter().any(|case| case.resource.id == id) {
        return "there is nothing left to do".into();
    }
    "no longer in the document, or not on a system of --system".into()
}

/// The values of a task, each with a name for people, such as `ensure mode` or `mode, observed`.
fn values(task: &Value) -> BTreeMap<String, String> {
    fn walk(name: &str, value: &Value, found: &mut BTreeMap<String, String>) {
        let text = match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    let space = if name.is_empty() { "" } else { " " };
                    walk(&format!("{name}{space}{}", key.replace('_', " ")), value, found);
                }
                return;
            }
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        found.insert(name.to_owned(), text);
    }
    let mut task = task.clone();
    let mut list = |key| task.get_mut(key).map(Value::take).and_then(|it| it.as_array().cloned()).unwrap_or_default();
    let (steps, changes) = (list("steps"), list("changes"));
    let mut found = BTreeMap::new();
    walk("", &task, &mut found);
    // A step is a name, or an object with the name as its only key.
    let name = |step: &Value| match step {
        Value::Object(map) => map.keys().next().cloned().unwrap_or_default(),
        step => step.as_str().unwrap_or_default().to_owned(),
    };
    found.insert("steps".into(), steps.iter().map(name).collect::<Vec<_>>().join(", "));
    for step in steps.iter().filter(|step| step.is_object()) {
        walk("", step, &mut found);
    }
    for change in changes {
        let what = change["what"].as_str().unwrap_or_default();
        walk(&format!("{what}, observed"), &change["old"], &mut found);
        walk(&format!("{what}, desired"), &change["new"], &mut found);
    }
    found
}
