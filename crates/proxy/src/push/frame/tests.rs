use proptest::prelude::*;

use super::*;

fn frames(bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = Decoder::default();
    decoder.add(bytes);
    std::iter::from_fn(|| decoder.next().transpose()).collect()
}

fn frame(command: &str, headers: &[(&str, &str)]) -> Frame {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Frame { command: command.to_owned(), headers }
}

#[test]
fn frames_of_a_broker() {
    for (bytes, expected) in [
        (&b""[..], vec![]),
        (b"\n\r\n\n", vec![]),
        (b"RECEIPT\nreceipt-id:1\n\n\0", vec![frame("RECEIPT", &[("receipt-id", "1")])]),
        (b"\n\nRECEIPT\r\nreceipt-id:1\r\n\r\n\0\n", vec![frame("RECEIPT", &[("receipt-id", "1")])]),
        (b"MESSAGE\na:b\\c\\n\\\\\\r\n\n{}\0", vec![frame("MESSAGE", &[("a", "b:\n\\\r")])]),
        // No escapes in this one.
        (b"CONNECTED\nserver:a\\b:c\n\n\0", vec![frame("CONNECTED", &[("server", "a\\b:c")])]),
        // A NUL within the body.
        (
            b"MESSAGE\ncontent-length:3\n\n\0\0\0\0\nERROR\n\n\0",
            vec![frame("MESSAGE", &[("content-length", "3")]), frame("ERROR", &[])],
        ),
        (b"MESSAGE\ncontent-length:3\n\nab", vec![]),
        (b"MESSAGE\n\nabc", vec![]),
        (b"MESSAGE\na:1\n", vec![]),
    ] {
        assert_eq!(frames(bytes), Ok(expected), "{}", bytes.escape_ascii());
    }
    let repeated = frames(b"MESSAGE\na:1\na:2\n\n\0").unwrap();
    assert_eq!((repeated[0].header("a"), repeated[0].header("b")), (Some("1"), None));
}

#[test]
fn many_small_frames_are_decoded_in_linear_time() {
    let begun = std::time::Instant::now();
    let count = MAX_FRAME / 10;
    assert_eq!(frames(&b"MESSAGE\n\n\0".repeat(count)).unwrap().len(), count);
    assert!(begun.elapsed() < std::time::Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn invalid_and_large_frames() {
    for bytes in [
        &b"MESSAGE\na\n\n\0"[..],
        b"MESSAGE\na:\\x\n\n\0",
        b"MESSAGE\na:\\\n\n\0",
        b"MESSAGE\n\xff:1\n\n\0",
        b"MESSAGE\ncontent-length:-1\n\n\0",
        b"MESSAGE\ncontent-length:2\n\nabc\0",
    ] {
        assert!(matches!(frames(bytes), Err(FrameError::Invalid(_))), "{}", bytes.escape_ascii());
    }
    let long = |head: &str, length| [head.as_bytes(), &vec![b'x'; length]].concat();
    assert_eq!(frames(&long("", MAX_HEAD)), Err(FrameError::TooLarge(MAX_HEAD)));
    assert_eq!(frames(&long("MESSAGE\na:", MAX_HEAD)), Err(FrameError::TooLarge(MAX_HEAD)));
    assert_eq!(frames(&long("MESSAGE\n\n", MAX_FRAME)), Err(FrameError::TooLarge(MAX_FRAME)));
    assert_eq!(frames(b"MESSAGE\ncontent-length:1048577\n\n"), Err(FrameError::TooLarge(MAX_FRAME)));
    assert_eq!(frames(&[long("MESSAGE\n\n", MAX_FRAME - 10), vec![0]].concat()).unwrap().len(), 1);
}

#[test]
fn frames_for_a_broker() {
    assert_eq!(encode("CONNECT", &[("host", "a:b\\c")]), "CONNECT\nhost:a:b\\c\n\n\0");
    assert_eq!(encode("SUBSCRIBE", &[("id", "a:b\\c\nd")]), "SUBSCRIBE\nid:a\\cb\\\\c\\nd\n\n\0");
}

proptest! {
    #[test]
    fn frames_survive_any_split(
        texts in prop::collection::vec((any::<String>(), any::<String>().prop_filter("a line", |text| !text.contains('\0'))), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut bytes = Vec::new();
        for (value, body) in &texts {
            let head = encode("MESSAGE", &[("value", value)]);
            bytes.extend_from_slice(head.trim_end_matches('\0').as_bytes());
            bytes.extend_from_slice(body.as_bytes());
            bytes.extend_from_slice(b"\0\n");
        }
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for pair in cuts.windows(2) {
            decoder.add(&bytes[pair[0]..pair[1]]);
            while let Some(frame) = decoder.next().unwrap() {
                found.push(frame.header("value").unwrap().to_owned());
            }
        }
        let values: Vec<_> = texts.into_iter().map(|(value, _)| value).collect();
        prop_assert_eq!(found, values);
    }

    #[test]
    fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // An error, or fewer frames than bytes.
        prop_assert!(frames(&bytes).map_or(true, |frames| frames.len() <= bytes.len()));
    }
}
