use serde_json::json;
use uuid::Uuid;

use super::simulated::{BLOCK, ROOT, Simulated, file_system_type, scale, settings, unlinking};
use super::*;
use driver_rest::faults::Retrying;
use driver_rest::simulated::FAST;
use storage_driver::Mode;
use storage_driver::conformance::{Bench, assert_conforms};
use storage_driver::limits::{Bytes, Inodes};

fn bench<'a>(driver: &'a dyn Driver, make_unmarked: &'a dyn Fn(&Place)) -> Bench<'a> {
    Bench { driver, ids: (0, 30_500), make_unmarked }
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a guard")]
fn allow(_: &str) -> Result<(), DriverError> {
    Ok(())
}

#[test]
fn passes_the_conformance_suite() {
    for (per_fileset, of) in [(false, scale as fn(&Simulated) -> Scale), (true, unlinking)] {
        let simulated = Simulated::start();
        simulated.world().per_fileset = per_fileset;
        let put = |place: &Place| simulated.world().put("made-by-hand", "Scratch of the chemists", &place.to_string());
        assert_conforms(&bench(&of(&simulated), &put));
    }
}

#[test]
fn passes_the_conformance_suite_with_many_faults() {
    for of in [scale, unlinking] {
        let simulated = Simulated::start();
        let put = |place: &Place| simulated.world().put("made-by-hand", "", &place.to_string());
        simulated.world().faults.one_in = Some(12);
        let scale = of(&simulated);
        assert_conforms(&bench(&Retrying(&scale), &put));
        assert!(simulated.world().faults.count > 100, "{}", simulated.world().faults.count);
    }
}

#[test]
fn a_lost_response_does_not_create_a_second_fileset() {
    let simulated = Simulated::start();
    let scale = scale(&simulated);
    let desired = bench(&scale, &|_| {}).desired(1);
    simulated.world().faults.lose_next = true;
    assert!(matches!(scale.ensure(&desired, &allow), Err(DriverError::Temporary { .. })));
    assert_eq!(simulated.world().names().len(), 1);
    // The lists do not show it yet: it is created again, and the server reports EFSSP1102C.
    assert_eq!(scale.observe(&[&desired]).remove(0).unwrap(), Observed::Absent);
    simulated.world().lag = 100_000;
    scale.ensure(&desired, &allow).unwrap();
    assert_eq!(simulated.world().names().len(), 1);
    assert_eq!(simulated.world().duplicates, 1);
}

#[test]
fn many_resources_are_observed_with_few_requests() {
    let simulated = Simulated::start();
    let scale = scale(&simulated);
    let bench = bench(&scale, &|_| {});
    let desired: Vec<_> = (0..5).map(|n| bench.desired(n)).collect();
    for desired in &desired[1..] {
        scale.ensure(desired, &allow).unwrap();
    }
    simulated.world().lists = 0;
    let observed: Vec<_> = scale.observe(&desired.iter().collect::<Vec<_>>()).into_iter().map(Result::unwrap).collect();
    assert_eq!(observed[0], Observed::Absent);
    assert!(observed[1..].iter().all(|observed| matches!(observed, Observed::Ours(_))), "{observed:?}");
    // Two pages of filesets and four of quotas, not one request for each resource.
    assert_eq!(simulated.world().lists, 6);
    let usage = scale.usage(&[&desired[1]]).remove(0).unwrap();
    assert_eq!(usage, Some(Usage { space: Bytes(12 * 1024), inodes: Inodes(3) }), "including what is in doubt");
}

#[test]
fn a_link_that_is_not_shown_yet_is_a_temporary_error() {
    let simulated = Simulated::start();
    let scale = scale(&simulated);
    let bench = bench(&scale, &|_| {});
    let desired = bench.desired(1);
    let lose_link = |what: &str| {
        simulated.world().faults.lose_next = what.starts_with("link ");
        Ok(())
    };
    assert!(matches!(scale.ensure(&desired, &lose_link), Err(DriverError::Temporary { .. })));
    simulated.world().lag = 100_000;
    assert!(matches!(scale.ensure(&desired, &allow), Err(DriverError::Temporary { .. })), "the cache is out of date");
    simulated.world().shown.get_mut(&Fileset::name_for(desired.id)).unwrap().junction = None;
    simulated.world().lag = 100_000;
    assert!(matches!(scale.observe(&[&desired]).remove(0), Err(DriverError::Temporary { .. })));
    scale.ensure(&desired, &allow).unwrap();
    assert!(bench.is_as_desired(&desired));
}

#[test]
fn filesets_with_open_files_are_not_unlinked() {
    let simulated = Simulated::start();
    let scale = unlinking(&simulated);
    let desired = bench(&scale, &|_| {}).desired(1);
    scale.ensure(&desired, &allow).unwrap();
    simulated.world().busy = true;
    let error = scale.retire(&desired, 5, &allow).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, DriverError::Temporary { .. }) && text.contains("resource busy"), "{text}");
    assert!(text.contains("files in it are open, and it is never unlinked by force"), "{text}");
    let Observed::Ours(frozen) = scale.observe(&[&desired]).remove(0).unwrap() else { panic!("still linked") };
    let used = Usage { space: Bytes(12 * 1024), inodes: Inodes(3) };
    assert_eq!((frozen.mode, frozen.limits), (Mode(0), Some(QuotaLimits::frozen_at(used, BLOCK))));
    simulated.world().busy = false;
    scale.retire(&desired, 6, &allow).unwrap();
    assert_eq!(scale.trash().unwrap(), [Trashed { id: desired.id, since: 5 }], "since the first attempt");
}

#[test]
fn data_survives_the_trash_until_the_purge() {
    let simulated = Simulated::start();
    let scale = unlinking(&simulated);
    let desired = bench(&scale, &|_| {}).desired(1);
    scale.ensure(&desired, &allow).unwrap();
    let file = simulated.mount().join(desired.place.to_string()).join("file");
    std::fs::write(&file, "data").unwrap();
    scale.retire(&desired, 5, &allow).unwrap();
    assert!(!file.exists());
    scale.restore(&desired, &allow).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
    scale.retire(&desired, 6, &allow).unwrap();
    for since in [5, 7] {
        scale.purge(&Trashed { id: desired.id, since }, None, &allow).unwrap();
        assert_eq!(simulated.world().names().len(), 1, "another time in the trash means another tree");
    }
    scale.purge(&Trashed { id: desired.id, since: 6 }, None, &allow).unwrap();
    assert!(simulated.world().names().is_empty());
}

#[test]
fn removed_filesets_are_frozen_and_renamed_and_stay_linked() {
    let simulated = Simulated::start();
    let scale = scale(&simulated);
    let bench = bench(&scale, &|_| {});
    let old = bench.desired(1);
    let new = Desired { id: Uuid::from_u128(77), ..old.clone() };
    scale.ensure(&old, &allow).unwrap();
    let path = simulated.mount().join(old.place.to_string());
    std::fs::write(path.join("file"), "data").unwrap();
    // Files in it are open, and stay open.
    simulated.world().busy = true;
    scale.retire(&old, 5, &allow).unwrap();
    simulated.world().busy = false;
    let name = format!("trash-{}", Fileset::name_for(old.id));
    assert_eq!(simulated.world().names(), [&*name]);
    assert!(simulated.world().fileset(&name).junction.is_some() && path.join("file").exists());
    let Found::Directory { uid, mode, .. } =
        mount::find(scale.mount.root().unwrap().as_fd(), &old.place.to_string()).unwrap()
    else {
        panic!("it stays in place");
    };
    assert_eq!((uid, mode), (0, Mode(0)));
    assert_eq!(scale.usage(&[&old]).remove(0).unwrap(), None);
    // Its path is taken: the next resource at that path waits, and the reason says what to do.
    let Observed::Obstructed(why) = scale.observe(&[&new]).remove(0).unwrap() else { panic!("its path is taken") };
    assert!(why.contains("purge it, or unlink it (`mmunlinkfileset fs1 trash-hpc-"), "{why}");
    assert!(matches!(scale.ensure(&new, &allow), Err(DriverError::Conflict(text)) if text == why));
    assert!(matches!(scale.ensure(&old, &allow), Err(DriverError::Conflict(_))), "it has to be restored");
    scale.restore(&old, &allow).unwrap();
    assert!(bench.is_as_desired(&old) && simulated.world().names() == [Fileset::name_for(old.id)]);
    // Once a person has unlinked it, the path is available.
    scale.retire(&old, 6, &allow).unwrap();
    simulated.world().unlink(&name).unwrap();
    simulated.world().lag = 0;
    scale.ensure(&new, &allow).unwrap();
    assert!(bench.is_as_desired(&new));
    assert_eq!(scale.observe(&[&old]).remove(0).unwrap(), Observed::Trashed { since: 6 });
    scale.purge(&Trashed { id: old.id, since: 6 }, None, &allow).unwrap();
    assert_eq!(simulated.world().names(), [Fileset::name_for(new.id)]);
}

#[test]
fn a_changed_removal_setting_finishes_removals_and_finds_the_trash() {
    let simulated = Simulated::start();
    let (freezing, unlinking) = (scale(&simulated), unlinking(&simulated));
    let bench = bench(&freezing, &|_| {});
    let [frozen, begun] = [1, 2].map(|n| bench.desired(n));
    for desired in [&frozen, &begun] {
        freezing.ensure(desired, &allow).unwrap();
    }
    freezing.retire(&frozen, 5, &allow).unwrap();
    assert_eq!(unlinking.observe(&[&frozen]).remove(0).unwrap(), Observed::Trashed { since: 5 });
    // Marked, but still linked because files are open: the removal is incomplete.
    simulated.world().busy = true;
    unlinking.retire(&begun, 6, &allow).unwrap_err();
    assert!(matches!(freezing.observe(&[&begun]).remove(0).unwrap(), Observed::Ours(_)));
    freezing.retire(&begun, 7, &allow).unwrap();
    let mut trash = unlinking.trash().unwrap();
    trash.sort_by_key(|trashed| trashed.since);
    assert_eq!(trash, [Trashed { id: frozen.id, since: 5 }, Trashed { id: begun.id, since: 6 }]);
    unlinking.restore(&frozen, &allow).unwrap();
    assert!(bench.is_as_desired(&frozen));
}

#[test]
fn filesets_that_cannot_be_deleted_are_not_unlinked() {
    let simulated = Simulated::start();
    let scale = scale(&simulated);
    let bench = bench(&scale, &|_| {});
    let desired = bench.desired(1);
    scale.ensure(&desired, &allow).unwrap();
    scale.retire(&desired, 5, &allow).unwrap();
    let (name, trashed) = (format!("trash-{}", Fileset::name_for(desired.id)), Trashed { id: desired.id, since: 5 });
    let refused = |word: &str| {
        let error = scale.purge(&trashed, None, &|what| panic!("{what}")).unwrap_err();
        assert!(matches!(&error, DriverError::Conflict(why) if why.contains(word)), "{error}");
        assert!(simulated.world().fileset(&name).junction.is_some());
    };
    simulated.world().edit(&name, |it| it.snapshots = vec!["daily", "weekly"]);
    refused("snapshots (daily, weekly): delete them first (`mmdelsnapshot fs1 trash-hpc-");
    simulated.world().edit(&name, |it| it.snapshots.clear());
    let space = simulated.world().fileset(&name).inode_space;
    simulated.world().put("dependent", "of the chemists", "elsewhere");
    simulated.world().edit("dependent", |it| it.inode_space = space);
    refused("use its inode space (dependent)");
    simulated.world().edit("dependent", |it| it.inode_space = 0);
    let below = format!("{ROOT}/{}/below", desired.place);
    simulated.world().edit("dependent", |it| it.junction = Some(below));
    refused("linked below the fileset");
    simulated.world().edit("dependent", |it| it.junction = Some(format!("{ROOT}/elsewhere")));
    // Open files prevent it, too.
    simulated.world().busy = true;
    let error = scale.purge(&trashed, None, &allow).unwrap_err().to_string();
    assert!(error.contains("files in it are open"), "{error}");
    simulated.world().busy = false;
    scale.purge(&trashed, None, &allow).unwrap();
    assert_eq!(simulated.world().names(), ["dependent"]);
}

#[test]
fn a_wrong_password_is_sent_once_and_a_locked_user_is_reported() {
    let simulated = Simulated::start();
    let wrong = Settings { password: "hunter2".into(), ..settings(&simulated) };
    let on = |settings: &Settings| Scale::with(settings, FAST, file_system_type(&simulated.mount())).unwrap();
    let driver = on(&wrong);
    for _ in 0..3 {
        let error = driver.ready().unwrap_err().to_string();
        assert!(error.contains("`password` is wrong (401)"), "{error}");
        assert!(driver.trash().is_err());
    }
    assert_eq!(simulated.world().wrong_passwords, 1);
    simulated.world().wrong_passwords = 3;
    let error = on(&settings(&simulated)).ready().unwrap_err().to_string();
    assert!(error.contains("the role StorageAdmin") && error.contains("locked after wrong passwords"), "{error}");
}

#[test]
fn check_reports_per_fileset_quotas_and_expiring_backups() {
    let simulated = Simulated::start();
    assert!(scale(&simulated).inspect(&[]).is_empty());
    simulated.world().per_fileset = true;
    let notes: Vec<_> = unlinking(&simulated).inspect(&[]).into_iter().map(Result::unwrap).collect();
    assert!(notes[0].contains("mmchfs fs1 --noperfileset-quota") && notes[1].contains("expires their backups"));
}

#[test]
fn the_path_of_an_unlinked_fileset_can_be_used_by_another() {
    let simulated = Simulated::start();
    let scale = unlinking(&simulated);
    let bench = bench(&scale, &|_| {});
    let old = bench.desired(1);
    let new = Desired { id: Uuid::from_u128(77), ..old.clone() };
    scale.ensure(&old, &allow).unwrap();
    scale.retire(&old, 5, &allow).unwrap();
    scale.ensure(&new, &allow).unwrap();
    assert!(bench.is_as_desired(&new));
    scale.retire(&old, 6, &allow).unwrap();
    assert!(matches!(scale.restore(&old, &allow), Err(DriverError::Conflict(_))), "its path is taken");
    assert!(bench.is_as_desired(&new));
    assert_eq!(scale.trash().unwrap(), [Trashed { id: old.id, since: 5 }]);
}

#[test]
fn existing_directories_and_symlinks_are_not_changed() {
    let simulated = Simulated::start();
    let scale = scale(&simulated);
    let bench = bench(&scale, &|_| {});
    let (directory, link) = (bench.desired(1), bench.desired(2));
    let path = |desired: &Desired| simulated.mount().join(desired.place.to_string());
    std::fs::create_dir_all(path(&directory)).unwrap();
    std::os::unix::fs::symlink("project-1", path(&link)).unwrap();
    for desired in [&directory, &link] {
        assert!(matches!(scale.observe(&[desired]).remove(0).unwrap(), Observed::Obstructed(_)));
        assert!(matches!(scale.ensure(desired, &allow), Err(DriverError::Conflict(_))));
        assert!(matches!(scale.adopt(desired, &allow), Err(DriverError::Conflict(_))));
    }
    assert!(simulated.world().names().is_empty(), "no fileset was created");
}

#[test]
fn a_fileset_with_our_name_and_another_comment_is_not_ours() {
    let simulated = Simulated::start();
    let scale = scale(&simulated);
    let desired = bench(&scale, &|_| {}).desired(1);
    simulated.world().put(&Fileset::name_for(desired.id), "somebody else's", "elsewhere");
    assert!(matches!(scale.ensure(&desired, &allow), Err(DriverError::Conflict(_))));
}

#[test]
fn unknown_is_not_absent() {
    let simulated = Simulated::start();
    let wrong = Settings { password: "hunter2".into(), ..settings(&simulated) };
    let scale = Scale::with(&wrong, FAST, file_system_type(&simulated.mount())).unwrap();
    let bench = bench(&scale, &|_| {});
    let desired = [bench.desired(1), bench.desired(2)];
    for outcome in scale.observe(&[&desired[0], &desired[1]]) {
        let error = storage_driver::error_chain(&outcome.unwrap_err());
        assert!(error.contains("`password` is wrong") && !error.contains("hunter2"), "{error}");
    }
    assert!(scale.trash().is_err() && scale.ready().is_err());
    assert!(!format!("{wrong:?}").contains("hunter2"));
}

#[test]
fn settings_are_checked_against_the_file_system() {
    let simulated = Simulated::start();
    for (settings, word) in [
        (Settings { block_size: 1 << 20, ..settings(&simulated) }, "`block_size`"),
        (Settings { root: "/gpfs/fs10".into(), ..settings(&simulated) }, "`root`"),
    ] {
        let error = Scale::with(&settings, FAST, file_system_type(&simulated.mount())).unwrap().ready().unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    let error = Scale::new(&settings(&simulated)).unwrap().ready().unwrap_err();
    assert!(error.to_string().contains("is it mounted"), "{error}");
    assert!(Scale::new(&Settings { block_size: 1000, ..settings(&simulated) }).is_err());
}

#[test]
fn growth_raises_the_maximum_number_of_inodes() {
    let simulated = Simulated::start();
    let scale = scale(&simulated);
    let mut desired = bench(&scale, &|_| {}).desired(1);
    scale.ensure(&desired, &allow).unwrap();
    desired.limits = QuotaLimits::new([Bytes(BLOCK); 2], [Inodes(5_000_000); 2]).unwrap();
    scale.ensure(&desired, &allow).unwrap();
    let fileset = scale.management.filesets().unwrap().into_iter().find(|it| it.mark().is_some()).unwrap();
    assert_eq!(fileset.max_inodes(), Some(Inodes(5_000_000)));
}

mod wire {
    use super::super::wire::*;
    use super::*;

    #[test]
    fn only_the_exact_notation_of_marks_is_parsed() {
        let id = Uuid::from_u128(7);
        for mark in
            [false, true].map(|claimed| Mark { id, retired: Some(12), claimed }).into_iter().chain([Mark::in_use(id)])
        {
            assert_eq!(mark.to_string().parse(), Ok(mark));
        }
        let near = format!("{id} retired=");
        let simple = id.simple().to_string();
        let words = format!("see {id}");
        for comment in ["", "Fileset created by IBM Container Storage Interface driver", &near, &simple, &words] {
            assert!(comment.parse::<Mark>().is_err(), "{comment}");
        }
    }

    #[test]
    fn filesets_of_old_and_new_releases_are_read() {
        let old = json!({"config": {"filesetName": "a", "path": "--", "comment": "", "maxNumInodes": 0}});
        let new = json!({"filesetName": "a", "afm": {}, "config": {"path": "/gpfs/fs1/a", "id": 3}});
        let [old, new] = [old, new].map(|it| serde_json::from_value::<Fileset>(it).unwrap());
        assert_eq!((old.name(), old.junction(), old.max_inodes()), ("a", None, None));
        assert_eq!((new.name(), new.junction(), new.mark()), ("a", Some("/gpfs/fs1/a"), None));
    }

    #[test]
    fn zero_means_unlimited_and_usage_includes_the_in_doubt_value() {
        let quota = json!({
            "quotaType": "FILESET", "objectName": "a", "blockUsage": -8, "blockInDoubt": 24, "blockQuota": 4096,
            "blockLimit": 8192, "filesUsage": 5, "filesInDoubt": 1, "filesQuota": 10, "filesLimit": 20,
        });
        let read = |quota: &serde_json::Value| Quota::parse(quota).unwrap().1.unwrap();
        let limits = QuotaLimits::new([Bytes(4 << 20), Bytes(8 << 20)], [Inodes(10), Inodes(20)]).unwrap();
        assert_eq!(read(&quota).limits(), Some(limits));
        assert_eq!(read(&quota).usage(), Usage { space: Bytes(16 << 10), inodes: Inodes(6) });
        let mut unlimited = quota.clone();
        unlimited["filesLimit"] = 0.into();
        assert_eq!(read(&unlimited).limits(), None);
    }

    #[test]
    fn an_invalid_row_only_affects_its_own_fileset() {
        let row = |limit: serde_json::Value| json!({"quotaType": "FILESET", "objectName": "a", "blockLimit": limit});
        let written = Quota::parse(&row(json!("8192"))).unwrap().1;
        assert!(written.is_ok() && written == Quota::parse(&row(json!(8192.0))).unwrap().1);
        let (name, invalid) = Quota::parse(&row(json!("8 GiB"))).unwrap();
        assert_eq!((&*name, invalid.unwrap_err()), ("a", "blockLimit is not a whole number: \"8 GiB\"".to_owned()));
        assert_eq!(Quota::parse(&json!({"quotaType": "USR", "objectName": "a", "blockLimit": []})), None);
    }

    #[test]
    fn a_failed_job_has_a_reason() {
        for stderr in [json!(["EFSSG0264C\n", "no such thing"]), json!("EFSSG0264C no such thing")] {
            let job = json!({"jobid": 4, "status": "FAILED", "result": {"stderr": stderr}});
            let job: Job = serde_json::from_value(job).unwrap();
            assert_eq!(job.progress(), Progress::Failed("EFSSG0264C no such thing".into()));
        }
    }
}
