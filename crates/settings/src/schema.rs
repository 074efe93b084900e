//! The declaration of a program's settings.

use crate::problem::Invalid;
use crate::setting::{Preset, Setting};
use crate::value::Value;
use crate::{reference, setting};

/// The settings `S` of a program and their rules.
#[derive(Debug)]
pub struct Schema<S: 'static> {
    /// Every setting, in the order of the reference and of reports.
    pub table: &'static [Setting<S>],
    /// Variables with the path of the YAML file, in the environment or in `.env`; the preferred one first.
    pub config_variables: &'static [&'static str],
    /// Whether `.env` in the working directory is read. Set it to false for programs run as root in any directory: the owner
    /// of the directory could change their settings.
    pub reads_dotenv: bool,
    /// Prefixes, in capitals, of the program's variables. Only variables with such a prefix are checked for misspellings.
    pub prefixes: &'static [&'static str],
    /// Settings before loading. [`load()`](crate::load()) never returns them: each row of the table stores its value or its
    /// preset, or reports an error.
    pub unset: fn() -> S,
    /// Checks rules that involve several settings.
    pub rules: Rules<S>,
    /// Checks for valid but suspicious settings.
    pub oddities: Oddities<S>,
    /// Variables of a replaced program that this program ignores. Giving one causes a warning.
    pub without_effect: &'static [WithoutEffect],
}

/// A variable that the program ignores.
#[derive(Debug)]
pub struct WithoutEffect {
    /// Name, in capitals.
    pub name: &'static str,
    /// Start of the value, ignoring white space; other values belong to other software. An empty value never matches.
    pub begins: &'static str,
    /// What to do instead, as the beginning of a sentence.
    pub instead: &'static str,
}

/// Returns the violated rules, each with the key to report it under. The second argument returns whether a key is valid
/// by itself: a value that could not be read violates no rule.
pub type Rules<S> = fn(&S, &dyn Fn(&str) -> bool) -> Vec<(&'static str, Invalid)>;

/// Returns warnings for the operator, without secrets. The second argument returns whether a key was given.
pub type Oddities<S> = fn(&S, &dyn Fn(&str) -> bool) -> Vec<String>;

impl<S> Schema<S> {
    /// The remedy for a missing setting.
    pub fn how_to_set(&self, key: &str) -> String {
        let variable = self.table.iter().find(|row| row.key == key).and_then(|row| row.variables.first());
        variable.map_or_else(
            || format!("give {key} in the YAML file"),
            |variable| format!("set {variable}, or {key} in the YAML file"),
        )
    }

    /// The variables of each setting with its key and meaning, for the manual page.
    pub fn manual(&self) -> impl Iterator<Item = (String, String)> {
        self.table.iter().map(|row| (row.variables.join(", "), format!("({}) {}", row.key, row.doc)))
    }

    /// Errors in the table itself, a sentence each, for a test of the program. Names must be unique, presets valid, and each
    /// row must fit into the reference.
    pub fn flaws(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.keys().map(str::to_owned).chain(self.file_keys()).chain(self.variables()).collect();
        names.sort_unstable();
        let duplicates =
            names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| format!("duplicate name {}", pair[0]));
        let presets = self.table.iter().filter_map(|row| match row.preset {
            Preset::Is(text) | Preset::IfEmpty(text) => {
                let found = row.put(&Value::Text(text.to_owned()), &mut (self.unset)()).err()?;
                Some(format!("invalid preset of {}: {}", row.key, found.first()?.what))
            }
            Preset::Required | Preset::Absent => None,
        });
        let rows = self.table.iter().filter(|row| !reference::is_one_row(row));
        duplicates
            .chain(presets)
            .chain(rows.map(|row| format!("{} does not fit into a row of the reference", row.key)))
            .collect()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.table.iter().map(|row| row.key)
    }

    /// The YAML keys of secret files.
    pub(crate) fn file_keys(&self) -> impl Iterator<Item = String> {
        self.table.iter().filter_map(Setting::file_key)
    }

    /// The sections of the keys; may repeat.
    pub(crate) fn sections(&self) -> impl Iterator<Item = &'static str> {
        self.keys().filter_map(setting::section)
    }

    /// All variables: of values, of the YAML file, of secret files.
    pub(crate) fn variables(&self) -> impl Iterator<Item = String> {
        let values = self.table.iter().flat_map(|row| row.variables).chain(self.config_variables);
        values.map(|name| (*name).to_owned()).chain(self.table.iter().flat_map(Setting::file_variables))
    }
}

#[cfg(test)]
mod tests;
