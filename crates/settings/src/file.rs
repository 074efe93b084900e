//! Reads the YAML file.

use std::path::{Path, PathBuf};

use crate::files;
use crate::problem::{Invalid, Problem, invalid};
use crate::source::Source;
use crate::table::Row;
use crate::value::Value;
use crate::warning::{Warning, nearest};
use crate::yaml::{self, Entry, Tree};

/// Maximum size in bytes.
const LARGEST: u64 = 1 << 20;

/// Values of the known keys in the file.
#[derive(Default)]
pub(crate) struct File {
    path: PathBuf,
    given: Vec<(String, Value, u64)>,
}

/// Reads the file given by `named`. Returns an error if nothing of the file can be used; errors of single keys are added
/// to `problems`.
pub(crate) fn read(
    table: &[Row],
    path: &Path,
    named: &Source,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Warning>,
) -> Result<File, Problem> {
    let mut file = File { path: path.to_owned(), given: Vec::new() };
    let of = |wrong: Invalid, line| wrong.of("YAML file", Some(Source::File { path: path.to_owned(), line }));
    let bytes = files::read(path, LARGEST).map_err(|error| {
        let what = format!("{} {}", path.display(), files::why(&error));
        invalid(what, "correct the path, or make it readable").of("YAML file", Some(named.clone()))
    })?;
    let text = String::from_utf8(bytes).map_err(|_| of(invalid("not valid UTF-8", "save it as UTF-8"), 0))?;
    let tree = yaml::parse(&text).map_err(|bad| {
        let column = if bad.column == 0 { String::new() } else { format!(", at column {}", bad.column) };
        of(invalid(format!("not valid YAML{column}"), "correct it"), bad.line)
    })?;
    match tree {
        Tree::Leaf(Value::Null) => {}
        Tree::Leaf(_) => {
            let remedy = "write `key: value` lines, as in the settings reference";
            return Err(of(invalid("not a mapping", remedy), 1));
        }
        Tree::Map(entries) => entries.iter().for_each(|entry| file.top(table, entry, problems, warnings)),
    }
    Ok(file)
}

impl File {
    pub(crate) fn find(&self, key: &str) -> Option<(Value, Source)> {
        let (_, value, line) = self.given.iter().find(|(given, ..)| *given == key)?;
        Some((value.clone(), Source::File { path: self.path.clone(), line: *line }))
    }

    fn place(&self, entry: &Entry) -> Source {
        Source::File { path: self.path.clone(), line: entry.line }
    }

    /// Reads a top-level key: a setting or a section.
    fn top(&mut self, table: &[Row], entry: &Entry, problems: &mut Vec<Problem>, warnings: &mut Vec<Warning>) {
        if self.setting(table, &entry.key, entry) {
            return;
        }
        if !table.iter().any(|row| row.section() == Some(&entry.key)) {
            warnings.push(self.unknown(table, &entry.key, entry));
            return;
        }
        match &entry.value {
            Tree::Map(entries) => {
                for inner in entries {
                    let key = format!("{}.{}", entry.key, inner.key);
                    if !self.setting(table, &key, inner) {
                        warnings.push(self.unknown(table, &key, inner));
                    }
                }
            }
            // An empty section keeps the defaults.
            Tree::Leaf(Value::Null) => {}
            Tree::Leaf(_) => {
                let remedy = "indent its settings below it, or remove it";
                problems.push(invalid("it is not a mapping", remedy).of(&entry.key, Some(self.place(entry))));
            }
        }
    }

    fn setting(&mut self, table: &[Row], key: &str, entry: &Entry) -> bool {
        let known = table.iter().any(|row| row.key == key || row.file_key().is_some_and(|file_key| file_key == key));
        if known {
            self.given.push((key.to_owned(), entry.value.value(), entry.line));
        }
        known
    }

    fn unknown(&self, table: &[Row], key: &str, entry: &Entry) -> Warning {
        let keys = table.iter().map(|row| row.key.to_owned()).chain(table.iter().filter_map(Row::file_key));
        let sections = table.iter().filter_map(Row::section).map(str::to_owned);
        // Suggest a known key with the same last part: the section may be wrong or missing.
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let misplaced = table.iter().find(|row| last(row.key) == last(key)).map(|row| row.key.to_owned());
        let nearest = nearest(key, keys.chain(sections)).or(misplaced);
        Warning::UnknownKey { key: key.to_owned(), source: self.place(entry), nearest }
    }
}
