use std::fs::{self, File};
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn named(texts: &[&str]) -> Result<AclEntries, InvalidEntry> {
    AclEntries::parse(&texts.iter().map(ToString::to_string).collect::<Vec<_>>())
}

#[test]
fn only_users_and_groups_by_number_are_accepted() {
    for text in ["u:900:r-x", "user:0:---", "g:901:rwx", "group:4294967294:--x", "d:u:1:r--", "default:group:1:-w-"] {
        assert!(named(&[text]).is_ok(), "{text}");
    }
    let odd = [
        "",
        "u:900",
        "u::r-x",
        "g::rwx",
        "m::rwx",
        "o::r-x",
        "u:backup:r-x",
        "u:900:rx",
        "u:900:5",
        "u:900:r-X",
        "u:900:x-r",
        "U:900:r-x",
        "u:900:r-x:",
        "u: 900:r-x",
        "u:+900:r-x",
        "u:-1:r-x",
        "u:4294967295:r-x",
        "u:99999999999:r-x",
        "default:default:u:1:r-x",
        "d:o::r-x",
        "default:",
        "u:900:r-x,g:901:rwx",
    ];
    for text in odd {
        assert_eq!(named(&[text]), Err(InvalidEntry::Form(text.into())), "{text}");
    }
    assert_eq!(named(&["u:1:r-x", "g:1:r-x", "user:1:rwx"]), Err(InvalidEntry::Twice("user:1:rwx".into())));
    assert!(named(&["u:1:r-x", "d:u:1:r-x"]).is_ok());
}

#[test]
fn entries_are_added_to_the_mode() {
    let all = named(&["g:901:rwx", "u:900:r-x", "default:g:901:rwx"]).unwrap();
    let said = all.with(Mode(0o2750)).to_string();
    let inherited = "default:u::rwx,default:g::r-x,default:g:901:rwx,default:m::r-x,default:o::---";
    assert_eq!(said, format!("u:900:r-x,g::r-x,g:901:rwx,{inherited}"));
    assert_eq!(named(&[]).unwrap().with(Mode(0o770)).to_string(), "");
}

#[test]
fn the_binary_format_is_as_documented() {
    let bytes = [
        2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 5, 0, 132, 3, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255, 16, 0, 5,
        0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
    ];
    let acl = named(&["u:900:r-x"]).unwrap().with(Mode(0o750)).access.unwrap();
    assert_eq!((acl.encode(), Acl::decode(&bytes)), (bytes.to_vec(), Some(acl)));
    for odd in [&bytes[..0], &bytes[..3], &bytes[..43], &[1, 0, 0, 0], &[2, 0, 0, 0, 3, 0, 7, 0, 0, 0, 0, 0]] {
        assert_eq!(Acl::decode(odd), None, "{odd:?}");
    }
}

/// Runs `setfacl` or `getfacl`; `None` if it is not installed.
#[expect(clippy::print_stderr, reason = "tests that are skipped are reported")]
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(ended) if ended.status.success() => Some(String::from_utf8(ended.stdout).unwrap()),
        Ok(ended) => panic!("{program} {arguments:?}: {ended:?}"),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{program} cannot be started: {error}");
            eprintln!("SKIPPED: {program} cannot be started: {error}");
            None
        }
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "tests that are skipped are reported")]
fn setfacl_and_getfacl_agree() {
    let folder = tempfile::tempdir().unwrap();
    if let Err(fault) = attributes::read(File::open(folder.path()).unwrap()) {
        eprintln!("SKIPPED: {fault}");
        return;
    }
    let [ours, theirs] = ["ours", "theirs"].map(|name| folder.path().join(name));
    for (mode, texts) in [
        (0o750, &["u:900:r-x", "g:902:rwx", "g:901:-w-"][..]),
        (0o2770, &["default:g:901:rwx", "u:900:r-x", "default:u:7:---"]),
        (0o000, &["u:900:rwx", "d:u:900:rwx"]),
        (0o705, &["d:u:900:rwx"]),
    ] {
        for path in [&ours, &theirs] {
            let _ = fs::remove_dir(path);
            fs::create_dir(path).unwrap();
        }
        let (ours, theirs) = (File::open(&ours).unwrap(), (File::open(&theirs).unwrap(), theirs.display().to_string()));
        let acls = named(texts).unwrap().with(Mode(mode));
        let chmod = |directory: &File| rustix::fs::fchmod(directory, rustix::fs::Mode::from_raw_mode(mode)).unwrap();
        attributes::write(&ours, &acls).unwrap();
        chmod(&ours);
        chmod(&theirs.0);
        // `setfacl` would extend both masks to all entries.
        let mut words = vec![format!("m::{}", rwx(u16::try_from(mode >> 3 & 7).unwrap()))];
        words.extend(acls.default.iter().map(|_| format!("d:{}", words[0])).collect::<Vec<_>>());
        words.extend(texts.iter().map(ToString::to_string));
        let words = words.join(",");
        if run("setfacl", &["--no-mask", "--modify", &words, &theirs.1]).is_none() {
            return;
        }
        chmod(&theirs.0);
        let read = attributes::read(&theirs.0).unwrap();
        if acls.access.is_some() {
            assert_eq!(read, acls, "{mode:o} {texts:?}");
        }
        assert_eq!(read.default, acls.default, "{mode:o} {texts:?}");
        assert_eq!(attributes::read(&ours).unwrap(), acls, "{mode:o} {texts:?}");
        // `setfacl` accepts the shown entries, and `getfacl` shows the ACL that was set.
        let said = run("getfacl", &["--omit-header", "--numeric", "--absolute-names", &theirs.1]).unwrap_or_default();
        for entry in acls.access.iter().flat_map(|acl| &acl.0) {
            let line = entry.to_string().replacen("u:", "user:", 1).replacen("g:", "group:", 1);
            let line = line.replacen("m:", "mask:", 1).replacen("o:", "other:", 1);
            assert!(said.lines().any(|found| found.split('\t').next() == Some(&line)), "{line} is not in {said}");
        }
    }
}

fn who() -> impl Strategy<Value = Who> {
    let number = 0..NOBODY;
    prop_oneof![
        Just(Who::Owner),
        number.clone().prop_map(Who::User),
        Just(Who::OwningGroup),
        number.prop_map(Who::Group),
        Just(Who::Mask),
        Just(Who::Others),
    ]
}

proptest! {
    #[test]
    fn encoded_acls_decode(entries in prop::collection::vec((who(), 0_u16..8), 0..40)) {
        let acl = Acl::of(entries.into_iter().map(|(who, bits)| Entry { who, bits }));
        prop_assert_eq!(Acl::decode(&acl.encode()), Some(acl));
    }

    #[test]
    fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Some(acl) = Acl::decode(&bytes) {
            prop_assert_eq!(acl.encode().len(), bytes.len());
        }
    }

    #[test]
    fn shown_entries_parse(entries in prop::collection::btree_map(0..NOBODY, 0_u16..8, 1..9), mode in 0_u32..0o10000) {
        let texts: Vec<_> = entries.iter().flat_map(|(number, bits)| {
            let entry = Entry { who: Who::Group(*number), bits: *bits };
            [format!("{entry}"), format!("default:{entry}")]
        }).collect();
        let acls = AclEntries::parse(&texts).unwrap().with(Mode(mode));
        let said = acls.to_string();
        prop_assert!(texts.iter().all(|text| said.split(',').any(|entry| entry == text)), "{}", said);
    }
}
