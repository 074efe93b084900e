//! The storage systems and their offerings (decision D1).

use std::collections::HashMap;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use settings::reader::Read;
use settings::{Invalid, Value, invalid};

use super::StorageSystem;

/// Reads a mapping of names to offering slugs: YAML, or JSON in one text. Keeps the order. The last of two equal keys wins,
/// as in Python.
pub(super) fn read(value: &Value) -> Read<Vec<StorageSystem>> {
    let example = "map each name to an offering's slug, for example {\"capstor\": \"capstor-offering\"}";
    let pairs = match value {
        Value::Map(pairs) => pairs.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        Value::Text(json) => match serde_json::from_str::<Pairs>(json) {
            Ok(Pairs(pairs)) => pairs,
            Err(_) => return Err(vec![invalid("not a JSON object", example)]),
        },
        _ => return Err(vec![invalid("not a mapping", example)]),
    };
    if pairs.is_empty() {
        return Err(vec![invalid("empty", example)]);
    }
    let systems = validated(pairs)?;
    let shown: Vec<_> = systems.iter().map(|system| format!("{}: {}", system.name, system.offering_slug)).collect();
    Ok((systems, shown.join(", ")))
}

type Pair = (String, Result<String, Invalid>);

fn text(value: &Value) -> Result<String, Invalid> {
    value.scalar().map(str::to_owned)
}

fn validated(pairs: Vec<Pair>) -> Result<Vec<StorageSystem>, Vec<Invalid>> {
    let mut systems: Vec<StorageSystem> = Vec::new();
    let mut problems = Vec::new();
    let mut by_slug: HashMap<String, String> = HashMap::new();
    for (key, slug) in pairs {
        let part = key.trim().escape_debug().to_string();
        let mut report = |invalid: Invalid| problems.push(Invalid { part: Some(part.clone()), ..invalid });
        let name = key.trim().to_owned();
        if let Err(error) = segment(&name) {
            report(Invalid { what: format!("the name is {}", error.what), ..error });
        } else if systems.iter().any(|system| system.name == name) {
            report(invalid("the name is given twice", "remove one of the two; white space around names is ignored"));
        }
        match slug.map(|slug| slug.trim().to_owned()).and_then(|slug| self::slug(&slug).map(|()| slug)) {
            Err(error) => report(Invalid { what: format!("the offering's slug is {}", error.what), ..error }),
            Ok(slug) => {
                if let Some(other) = by_slug.insert(slug.clone(), name.clone()) {
                    let other = other.escape_debug();
                    report(invalid(
                        format!("the offering's slug is also that of `{other}`"),
                        "give each storage system its own offering",
                    ));
                }
                systems.push(StorageSystem { name, offering_slug: slug });
            }
        }
    }
    if problems.is_empty() { Ok(systems) } else { Err(problems) }
}

fn slug(slug: &str) -> Result<(), Invalid> {
    segment(slug)?;
    if slug.contains(',') {
        // Requests to Waldur join several slugs with commas.
        return Err(invalid("invalid: it contains a comma", "give the slug of one offering, as Waldur shows it"));
    }
    Ok(())
}

/// Validates a name or slug, which becomes a segment of the paths that provisioners create.
fn segment(text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        Err(invalid("blank", "give one"))
    } else if matches!(text, "." | "..") || text.contains('/') {
        Err(invalid("invalid: it contains `/`, or is `.` or `..`", "give one that is valid as a directory name"))
    } else if text.chars().any(char::is_control) {
        Err(invalid("invalid: it contains a control character", "remove it"))
    } else {
        Ok(())
    }
}

/// A JSON object in the order of the text.
struct Pairs(Vec<Pair>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Pairs;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs, M::Error> {
                let mut pairs: Vec<Pair> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
                    let slug = match value {
                        serde_json::Value::String(slug) => Ok(slug),
                        _ => Err(invalid("not text", "put the slug in quotes")),
                    };
                    match pairs.iter_mut().find(|(other, _)| *other == name) {
                        Some(pair) => pair.1 = slug,
                        None => pairs.push((name, slug)),
                    }
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<Vec<(String, String)>, Vec<String>> {
        read(&Value::Text(text.to_owned()))
            .map(|(systems, _)| systems.into_iter().map(|system| (system.name, system.offering_slug)).collect())
            .map_err(|errors| errors.into_iter().map(|error| format!("{:?}: {}", error.part, error.what)).collect())
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, slug)| ((*name).to_owned(), (*slug).to_owned())).collect()
    }

    #[test]
    fn order_is_kept_and_white_space_is_trimmed() {
        assert_eq!(
            json(r#"{"vast": " v ", " capstor ": "c", "a": "x"}"#),
            Ok(pairs(&[("vast", "v"), ("capstor", "c"), ("a", "x")]))
        );
    }

    #[test]
    fn the_last_of_two_equal_keys_wins_at_the_position_of_the_first() {
        assert_eq!(json(r#"{"a": "1", "b": "2", "a": "3"}"#), Ok(pairs(&[("a", "3"), ("b", "2")])));
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let errors =
            json(r#"{"a": "x", " a ": "y", "b": "x", "c": "x,y", "..": "d", "e": 5, "": " ", "n\u0000": "n"}"#)
                .unwrap_err();
        let expected = [
            "Some(\"a\"): the name is given twice",
            "Some(\"b\"): the offering's slug is also that of `a`",
            "Some(\"c\"): the offering's slug is invalid: it contains a comma",
            "Some(\"..\"): the name is invalid: it contains `/`, or is `.` or `..`",
            "Some(\"e\"): the offering's slug is not text",
            "Some(\"\"): the name is blank",
            "Some(\"\"): the offering's slug is blank",
            "Some(\"n\\\\0\"): the name is invalid: it contains a control character",
        ];
        assert_eq!(errors, expected);
    }

    #[test]
    fn only_an_object_is_accepted() {
        for text in ["", "[]", "null", "capstor", "{", "{}", "5", r#"{"a": "b"} x"#] {
            assert!(json(text).is_err(), "{text}");
        }
    }
}
