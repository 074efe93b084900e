//! A row of the settings table, and how to read a value of each kind.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::check;
use crate::listen::{self, Listen};
use crate::problem::{Invalid, invalid, quoted};
use crate::value::Value;

/// One setting of the settings `S`: a row of the table.
#[derive(Debug)]
pub struct Setting<S: 'static> {
    /// Key in the YAML file: `section.name` or `name`.
    pub key: &'static str,
    /// Names of environment variables, the preferred one first.
    pub variables: &'static [&'static str],
    /// How to read the value, and where to store it.
    pub kind: Kind<S>,
    /// The value if none is given.
    pub preset: Preset,
    /// What the setting does, with units and range; one or more sentences of Markdown.
    pub doc: &'static str,
}

/// The value of a setting that is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// None: a missing value is an error.
    Required,
    /// The setting is off. For texts and proxies an empty value also turns it off, and so overrides a source with lower
    /// precedence, as in pydantic.
    Absent,
    /// This value, written as in an environment variable. An empty value is an error, as in pydantic.
    Is(&'static str),
    /// This value, also if an empty value is given.
    IfEmpty(&'static str),
}

/// How to read and validate a value, and store it in the settings.
#[derive(Debug)]
pub enum Kind<S: 'static> {
    /// A boolean in any spelling that pydantic accepts.
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
    /// A text that passes the check.
    Text(Check, fn(&mut S, String)),
    /// A text that passes the check and is never shown.
    Secret(Check, fn(&mut S, SecretString)),
    /// A URL that contains a secret, passes the check and is never shown.
    SecretUrl(Check, fn(&mut S, SecretString)),
    /// A URL read by the function, for example [`check::base_url`]; shown without query and fragment.
    Url(ReadUrl, fn(&mut S, Url)),
    /// URL of a proxy; shown without credentials.
    Proxy(fn(&mut S, Url)),
    /// A URL read by the function that may contain credentials; shown without them.
    UrlWithCredentials(ReadUrl, fn(&mut S, SecretString)),
    /// One of the given words.
    Choice(&'static [Word<S>]),
    /// Names: a YAML list, or text with commas.
    Names(fn(&mut S, Vec<String>)),
    /// Addresses to listen on, read by the function: a YAML list, or text with commas.
    Addresses(fn(&str) -> Result<Listen, Invalid>, fn(&mut S, Vec<Listen>)),
    /// A kind specific to the program, with its name in the reference. The function stores the value and returns it in a
    /// form that is safe to show.
    Own(&'static str, fn(&mut S, &Value) -> Result<String, Vec<Invalid>>),
}

/// A word and its effect on the settings.
pub type Word<S> = (&'static str, fn(&mut S));

/// Validates a text; the error never contains the text.
pub type Check = fn(&str) -> Result<(), Invalid>;

/// Reads and validates a URL; the error never contains the text.
pub type ReadUrl = fn(&str) -> Result<Url, Invalid>;

/// Shown in place of a secret.
pub const MASK: &str = "********";

impl<S> Setting<S> {
    /// Whether `value` counts as no value.
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

    /// The variables with the path of a secret file; empty if the setting is not secret.
    pub(crate) fn file_variables(&self) -> Vec<String> {
        let variables = if self.is_secret() { self.variables } else { &[] };
        variables.iter().map(|name| format!("{name}_FILE")).collect()
    }

    /// The YAML key with the path of a secret file; `None` if the setting is not secret.
    pub(crate) fn file_key(&self) -> Option<String> {
        self.is_secret().then(|| format!("{}_file", self.key))
    }

    fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret(..) | Kind::SecretUrl(..) | Kind::UrlWithCredentials(..))
    }

    /// Stores a value in the settings and returns it in a form that is safe to show.
    pub(crate) fn put(&self, value: &Value, settings: &mut S) -> Result<String, Vec<Invalid>> {
        self.kind.put(value, settings)
    }
}

impl<S> Kind<S> {
    fn put(&self, value: &Value, settings: &mut S) -> Result<String, Vec<Invalid>> {
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
                #[expect(clippy::cast_possible_truncation, reason = "f32 is precise enough for a share")]
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

    /// Short description of the kind, for the reference.
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

fn chosen<'a, S>(text: &str, words: &'a [Word<S>]) -> Result<&'a Word<S>, Invalid> {
    words.iter().find(|(word, _)| *word == text).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        invalid(format!("{} is not a valid choice", quoted(text)), format!("give {}", words.join(" or ")))
    })
}

/// The section of a key, if it has one.
pub(crate) fn section(key: &'static str) -> Option<&'static str> {
    key.split_once('.').map(|(section, _)| section)
}
