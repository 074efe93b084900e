//! The storage systems and their offerings (decision D1).

use std::collections::HashMap;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use settings::{Invalid, Value, invalid};

use super::{Settings, StorageSystem};

/// Reads the storage systems into the settings. Returns them as they may be shown.
pub(super) fn put(settings: &mut Settings, value: &Value) -> Result<String, Vec<Invalid>> {
    let systems = read(value)?;
    let shown = systems.iter().map(|system| format!("{}: {}", system.name, system.offering_slug));
    let shown = shown.collect::<Vec<_>>().join(", ");
    settings.storage_systems = systems;
    Ok(shown)
}

/// Reads a mapping of names to offering slugs: YAML, or JSON in one text. Keeps the order. A key that is there twice
/// has its last value, as in Python.
fn read(value: &Value) -> Result<Vec<StorageSystem>, Vec<Invalid>> {
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
    judge(pairs)
}

type Pair = (String, Result<String, Invalid>);

fn text(value: &Value) -> Result<String, Invalid> {
    value.scalar().map(str::to_owned)
}

fn judge(pairs: Vec<Pair>) -> Result<Vec<StorageSystem>, Vec<Invalid>> {
    let mut systems: Vec<StorageSystem> = Vec::new();
    let mut faults = Vec::new();
    let mut by_slug: HashMap<String, String> = HashMap::new();
    for (key, slug) in pairs {
        let part = key.trim().escape_debug().to_string();
        let mut fault = |wrong: Invalid| faults.push(Invalid { part: Some(part.clone()), ..wrong });
        let name = key.trim().to_owned();
        if let Err(wrong) = segment(&name) {
            fault(Invalid { what: format!("the name is {}", wrong.what), ..wrong });
        } else if systems.iter().any(|system| system.name == name) {
            fault(invalid("the name is there twice", "white space around names does not count: remove one of them"));
        }
        match slug.map(|slug| slug.trim().to_owned()).and_then(|slug| self::slug(&slug).map(|()| slug)) {
            Err(wrong) => fault(Invalid { what: format!("the offering's slug is {}", wrong.what), ..wrong }),
            Ok(slug) => {
                if let Some(other) = by_slug.insert(slug.clone(), name.clone()) {
                    let other = other.escape_debug();
                    fault(invalid(
                        format!("the offering's slug is that of `{other}`, too"),
                        "give each storage system its own offering",
                    ));
                }
                systems.push(StorageSystem { name, offering_slug: slug });
            }
        }
    }
    if faults.is_empty() { Ok(systems) } else { Err(faults) }
}

fn slug(slug: &str) -> Result<(), Invalid> {
    segment(slug)?;
    if slug.contains(',') {
        // Slugs are joined with commas when Waldur is asked for several.
        return Err(invalid("wrong: it holds a comma", "give the slug of one offering, as Waldur shows it"));
    }
    Ok(())
}

/// Both become a segment of the paths that provisioners make.
fn segment(text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        Err(invalid("blank", "give one"))
    } else if matches!(text, "." | "..") || text.contains('/') {
        Err(invalid("wrong: it holds `/`, or is `.` or `..`", "give one that can be a directory's name"))
    } else if text.chars().any(char::is_control) {
        Err(invalid("wrong: it holds a control character", "remove it"))
    } else {
        Ok(())
    }
}

/// A JSON object in its own order.
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
                        _ => Err(invalid("not a text", "put the slug in quotes")),
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
            .map(|systems| systems.into_iter().map(|system| (system.name, system.offering_slug)).collect())
            .map_err(|faults| faults.into_iter().map(|fault| format!("{:?}: {}", fault.part, fault.what)).collect())
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, slug)| ((*name).to_owned(), (*slug).to_owned())).collect()
    }

    #[test]
    fn order_is_kept_and_white_space_dropped() {
        assert_eq!(
            json(r#"{"vast": " v ", " capstor ": "c", "a": "x"}"#),
            Ok(pairs(&[("vast", "v"), ("capstor", "c"), ("a", "x")]))
        );
    }

    #[test]
    fn the_last_of_two_equal_keys_wins_in_the_first_ones_place() {
        assert_eq!(json(r#"{"a": "1", "b": "2", "a": "3"}"#), Ok(pairs(&[("a", "3"), ("b", "2")])));
    }

    #[test]
    fn all_faults_come_at_once() {
        let faults =
            json(r#"{"a": "x", " a ": "y", "b": "x", "c": "x,y", "..": "d", "e": 5, "": " ", "n\u0000": "n"}"#)
                .unwrap_err();
        let expected = [
            "Some(\"a\"): the name is there twice",
            "Some(\"b\"): the offering's slug is that of `a`, too",
            "Some(\"c\"): the offering's slug is wrong: it holds a comma",
            "Some(\"..\"): the name is wrong: it holds `/`, or is `.` or `..`",
            "Some(\"e\"): the offering's slug is not a text",
            "Some(\"\"): the name is blank",
            "Some(\"\"): the offering's slug is blank",
            "Some(\"n\\\\0\"): the name is wrong: it holds a control character",
        ];
        assert_eq!(faults, expected);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[]", "null", "capstor", "{", "{}", "5", r#"{"a": "b"} x"#] {
            assert!(json(text).is_err(), "{text}");
        }
    }
}
