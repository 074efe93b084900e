use proptest::prelude::*;

use super::*;

/// Results of python-dotenv 1.2.4 for each text, with `OUTER=out` and an empty `EMPTY` in the environment: names in order
/// of first occurrence, with the last value of each; `None` is a name without a value.
type Case = (&'static str, &'static [(&'static str, Option<&'static str>)]);

#[rustfmt::skip]
const AS_PYTHON_DOES: &[Case] = &[
    ("A=pa$word", &[("A", Some("pa$word"))]),
    ("B=\"pa$word\"", &[("B", Some("pa$word"))]),
    ("C='pa$word'", &[("C", Some("pa$word"))]),
    ("H=a b c", &[("H", Some("a b c"))]),
    ("J=p@ss\\word", &[("J", Some("p@ss\\word"))]),
    ("N={\"json\": [1, 2]}", &[("N", Some("{\"json\": [1, 2]}"))]),
    ("S={\"capstor\": \"a b\", \"vast\": \"v\"} # systems", &[("S", Some("{\"capstor\": \"a b\", \"vast\": \"v\"}"))]),
    ("A=1 # comment", &[("A", Some("1"))]),
    ("A=1# no comment", &[("A", Some("1# no comment"))]),
    ("A=#x", &[("A", Some("#x"))]),
    ("A= #x", &[("A", Some(""))]),
    ("A=", &[("A", Some(""))]),
    ("A", &[("A", None)]),
    ("A =  b ", &[("A", Some("b"))]),
    ("export A=1", &[("A", Some("1"))]),
    ("export   A = 1", &[("A", Some("1"))]),
    ("export=1", &[("export", Some("1"))]),
    ("exportA=1", &[("exportA", Some("1"))]),
    ("export", &[("export", None)]),
    ("export A", &[("A", None)]),
    (" A=1", &[("A", Some("1"))]),
    ("\t A=1", &[("A", Some("1"))]),
    ("\u{feff}A=1", &[("A", Some("1"))]),
    ("A=1\r\nB=2\rC=3\n", &[("A", Some("1")), ("B", Some("2")), ("C", Some("3"))]),
    ("# only\n\nA=1", &[("A", Some("1"))]),
    ("A='it''s'", &[]),
    ("A='it\\'s'", &[("A", Some("it's"))]),
    ("A=\"q\\\"q\"", &[("A", Some("q\"q"))]),
    ("A=\"a\\nb\\tc\\\\d\\xe\"", &[("A", Some("a\nb\tc\\d\\xe"))]),
    ("A='a\\nb\\\\c'", &[("A", Some("a\\nb\\c"))]),
    ("A=\"one\ntwo\"\nB=3", &[("A", Some("one\ntwo")), ("B", Some("3"))]),
    ("A='one\ntwo'\nB=3", &[("A", Some("one\ntwo")), ("B", Some("3"))]),
    ("A=\"open\nB=2", &[("B", Some("2"))]),
    ("A='open\nB=2", &[("B", Some("2"))]),
    ("A=\"x\" # c", &[("A", Some("x"))]),
    ("A=\"x\"y\nB=1", &[("B", Some("1"))]),
    ("A=\"x\" y\nB=1", &[("B", Some("1"))]),
    ("'A B'=1", &[("A B", Some("1"))]),
    ("'A=1\nB=2", &[("B", Some("2"))]),
    ("=1\nB=2", &[("B", Some("2"))]),
    ("A B=1\nC=2", &[("C", Some("2"))]),
    ("A=${OUTER}", &[("A", Some("out"))]),
    ("A=${NONE}", &[("A", Some(""))]),
    ("A=${NONE:-d}", &[("A", Some("d"))]),
    ("A=${OUTER:-d}", &[("A", Some("out"))]),
    ("A=${EMPTY:-d}", &[("A", Some(""))]),
    ("A=${NONE:d}", &[("A", Some("${NONE:d}"))]),
    ("A=${", &[("A", Some("${"))]),
    ("A=${NONE", &[("A", Some("${NONE"))]),
    ("A='${OUTER}'", &[("A", Some("out"))]),
    ("A=\"${OUTER}x${OUTER}\"", &[("A", Some("outxout"))]),
    ("A=$OUTER", &[("A", Some("$OUTER"))]),
    ("A=$${OUTER}", &[("A", Some("$out"))]),
    ("OUTER=in\nA=${OUTER}", &[("OUTER", Some("in")), ("A", Some("in"))]),
    ("A=${B}\nB=1", &[("A", Some("")), ("B", Some("1"))]),
    ("OUTER\nA=${OUTER}", &[("OUTER", None), ("A", Some(""))]),
    ("A=${A}", &[("A", Some(""))]),
    ("OUTER=${OUTER}:more", &[("OUTER", Some("out:more"))]),
    ("A=${NONE:-a:b}", &[("A", Some("a:b"))]),
    ("A=${NONE:-}", &[("A", Some(""))]),
    ("A=${NO${OUTER}}", &[("A", Some("}"))]),
    ("A=1\nA=2", &[("A", Some("2"))]),
    ("A=1\nA", &[("A", None)]),
    ("a=1\nA=2", &[("a", Some("1")), ("A", Some("2"))]),
    ("A:1", &[("A:1", None)]),
    ("A=b=c", &[("A", Some("b=c"))]),
    ("A= b", &[("A", Some("b"))]),
    ("A=\"\"", &[("A", Some(""))]),
    ("A=''", &[("A", Some(""))]),
    ("A=x\u{a0}# c", &[("A", Some("x"))]),
    ("A=\u{a0}x", &[("A", Some("x"))]),
    ("A=x\u{1c}", &[("A", Some("x"))]),
    ("A=x \u{b}# c", &[("A", Some("x"))]),
    ("A=é", &[("A", Some("é"))]),
    ("Ä=1", &[("Ä", Some("1"))]),
    ("A=\"\\u00e9\"", &[("A", Some("\\u00e9"))]),
    ("A=\\", &[("A", Some("\\"))]),
    ("A=\"\\\"", &[]),
    ("A=\"a\\\\\"", &[("A", Some("a\\"))]),
    ("A=\"a\\\nb\"", &[("A", Some("a\\\nb"))]),
    ("#A=1", &[]),
    ("A=1 #c1 #c2", &[("A", Some("1"))]),
    ("A=a#b #c", &[("A", Some("a#b"))]),
    ("A='x' 'y'\nB=1", &[("B", Some("1"))]),
    ("export 'A'=1", &[("A", Some("1"))]),
    ("export\tA=1", &[("A", Some("1"))]),
    ("export \n A=1\nB=2", &[("A", Some("1")), ("B", Some("2"))]),
    ("A\n=1\nB=2", &[("A", None), ("B", Some("2"))]),
    ("A=1\n\n\n  # c\n\nB=2\n", &[("A", Some("1")), ("B", Some("2"))]),
    ("A-B.C=1", &[("A-B.C", Some("1"))]),
    ("A = ", &[("A", Some(""))]),
    ("A=\"x\"#c", &[("A", Some("x"))]),
    ("A='x'#c", &[("A", Some("x"))]),
    ("A=b\\#c", &[("A", Some("b\\#c"))]),
    ("A=\"b #c\"", &[("A", Some("b #c"))]),
    ("", &[]),
    ("\n", &[]),
    (" ", &[]),
    ("#", &[]),
    ("A=\"${OUTER}\\n\"", &[("A", Some("out\n"))]),
    ("A='${NONE:-it''s}'", &[]),
    ("A=${:-d}", &[("A", Some("d"))]),
    ("A=${}", &[("A", Some(""))]),
    ("X=\"a\\'b\"", &[("X", Some("a'b"))]),
    ("X='a\\\"b'", &[("X", Some("a\\\"b"))]),
];

fn outer(name: &str) -> Option<&'static str> {
    match name {
        "OUTER" => Some("out"),
        "EMPTY" => Some(""),
        _ => None,
    }
}

/// Order and values as in a Python dictionary: position of the first occurrence, value of the last.
fn read(text: &str) -> Vec<(String, Option<String>)> {
    let mut pairs: Vec<(String, Option<String>)> = Vec::new();
    for entry in parse(text, outer).0 {
        match pairs.iter_mut().find(|(name, _)| *name == entry.name) {
            Some(pair) => pair.1 = entry.value,
            None => pairs.push((entry.name, entry.value)),
        }
    }
    pairs
}

#[test]
fn texts_are_read_like_python_dotenv() {
    for (text, expected) in AS_PYTHON_DOES {
        let expected: Vec<_> =
            expected.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect();
        assert_eq!(read(text), expected, "{text:?}");
    }
}

#[test]
fn entries_have_the_line_of_their_name() {
    let (entries, bad) = parse("\n# c\nA=1\r\nB=\"x\n\ny\"\n\n  C=3\nnot a line\nD=4", outer);
    let lines: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.line)).collect();
    assert_eq!(lines, [("A", 3), ("B", 4), ("C", 8), ("D", 10)]);
    assert_eq!(bad, [9]);
}

#[test]
fn expansion_is_limited() {
    let text = format!("A=0123456789\n{}B=1", "A=${A}${A}\n".repeat(60));
    let (entries, bad) = parse(&text, outer);
    assert!(entries.iter().all(|entry| entry.value.as_ref().is_some_and(|value| value.len() <= LONGEST)));
    assert!(!bad.is_empty());
    assert_eq!(entries.last().map(|entry| entry.line), Some(62), "the other lines are read");
}

proptest! {
    #[test]
    fn no_input_panics(text in any::<String>(), likely in "[A-Z='\"#$ {}:\\\\\n\r-]{0,40}") {
        parse(&text, outer);
        parse(&likely, outer);
    }

    #[test]
    fn a_simple_value_is_unchanged(value in "[a-zA-Z0-9$%&/()=?+*.,:;<>|_-]{1,40}") {
        prop_assume!(!value.contains("${"));
        prop_assert_eq!(read(&format!("A={value}")), vec![("A".to_owned(), Some(value))]);
    }
}
