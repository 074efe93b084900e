mod replaced;

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use uuid::Uuid;

use super::simulated::{ROOT, Simulated, settings, vast, with};
use super::*;
use driver_rest::faults::Retrying;
use storage_driver::conformance::{Bench, assert_conforms};
use storage_driver::limits::{Bytes, Inodes};

fn bench<'a>(driver: &'a dyn Driver, make_unmarked: &'a dyn Fn(&Place)) -> Bench<'a> {
    Bench { driver, ids: (0, 30_500), make_unmarked }
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a guard")]
fn allow(_: &str) -> Result<(), DriverError> {
    Ok(())
}

fn observed(vast: &Vast, desired: &Desired) -> Observed {
    vast.observe(&[desired]).remove(0).unwrap()
}

#[test]
fn passes_the_conformance_suite() {
    for (follows, pages) in [(false, false), (true, true)] {
        let simulated = Simulated::start();
        (simulated.world().follows, simulated.world().pages) = (follows, pages);
        let make = |place: &Place| drop(simulated.create_directory(&place.to_string()));
        assert_conforms(&bench(&vast(&simulated), &make));
    }
}

#[test]
fn passes_the_conformance_suite_with_many_faults() {
    for follows in [false, true] {
        let simulated = Simulated::start();
        simulated.world().follows = follows;
        simulated.world().faults.one_in = Some(6);
        let make = |place: &Place| {
            simulated.create_directory(&place.to_string());
            simulated.world().put("made by hand", &format!("{ROOT}/{place}"), 1);
        };
        let vast = with(&simulated, &json!({"user": "manager", "password": "hush"})).unwrap();
        assert_conforms(&bench(&Retrying(&vast), &make));
        assert!(simulated.world().faults.count > 50, "{}", simulated.world().faults.count);
        assert!(simulated.world().logins > 2, "tokens were renewed");
    }
}

#[test]
fn incomplete_creations_are_completed() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let bench = bench(&vast, &|_| {});
    // A directory without a quota: the quota call failed.
    let bare = bench.desired(1);
    let path = simulated.create_directory(&bare.place.to_string());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    // A quota without a directory.
    let empty = bench.desired(2);
    simulated.world().put(&empty.id.to_string(), &format!("{ROOT}/{}", empty.place), 1);
    // Both exist, but the response was lost.
    let lost = bench.desired(3);
    simulated.world().faults.lose_next = true;
    assert!(matches!(vast.ensure(&lost, &allow), Err(DriverError::Temporary { .. })));
    for desired in [&bare, &empty] {
        assert_eq!(observed(&vast, desired), Observed::Absent);
    }
    for desired in [&bare, &empty, &lost] {
        vast.ensure(desired, &allow).unwrap();
        assert!(bench.is_as_desired(desired), "{:?}", observed(&vast, desired));
    }
    assert_eq!(simulated.world().quotas.len(), 3);
}

#[test]
fn an_inaccessible_directory_with_contents_is_unmarked() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let desired = bench(&vast, &|_| {}).desired(1);
    let path = simulated.create_directory(&desired.place.to_string());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(path.join("thesis"), "data").unwrap();
    assert!(matches!(observed(&vast, &desired), Observed::Unmarked(_)));
    assert!(matches!(vast.ensure(&desired, &allow), Err(DriverError::Conflict(_))));
}

#[test]
fn the_path_of_a_trashed_directory_can_be_used_by_another() {
    for follows in [false, true] {
        let simulated = Simulated::start();
        simulated.world().follows = follows;
        let vast = vast(&simulated);
        let bench = bench(&vast, &|_| {});
        let old = bench.desired(1);
        let new = Desired { id: Uuid::from_u128(77), ..old.clone() };
        vast.ensure(&old, &allow).unwrap();
        std::fs::write(simulated.folder.path().join(old.place.to_string()).join("file"), "data").unwrap();
        vast.retire(&old, 5, &allow).unwrap();
        assert_eq!(observed(&vast, &new), Observed::Absent);
        vast.ensure(&new, &allow).unwrap();
        assert!(bench.is_as_desired(&new));
        assert!(matches!(vast.restore(&old, &allow), Err(DriverError::Conflict(_))), "its path is taken");
        assert_eq!(vast.trash().unwrap(), [Trashed { id: old.id, since: 5 }]);
        vast.retire(&new, 6, &allow).unwrap();
        vast.restore(&old, &allow).unwrap();
        assert!(bench.is_as_desired(&old), "{:?}", observed(&vast, &old));
        assert!(simulated.folder.path().join(old.place.to_string()).join("file").exists());
        vast.purge(&Trashed { id: new.id, since: 6 }, None, &allow).unwrap();
        assert!(bench.is_as_desired(&old), "the purge did not touch it");
        assert_eq!(simulated.world().quotas.len(), 1);
    }
}

#[test]
fn a_purge_deletes_only_the_given_tree() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let desired = bench(&vast, &|_| {}).desired(1);
    vast.ensure(&desired, &allow).unwrap();
    let outside = simulated.create_directory("outside").join("file");
    let inside = simulated.folder.path().join(desired.place.to_string());
    std::fs::write(&outside, "data").unwrap();
    std::fs::create_dir(inside.join("below")).unwrap();
    std::os::unix::fs::symlink(outside.parent().unwrap(), inside.join("below/link")).unwrap();
    vast.purge(&Trashed { id: desired.id, since: 5 }, None, &allow).unwrap();
    assert!(inside.join("below").exists(), "it is not in the trash");
    vast.retire(&desired, 5, &allow).unwrap();
    let frozen = simulated.world().quotas.values().next().unwrap().fields.clone();
    assert_eq!((&frozen["hard_limit"], &frozen["hard_limit_inodes"]), (&json!(13_832_814_592_u64), &json!(3)));
    for since in [4, 6] {
        vast.purge(&Trashed { id: desired.id, since }, None, &allow).unwrap();
        assert_eq!(simulated.world().quotas.len(), 1, "another time in the trash means another tree");
    }
    vast.purge(&Trashed { id: desired.id, since: 5 }, None, &allow).unwrap();
    assert_eq!(vast.trash().unwrap(), []);
    assert!(simulated.world().quotas.is_empty() && outside.exists());
}

#[test]
fn what_is_at_the_path_of_a_trashed_directory_is_not_ours() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let desired = bench(&vast, &|_| {}).desired(1);
    vast.ensure(&desired, &allow).unwrap();
    vast.retire(&desired, 5, &allow).unwrap();
    let path = simulated.create_directory(&desired.place.to_string());
    std::fs::write(path.join("file"), "data").unwrap();
    assert!(matches!(observed(&vast, &desired), Observed::Obstructed(_)));
    for error in [vast.restore(&desired, &allow), vast.ensure(&desired, &allow)] {
        assert!(matches!(error, Err(DriverError::Conflict(_))), "{error:?}");
    }
    vast.retire(&desired, 6, &allow).unwrap();
    assert_eq!(vast.trash().unwrap(), [Trashed { id: desired.id, since: 5 }]);
    assert!(path.join("file").exists());
}

#[test]
fn symlinks_and_quotas_of_other_tenants_are_not_changed() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let bench = bench(&vast, &|_| {});
    let (first, link) = (bench.desired(1), bench.desired(2));
    simulated.world().put("of tenant 2", &format!("{ROOT}/{}", first.place), 2);
    vast.ensure(&first, &allow).unwrap();
    assert!(bench.is_as_desired(&first));
    std::os::unix::fs::symlink("project-1", simulated.folder.path().join(link.place.to_string())).unwrap();
    assert!(matches!(observed(&vast, &link), Observed::Obstructed(_)));
    assert!(matches!(vast.ensure(&link, &allow), Err(DriverError::Conflict(_))));
}

#[test]
fn a_failed_quota_is_an_error_not_drift() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let desired = bench(&vast, &|_| {}).desired(1);
    vast.ensure(&desired, &allow).unwrap();
    for quota in simulated.world().quotas.values_mut() {
        quota.fields["state"] = "FAILED".into();
    }
    let error = vast.observe(&[&desired]).remove(0).unwrap_err();
    assert!(error.to_string().contains("FAILED"), "{error}");
}

#[test]
fn usage_is_in_bytes_and_unknown_usage_is_not_zero() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let desired = bench(&vast, &|_| {}).desired(1);
    assert_eq!(vast.usage(&[&desired]).remove(0).unwrap(), None);
    vast.ensure(&desired, &allow).unwrap();
    let used = Usage { space: Bytes(13_832_814_592), inodes: Inodes(3) };
    assert_eq!(vast.usage(&[&desired]).remove(0).unwrap(), Some(used));
    simulated.world().quotas.values_mut().next().unwrap().fields["used_inodes"] = Value::Null;
    assert!(vast.usage(&[&desired]).remove(0).is_err());
    assert!(vast.retire(&desired, 5, &allow).is_err(), "it cannot be frozen at an unknown usage");
}

#[test]
fn unknown_is_not_absent() {
    let simulated = Simulated::start();
    for credential in [json!({"token": "hunter2"}), json!({"user": "manager", "password": "hunter2"})] {
        let vast = with(&simulated, &credential).unwrap();
        let bench = bench(&vast, &|_| {});
        let desired = [bench.desired(1), bench.desired(2)];
        for outcome in vast.observe(&[&desired[0], &desired[1]]) {
            let error = storage_driver::error_chain(&outcome.unwrap_err());
            assert!(
                error.contains("VAST refused it") || error.contains("VAST rejected") && !error.contains("hunter2"),
                "{error}"
            );
        }
        assert!(vast.ready().is_err());
        assert!(!format!("{vast:?} {:?}", settings(&simulated, &credential)).contains("hunter2"));
    }
}

#[test]
fn exactly_one_credential_and_an_nfs_mount_are_required() {
    let simulated = Simulated::start();
    for credential in [json!({}), json!({"user": "a"}), json!({"token": "a", "user": "a", "password": "a"})] {
        assert!(matches!(with(&simulated, &credential), Err(InvalidSettings::Setting(_))), "{credential}");
    }
    let error = Vast::new(&settings(&simulated, &json!({"token": "hush"}))).unwrap().ready().unwrap_err();
    assert!(error.to_string().contains("is it mounted"), "{error}");
}

#[test]
fn the_quota_in_the_knowledge_base_is_parsed() {
    let text = r#"{"id":5,"guid":"7526a41d-b6e7-4fc4-bfbc-9e3ac3096be3","name":"myquota","title":"keysquota","state":"OK",
        "path":"/keystest/quotadir","grace_period":null,"soft_limit":null,"hard_limit":1000000000000,
        "soft_limit_inodes":0,"hard_limit_inodes":0,"used_inodes":3,"used_capacity":13832814592,
        "used_effective_capacity":13832814592,"used_capacity_tb":0.014,"cluster_id":1,"tenant_id":1}"#;
    let quota = Quota::parse(&serde_json::from_str(text).unwrap()).unwrap();
    assert_eq!((quota.mark(), quota.limits(), quota.belongs_to(1), quota.belongs_to(2)), (None, None, true, false));
    assert_eq!(quota.usage().unwrap().space, Bytes(13_832_814_592));
}

#[test]
fn only_the_exact_notation_of_names_is_a_mark() {
    let named = |name: &str| Quota::parse(&json!({"id": 1, "path": "/", "name": name})).unwrap();
    let id = Uuid::from_u128(7);
    for (name, inode) in [(format!("{id}.12"), Some(12)), (id.to_string(), None)] {
        let quota = named(&name);
        assert_eq!((quota.mark(), quota.inode()), (Some(id), inode), "{name}");
    }
    for invalid in
        [id.simple().to_string(), format!("{id}."), format!("{id}.012"), format!("{id}.+1"), format!("{id}.1.2")]
    {
        let quota = named(&invalid);
        assert_eq!((quota.mark(), quota.inode()), (None, None), "{invalid}");
    }
}

#[test]
fn whole_numbers_are_read_in_every_notation() {
    let recorded = include_str!("../tests/recorded/vast-quotas-float.json");
    let Ok(wire::Rows::Page { results, .. }) = serde_json::from_str(recorded) else { panic!("a page") };
    let quota = Quota::parse(&results[0]).unwrap();
    assert!(quota.check_valid().is_ok(), "{:?}", quota.check_valid());
    assert_eq!(quota.usage(), Some(Usage { space: Bytes(12), inodes: Inodes(3) }));
    let whole = json!({"id": 1, "path": "/a", "soft_limit": 5e12, "hard_limit": "6000000000000",
        "soft_limit_inodes": 7.0, "hard_limit_inodes": 8});
    let limits =
        QuotaLimits::new([Bytes(5_000_000_000_000), Bytes(6_000_000_000_000)], [Inodes(7), Inodes(8)]).unwrap();
    assert_eq!(Quota::parse(&whole).unwrap().limits(), Some(limits));
    for row in [json!({"path": "/a"}), json!({"id": 1}), json!({"id": 1, "path": 7}), json!([1]), json!(null)] {
        assert!(Quota::parse(&row).unwrap_err().contains("look at"), "{row}");
    }
}

#[test]
fn an_invalid_row_is_reported_and_only_affects_its_own_path() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let bench = bench(&vast, &|_| {});
    let (first, second) = (bench.desired(1), bench.desired(2));
    for desired in [&first, &second] {
        vast.ensure(desired, &allow).unwrap();
    }
    let elsewhere = simulated.world().put("somebody else", "/capstor-too/x", 1);
    simulated.world().quotas.get_mut(&elsewhere).unwrap().fields["hard_limit"] = json!("1 TB");
    assert!(bench.is_as_desired(&first) && bench.is_as_desired(&second));
    let found = vast.inspect(&[]);
    assert!(matches!(&found[..], [Ok(note)] if note.contains("(somebody else) of /capstor-too/x is invalid")));
    let assert_invalid = |desired: &Desired| {
        let mut world = simulated.world();
        let path = format!("{ROOT}/{}", desired.place);
        world.quotas.values_mut().find(|quota| quota.fields["path"] == *path).unwrap().fields["hard_limit"] =
            json!(1.5);
    };
    assert_invalid(&first);
    assert!(bench.is_as_desired(&second));
    let error = vast.observe(&[&first]).remove(0).unwrap_err().to_string();
    assert!(error.contains(&format!("of {ROOT}/{} is invalid: hard_limit is 1.5", first.place)), "{error}");
    for error in [vast.ensure(&first, &allow), vast.retire(&first, 5, &allow)] {
        assert!(matches!(error, Err(DriverError::Temporary { .. })), "{error:?}");
    }
    assert_eq!(vast.inspect(&[]).iter().filter(|found| found.is_err()).count(), 1);
}

#[test]
fn quotas_of_parents_are_reported_by_check_and_when_vast_refuses_another_level() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let desired = bench(&vast, &|_| {}).desired(1);
    assert!(vast.inspect(&[]).is_empty());
    let customer = desired.place.parent().unwrap();
    simulated.create_directory(&customer.to_string());
    simulated.world().put("of the customer", &format!("{ROOT}/{customer}"), 1);
    simulated.world().put("beside", "/capstor2", 1);
    let [Ok(note)] = &vast.inspect(&[customer])[..] else { panic!("one note") };
    assert!(note.contains("of the customer") && note.contains("16 levels") && !note.contains("beside"), "{note}");
    simulated.world().levels = 1;
    let error = vast.ensure(&desired, &allow).unwrap_err().to_string();
    assert!(error.contains("Quota nesting limit exceeded") && error.contains("of the customer"), "{error}");
    simulated.world().levels = 2;
    vast.ensure(&desired, &allow).unwrap();
}

#[test]
fn a_wrong_password_is_sent_once_and_403_is_reported_with_its_causes() {
    let simulated = Simulated::start();
    let driver = with(&simulated, &json!({"user": "manager", "password": "hunter2"})).unwrap();
    for _ in 0..3 {
        let error = driver.ready().unwrap_err().to_string();
        assert!(error.contains("401") && error.contains("password"), "{error}");
    }
    assert_eq!(simulated.world().wrong_logins, 1);
    let error = with(&simulated, &json!({"token": "over"})).unwrap().ready().unwrap_err().to_string();
    assert!(error.contains("role") && error.contains("locked after wrong passwords"), "{error}");
}
