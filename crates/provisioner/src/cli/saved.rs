//! A plan that `plan --out` wrote, compared with the one that would be made now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use provisioner_core::plan::Plan;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Failure, failure};
use crate::pass::Survey;

/// The tasks of a file.
#[derive(Debug, Deserialize)]
pub(super) struct Saved {
    tasks: Vec<SavedTask>,
}

/// A task with all that it depends on: the order, the values that are there, and those that are wanted.
#[derive(Debug, Deserialize)]
struct SavedTask {
    id: Uuid,
    path: String,
    #[serde(flatten)]
    rest: Value,
}

impl Saved {
    /// Reads a file.
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let text = std::fs::read(file).map_err(|error| failure(format!("{}: {error}", file.display())))?;
        serde_json::from_slice(&text)
            .map_err(|error| failure(format!("{} is no plan of `plan --out`: {error}", file.display())))
    }

    /// Resources of its tasks.
    pub(super) fn resources(&self) -> BTreeSet<Uuid> {
        self.tasks.iter().map(|task| task.id).collect()
    }

    /// What of its tasks is not as it was, one line each; empty where all of them would be planned just like that now.
    pub(super) fn differences(&self, plan: &Plan, survey: &Survey) -> Result<Vec<String>, serde_json::Error> {
        let now: BTreeMap<_, _> = plan.tasks.iter().map(|task| (task.id, task)).collect();
        let mut lines = Vec::new();
        for saved in &self.tasks {
            let name = format!("{} ({})", saved.path, saved.id);
            let Some(task) = now.get(&saved.id) else {
                lines.push(format!("{name}: {}", missing(saved.id, plan, survey)));
                continue;
            };
            let mut now = leaves(&serde_json::to_value(task)?);
            let mut old = leaves(&saved.rest);
            old.insert("path".into(), format!("{:?}", saved.path));
            now.remove("id");
            let keys: BTreeSet<_> = old.keys().chain(now.keys()).collect();
            let value = |of: &BTreeMap<String, String>, key| of.get(key).cloned().unwrap_or_else(|| "absent".into());
            for key in keys.into_iter().filter(|key| old.get(*key) != now.get(*key)) {
                lines.push(format!("{name}: {key}: {} → {}", value(&old, key), value(&now, key)));
            }
        }
        Ok(lines)
    }
}

/// Why a task would not be planned now.
fn missing(id: Uuid, plan: &Plan, survey: &Survey) -> String {
    if let Some(held) = plan.held.iter().find(|held| held.id == Some(id)) {
        return format!("held now ({}): {}", held.hold.name(), held.reason);
    }
    if survey.cases.iter().any(|case| case.resource.id == id) {
        return "nothing is to be done for it any more".into();
    }
    "not in the document any more, or not on a system of --system".into()
}

/// Every value of a JSON text by its path in there, such as `steps[1].ensure.gid`.
fn leaves(value: &Value) -> BTreeMap<String, String> {
    fn walk(path: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                let dot = if path.is_empty() { "" } else { "." };
                map.iter().for_each(|(key, value)| walk(&format!("{path}{dot}{key}"), value, leaves));
            }
            Value::Array(list) if !list.is_empty() => {
                list.iter().enumerate().for_each(|(at, value)| walk(&format!("{path}[{at}]"), value, leaves));
            }
            value => _ = leaves.insert(path.to_owned(), value.to_string()),
        }
    }
    let mut found = BTreeMap::new();
    walk("", value, &mut found);
    found
}
