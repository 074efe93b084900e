//! What a program says of its settings.

use crate::fault::Wrong;
use crate::setting::{Preset, Setting};
use crate::value::Value;
use crate::{reference, setting};

/// The settings `S` of a program: what can be set, and what must hold.
#[derive(Debug)]
pub struct Schema<S: 'static> {
    /// Every setting, in the order of the reference and of reports.
    pub table: &'static [Setting<S>],
    /// Variables that name the YAML file, in the environment or in `.env`; the preferred one first.
    pub config_variables: &'static [&'static str],
    /// Whether a file `.env` in the working directory counts. Not for a program that people run as root wherever they stand:
    /// whoever owns that folder would decide its settings.
    pub reads_dotenv: bool,
    /// Variables that begin like this, in capitals, are taken for the program's own when they are spelt nearly like one.
    pub prefixes: &'static [&'static str],
    /// Settings with nothing in them yet. They never leave [`load()`](crate::load()): each row of the table puts its value or
    /// its preset in, or reports a fault.
    pub unset: fn() -> S,
    /// What the settings must be together.
    pub rules: Rules<S>,
    /// What is odd about settings that are otherwise in order.
    pub oddities: Oddities<S>,
    /// Variables of another program in this one's place, which mean nothing here. Whoever gives one is warned.
    pub without_effect: &'static [WithoutEffect],
}

/// A variable that means nothing here.
#[derive(Debug)]
pub struct WithoutEffect {
    /// Its name, in capitals.
    pub name: &'static str,
    /// How its value begins, white space aside; another value is somebody else's. An empty value never counts.
    pub begins: &'static str,
    /// What to do instead, as the beginning of a sentence.
    pub instead: &'static str,
}

/// Gives the rules that are broken, each with the key that it is told under. The second argument says whether a key has
/// no fault of its own: a value that could not be read breaks no rule.
pub type Rules<S> = fn(&S, &dyn Fn(&str) -> bool) -> Vec<(&'static str, Wrong)>;

/// Gives sentences for the operator, without secrets. The second argument says whether a key was given at all.
pub type Oddities<S> = fn(&S, &dyn Fn(&str) -> bool) -> Vec<String>;

impl<S> Schema<S> {
    /// How to give a setting, as a remedy says it.
    pub fn how_to_set(&self, key: &str) -> String {
        let variable = self.table.iter().find(|row| row.key == key).and_then(|row| row.variables.first());
        variable.map_or_else(
            || format!("give {key} in the YAML file"),
            |variable| format!("set {variable}, or {key} in the YAML file"),
        )
    }

    /// What is wrong with the table itself, a sentence each; for a test of the program. A name must be there once, a preset
    /// must be a value of its kind, and a row must fit into the reference.
    pub fn flaws(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.keys().map(str::to_owned).chain(self.file_keys()).chain(self.variables()).collect();
        names.sort_unstable();
        let twice =
            names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| format!("{} is there twice", pair[0]));
        let presets = self.table.iter().filter_map(|row| match row.preset {
            Preset::Is(text) | Preset::IfEmpty(text) => {
                let found = row.put(&Value::Text(text.to_owned()), &mut (self.unset)()).err()?;
                Some(format!("the preset of {} does not do: {}", row.key, found.first()?.what))
            }
            Preset::Required | Preset::Absent => None,
        });
        let rows = self.table.iter().filter(|row| !reference::is_one_row(row));
        twice.chain(presets).chain(rows.map(|row| format!("{} breaks the reference", row.key))).collect()
    }

    /// The keys of the table.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.table.iter().map(|row| row.key)
    }

    /// The YAML keys that name files of secrets.
    pub(crate) fn file_keys(&self) -> impl Iterator<Item = String> {
        self.table.iter().filter_map(Setting::file_key)
    }

    /// The section of each key that has one.
    pub(crate) fn sections(&self) -> impl Iterator<Item = &'static str> {
        self.keys().filter_map(setting::section)
    }

    /// All variables: of values, of the YAML file, of files of secrets.
    pub(crate) fn variables(&self) -> impl Iterator<Item = String> {
        let values = self.table.iter().flat_map(|row| row.variables).chain(self.config_variables);
        values.map(|name| (*name).to_owned()).chain(self.table.iter().flat_map(Setting::file_variables))
    }
}

#[cfg(test)]
mod tests;
