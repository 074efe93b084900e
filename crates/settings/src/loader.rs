//! Loads one setting after another, and collects all errors.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use crate::problem::{Invalid, Problem, invalid};
use crate::reader::Reader;
use crate::source::Source;
use crate::sources::Sources;
use crate::table::{Preset, Row};
use crate::value::Value;

/// Loads settings for [`Schema::read`](crate::Schema::read).
pub struct Loader<'a> {
    /// `None`: no value is loaded, the settings are only described.
    sources: Option<Sources<'a>>,
    pub(crate) rows: Vec<Row>,
    pub(crate) in_force: Vec<InForce>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) violations: Vec<Problem>,
}

/// A setting has no usable value. The loader keeps the error until all settings are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reported;

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// Key, for example `server.listen`.
    pub key: &'static str,
    /// The value, safe to show: secrets are masked, proxies have no credentials. `None`: not set.
    pub value: Option<String>,
    pub source: Source,
    /// Changes when the value changes, within this process. Reveals nothing about a secret.
    pub(crate) fingerprint: u64,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(sources: Sources<'a>) -> Self {
        Self { sources: Some(sources), ..Self::describing() }
    }

    pub(crate) fn describing() -> Self {
        Self { sources: None, rows: vec![], in_force: vec![], problems: vec![], violations: vec![] }
    }

    /// Declares a setting: its key in the YAML file, `section.name` or `name`, and its environment variables, the preferred one
    /// first.
    pub fn setting(&mut self, key: &'static str, variables: &'static [&'static str]) -> Setting<'_, 'a> {
        Setting { loader: self, key, variables, doc: "" }
    }

    /// Reports that settings contradict each other, under one of their keys.
    pub fn violation(&mut self, key: &str, invalid: Invalid) {
        let source = self.in_force.iter().find(|setting| setting.key == key).map(|setting| setting.source.clone());
        self.violations.push(invalid.of(key, source.filter(|source| *source != Source::Default)));
    }

    /// The remedy for a missing setting.
    pub fn how_to_set(&self, key: &str) -> String {
        self.rows.iter().find(|row| row.key == key).map(Row::how_to_set).unwrap_or_default()
    }

    /// The error is empty if nothing is known of the setting.
    fn try_load<T: 'static>(
        &mut self,
        row: &Row,
        reader: Reader<T>,
        may_be_empty: bool,
    ) -> Result<Option<T>, Vec<Problem>> {
        let given =
            self.sources.as_ref().map_or(Ok(None), |sources| sources.find(row)).map_err(|problem| vec![problem])?;
        // An absent value keeps its source: a variable that is empty on purpose hides the value in the file.
        let (value, source) = match given {
            None | Some((Value::Null, _)) => (None, Source::Default),
            Some((Value::Text(text), source)) if may_be_empty && text.is_empty() => (None, source),
            Some((value, source)) => (Some(value), source),
        };
        // A file that cannot be read may contain a setting that no other source has.
        let is_known = self.sources.as_ref().is_some_and(|sources| sources.file.is_some() || source != Source::Default);
        let value = match (value, row.preset) {
            (Some(value), _) => Some(value),
            (None, Preset::Is(text)) => Some(Value::Text(text.to_owned())),
            (None, Preset::Required) if is_known => {
                return Err(vec![invalid("required, but not given", row.how_to_set()).of(row.key, None)]);
            }
            (None, Preset::Required | Preset::Absent) => None,
        };
        let fingerprint = fingerprint(value.as_ref().unwrap_or(&Value::Null));
        let of_row = |invalid: Invalid| invalid.of(row.key, Some(source.clone()));
        let read = value.map(|value| reader.read(&value)).transpose();
        let (value, shown) = read.map_err(|found| found.into_iter().map(of_row).collect::<Vec<_>>())?.unzip();
        self.in_force.push(InForce { key: row.key, value: shown, source, fingerprint });
        if is_known { Ok(value) } else { Err(Vec::new()) }
    }
}

/// A setting that is being declared. The last call says what happens if it is not given.
#[must_use]
pub struct Setting<'l, 'a> {
    loader: &'l mut Loader<'a>,
    key: &'static str,
    variables: &'static [&'static str],
    doc: &'static str,
}

impl Setting<'_, '_> {
    /// What the setting does, with units and range; one or more sentences of Markdown.
    pub fn doc(self, doc: &'static str) -> Self {
        Self { doc, ..self }
    }

    /// It is an error if it is not given.
    pub fn required<T: 'static>(self, reader: Reader<T>) -> Result<T, Reported> {
        self.load(Preset::Required, reader, false)?.ok_or(Reported)
    }

    /// It is off (`None`) if it is not given. For texts and proxies an empty value also turns it off, and so overrides a
    /// source with lower precedence, as in pydantic.
    pub fn optional<T: 'static>(self, reader: Reader<T>) -> Result<Option<T>, Reported> {
        let may_be_empty = reader.empty_is_off;
        self.load(Preset::Absent, reader, may_be_empty)
    }

    /// It has a default, written as in an environment variable. An empty value is an error, as in pydantic, unless the reader
    /// is [`empty_is_default`](Reader::empty_is_default).
    pub fn with_default<T: 'static>(self, default: &'static str, reader: Reader<T>) -> Result<T, Reported> {
        let may_be_empty = reader.empty_is_default;
        self.load(Preset::Is(default), reader, may_be_empty)?.ok_or(Reported)
    }

    fn load<T: 'static>(self, preset: Preset, reader: Reader<T>, may_be_empty: bool) -> Result<Option<T>, Reported> {
        let Self { loader, key, variables, doc } = self;
        let row = Row { key, variables, label: reader.label, secret: reader.secret, preset, doc };
        let loaded = loader.try_load(&row, reader, may_be_empty);
        loader.rows.push(row);
        loaded.map_err(|problems| {
            loader.problems.extend(problems);
            Reported
        })
    }
}

/// A hash of the value with a random key of this process, so that short secrets cannot be guessed from it.
fn fingerprint(value: &Value) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(format!("{value:?}"))
}
