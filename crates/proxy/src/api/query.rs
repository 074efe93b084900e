//! Parses and validates the query of a listing as FastAPI does (decision D11).

use std::borrow::Cow;

use catalog::{Filter, State, Status};
use serde::Serialize;
use serde_json::{Map, Value};

/// A requested listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) filter: Filter,
    /// From 1, at most [`MAX_PAGE`].
    pub(crate) page: u128,
    /// 1 to 500.
    pub(crate) page_size: u16,
}

/// An invalid parameter, in the format and words of FastAPI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct InvalidParameter {
    #[serde(rename = "type")]
    kind: &'static str,
    loc: [&'static str; 2],
    msg: String,
    input: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    ctx: Map<String, Value>,
}

/// The names of all parameters.
pub(super) const NAMES: [&str; 6] = ["storage_system", "data_type", "status", "state", "page", "page_size"];

const DEFAULT_PAGE_SIZE: u16 = 100;
const MAX_PAGE_SIZE: u16 = 500;
/// Larger page numbers are rejected, because the offset would overflow 128 bits.
const MAX_PAGE: u128 = 10_u128.pow(35);

impl InvalidParameter {
    fn new(kind: &'static str, key: &'static str, input: &str, msg: impl Into<String>) -> Self {
        Self { kind, loc: ["query", key], msg: msg.into(), input: input.to_owned(), ctx: Map::new() }
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.ctx.insert(key.to_owned(), value.into());
        self
    }

    /// An ID in a path that is not a UUID.
    pub(crate) fn uuid(input: &str) -> Self {
        let msg = "Input should be a valid UUID, 32 hexadecimal digits with or without dashes";
        Self { loc: ["path", "itemId"], ..Self::new("uuid_parsing", "itemId", input, msg) }
    }
}

/// Parses a query string. The error contains all invalid parameters, in FastAPI's order.
pub(crate) fn parse(query: &str, systems: &[&str]) -> Result<Query, Vec<InvalidParameter>> {
    let query: &Parameters = &url::form_urlencoded::parse(query.as_bytes()).collect::<Vec<_>>();
    let mut invalid = Vec::new();
    let storage_system = last(query, "storage_system");
    if storage_system == Some("") {
        let fault =
            InvalidParameter::new("string_too_short", "storage_system", "", "String should have at least 1 character");
        invalid.push(fault.with("min_length", 1));
    }
    let state = one_of(query, "state", &State::KNOWN.map(State::as_str), &mut invalid);
    let page = or_invalid(integer(query, "page", 1, 1, None), &mut invalid);
    let page_size =
        or_invalid(integer(query, "page_size", DEFAULT_PAGE_SIZE.into(), 1, Some(MAX_PAGE_SIZE.into())), &mut invalid);
    let status = one_of(query, "status", &Status::ALL.map(Status::as_str), &mut invalid);
    // Like the Python proxy, validate the storage system only if everything else is valid.
    if let (Some(system), true) = (storage_system, invalid.is_empty())
        && !systems.contains(&system)
    {
        let names: Vec<_> = systems.iter().map(|name| format!("'{name}'")).collect();
        let msg = format!("Input should be one of: {}", names.join(", "));
        invalid.push(InvalidParameter::new("enum", "storage_system", system, msg));
    }
    if !invalid.is_empty() {
        return Err(invalid);
    }
    let filter = Filter {
        storage_system: storage_system.map(str::to_owned),
        data_type: last(query, "data_type").and_then(Filter::data_type_of),
        status: status.and_then(|status| status.parse().ok()),
        state: state.and_then(State::known),
    };
    Ok(Query { filter, page, page_size: u16::try_from(page_size).unwrap_or(MAX_PAGE_SIZE) })
}

/// The decoded parameters of a query.
type Parameters<'a> = [(Cow<'a, str>, Cow<'a, str>)];

/// The last value of a key; it takes precedence, as in FastAPI.
fn last<'a>(query: &'a Parameters, key: &str) -> Option<&'a str> {
    query.iter().rfind(|(name, _)| name == key).map(|(_, value)| &**value)
}

/// A value that must be one of `known`; otherwise adds to `invalid`.
fn one_of<'a>(
    query: &'a Parameters,
    key: &'static str,
    known: &[&str],
    invalid: &mut Vec<InvalidParameter>,
) -> Option<&'a str> {
    let value = last(query, key)?;
    if !known.contains(&value) {
        let expected = enumeration(known);
        let fault = InvalidParameter::new("enum", key, value, format!("Input should be {expected}"));
        invalid.push(fault.with("expected", expected));
    }
    Some(value)
}

/// `'a', 'b' or 'c'`.
fn enumeration(known: &[&str]) -> String {
    let quoted: Vec<_> = known.iter().map(|name| format!("'{name}'")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

fn or_invalid(value: Result<u128, InvalidParameter>, invalid: &mut Vec<InvalidParameter>) -> u128 {
    value.unwrap_or_else(|error| {
        invalid.push(error);
        1
    })
}

fn integer(
    query: &Parameters,
    key: &'static str,
    default: u128,
    least: u64,
    most: Option<u64>,
) -> Result<u128, InvalidParameter> {
    let Some(input) = last(query, key) else { return Ok(default) };
    let Some((negative, digits)) = spelled_integer(input) else {
        let msg = "Input should be a valid integer, unable to parse string as an integer";
        return Err(InvalidParameter::new("int_parsing", key, input, msg));
    };
    let value = digits.parse::<u128>().ok();
    if negative || value.is_some_and(|value| value < least.into()) {
        let msg = format!("Input should be greater than or equal to {least}");
        return Err(InvalidParameter::new("greater_than_equal", key, input, msg).with("ge", least));
    }
    if let Some(most) = most
        && value.is_none_or(|value| value > most.into())
    {
        let msg = format!("Input should be less than or equal to {most}");
        return Err(InvalidParameter::new("less_than_equal", key, input, msg).with("le", most));
    }
    value.filter(|value| *value <= MAX_PAGE).ok_or_else(|| {
        let msg = "Unable to parse input string as an integer, exceeded maximum size";
        InvalidParameter::new("int_parsing_size", key, input, msg)
    })
}

/// Sign and digits of an integer in pydantic's syntax: surrounding white space, a sign, single underscores between digits,
/// and a fraction of zeros.
fn spelled_integer(text: &str) -> Option<(bool, String)> {
    let text = text.trim();
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let whole = match unsigned.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|digit| digit == b'0') => whole,
        Some(_) => return None,
        None => unsigned,
    };
    let groups: Vec<_> = whole.split('_').collect();
    let digits = groups.iter().all(|group| !group.is_empty() && group.bytes().all(|digit| digit.is_ascii_digit()));
    digits.then(|| (negative, groups.concat()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SYSTEMS: [&str; 2] = ["capstor", "vast"];

    fn page(query: &str) -> Result<u128, &'static str> {
        parse(query, &SYSTEMS).map(|query| query.page).map_err(|faults| faults[0].kind)
    }

    #[test]
    fn integers_have_the_syntax_of_the_python_proxy() {
        for (query, expected) in [
            ("", Ok(1)),
            ("page=7", Ok(7)),
            ("page=1.0", Ok(1)),
            ("page=%201%20", Ok(1)),
            ("page=%2B1", Ok(1)),
            ("page=+1", Ok(1)),
            ("page=1_0", Ok(10)),
            ("page=01", Ok(1)),
            ("page=1&page=2", Ok(2)),
            ("page=a&page=2", Ok(2)),
            ("page=1%E2%80%83", Ok(1)),
            ("a;page=3", Ok(1)),
            ("page=99999999999999999999", Ok(99_999_999_999_999_999_999)),
            ("page=-1", Err("greater_than_equal")),
            ("page=0", Err("greater_than_equal")),
            ("page=-0", Err("greater_than_equal")),
            ("page=+-1", Err("greater_than_equal")),
            ("page=-1.0", Err("greater_than_equal")),
            ("page=", Err("int_parsing")),
            ("page=1.5", Err("int_parsing")),
            ("page=1.", Err("int_parsing")),
            ("page=.0", Err("int_parsing")),
            ("page=0x1", Err("int_parsing")),
            ("page=1e2", Err("int_parsing")),
            ("page=true", Err("int_parsing")),
            ("page=1__0", Err("int_parsing")),
            ("page=_1", Err("int_parsing")),
            ("page=1%00", Err("int_parsing")),
            ("page=%D9%A1", Err("int_parsing")),
            ("page=%ff", Err("int_parsing")),
        ] {
            assert_eq!(page(query), expected, "{query}");
        }
        assert_eq!(page(&format!("page={}", "9".repeat(60))), Err("int_parsing_size"));
        let size = parse("page_size=99999999999999999999999999999999999999999999", &SYSTEMS);
        assert_eq!(size.unwrap_err()[0].kind, "less_than_equal");
    }

    #[test]
    fn all_invalid_parameters_are_reported_in_order() {
        let faults = parse("status=&state=&storage_system=&page=0&page_size=501", &SYSTEMS).unwrap_err();
        let keys: Vec<_> = faults.iter().map(|fault| (fault.loc[1], fault.kind)).collect();
        assert_eq!(
            keys,
            [
                ("storage_system", "string_too_short"),
                ("state", "enum"),
                ("page", "greater_than_equal"),
                ("page_size", "less_than_equal"),
                ("status", "enum"),
            ]
        );
    }

    #[test]
    fn an_unknown_system_is_reported_last_with_the_known_ones() {
        let faults = parse("storage_system=nope&page=0", &SYSTEMS).unwrap_err();
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].kind, "greater_than_equal");
        let faults = parse("storage_system=nope", &SYSTEMS).unwrap_err();
        assert_eq!(faults[0].msg, "Input should be one of: 'capstor', 'vast'");
        assert_eq!(parse("storage_system=%20", &SYSTEMS).unwrap_err()[0].kind, "enum");
    }

    #[test]
    fn a_blank_data_type_is_no_filter() {
        let data_type = |query| parse(query, &SYSTEMS).unwrap().filter.data_type;
        assert_eq!(data_type("data_type=%20"), None);
        assert_eq!(data_type("data_type=%1c"), None);
        assert_eq!(data_type("data_type=+Scratch%20"), Some("scratch".into()));
    }

    proptest! {
        #[test]
        fn no_query_string_makes_the_parser_panic(query in "\\PC*") {
            let _ = parse(&query, &SYSTEMS);
        }

        #[test]
        fn accepted_values_are_within_the_limits(page in ".{0,8}", size in ".{0,8}") {
            let query: String = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("page", &page)
                .append_pair("page_size", &size)
                .finish();
            if let Ok(query) = parse(&query, &SYSTEMS) {
                prop_assert!(query.page >= 1 && query.page <= MAX_PAGE);
                prop_assert!((1..=500).contains(&query.page_size));
            }
        }
    }
}
