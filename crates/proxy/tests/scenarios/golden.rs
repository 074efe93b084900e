//! Reproduces the recorded responses of the Python proxy, including invalid queries and paging.

use std::fs;
use std::path::Path;

use serde_json::Value;
use simulator::{Simulator, World};

use crate::support::start_with;

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Compares responses. Spellings of a number are equal; additional keys are allowed at the top level only (decision D15).
fn same(ours: &Value, theirs: &Value, top: bool) -> bool {
    match (ours, theirs) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, false)),
        (Value::Object(a), Value::Object(b)) => {
            (top || a.len() == b.len()) && b.iter().all(|(key, b)| a.get(key).is_some_and(|a| same(a, b, false)))
        }
        (a, b) => a == b,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_answer_is_reproduced() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contract/golden");
    let mut compared = 0;
    for case in fs::read_dir(folder).unwrap() {
        let case = case.unwrap().path();
        let simulator = Simulator::start(World::from_golden(&json(&case.join("upstream.json")))).await;
        let proxy = start_with(&simulator, &[]).await;
        for recorded in json(&case.join("answers.json")).as_array().unwrap() {
            let query = recorded["query"].as_str().unwrap();
            let answer = proxy.list(query).await;
            assert_eq!(recorded["status"], answer.status, "{} {query}: {}", case.display(), answer.text);
            assert!(same(&answer.body, &recorded["body"], true), "{} {query}: {}", case.display(), answer.text);
            compared += 1;
        }
    }
    assert_eq!(compared, 80);
}
