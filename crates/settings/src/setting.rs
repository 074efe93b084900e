//! What a row of the table is, and how a value of each kind is read.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::check;
use crate::fault::{Wrong, quoted, wrong};
use crate::listen::{self, Listen};
use crate::value::Value;

/// One setting of the settings `S`: a row of the table.
#[derive(Debug)]
pub struct Setting<S: 'static> {
    /// Key in the YAML file: `section.name`, or a name alone.
    pub key: &'static str,
    /// Names of environment variables, the preferred one first.
    pub variables: &'static [&'static str],
    /// How the value is read, and where it goes.
    pub kind: Kind<S>,
    /// What holds when nothing is given.
    pub preset: Preset,
    /// What it does, with units and range; a sentence or more of Markdown.
    pub doc: &'static str,
}

/// What holds when a setting is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// That is a fault.
    Required,
    /// The setting is not in force. An empty value says the same for texts and proxies, and so switches off what a
    /// lower source gives; pydantic's settings do likewise.
    Absent,
    /// This value, written as in an environment variable. An empty value is a fault, as with pydantic.
    Is(&'static str),
    /// This value, also in place of an empty one.
    IfEmpty(&'static str),
}

/// How a value is read, judged alone and put into the settings.
#[derive(Debug)]
pub enum Kind<S: 'static> {
    /// A boolean in any of pydantic's words.
    Flag(fn(&mut S, bool)),
    /// A finite number above zero.
    Positive(fn(&mut S, f64)),
    /// Seconds: above 0, at most a day.
    Seconds(fn(&mut S, Duration)),
    /// Seconds: from 0, at most a day.
    Age(fn(&mut S, Duration)),
    /// A whole number from 1 to the limit.
    Count(usize, fn(&mut S, usize)),
    /// A number from 0 to 1.
    Share(fn(&mut S, f32)),
    /// Permission bits of a file: three or four octal digits.
    Mode(fn(&mut S, u32)),
    /// A text that stands the test.
    Text(Check, fn(&mut S, String)),
    /// A text that is never shown and stands the test.
    Secret(Check, fn(&mut S, SecretString)),
    /// A URL that holds a secret, is never shown and stands the test.
    SecretUrl(Check, fn(&mut S, SecretString)),
    /// A URL that the function reads, for example [`check::base_url`]; shown without query and fragment.
    Url(ReadUrl, fn(&mut S, Url)),
    /// URL of a proxy; shown without credentials.
    Proxy(fn(&mut S, Url)),
    /// A URL that the function reads and that may hold credentials; shown without them.
    UrlWithCredentials(ReadUrl, fn(&mut S, SecretString)),
    /// One of the words.
    Choice(&'static [Word<S>]),
    /// Names: a YAML list, or one text with commas.
    Names(fn(&mut S, Vec<String>)),
    /// What to listen on, each read by the function: a YAML list, or one text with commas.
    Addresses(fn(&str) -> Result<Listen, Wrong>, fn(&mut S, Vec<Listen>)),
    /// A kind of the program's own, with its name in the reference. The function reads the value into the settings and
    /// returns it as it may be shown.
    Own(&'static str, fn(&mut S, &Value) -> Result<String, Vec<Wrong>>),
}

/// A word and what it does to the settings.
pub type Word<S> = (&'static str, fn(&mut S));

/// Judges a text; never puts the text into the fault.
pub type Check = fn(&str) -> Result<(), Wrong>;

/// Reads and judges a URL; never puts the text into the fault.
pub type ReadUrl = fn(&str) -> Result<Url, Wrong>;

/// Shown in place of a secret.
pub const MASK: &str = "********";

impl<S> Setting<S> {
    /// Whether `value` says the same as no value at all.
    pub(crate) fn is_absent(&self, value: &Value) -> bool {
        let may_be_empty = matches!(self.preset, Preset::Absent | Preset::IfEmpty(_))
            && matches!(
                self.kind,
                Kind::Text(..)
                    | Kind::Secret(..)
                    | Kind::SecretUrl(..)
                    | Kind::Proxy(_)
                    | Kind::UrlWithCredentials(..)
                    | Kind::Names(_)
            );
        match value {
            Value::Null => true,
            Value::Text(text) => text.is_empty() && may_be_empty,
            _ => false,
        }
    }

    /// The variables that name a file with the value: none where it is no secret.
    pub(crate) fn file_variables(&self) -> Vec<String> {
        let variables = if self.is_secret() { self.variables } else { &[] };
        variables.iter().map(|name| format!("{name}_FILE")).collect()
    }

    /// The YAML key that names a file with the value: none where it is no secret.
    pub(crate) fn file_key(&self) -> Option<String> {
        self.is_secret().then(|| format!("{}_file", self.key))
    }

    fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret(..) | Kind::SecretUrl(..) | Kind::UrlWithCredentials(..))
    }

    /// Reads a value into the settings. Returns it as it may be shown.
    pub(crate) fn put(&self, value: &Value, settings: &mut S) -> Result<String, Vec<Wrong>> {
        self.kind.put(value, settings)
    }
}

impl<S> Kind<S> {
    fn put(&self, value: &Value, settings: &mut S) -> Result<String, Vec<Wrong>> {
        match self {
            Self::Flag(set) => {
                let flag = check::flag(value.scalar()?)?;
                set(settings, flag);
                Ok(flag.to_string())
            }
            Self::Positive(set) => {
                let number = check::positive(value)?;
                set(settings, number);
                Ok(number.to_string())
            }
            Self::Seconds(set) => {
                let seconds = check::seconds(value)?;
                set(settings, Duration::from_secs_f64(seconds));
                Ok(seconds.to_string())
            }
            Self::Age(set) => {
                let seconds = check::age(value)?;
                set(settings, Duration::from_secs_f64(seconds));
                Ok(seconds.to_string())
            }
            Self::Count(most, set) => {
                let number = check::count(value, *most)?;
                set(settings, number);
                Ok(number.to_string())
            }
            Self::Share(set) => {
                let number = check::share(value)?;
                #[expect(clippy::cast_possible_truncation, reason = "a share needs no more digits than f32 has")]
                set(settings, number as f32);
                Ok(number.to_string())
            }
            Self::Mode(set) => {
                let bits = check::mode(value)?;
                set(settings, bits);
                Ok(format!("{bits:04o}"))
            }
            Self::Text(check, set) => {
                let text = value.scalar()?;
                check(text)?;
                set(settings, text.to_owned());
                Ok(text.to_owned())
            }
            Self::Secret(check, set) | Self::SecretUrl(check, set) => {
                let text = value.scalar()?;
                check(text)?;
                set(settings, SecretString::from(text));
                Ok(MASK.to_owned())
            }
            Self::Url(read, set) => {
                let url = read(value.scalar()?)?;
                let shown = check::public_part(&url);
                set(settings, url);
                Ok(shown)
            }
            Self::Proxy(set) => {
                let url = check::proxy(value.scalar()?)?;
                let shown = check::masked(&url);
                set(settings, url);
                Ok(shown)
            }
            Self::UrlWithCredentials(read, set) => {
                let text = value.scalar()?;
                let url = read(text)?;
                set(settings, SecretString::from(text));
                Ok(check::masked(&url))
            }
            Self::Choice(words) => {
                let (word, set) = chosen(value.scalar()?, words)?;
                set(settings);
                Ok((*word).to_owned())
            }
            Self::Names(set) => {
                let names = value.list()?;
                let shown = names.join(", ");
                set(settings, names);
                Ok(shown)
            }
            Self::Addresses(read, set) => {
                let addresses = listen::addresses(value, *read)?;
                let shown = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                set(settings, addresses);
                Ok(shown)
            }
            Self::Own(_, put) => put(settings, value),
        }
    }

    /// The kind in a word or two, for the reference.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Flag(_) => "boolean",
            Self::Positive(_) => "number above 0",
            Self::Seconds(_) => "seconds, above 0 and at most a day (86400)",
            Self::Age(_) => "seconds, from 0 to a day (86400)",
            Self::Count(..) => "whole number",
            Self::Share(_) => "number, 0 to 1",
            Self::Mode(_) => "octal digits",
            Self::Text(..) => "text",
            Self::Secret(..) => "secret, or its file",
            Self::SecretUrl(..) => "secret URL, or its file",
            Self::Url(..) => "URL",
            Self::Proxy(_) => "proxy URL",
            Self::UrlWithCredentials(..) => "URL, shown without credentials",
            Self::Choice(_) => "choice",
            Self::Names(_) => "list",
            Self::Addresses(..) => "list of addresses",
            Self::Own(name, _) => name,
        }
    }
}

fn chosen<'a, S>(text: &str, words: &'a [Word<S>]) -> Result<&'a Word<S>, Wrong> {
    words.iter().find(|(word, _)| *word == text).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        wrong(format!("{} is not known", quoted(text)), format!("give {}", words.join(" or ")))
    })
}

/// The section of a key, if it is in one.
pub(crate) fn section(key: &'static str) -> Option<&'static str> {
    key.split_once('.').map(|(section, _)| section)
}
