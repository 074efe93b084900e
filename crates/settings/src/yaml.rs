//! Parses the YAML file into a tree that keeps lines and spelling.
//!
//! The dialect is as close to PyYAML as the library allows: `0770` is octal, the last of two equal keys wins, `<<`
//! merges. Plain numbers and booleans keep their spelling, so that a token made of digits is not changed.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Spanned};

use crate::value::Value;

/// A key of a mapping, with its value and the line of the key, from 1; 0 if unknown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: Tree,
    pub(crate) line: u64,
}

/// A node of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tree {
    Leaf(Value),
    Map(Vec<Entry>),
}

impl Tree {
    /// The value of the node, without lines.
    pub(crate) fn value(&self) -> Value {
        match self {
            Self::Leaf(value) => value.clone(),
            Self::Map(entries) => {
                Value::Map(entries.iter().map(|entry| (entry.key.clone(), entry.value.value())).collect())
            }
        }
    }
}

/// Text that is not YAML. Only the position is kept, because the library's message may quote secrets from the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotYaml {
    /// Line, from 1; 0 if unknown.
    pub(crate) line: u64,
    /// Column, from 1; 0 if unknown.
    pub(crate) column: u64,
}

/// Parses a file. An empty file is null.
pub(crate) fn parse(text: &str) -> Result<Tree, NotYaml> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        legacy_octal_numbers: true,
        // YAML reads a token such as 12e3456… as a float out of range; only its spelling matters.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    let node: Spanned<Node> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location();
        NotYaml { line: place.map_or(0, |place| place.line()), column: place.map_or(0, |place| place.column()) }
    })?;
    Ok(tree(&node, text))
}

fn tree(node: &Spanned<Node>, source: &str) -> Tree {
    match &node.value {
        Node::Map(pairs) => {
            let mut entries: Vec<Entry> = Vec::new();
            for (key, value) in pairs {
                let entry = Entry { key: key_text(key, source), value: tree(value, source), line: key.defined.line() };
                match entries.iter_mut().find(|other| other.key == entry.key) {
                    Some(other) => *other = entry,
                    None => entries.push(entry),
                }
            }
            Tree::Map(entries)
        }
        Node::List(items) => Tree::Leaf(Value::List(items.iter().map(|item| tree(item, source).value()).collect())),
        Node::Null => Tree::Leaf(Value::Null),
        Node::Text(text) => Tree::Leaf(Value::Text(text.clone())),
        Node::Flag => Tree::Leaf(written(node, source).map_or(Value::Unwritten, Value::Text)),
        Node::Number(value) => {
            Tree::Leaf(written(node, source).map_or(Value::Unwritten, |text| Value::Number { value: *value, text }))
        }
    }
}

fn key_text(key: &Spanned<Node>, source: &str) -> String {
    match &key.value {
        Node::Text(text) => text.clone(),
        _ => written(key, source).unwrap_or_default(),
    }
}

/// The spelling of a plain scalar.
fn written(node: &Spanned<Node>, source: &str) -> Option<String> {
    let span = node.defined.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
    let text = source.get(start..end)?.trim();
    // Any other scalar, for example one with a tag, has no spelling.
    let plain =
        !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || matches!(c, '!' | '"' | '\'' | '&' | '*'));
    plain.then(|| text.to_owned())
}

enum Node {
    Null,
    Flag,
    Number(f64),
    Text(String),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<Node>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Flag)
    }

    #[expect(clippy::cast_precision_loss, reason = "settings are f64; the spelling is kept as well")]
    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Number(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "settings are f64; the spelling is kept as well")]
    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Node::Map(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(yaml: &str) -> Value {
        parse(yaml).unwrap().value()
    }

    fn number(value: f64, text: &str) -> Value {
        Value::Number { value, text: text.to_owned() }
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn plain_values_keep_their_spelling() {
        for (yaml, value) in [
            ("0123", number(83.0, "0123")),
            (
                "1234567890123456789012345678901234567890",
                number(1.234_567_890_123_456_8e39, "1234567890123456789012345678901234567890"),
            ),
            ("0000000000000000000000000000000000000012", number(10.0, "0000000000000000000000000000000000000012")),
            ("12e34567", number(f64::INFINITY, "12e34567")),
            ("1_000", number(1000.0, "1_000")),
            ("1e3", number(1000.0, "1e3")),
            ("0x10", number(16.0, "0x10")),
            ("-1.5", number(-1.5, "-1.5")),
            ("yes", text("yes")),
            ("True", text("True")),
            ("\"5\"", text("5")),
            ("'a b'", text("a b")),
            ("~", Value::Null),
            ("null", Value::Null),
            ("", Value::Null),
            ("[1, a]", Value::List(vec![number(1.0, "1"), text("a")])),
        ] {
            assert_eq!(leaf(yaml), value, "{yaml}");
            if !yaml.is_empty() {
                let inside = leaf(&format!("é: ü\nkey:   {yaml}  # comment\nother: 1\n"));
                let Value::Map(pairs) = inside else { panic!("{yaml}") };
                assert_eq!(pairs[1], ("key".to_owned(), value), "{yaml}");
            }
        }
    }

    #[test]
    fn aliases_and_merges_keep_the_spelling_too() {
        let tree = leaf("a: &x {n: 007}\nb: {<<: *x}\nc: &n 010\nd: *n\n");
        let Value::Map(pairs) = tree else { panic!() };
        assert_eq!(pairs[1].1, Value::Map(vec![("n".to_owned(), number(7.0, "007"))]));
        assert_eq!(pairs[3].1, number(8.0, "010"));
    }

    #[test]
    fn the_last_of_two_equal_keys_wins_in_order() {
        let Value::Map(pairs) = leaf("b: 1\na: 2\nb: 3\n") else { panic!() };
        assert_eq!(pairs, [("b".to_owned(), number(3.0, "3")), ("a".to_owned(), number(2.0, "2"))]);
    }

    #[test]
    fn keys_keep_their_spelling_and_their_lines() {
        let Tree::Map(entries) = parse("yes: a\n\n010: b\n").unwrap() else { panic!() };
        let keys: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.line)).collect();
        assert_eq!(keys, [("yes", 1), ("010", 3)]);
    }

    #[test]
    fn invalid_yaml_is_reported_by_position_only() {
        let error = parse("a: 1\nb: [hunter2\n").unwrap_err();
        assert!(error.line >= 2, "{error:?}");
        assert!(parse("a: *nowhere").is_err());
        assert!(parse("a: 1\n---\nb: 2\n").is_err());
    }
}
