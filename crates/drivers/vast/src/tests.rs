mod exchanged;

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use uuid::Uuid;

use super::simulated::{ROOT, Simulated, settings, vast, with};
use super::*;
use driver_rest::faults::Again;
use storage_driver::conformance::{Bench, assert_conforms};
use storage_driver::limits::{Bytes, Inodes};

fn bench<'a>(driver: &'a dyn Driver, make_unmarked: &'a dyn Fn(&Place)) -> Bench<'a> {
    Bench { driver, ids: (0, 30_500), make_unmarked }
}

#[expect(clippy::unnecessary_wraps, reason = "as a driver asks")]
fn go(_: &str) -> Result<(), DriverError> {
    Ok(())
}

fn observed(vast: &Vast, desired: &Desired) -> Observed {
    vast.observe(&[desired]).remove(0).unwrap()
}

#[test]
fn does_what_every_driver_must() {
    for (follows, pages) in [(false, false), (true, true)] {
        let simulated = Simulated::start();
        (simulated.world().follows, simulated.world().pages) = (follows, pages);
        let make = |place: &Place| drop(simulated.make_directory(&place.to_string()));
        assert_conforms(&bench(&vast(&simulated), &make));
    }
}

#[test]
fn does_it_when_much_goes_wrong() {
    for follows in [false, true] {
        let simulated = Simulated::start();
        simulated.world().follows = follows;
        simulated.world().faults = Some(6);
        let make = |place: &Place| {
            simulated.make_directory(&place.to_string());
            simulated.world().put("made by hand", &format!("{ROOT}/{place}"), 1);
        };
        let vast = with(&simulated, &json!({"user": "manager", "password": "hush"})).unwrap();
        assert_conforms(&bench(&Again(&vast), &make));
        assert!(simulated.world().wrong > 50, "{}", simulated.world().wrong);
        assert!(simulated.world().logins > 2, "tokens were renewed");
    }
}

#[test]
fn half_made_objects_are_brought_to_their_end() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let bench = bench(&vast, &|_| {});
    // A directory without a quota: the answer of the quota call was never had, nor was the call carried out.
    let bare = bench.desired(1);
    let path = simulated.make_directory(&bare.place.to_string());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    // A quota without a directory.
    let empty = bench.desired(2);
    simulated.world().put(&empty.id.to_string(), &format!("{ROOT}/{}", empty.place), 1);
    // Both, and an answer that was lost.
    let lost = bench.desired(3);
    simulated.world().loses_next = true;
    assert!(matches!(vast.ensure(&lost, &go), Err(DriverError::Passing { .. })));
    for desired in [&bare, &empty] {
        assert_eq!(observed(&vast, desired), Observed::Absent);
    }
    for desired in [&bare, &empty, &lost] {
        vast.ensure(desired, &go).unwrap();
        assert!(bench.is_as_desired(desired), "{:?}", observed(&vast, desired));
    }
    assert_eq!(simulated.world().quotas.len(), 3);
}

#[test]
fn a_closed_directory_that_holds_something_is_nobodys() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let desired = bench(&vast, &|_| {}).desired(1);
    let path = simulated.make_directory(&desired.place.to_string());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(path.join("thesis"), "data").unwrap();
    assert!(matches!(observed(&vast, &desired), Observed::Unmarked(_)));
    assert!(matches!(vast.ensure(&desired, &go), Err(DriverError::Conflict(_))));
}

#[test]
fn a_path_in_the_trash_can_be_had_by_another() {
    for follows in [false, true] {
        let simulated = Simulated::start();
        simulated.world().follows = follows;
        let vast = vast(&simulated);
        let bench = bench(&vast, &|_| {});
        let old = bench.desired(1);
        let new = Desired { id: Uuid::from_u128(77), ..old.clone() };
        vast.ensure(&old, &go).unwrap();
        std::fs::write(simulated.folder.path().join(old.place.to_string()).join("file"), "data").unwrap();
        vast.retire(&old, 5, &go).unwrap();
        assert_eq!(observed(&vast, &new), Observed::Absent);
        vast.ensure(&new, &go).unwrap();
        assert!(bench.is_as_desired(&new));
        assert!(matches!(vast.restore(&old, &go), Err(DriverError::Conflict(_))), "the place is taken");
        assert_eq!(vast.trash().unwrap(), [Trashed { id: old.id, since: 5 }]);
        vast.retire(&new, 6, &go).unwrap();
        vast.restore(&old, &go).unwrap();
        assert!(bench.is_as_desired(&old), "{:?}", observed(&vast, &old));
        assert!(simulated.folder.path().join(old.place.to_string()).join("file").exists());
        vast.purge(&Trashed { id: new.id, since: 6 }, None, &go).unwrap();
        assert!(bench.is_as_desired(&old), "the purge took nothing of it");
        assert_eq!(simulated.world().quotas.len(), 1);
    }
}

#[test]
fn a_purge_takes_what_was_named_and_nothing_else() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let desired = bench(&vast, &|_| {}).desired(1);
    vast.ensure(&desired, &go).unwrap();
    let outside = simulated.make_directory("outside").join("file");
    let inside = simulated.folder.path().join(desired.place.to_string());
    std::fs::write(&outside, "data").unwrap();
    std::fs::create_dir(inside.join("below")).unwrap();
    std::os::unix::fs::symlink(outside.parent().unwrap(), inside.join("below/link")).unwrap();
    vast.purge(&Trashed { id: desired.id, since: 5 }, None, &go).unwrap();
    assert!(inside.join("below").exists(), "it is not in the trash");
    vast.retire(&desired, 5, &go).unwrap();
    let frozen = simulated.world().quotas.values().next().unwrap().fields.clone();
    assert_eq!((&frozen["hard_limit"], &frozen["hard_limit_inodes"]), (&json!(13_832_814_592_u64), &json!(3)));
    for since in [4, 6] {
        vast.purge(&Trashed { id: desired.id, since }, None, &go).unwrap();
        assert_eq!(simulated.world().quotas.len(), 1, "another time in the trash is another tree");
    }
    vast.purge(&Trashed { id: desired.id, since: 5 }, None, &go).unwrap();
    assert_eq!(vast.trash().unwrap(), []);
    assert!(simulated.world().quotas.is_empty() && outside.exists());
}

#[test]
fn what_stands_where_a_trashed_directory_stood_is_not_ours() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let desired = bench(&vast, &|_| {}).desired(1);
    vast.ensure(&desired, &go).unwrap();
    vast.retire(&desired, 5, &go).unwrap();
    let path = simulated.make_directory(&desired.place.to_string());
    std::fs::write(path.join("file"), "data").unwrap();
    assert!(matches!(observed(&vast, &desired), Observed::Obstructed(_)));
    for fault in [vast.restore(&desired, &go), vast.ensure(&desired, &go)] {
        assert!(matches!(fault, Err(DriverError::Conflict(_))), "{fault:?}");
    }
    vast.retire(&desired, 6, &go).unwrap();
    assert_eq!(vast.trash().unwrap(), [Trashed { id: desired.id, since: 5 }]);
    assert!(path.join("file").exists());
}

#[test]
fn symlinks_and_other_tenants_quotas_are_left_alone() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let bench = bench(&vast, &|_| {});
    let (first, link) = (bench.desired(1), bench.desired(2));
    simulated.world().put("of tenant 2", &format!("{ROOT}/{}", first.place), 2);
    vast.ensure(&first, &go).unwrap();
    assert!(bench.is_as_desired(&first));
    std::os::unix::fs::symlink("project-1", simulated.folder.path().join(link.place.to_string())).unwrap();
    assert!(matches!(observed(&vast, &link), Observed::Obstructed(_)));
    assert!(matches!(vast.ensure(&link, &go), Err(DriverError::Conflict(_))));
}

#[test]
fn a_failed_quota_is_unknown_not_drift() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let desired = bench(&vast, &|_| {}).desired(1);
    vast.ensure(&desired, &go).unwrap();
    for quota in simulated.world().quotas.values_mut() {
        quota.fields["state"] = "FAILED".into();
    }
    let fault = vast.observe(&[&desired]).remove(0).unwrap_err();
    assert!(fault.to_string().contains("FAILED"), "{fault}");
}

#[test]
fn usage_is_in_bytes_and_unknown_is_no_zero() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let desired = bench(&vast, &|_| {}).desired(1);
    assert_eq!(vast.usage(&[&desired]).remove(0).unwrap(), None);
    vast.ensure(&desired, &go).unwrap();
    let used = Usage { space: Bytes(13_832_814_592), inodes: Inodes(3) };
    assert_eq!(vast.usage(&[&desired]).remove(0).unwrap(), Some(used));
    simulated.world().quotas.values_mut().next().unwrap().fields["used_inodes"] = Value::Null;
    assert!(vast.usage(&[&desired]).remove(0).is_err());
    assert!(vast.retire(&desired, 5, &go).is_err(), "it cannot be frozen at what is not known");
}

#[test]
fn what_is_not_known_is_not_absent() {
    let simulated = Simulated::start();
    for credential in [json!({"token": "hunter2"}), json!({"user": "manager", "password": "hunter2"})] {
        let vast = with(&simulated, &credential).unwrap();
        let bench = bench(&vast, &|_| {});
        let desired = [bench.desired(1), bench.desired(2)];
        for outcome in vast.observe(&[&desired[0], &desired[1]]) {
            let fault = storage_driver::error_chain(&outcome.unwrap_err());
            assert!(fault.contains("VAST refuses it") && !fault.contains("hunter2"), "{fault}");
        }
        assert!(vast.ready().is_err());
        assert!(!format!("{vast:?} {:?}", settings(&simulated, &credential)).contains("hunter2"));
    }
}

#[test]
fn one_credential_is_wanted_and_a_mount_of_nfs() {
    let simulated = Simulated::start();
    for credential in [json!({}), json!({"user": "a"}), json!({"token": "a", "user": "a", "password": "a"})] {
        assert!(matches!(with(&simulated, &credential), Err(NotSetUp::Setting(_))), "{credential}");
    }
    let fault = Vast::new(&settings(&simulated, &json!({"token": "hush"}))).unwrap().ready().unwrap_err();
    assert!(fault.to_string().contains("is it mounted"), "{fault}");
}

#[test]
fn a_quota_as_the_knowledge_base_shows_it_is_read() {
    let text = r#"{"id":5,"guid":"7526a41d-b6e7-4fc4-bfbc-9e3ac3096be3","name":"myquota","title":"keysquota","state":"OK",
        "path":"/keystest/quotadir","grace_period":null,"soft_limit":null,"hard_limit":1000000000000,
        "soft_limit_inodes":0,"hard_limit_inodes":0,"used_inodes":3,"used_capacity":13832814592,
        "used_effective_capacity":13832814592,"used_capacity_tb":0.014,"cluster_id":1,"tenant_id":1}"#;
    let quota = Quota::read(&serde_json::from_str(text).unwrap()).unwrap();
    assert_eq!((quota.mark(), quota.limits(), quota.is_of(1), quota.is_of(2)), (None, None, true, false));
    assert_eq!(quota.usage().unwrap().space, Bytes(13_832_814_592));
}

#[test]
fn only_names_as_they_are_written_here_are_marks() {
    let named = |name: &str| Quota::read(&json!({"id": 1, "path": "/", "name": name})).unwrap();
    let id = Uuid::from_u128(7);
    for (name, inode) in [(format!("{id}.12"), Some(12)), (id.to_string(), None)] {
        let quota = named(&name);
        assert_eq!((quota.mark(), quota.inode()), (Some(id), inode), "{name}");
    }
    for odd in [id.simple().to_string(), format!("{id}."), format!("{id}.012"), format!("{id}.+1"), format!("{id}.1.2")]
    {
        let quota = named(&odd);
        assert_eq!((quota.mark(), quota.inode()), (None, None), "{odd}");
    }
}

#[test]
fn whole_numbers_are_read_however_they_are_written() {
    let recorded = include_str!("../tests/recorded/vast-quotas-float.json");
    let Ok(wire::Rows::Page { results, .. }) = serde_json::from_str(recorded) else { panic!("a page") };
    let quota = Quota::read(&results[0]).unwrap();
    assert!(quota.is_readable().is_ok(), "{:?}", quota.is_readable());
    assert_eq!(quota.usage(), Some(Usage { space: Bytes(12), inodes: Inodes(3) }));
    let whole = json!({"id": 1, "path": "/a", "soft_limit": 5e12, "hard_limit": "6000000000000",
        "soft_limit_inodes": 7.0, "hard_limit_inodes": 8});
    let limits =
        QuotaLimits::new([Bytes(5_000_000_000_000), Bytes(6_000_000_000_000)], [Inodes(7), Inodes(8)]).unwrap();
    assert_eq!(Quota::read(&whole).unwrap().limits(), Some(limits));
    for row in [json!({"path": "/a"}), json!({"id": 1}), json!({"id": 1, "path": 7}), json!([1]), json!(null)] {
        assert!(Quota::read(&row).unwrap_err().contains("look at"), "{row}");
    }
}

#[test]
fn a_row_that_cannot_be_read_concerns_its_own_path_alone_and_is_named() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let bench = bench(&vast, &|_| {});
    let (first, second) = (bench.desired(1), bench.desired(2));
    for desired in [&first, &second] {
        vast.ensure(desired, &go).unwrap();
    }
    let elsewhere = simulated.world().put("somebody else", "/capstor-too/x", 1);
    simulated.world().quotas.get_mut(&elsewhere).unwrap().fields["hard_limit"] = json!("1 TB");
    assert!(bench.is_as_desired(&first) && bench.is_as_desired(&second));
    let found = vast.inspect(&[]);
    assert!(matches!(&found[..], [Ok(note)] if note.contains("(somebody else) of /capstor-too/x cannot be read")));
    let odd = |desired: &Desired| {
        let mut world = simulated.world();
        let path = format!("{ROOT}/{}", desired.place);
        world.quotas.values_mut().find(|quota| quota.fields["path"] == *path).unwrap().fields["hard_limit"] =
            json!(1.5);
    };
    odd(&first);
    assert!(bench.is_as_desired(&second));
    let fault = vast.observe(&[&first]).remove(0).unwrap_err().to_string();
    assert!(fault.contains(&format!("of {ROOT}/{} cannot be read: hard_limit is 1.5", first.place)), "{fault}");
    for fault in [vast.ensure(&first, &go), vast.retire(&first, 5, &go)] {
        assert!(matches!(fault, Err(DriverError::Passing { .. })), "{fault:?}");
    }
    assert_eq!(vast.inspect(&[]).iter().filter(|found| found.is_err()).count(), 1);
}

#[test]
fn quotas_above_are_named_by_check_and_where_vast_refuses_another_level() {
    let simulated = Simulated::start();
    let vast = vast(&simulated);
    let desired = bench(&vast, &|_| {}).desired(1);
    assert!(vast.inspect(&[]).is_empty());
    let customer = desired.place.parent().unwrap();
    simulated.make_directory(&customer.to_string());
    simulated.world().put("of the customer", &format!("{ROOT}/{customer}"), 1);
    simulated.world().put("beside", "/capstor2", 1);
    let [Ok(note)] = &vast.inspect(&[customer])[..] else { panic!("one note") };
    assert!(note.contains("of the customer") && note.contains("16 levels") && !note.contains("beside"), "{note}");
    simulated.world().levels = 1;
    let fault = vast.ensure(&desired, &go).unwrap_err().to_string();
    assert!(fault.contains("Quota nesting limit exceeded") && fault.contains("of the customer"), "{fault}");
    simulated.world().levels = 2;
    vast.ensure(&desired, &go).unwrap();
}

#[test]
fn a_wrong_password_is_sent_once_and_a_right_that_lacks_has_two_causes() {
    let simulated = Simulated::start();
    let driver = with(&simulated, &json!({"user": "manager", "password": "hunter2"})).unwrap();
    for _ in 0..3 {
        let fault = driver.ready().unwrap_err().to_string();
        assert!(fault.contains("401") && fault.contains("password"), "{fault}");
    }
    assert_eq!(simulated.world().wrong_logins, 1);
    let fault = with(&simulated, &json!({"token": "over"})).unwrap().ready().unwrap_err().to_string();
    assert!(fault.contains("role") && fault.contains("locked after wrong passwords"), "{fault}");
}
