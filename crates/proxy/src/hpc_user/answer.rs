//! Parses answers of the project export. Pure.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::NoGid;
use crate::upstream::{Answer, UpstreamError};

/// A parsed answer.
#[derive(Debug, PartialEq)]
pub(super) struct Read<'a> {
    /// One outcome for each requested slug.
    pub(super) outcomes: HashMap<&'a str, Result<u32, NoGid>>,
    /// Number of entries for projects that were not requested.
    pub(super) unrequested: usize,
    /// Number of entries that are not objects or have no `posixName`.
    pub(super) nameless: usize,
}

/// The body. Fails for duplicate members, of which a [`Value`] would keep the last one.
#[derive(Deserialize)]
struct Body {
    projects: Vec<Box<RawValue>>,
}

/// An entry that is an object; fails for duplicate members too.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "posixName", default)]
    _name: IgnoredAny,
    #[serde(rename = "unixGid", default)]
    _gid: IgnoredAny,
}

/// Parses `{"projects": [{"posixName", "unixGid"}, …]}`. The order of the entries does not matter. A malformed entry only
/// affects its own slug. A body of another format, or with two lists, is an error; so is an entry without a name while a
/// slug has no entry, because it may be the missing one.
pub(super) fn read<'a>(answer: &Answer, requested: &[&'a str]) -> Result<Read<'a>, UpstreamError> {
    let body: Value = answer.json()?;
    let Some(projects) = body.get("projects").and_then(Value::as_array) else {
        return Err(UpstreamError::Invalid(String::from("it has no list `projects`")));
    };
    let Ok(Body { projects: raw }) = answer.json() else {
        return Err(UpstreamError::Invalid(String::from("it has more than one `projects`")));
    };
    let mut found: HashMap<&'a str, Option<Result<u32, NoGid>>> = requested.iter().map(|slug| (*slug, None)).collect();
    let (mut unrequested, mut nameless) = (0, 0);
    for (project, raw) in projects.iter().zip(raw) {
        let now = || match serde_json::from_str::<Entry>(raw.get()) {
            Ok(_) => gid(project.get("unixGid")),
            Err(_) => Err(NoGid::Conflicting),
        };
        match project.get("posixName").and_then(Value::as_str) {
            None => nameless += 1,
            Some(name) => match found.get_mut(name) {
                None => unrequested += 1,
                Some(before) => *before = Some(agreed(*before, now())),
            },
        }
    }
    if nameless > 0 && found.values().any(Option::is_none) {
        let what =
            format!("{nameless} entries of `projects` are not objects with a `posixName`, and a project is missing");
        return Err(UpstreamError::Invalid(what));
    }
    let absent = if requested.len() == 1 && unrequested > 0 { NoGid::Mismatched } else { NoGid::Unknown };
    let outcomes = found.into_iter().map(|(slug, outcome)| (slug, outcome.unwrap_or(Err(absent)))).collect();
    Ok(Read { outcomes, unrequested, nameless })
}

/// A conflict unless all entries of a project agree.
fn agreed(before: Option<Result<u32, NoGid>>, now: Result<u32, NoGid>) -> Result<u32, NoGid> {
    match before {
        Some(before) if before != now => Err(NoGid::Conflicting),
        _ => now,
    }
}

/// A JSON integer from 1 to 4294967294. A zero fraction (`30500.0`) is accepted, because tools write it for columns of
/// numbers and nulls; a number as text is not.
fn gid(value: Option<&Value>) -> Result<u32, NoGid> {
    match value {
        None | Some(Value::Null) => Err(NoGid::Null),
        Some(value) => posix_id(value).ok_or(NoGid::Invalid),
    }
}

/// A UID or GID other than root's.
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
        read(&answer(body.to_string()), &[slug]).expect("a valid body").outcomes[slug]
    }

    #[test]
    fn gids_and_their_absence_are_read() {
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
    fn invalid_gids_are_reported() {
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
            assert_eq!(outcome("other", &projects), Ok(5), "{gid} only affects its own project");
        }
    }

    #[test]
    fn another_project_than_the_only_requested_one_is_a_mismatch() {
        let body = r#"{"projects": [{"posixName": "b", "unixGid": 1}]}"#;
        let read = read(&answer(body), &["a"]).expect("a valid body");
        assert_eq!(read, Read { outcomes: [("a", Err(NoGid::Mismatched))].into(), unrequested: 1, nameless: 0 });
    }

    #[test]
    fn ignored_entries_are_counted() {
        let body = r#"{"projects": [1, {"posixName": "b"}, {"posixName": "a", "unixGid": 1}, {}]}"#;
        let read = read(&answer(body), &["a"]).expect("a valid body");
        assert_eq!(read, Read { outcomes: [("a", Ok(1))].into(), unrequested: 1, nameless: 2 });
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
    fn a_body_of_another_format_is_an_error() {
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
    fn duplicate_members_are_conflicts() {
        for body in [
            r#"{"projects": [{"posixName": "a", "unixGid": 1}], "projects": [{"posixName": "a", "unixGid": 2}]}"#,
            r#"{"projects": [{"posixName": "a", "unixGid": 1}], "projects": [{"posixName": "b", "unixGid": 2}]}"#,
            r#"{"projects": null, "projects": []}"#,
            r#"{"projects": [], "\u0070rojects": []}"#,
        ] {
            let error = read(&answer(body), &["a"]).unwrap_err();
            assert_eq!(error.to_string(), "invalid answer: it has more than one `projects`", "{body}");
        }
        for entry in [
            r#"{"posixName": "a", "unixGid": 1, "unixGid": 2}"#,
            r#"{"posixName": "b", "posixName": "a", "unixGid": 1}"#,
        ] {
            let body = format!(r#"{{"projects": [{entry}, {{"posixName": "c", "unixGid": 3, "x": 1, "x": 2}}]}}"#);
            let read = read(&answer(body), &["a", "c"]).expect("a valid body");
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
            let [one, other] = bodies.each_ref().map(|body| read(body, &asked).map_err(|error| error.to_string()));
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
