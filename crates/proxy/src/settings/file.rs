//! The YAML file: its sections and keys.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::fault::{Fault, Wrong, wrong};
use super::secret_file;
use super::setting::Setting;
use super::source::Source;
use super::table::TABLE;
use super::warning::{Warning, nearest};
use super::yaml::{self, Entry, Tree, Value};

/// What the file gives: known keys only.
#[derive(Default)]
pub(super) struct File {
    path: PathBuf,
    given: Vec<(&'static str, Value, u64)>,
}

impl File {
    /// The value of a setting.
    pub(super) fn find(&self, setting: &Setting) -> Option<(Value, Source)> {
        self.value_of(setting.key)
    }

    /// The path of the file with a secret.
    pub(super) fn find_file(&self, setting: &Setting) -> Option<(Value, Source)> {
        self.value_of(secret_file::key(setting)?)
    }

    fn value_of(&self, key: &str) -> Option<(Value, Source)> {
        let (_, value, line) = self.given.iter().find(|(given, ..)| *given == key)?;
        Some((value.clone(), Source::File { path: self.path.clone(), line: *line }))
    }
}

/// Reads the file that `named` names. The error says why nothing is known of what it holds; what is wrong within it goes
/// to `faults`.
pub(super) fn read(
    path: &Path,
    named: &Source,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<Warning>,
) -> Result<File, Fault> {
    let mut file = File { path: path.to_owned(), given: Vec::new() };
    let of = |wrong: Wrong, line| wrong.of("YAML file", Some(Source::File { path: path.to_owned(), line }));
    let bytes = std::fs::read(path).map_err(|error| {
        let what = format!("{} cannot be read ({})", path.display(), reason(&error));
        wrong(what, "correct the path, or make it readable").of("YAML file", Some(named.clone()))
    })?;
    let text = String::from_utf8(bytes).map_err(|_| of(wrong("not valid UTF-8", "save it as UTF-8"), 0))?;
    let tree = yaml::parse(&text).map_err(|bad| {
        let column = if bad.column == 0 { String::new() } else { format!(", at column {}", bad.column) };
        of(wrong(format!("not valid YAML{column}"), "correct it"), bad.line)
    })?;
    match tree {
        Tree::Leaf(Value::Null) => {}
        Tree::Leaf(_) => {
            let remedy = "write `key: value` lines, as in the reference of the settings";
            return Err(of(wrong("not a mapping", remedy), 1));
        }
        Tree::Map(entries) => entries.iter().for_each(|entry| file.top(entry, faults, warnings)),
    }
    Ok(file)
}

/// Why a file cannot be read, in the words of people.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => String::from("no such file"),
        kind => kind.to_string(),
    }
}

impl File {
    fn place(&self, entry: &Entry) -> Source {
        Source::File { path: self.path.clone(), line: entry.line }
    }

    /// A key at the top: a setting or a section.
    fn top(&mut self, entry: &Entry, faults: &mut Vec<Fault>, warnings: &mut Vec<Warning>) {
        if self.setting(&entry.key, entry) {
            return;
        }
        if !TABLE.iter().any(|row| row.key.split_once('.').is_some_and(|(section, _)| section == entry.key)) {
            warnings.push(self.unknown(&entry.key, entry));
            return;
        }
        match &entry.value {
            Tree::Map(entries) => {
                for inner in entries {
                    let key = format!("{}.{}", entry.key, inner.key);
                    if !self.setting(&key, inner) {
                        warnings.push(self.unknown(&key, inner));
                    }
                }
            }
            // An empty section leaves the defaults.
            Tree::Leaf(Value::Null) => {}
            Tree::Leaf(_) => {
                let remedy = "indent its settings below it, or remove it";
                faults.push(
                    wrong("not a section: a mapping belongs here", remedy).of(&entry.key, Some(self.place(entry))),
                );
            }
        }
    }

    fn setting(&mut self, key: &str, entry: &Entry) -> bool {
        let known = TABLE.iter().map(|row| row.key).chain(secret_file::keys()).find(|known| *known == key);
        if let Some(known) = known {
            self.given.push((known, entry.value.value(), entry.line));
        }
        known.is_some()
    }

    fn unknown(&self, key: &str, entry: &Entry) -> Warning {
        let sections = TABLE.iter().filter_map(|row| row.key.split_once('.')).map(|(section, _)| section);
        let keys = TABLE.iter().map(|row| row.key).chain(secret_file::keys());
        // A key that is right but in the wrong section, or in none, is known by its last part.
        let last = key.rsplit('.').next().unwrap_or(key);
        let misplaced = TABLE.iter().map(|row| row.key).find(|known| known.rsplit('.').next() == Some(last));
        let nearest = nearest(key, keys.chain(sections)).or(misplaced);
        Warning::UnknownKey { key: key.to_owned(), source: self.place(entry), nearest }
    }
}
