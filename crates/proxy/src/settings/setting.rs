//! What a row of the table is, and how a value of each kind is read.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::fault::{Wrong, quoted, wrong};
use super::yaml::Value;
use super::{Listen, Settings, StorageSystem, check, systems};

/// One setting: a row of the table.
#[derive(Debug)]
pub(super) struct Setting {
    /// Key in the YAML file: `section.name`, or a name alone.
    pub(super) key: &'static str,
    /// Names of environment variables, the preferred one first.
    pub(super) variables: &'static [&'static str],
    /// How the value is read, and where it goes.
    pub(super) kind: Kind,
    /// What holds when nothing is given.
    pub(super) preset: Preset,
    /// What it does, with units and range; a sentence or more of Markdown.
    pub(super) doc: &'static str,
}

/// What holds when a setting is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preset {
    /// That is a fault.
    Required,
    /// The setting is not in force. An empty value says the same for texts and proxies, and so switches off what a
    /// lower source gives; the Python proxy does likewise.
    Absent,
    /// This value, written as in an environment variable. An empty value is a fault, as in the Python proxy.
    Is(&'static str),
    /// This value, also in place of an empty one.
    IfEmpty(&'static str),
}

/// How a value is read, judged alone and put into the settings.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A boolean in any of pydantic's words.
    Flag(fn(&mut Settings, bool)),
    /// A finite number above zero.
    Positive(fn(&mut Settings, f64)),
    /// Seconds: above 0, at most a day.
    Seconds(fn(&mut Settings, Duration)),
    /// Seconds: from 0, at most a day.
    Age(fn(&mut Settings, Duration)),
    /// A whole number from 1 to the limit.
    Count(usize, fn(&mut Settings, usize)),
    /// A number from 0 to 1.
    Share(fn(&mut Settings, f32)),
    /// A text that stands the test.
    Text(Check, fn(&mut Settings, String)),
    /// A text that is never shown and stands the test.
    Secret(Check, fn(&mut Settings, SecretString)),
    /// A data source name of Sentry, which holds a key and is never shown.
    Dsn(fn(&mut Settings, SecretString)),
    /// The root of Waldur: a base URL whose suffix `/api` is dropped.
    WaldurUrl(fn(&mut Settings, Url)),
    /// A base URL: http or https, without credentials, query and fragment.
    BaseUrl(fn(&mut Settings, Url)),
    /// A URL that is called as it stands: it may have a query.
    Endpoint(fn(&mut Settings, Url)),
    /// URL of a proxy; shown without credentials.
    Proxy(fn(&mut Settings, Url)),
    /// URL of a Valkey or Redis server; shown without credentials.
    CacheServer(fn(&mut Settings, SecretString)),
    /// One of the words.
    Choice(&'static [Word]),
    /// Names: a YAML list, or one text with commas.
    Names(fn(&mut Settings, Vec<String>)),
    /// What to listen on: a YAML list, or one text with commas.
    Addresses(fn(&mut Settings, Vec<Listen>)),
    /// Storage systems: a YAML mapping, or a JSON object in one text.
    Systems(fn(&mut Settings, Vec<StorageSystem>)),
}

/// A word and what it does to the settings.
pub(super) type Word = (&'static str, fn(&mut Settings));

/// Judges a text; never puts the text into the fault.
pub(super) type Check = fn(&str) -> Result<(), Wrong>;

/// Shown in place of a secret.
pub(super) const MASK: &str = "********";

impl Setting {
    /// Whether `value` says the same as no value at all.
    pub(super) fn is_absent(&self, value: &Value) -> bool {
        let may_be_empty = matches!(self.preset, Preset::Absent | Preset::IfEmpty(_))
            && matches!(
                self.kind,
                Kind::Text(..) | Kind::Secret(..) | Kind::Proxy(..) | Kind::CacheServer(_) | Kind::Names(_)
            );
        match value {
            Value::Null => true,
            Value::Text(text) => text.is_empty() && may_be_empty,
            _ => false,
        }
    }

    /// Whether the value may stand in a file of its own.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret(..) | Kind::Dsn(_) | Kind::CacheServer(_))
    }

    /// Reads a value into the settings. Returns it as it may be shown.
    pub(super) fn put(&self, value: &Value, settings: &mut Settings) -> Result<String, Vec<Wrong>> {
        self.kind.put(value, settings)
    }
}

impl Kind {
    fn put(self, value: &Value, settings: &mut Settings) -> Result<String, Vec<Wrong>> {
        match self {
            Self::Systems(set) => {
                let systems = systems::read(value)?;
                let shown = systems.iter().map(|system| format!("{}: {}", system.name, system.offering_slug));
                let shown = shown.collect::<Vec<_>>().join(", ");
                set(settings, systems);
                Ok(shown)
            }
            Self::Names(set) => {
                let names = list(value)?;
                let shown = names.join(", ");
                set(settings, names);
                Ok(shown)
            }
            Self::Addresses(set) => {
                let addresses = list(value)?.iter().map(|text| check::address(text)).collect::<Result<Vec<_>, _>>();
                let addresses = addresses.map_err(one)?;
                if addresses.is_empty() {
                    return Err(one(wrong(
                        "no address",
                        "give at least one as ADDRESS:PORT or unix:PATH, or leave the setting out",
                    )));
                }
                let shown = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                set(settings, addresses);
                Ok(shown)
            }
            _ => self.put_scalar(value, settings).map_err(one),
        }
    }

    fn put_scalar(self, value: &Value, settings: &mut Settings) -> Result<String, Wrong> {
        let text = scalar(value)?;
        match self {
            Self::Flag(set) => {
                let flag = check::flag(text)?;
                set(settings, flag);
                Ok(flag.to_string())
            }
            Self::Positive(set) => {
                let number = check::number(value).filter(|number| *number > 0.0).ok_or_else(|| {
                    wrong(format!("{} is not a number above 0", quoted(text)), "give one, for example 1.5")
                })?;
                set(settings, number);
                Ok(number.to_string())
            }
            Self::Seconds(set) | Self::Age(set) => {
                let day = 24.0 * 60.0 * 60.0;
                let (least, range) =
                    if matches!(self, Self::Age(_)) { (0.0, "from 0 to") } else { (0.001, "above 0 and at most") };
                let seconds =
                    check::number(value).filter(|seconds| (least..=day).contains(seconds)).ok_or_else(|| {
                        let what = format!("{} is not a number of seconds {range} a day (86400)", quoted(text));
                        wrong(what, "give one, for example 30")
                    })?;
                set(settings, Duration::from_secs_f64(seconds));
                Ok(seconds.to_string())
            }
            Self::Count(most, set) => {
                let number =
                    text.parse::<usize>().ok().filter(|number| (1..=most).contains(number)).ok_or_else(|| {
                        wrong(
                            format!("{} is not a whole number from 1 to {most}", quoted(text)),
                            "give one, for example 4",
                        )
                    })?;
                set(settings, number);
                Ok(number.to_string())
            }
            Self::Share(set) => {
                let number = check::number(value).filter(|number| (0.0..=1.0).contains(number)).ok_or_else(|| {
                    wrong(format!("{} is not a number from 0 to 1", quoted(text)), "give one, for example 0.1")
                })?;
                #[expect(clippy::cast_possible_truncation, reason = "a share needs no more digits than f32 has")]
                set(settings, number as f32);
                Ok(number.to_string())
            }
            Self::Text(check, set) => {
                check(text)?;
                set(settings, text.to_owned());
                Ok(text.to_owned())
            }
            Self::Secret(check, set) => {
                check(text)?;
                set(settings, SecretString::from(text));
                Ok(MASK.to_owned())
            }
            Self::Dsn(set) => Self::Secret(check::dsn, set).put_scalar(value, settings),
            Self::WaldurUrl(set) => {
                let url = check::without_api(check::base_url(text)?);
                let shown = url.to_string();
                set(settings, url);
                Ok(shown)
            }
            Self::BaseUrl(set) => {
                let url = check::base_url(text)?;
                let shown = url.to_string();
                set(settings, url);
                Ok(shown)
            }
            Self::Endpoint(set) => {
                let url = check::endpoint(text)?;
                let shown = crate::upstream::public_part(&url);
                set(settings, url);
                Ok(shown)
            }
            Self::Proxy(set) => {
                let url = check::proxy(text)?;
                let shown = check::masked(&url);
                set(settings, url);
                Ok(shown)
            }
            Self::CacheServer(set) => {
                let url = check::cache_server(text)?;
                set(settings, SecretString::from(text));
                Ok(check::masked(&url))
            }
            Self::Choice(choices) => {
                let choice = choices.iter().find(|(word, _)| *word == text);
                let (word, set) = choice.ok_or_else(|| {
                    let words: Vec<_> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
                    wrong(format!("{} is not known", quoted(text)), format!("give {}", words.join(" or ")))
                })?;
                set(settings);
                Ok((*word).to_owned())
            }
            Self::Names(_) | Self::Addresses(_) | Self::Systems(_) => {
                // `put` has dealt with them.
                Err(wrong("not a single value", "give a list or a mapping"))
            }
        }
    }

    /// The kind in a word or two, for the reference.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Flag(_) => "boolean",
            Self::Positive(_) => "number above 0",
            Self::Seconds(_) => "seconds, above 0 and at most a day (86400)",
            Self::Age(_) => "seconds, from 0 to a day (86400)",
            Self::Count(..) => "whole number",
            Self::Share(_) => "number, 0 to 1",
            Self::Text(..) => "text",
            Self::Secret(..) => "secret, or its file",
            Self::Dsn(_) => "secret URL, or its file",
            Self::WaldurUrl(_) | Self::BaseUrl(_) | Self::Endpoint(_) => "URL",
            Self::Proxy(_) => "proxy URL",
            Self::CacheServer(_) => "URL, shown without credentials",
            Self::Choice(_) => "choice",
            Self::Names(_) => "list",
            Self::Addresses(_) => "list of addresses",
            Self::Systems(_) => "mapping",
        }
    }
}

fn one(wrong: Wrong) -> Vec<Wrong> {
    vec![wrong]
}

/// The text of a single value, as it was written.
pub(super) fn scalar(value: &Value) -> Result<&str, Wrong> {
    match value {
        Value::Text(text) | Value::Number { text, .. } => Ok(text),
        Value::Unwritten => Err(wrong("the spelling of the value is lost", "put the value in quotes")),
        Value::Unreadable => Err(wrong("not valid UTF-8", "set it anew")),
        Value::Null => Err(wrong("no value", "give one")),
        Value::List(_) => Err(wrong("a list, where one value belongs", "give one value")),
        Value::Map(_) => Err(wrong("a mapping, where one value belongs", "give one value")),
    }
}

/// The texts of a list, or of one text with commas; trimmed. Blank parts of a text with commas are left out.
fn list(value: &Value) -> Result<Vec<String>, Vec<Wrong>> {
    if let Value::List(items) = value {
        return items
            .iter()
            .map(|item| match scalar(item)?.trim() {
                "" => Err(wrong("a blank entry", "remove it")),
                text => check::plain(text).map(|()| text.to_owned()),
            })
            .collect::<Result<_, _>>()
            .map_err(one);
    }
    let text = scalar(value).map_err(one)?;
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| check::plain(part).map(|()| part.to_owned())).collect::<Result<_, _>>().map_err(one)
}
