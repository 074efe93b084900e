//! Finds the differences of two JSON values.

use std::collections::BTreeSet;

use serde_json::{Number, Value};

/// A difference at one path.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change<'a> {
    /// For example `a.b[0].c`; a key with special characters is written as `["key"]`.
    pub(super) path: String,
    pub(super) ours: Option<&'a Value>,
    pub(super) theirs: Option<&'a Value>,
}

/// All differences, as deep as possible: if both values are maps or lists, the entries are compared. The spelling of
/// numbers (`10`, `10.0`) and the order of keys are ignored.
pub(super) fn changes<'a>(ours: &'a Value, theirs: &'a Value) -> Vec<Change<'a>> {
    let mut found = Vec::new();
    walk(String::new(), Some(ours), Some(theirs), &mut found);
    found
}

fn walk<'a>(path: String, ours: Option<&'a Value>, theirs: Option<&'a Value>, found: &mut Vec<Change<'a>>) {
    match (ours, theirs) {
        (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
            let keys: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
            for key in keys {
                walk(step(&path, key), ours.get(key), theirs.get(key), found);
            }
        }
        (Some(Value::Array(ours)), Some(Value::Array(theirs))) => {
            let entries = 0..ours.len().max(theirs.len());
            for at in entries {
                walk(format!("{path}[{at}]"), ours.get(at), theirs.get(at), found);
            }
        }
        (Some(Value::Number(a)), Some(Value::Number(b))) if same(a, b) => {}
        _ if ours == theirs => {}
        _ => found.push(Change { path, ours, theirs }),
    }
}

fn step(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match (plain, path.is_empty()) {
        (false, _) => format!("{path}[{}]", Value::from(key)),
        (true, true) => key.to_owned(),
        (true, false) => format!("{path}.{key}"),
    }
}

/// Integers are compared as integers: large ones would lose precision as floats.
fn same(a: &Number, b: &Number) -> bool {
    let whole = |number: &Number| number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a.as_f64() == b.as_f64(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;

    fn paths(ours: &Value, theirs: &Value) -> Vec<String> {
        changes(ours, theirs).into_iter().map(|change| change.path).collect()
    }

    #[test]
    fn differences_have_their_paths() {
        let ours = json!({"a": {"b": [{"c": 1}, 2]}, "d": null, "e.f": 1, "g": [1, 2], "h": {"i": 1}});
        let theirs = json!({"a": {"b": [{"c": 2}, 2]}, "e.f": 2, "g": [1], "h": null});
        assert_eq!(paths(&ours, &theirs), ["a.b[0].c", "d", "[\"e.f\"]", "g[1]", "h"]);
        let absent = &changes(&ours, &theirs)[1];
        assert_eq!((absent.ours, absent.theirs), (Some(&Value::Null), None));
    }

    #[test]
    fn numbers_are_compared_by_value() {
        assert!(paths(&json!([10, 1e-7, 0]), &json!([10.0, 0.000_000_1, -0.0])).is_empty());
        assert_eq!(paths(&json!([10, "1"]), &json!(["10", 1])), ["[0]", "[1]"]);
        assert_eq!(paths(&json!(9_007_199_254_740_993_u64), &json!(9_007_199_254_740_992_u64)), [""]);
        assert_eq!(paths(&json!(true), &json!(1)), [""]);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(Value::from),
            "[a-z./\"]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-c._]{0,3}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    /// Every value other than maps and lists, with its path.
    fn leaves<'a>(path: &str, value: &'a mut Value, out: &mut Vec<(String, &'a mut Value)>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    leaves(&step(path, key), value, out);
                }
            }
            Value::Array(list) => {
                for (at, value) in list.iter_mut().enumerate() {
                    leaves(&format!("{path}[{at}]"), value, out);
                }
            }
            leaf => out.push((path.to_owned(), leaf)),
        }
    }

    proptest! {
        #[test]
        fn a_value_does_not_differ_from_itself(value in value()) {
            prop_assert!(changes(&value, &value.clone()).is_empty());
        }

        #[test]
        fn the_comparison_is_symmetric(a in value(), b in value()) {
            let there: Vec<_> = changes(&a, &b).into_iter().map(|c| (c.path, c.ours, c.theirs)).collect();
            let back: Vec<_> = changes(&b, &a).into_iter().map(|c| (c.path, c.theirs, c.ours)).collect();
            prop_assert_eq!(there, back);
        }

        #[test]
        fn a_change_is_found_with_its_path(value in value(), which in any::<prop::sample::Index>()) {
            let mut changed = value.clone();
            let mut all = Vec::new();
            leaves("", &mut changed, &mut all);
            prop_assume!(!all.is_empty());
            let chosen = which.index(all.len());
            let (path, leaf) = all.swap_remove(chosen);
            *leaf = json!("another value");
            prop_assert_eq!(paths(&value, &changed), [path]);
        }
    }
}
