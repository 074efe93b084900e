use serde_json::{Value, json};

use super::*;

fn report() -> Value {
    json!({
        "program": "site-provisioner 2.1",
        "reportedAt": "2026-11-29T12:00:05Z",
        "nextWithinSeconds": 600,
        "pass": {"endedAt": "2026-11-29T12:00:04Z", "durationSeconds": 1.5},
        "systems": [{"name": "capstor", "terabyte": "TB"}],
        "resources": [{
            "id": "11111111-1111-4111-8111-111111111111", "system": "capstor", "path": "/capstor/store/a/b/c",
            "observed": "present",
            "hold": {"kind": "drift", "turn": "operator", "reason": "mode differs"},
        }],
    })
}

fn parse(report: &Value) -> Result<Report, InvalidReport> {
    Report::parse(report.to_string().as_bytes())
}

#[test]
fn a_report_with_only_the_required_keys_is_accepted() {
    let parsed = parse(&report()).unwrap();
    assert_eq!(parsed.resources[0].hold.as_ref().unwrap().kind, HoldKind::Drift);
    let again = Report::parse(&serde_json::to_vec(&parsed).unwrap()).unwrap();
    assert_eq!(again, parsed);
}

#[test]
fn unknown_keys_are_ignored_and_unknown_values_are_rejected() {
    let mut more = report();
    more["resources"][0]["colour"] = json!("blue");
    assert!(parse(&more).is_ok());
    for (pointer, value) in [
        ("/resources/0/observed", json!("lost")),
        ("/resources/0/hold/kind", json!("lost")),
        ("/resources/0/hold/turn", json!("nobody")),
        ("/resources/0/id", json!("1")),
        ("/reportedAt", json!("yesterday")),
        ("/nextWithinSeconds", json!(0)),
        ("/nextWithinSeconds", json!(-1)),
        ("/pass/durationSeconds", json!(-1)),
        ("/pass/durationSeconds", json!(1e300)),
    ] {
        let mut odd = report();
        *odd.pointer_mut(pointer).unwrap() = value;
        assert!(parse(&odd).is_err(), "{pointer}");
    }
}

#[test]
fn times_are_in_utc() {
    let mut times = report();
    let zoned = json!("2026-11-29T13:00:00+01:00");
    times["pass"]["endedAt"] = zoned.clone();
    times["resources"][0]["hold"]["since"] = zoned;
    let parsed = parse(&times).unwrap();
    let since = parsed.resources[0].hold.as_ref().unwrap().since.unwrap();
    assert_eq!([since, parsed.pass.ended_at].map(|at| at.to_string()), ["2026-11-29 12:00:00.0 +00:00:00"; 2]);
    // It would be in the year 10000.
    for pointer in ["/reportedAt", "/pass/endedAt", "/resources/0/hold/since"] {
        let mut odd = report();
        odd["resources"][0]["hold"]["since"] = json!(null);
        assert!(parse(&odd).is_ok());
        *odd.pointer_mut(pointer).unwrap() = json!("9999-12-31T23:59:59-23:59");
        assert!(parse(&odd).unwrap_err().to_string().contains("out of range"), "{pointer}");
    }
}

#[test]
fn each_limit_is_enforced() {
    let entry = report()["resources"][0].clone();
    let mut twice = report();
    twice["resources"] = json!([entry, entry]);
    assert!(matches!(parse(&twice), Err(InvalidReport::Duplicate(_))));
    let long = "é".repeat(MAX_TEXT);
    let mut fits = report();
    fits["resources"][0]["hold"]["reason"] = json!(long);
    assert!(parse(&fits).is_ok());
    let too_long = json!("é".repeat(MAX_TEXT + 1));
    for pointer in ["/program", "/systems/0/name", "/resources/0/path", "/resources/0/hold/reason"] {
        let mut odd = report();
        *odd.pointer_mut(pointer).unwrap() = too_long.clone();
        assert!(matches!(parse(&odd), Err(InvalidReport::TooLong(_))), "{pointer}");
    }
    let mut many = report();
    many["systems"] = json!(vec![many["systems"][0].clone(); MAX_SYSTEMS + 1]);
    let error = parse(&many).unwrap_err().to_string();
    assert!(error.contains("a list of at most 64 entries"), "{error}");
    let mut many = report();
    many["resources"][0]["history"] = json!(vec![json!({"at": "2026-11-29T12:00:05Z", "text": ""}); MAX_LINES + 1]);
    assert!(parse(&many).is_err());
    assert!(matches!(Report::parse(&vec![b' '; MAX_BYTES + 1]), Err(InvalidReport::TooLarge)));
}

#[test]
fn pasted_commands_and_names_have_one_line() {
    let mut odd = report();
    odd["resources"][0]["hold"]["commands"] = json!(["hpc-storage-provisioner adopt /a\nreboot"]);
    assert!(matches!(parse(&odd), Err(InvalidReport::ControlCharacter("resources.hold.commands"))));
    let mut odd = report();
    odd["resources"][0]["path"] = json!("/a\u{1b}[2J");
    assert!(matches!(parse(&odd), Err(InvalidReport::ControlCharacter("resources.path"))));
    let mut fits = report();
    fits["resources"][0]["hold"]["reason"] = json!("two\nlines");
    assert!(parse(&fits).is_ok());
}

#[test]
fn long_texts_are_cut() {
    assert_eq!(shortened("short"), "short");
    let exact = "é".repeat(MAX_TEXT);
    assert_eq!(shortened(&exact), exact);
    let cut = shortened(&"é".repeat(MAX_TEXT + 1));
    assert_eq!(cut.chars().count(), MAX_TEXT);
    assert!(cut.ends_with('…'));
}

#[test]
fn names_are_safe_in_a_path() {
    for name in ["a", "capstor-01", "alps.vast_2", &"a".repeat(63)] {
        assert!(is_valid_name(name), "{name}");
    }
    for name in ["", ".", "..", "-a", "A", "a/b", "a b", "é", "a%2f", &"a".repeat(64)] {
        assert!(!is_valid_name(name), "{name}");
    }
}
