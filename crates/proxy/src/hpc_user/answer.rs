//! What the project export says about each slug. Pure.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::NoGid;
use crate::upstream::{Answer, UpstreamError};

/// What an answer says.
#[derive(Debug, PartialEq)]
pub(super) struct Read<'a> {
    /// One outcome for each slug asked for.
    pub(super) outcomes: HashMap<&'a str, Result<u32, NoGid>>,
    /// Entries for projects that were not asked for.
    pub(super) unasked: usize,
    /// Entries that are not objects or have no `posixName`, where all slugs are answered without them.
    pub(super) nameless: usize,
}

/// A body of the right shape. To repeat a member is an error here; a [`Value`] would keep the last one.
#[derive(Deserialize)]
struct Body {
    projects: Vec<Box<RawValue>>,
}

/// An entry that is an object, for the same purpose.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "posixName", default)]
    _name: IgnoredAny,
    #[serde(rename = "unixGid", default)]
    _gid: IgnoredAny,
}

/// Reads `{"projects": [{"posixName", "unixGid"}, …]}`. The order of the entries makes no difference. A malformed entry
/// concerns its own slug only; a body of another shape, or with two lists, is a fault of the whole answer. So is an entry
/// that names no project while a slug has no entry: it may be the missing one.
pub(super) fn read<'a>(answer: &Answer, asked: &[&'a str]) -> Result<Read<'a>, UpstreamError> {
    let body: Value = answer.json()?;
    let Some(projects) = body.get("projects").and_then(Value::as_array) else {
        return Err(UpstreamError::Invalid(String::from("it has no list `projects`")));
    };
    let Ok(Body { projects: raw }) = answer.json() else {
        return Err(UpstreamError::Invalid(String::from("it has more than one `projects`")));
    };
    let mut said: HashMap<&'a str, Option<Result<u32, NoGid>>> = asked.iter().map(|slug| (*slug, None)).collect();
    let (mut unasked, mut nameless) = (0, 0);
    for (project, raw) in projects.iter().zip(raw) {
        let said_now = || match serde_json::from_str::<Entry>(raw.get()) {
            Ok(_) => gid(project.get("unixGid")),
            Err(_) => Err(NoGid::Conflicting),
        };
        match project.get("posixName").and_then(Value::as_str) {
            None => nameless += 1,
            Some(name) => match said.get_mut(name) {
                None => unasked += 1,
                Some(before) => *before = Some(agreed(*before, said_now())),
            },
        }
    }
    if nameless > 0 && said.values().any(Option::is_none) {
        let what =
            format!("{nameless} entries of `projects` are not objects with a `posixName`, and a project is missing");
        return Err(UpstreamError::Invalid(what));
    }
    let unsaid = if asked.len() == 1 && unasked > 0 { NoGid::Mismatched } else { NoGid::Unknown };
    let outcomes = said.into_iter().map(|(slug, outcome)| (slug, outcome.unwrap_or(Err(unsaid)))).collect();
    Ok(Read { outcomes, unasked, nameless })
}

/// Said once or always the same: that. Anything else is a conflict, and no choice is made.
fn agreed(before: Option<Result<u32, NoGid>>, now: Result<u32, NoGid>) -> Result<u32, NoGid> {
    match before {
        Some(before) if before != now => Err(NoGid::Conflicting),
        _ => now,
    }
}

/// A JSON integer from 1 to 4294967294. One written with a zero fraction (`30500.0`) counts, since tools that hold a
/// column of numbers and nulls write it so; a number as text does not.
fn gid(value: Option<&Value>) -> Result<u32, NoGid> {
    match value {
        None | Some(Value::Null) => Err(NoGid::Null),
        Some(value) => posix_id(value).ok_or(NoGid::Invalid),
    }
}

/// A UID or GID of anybody but root.
pub(super) fn posix_id(value: &Value) -> Option<u32> {
    let id = match value.as_u64() {
        Some(integer) => u32::try_from(integer).ok()?,
        None => integral(value.as_f64()?)?,
    };
    (id != 0 && id != u32::MAX).then_some(id)
}

fn integral(number: f64) -> Option<u32> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the comparison below finds any loss")]
    let integer = number as u32;
    #[expect(clippy::float_cmp, reason = "equal to the last bit, or not integral")]
    let exact = f64::from(integer) == number;
    exact.then_some(integer)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn answer(body: impl Into<bytes::Bytes>) -> Answer {
        Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: body.into() }
    }

    fn outcome(slug: &str, projects: &Value) -> Result<u32, NoGid> {
        let body = json!({ "projects": projects });
        read(&answer(body.to_string()), &[slug]).expect("a good shape").outcomes[slug]
    }

    #[test]
    fn answers_are_told_apart() {
        let a = |gid: Value| json!({ "posixName": "a", "unixGid": gid });
        let cases = [
            (json!([a(json!(30500))]), Ok(30500)),
            (json!([{ "posixName": "a", "unixGid": 30500, "more": [1] }]), Ok(30500)),
            (json!([a(json!(30500.0))]), Ok(30500)),
            (json!([a(json!(1))]), Ok(1)),
            (json!([a(json!(4_294_967_294_u32))]), Ok(4_294_967_294)),
            (json!([]), Err(NoGid::Unknown)),
            (json!([{ "posixName": "A", "unixGid": 30500 }]), Err(NoGid::Mismatched)),
            (json!([a(json!(null))]), Err(NoGid::Null)),
            (json!([{ "posixName": "a" }]), Err(NoGid::Null)),
            (json!([a(json!(1)), a(json!(1.0))]), Ok(1)),
            (json!([a(json!(1)), a(json!(2))]), Err(NoGid::Conflicting)),
            (json!([a(json!(1)), a(json!(2)), a(json!(1))]), Err(NoGid::Conflicting)),
            (json!([a(json!(1)), a(json!(null))]), Err(NoGid::Conflicting)),
            (json!([a(json!(1)), 7, null, { "unixGid": 9 }, { "posixName": 1, "unixGid": 9 }]), Ok(1)),
        ];
        for (projects, expected) in cases {
            assert_eq!(outcome("a", &projects), expected, "{projects}");
        }
    }

    #[test]
    fn what_is_no_gid_is_invalid() {
        for gid in [
            json!(0),
            json!(-1),
            json!(-0.0),
            json!(4_294_967_295_u32),
            json!(4_294_967_296_u64),
            json!(1e40),
            json!(0.5),
            json!("30500"),
            json!(true),
            json!([30500]),
            json!({}),
        ] {
            let projects = json!([{ "posixName": "a", "unixGid": gid }, { "posixName": "other", "unixGid": 5 }]);
            assert_eq!(outcome("a", &projects), Err(NoGid::Invalid), "{gid}");
            assert_eq!(outcome("other", &projects), Ok(5), "{gid} concerns its own project only");
        }
    }

    #[test]
    fn another_project_than_the_only_one_asked_for_is_a_mismatch() {
        let body = r#"{"projects": [{"posixName": "b", "unixGid": 1}]}"#;
        let read = read(&answer(body), &["a"]).expect("a good shape");
        assert_eq!(read, Read { outcomes: [("a", Err(NoGid::Mismatched))].into(), unasked: 1, nameless: 0 });
    }

    #[test]
    fn entries_without_a_place_are_counted() {
        let body = r#"{"projects": [1, {"posixName": "b"}, {"posixName": "a", "unixGid": 1}, {}]}"#;
        let read = read(&answer(body), &["a"]).expect("a good shape");
        assert_eq!(read, Read { outcomes: [("a", Ok(1))].into(), unasked: 1, nameless: 2 });
    }

    #[test]
    fn an_entry_that_names_no_project_may_be_the_missing_one() {
        for entry in ["null", "7", "{}", r#"["c", 5]"#, r#"{"posixName": 1, "unixGid": 9}"#] {
            let body = format!(r#"{{"projects": [{{"posixName": "a", "unixGid": 1}}, {entry}]}}"#);
            assert!(matches!(read(&answer(body.clone()), &["a", "c"]), Err(UpstreamError::Invalid(_))), "{body}");
            assert!(read(&answer(body.clone()), &["a"]).is_ok(), "{body}");
        }
    }

    #[test]
    fn a_body_of_another_shape_is_a_fault() {
        for body in ["", "<html>", r#"{"projects": ["#, "\u{feff}{}"] {
            assert!(matches!(read(&answer(body), &["a"]), Err(UpstreamError::NotJson { .. })), "{body}");
        }
        for body in ["[]", "[[]]", "null", "7", "{}", r#"{"projects": null}"#, r#"{"projects": {"a": 1}}"#] {
            assert!(matches!(read(&answer(body), &["a"]), Err(UpstreamError::Invalid(_))), "{body}");
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(read(&answer(deep), &["a"]), Err(UpstreamError::NotJson { .. })));
    }

    #[test]
    fn what_is_said_twice_is_no_choice() {
        for body in [
            r#"{"projects": [{"posixName": "a", "unixGid": 1}], "projects": [{"posixName": "a", "unixGid": 2}]}"#,
            r#"{"projects": [{"posixName": "a", "unixGid": 1}], "projects": [{"posixName": "b", "unixGid": 2}]}"#,
            r#"{"projects": null, "projects": []}"#,
            r#"{"projects": [], "\u0070rojects": []}"#,
        ] {
            let fault = read(&answer(body), &["a"]).unwrap_err();
            assert_eq!(fault.to_string(), "invalid answer: it has more than one `projects`", "{body}");
        }
        for entry in [
            r#"{"posixName": "a", "unixGid": 1, "unixGid": 2}"#,
            r#"{"posixName": "b", "posixName": "a", "unixGid": 1}"#,
        ] {
            let body = format!(r#"{{"projects": [{entry}, {{"posixName": "c", "unixGid": 3, "x": 1, "x": 2}}]}}"#);
            let read = read(&answer(body), &["a", "c"]).expect("a good shape");
            assert_eq!(read.outcomes, [("a", Err(NoGid::Conflicting)), ("c", Ok(3))].into(), "{entry}");
        }
    }

    fn entries() -> impl Strategy<Value = Vec<Value>> {
        let gid = prop_oneof![Just(json!(1)), Just(json!(2)), Just(json!(null)), Just(json!("x")), Just(json!(1.0))];
        let entry = prop_oneof![
            4 => ("[a-d]", gid).prop_map(|(name, gid)| json!({ "posixName": name, "unixGid": gid })),
            1 => Just(json!(7)),
        ];
        prop::collection::vec(entry, 0..8)
    }

    proptest! {
        #[test]
        fn the_order_of_entries_makes_no_difference(
            (one, other) in entries().prop_flat_map(|entries| (Just(entries.clone()), Just(entries).prop_shuffle())),
            asked in prop::sample::subsequence(vec!["a", "b", "c"], 1..=3),
        ) {
            let bodies = [one, other].map(|projects| answer(json!({ "projects": projects }).to_string()));
            let [one, other] = bodies.each_ref().map(|body| read(body, &asked).map_err(|fault| fault.to_string()));
            prop_assert_eq!(one.as_ref().map_or(asked.len(), |read| read.outcomes.len()), asked.len());
            prop_assert_eq!(one, other);
        }

        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&answer(body), &["a"]);
        }

        #[test]
        fn no_number_panics(number in "-?[0-9]{1,40}(\\.[0-9]{1,10})?([eE]-?[0-9]{1,3})?") {
            let body = format!(r#"{{"projects": [{{"posixName": "a", "unixGid": {number}}}]}}"#);
            if let Ok(read) = read(&answer(body), &["a"]) {
                prop_assert!(!matches!(read.outcomes["a"], Ok(0 | u32::MAX)));
            }
        }
    }
}
