use std::collections::HashMap;

use provisioner_report::Amount;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::super::MAX_SAMPLES;
use super::super::tests::World;
use super::*;
use crate::seal::Secret;
use crate::shared_cache::pack;

fn sample(minutes: i64, bytes: u64) -> Arc<Sample> {
    let at = OffsetDateTime::UNIX_EPOCH + Duration::minutes(minutes);
    Arc::new(Sample { at, usage: HashMap::from([(Uuid::from_u128(7), Amount { bytes, inodes: 1 })]) })
}

fn minutes(samples: &[Arc<Sample>]) -> Vec<i64> {
    samples.iter().map(|sample| (sample.at - OffsetDateTime::UNIX_EPOCH).whole_minutes()).collect()
}

/// What another replica publishes of this provisioner.
fn published(world: &World, name: &str) -> (Stamp, Vec<u8>) {
    let kept = world.reports.lock();
    (Stamp::of(&kept[name].received), kept[name].packed.to_vec())
}

fn adopt_from(world: &World, other: &World, name: &str) -> Outcome {
    let (stamp, packed) = published(other, name);
    adopt(&world.reports, &Item::Report(name.into()), stamp, packed)
}

#[test]
fn only_newer_reports_are_taken_over() {
    let (one, other) = (World::new(), World::new());
    one.take("a", &one.report(10)).unwrap();
    other.pass(1);
    let newer = other.report(0);
    other.take("a", &newer).unwrap();
    other.take("b", &newer).unwrap();
    for name in ["a", "b"] {
        assert!(matches!(adopt_from(&one, &other, name), Outcome::Done));
        assert_eq!(published(&one, name), published(&other, name), "the next replica gets the same");
    }
    let [before, taken] = [&other, &one].map(|world| world.reports.all());
    assert_eq!((before[0].received_at, &before[0].report), (taken[0].received_at, &taken[0].report));
    // An older one is neither taken nor accepted from the provisioner.
    assert!(matches!(adopt_from(&other, &one, "a"), Outcome::Done));
    let older = World::new();
    older.take("a", &older.report(10)).unwrap();
    assert!(matches!(adopt_from(&one, &older, "a"), Outcome::Done));
    assert_eq!(published(&one, "a"), published(&other, "a"));
    assert!(matches!(one.take("a", &one.report(1)), Err(Rejected::Older { .. })));
    // The provisioner sends the same report again, to a replica whose clock is a second behind.
    one.take("a", &newer).unwrap();
    // It arrived later at the other replica, which keeps its own.
    let own = published(&other, "a");
    assert_ne!(published(&one, "a"), own);
    assert!(matches!(adopt_from(&other, &one, "a"), Outcome::Done));
    assert_eq!(published(&other, "a"), own);
}

#[test]
fn the_limits_hold_for_the_reports_of_other_replicas() {
    let (one, other) = (World::new(), World::new());
    for number in 0..MAX_PROVISIONERS {
        one.take(&format!("p{number:02}"), &one.report(0)).unwrap();
    }
    other.take("new", &other.report(0)).unwrap();
    assert!(matches!(adopt_from(&one, &other, "new"), Outcome::Rejected(Rejected::TooMany)));
    for text in [r#"{"program": "a later version"}"#.to_owned(), " ".repeat(MAX_BYTES + 1)] {
        let (item, packed) = (Item::Report("p00".into()), pack(text.as_bytes()).unwrap());
        let (stamp, _) = published(&one, "p00");
        let outcome = adopt(&World::new().reports, &item, stamp, packed);
        assert!(matches!(outcome, Outcome::Rejected(Rejected::Invalid(_))), "{outcome:?}");
    }
}

#[test]
fn samples_of_two_replicas_are_neither_doubled_nor_lost() {
    let [one, other] = [[0, 60, 180], [61, 120, 300]].map(|times| times.map(|minutes| sample(minutes, 1)));
    for merged in [merge_samples(&one, &other), merge_samples(&other, &one)] {
        assert_eq!(minutes(&merged), [0, 60, 120, 180, 300]);
        assert_eq!(merge_samples(&merged, &one), merged);
    }
    let many: Vec<_> = (0..40).map(|hour| sample(hour * 60, 1)).collect();
    let merged = merge_samples(&many[..30], &many[20..]);
    assert_eq!(merged[..], many[40 - MAX_SAMPLES..]);

    // Reports arrive at two replicas in turn.
    let worlds = [World::new(), World::new()];
    for number in 0..20 {
        let [receiving, other] = [number % 2, (number + 1) % 2].map(|index| &worlds[index]);
        receiving.take("a", &receiving.report(0)).unwrap();
        assert!(matches!(adopt_from(other, receiving, "a"), Outcome::Done));
        adopt_samples(&other.reports, "a", &receiving.reports.all()[0].samples);
        for world in &worlds {
            world.pass(1200);
        }
    }
    let [one, other] = worlds.each_ref().map(|world| world.reports.all()[0].samples.clone());
    assert_eq!(one, other);
    assert_eq!(one.len(), 7, "one an hour");
}

#[test]
fn samples_survive_being_packed() {
    let samples =
        [sample(0, 3), sample(60, u64::MAX), Arc::new(Sample { at: sample(120, 0).at, usage: HashMap::new() })];
    let packed = pack_samples(&samples).unwrap();
    assert_eq!(unpack_samples(&packed).unwrap(), samples);
    for text in [
        "",
        "[]",
        r#"{"at": [1], "usage": {"11111111-1111-4111-8111-111111111111": []}}"#,
        r#"{"at": [1], "usage": {"11111111-1111-4111-8111-111111111111": [[1, -1]]}}"#,
        &format!(r#"{{"at": {:?}, "usage": {{}}}}"#, [1; MAX_SAMPLES + 1]),
    ] {
        assert_eq!(unpack_samples(&pack(text.as_bytes()).unwrap()), None, "{text}");
    }
    assert_eq!(unpack_samples(b"nonsense"), None);
}

#[test]
fn fields_and_stamps_are_read_only_as_they_are_written() {
    for name in ["a", "0.a-b_c", "samples", &"a".repeat(63)] {
        for item in [Item::Report(name.into()), Item::Samples(name.into())] {
            let field = item.to_string();
            assert!(field.len() <= MAX_NAME);
            assert_eq!(Item::parse(field.as_bytes()), Some(item));
        }
    }
    for field in [&b""[..], b" samples", b"a ", b"a samples samples", b"A", b"a\0", b"\xff"] {
        assert_eq!(Item::parse(field), None, "{field:?}");
    }
    let stamp = Stamp::parse(b"18446744073709551615.0").unwrap();
    assert!(stamp.is_after(OffsetDateTime::now_utc()) && stamp > Stamp::parse(b"2.18446744073709551615").unwrap());
    for text in ["", "1", "1.", "01.2", "+1.2", "1.2.3", "-1.2", "18446744073709551616.0"] {
        assert_eq!(Stamp::parse(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn a_value_is_valid_only_as_its_item_with_its_stamp() {
    let seal = Secret::new("token").seal("seal", "reports").unwrap();
    let (item, stamp) = (Item::Report("a".into()), Stamp::parse(b"1.2").unwrap());
    let sealed = seal.close(&kind(&item, stamp), b"value".to_vec()).unwrap();
    assert_eq!(seal.open(&kind(&item, stamp), &sealed).unwrap(), b"value");
    for (item, stamp) in [("b", "1.2"), ("a samples", "1.2"), ("a", "1.3"), ("a", "11.2")] {
        let (item, stamp) = (Item::parse(item.as_bytes()).unwrap(), Stamp::parse(stamp.as_bytes()).unwrap());
        assert_eq!(seal.open(&kind(&item, stamp), &sealed), None, "{item} {stamp}");
    }
}
