//! Environment variables and `.env`.

use crate::dotenv::{self, Entry};
use crate::environment::Environment;
use crate::problem::{Problem, invalid};
use crate::source::Source;
use crate::value::Value;
use crate::warning::{Warning, WithoutEffect, nearest};

/// Variables of the environment and of `.env`; the environment takes precedence.
pub(crate) struct Variables<'a> {
    environment: &'a Environment,
    dotenv: Vec<Entry>,
}

impl<'a> Variables<'a> {
    /// Reads `.env` in the working directory, if enabled and present.
    pub(crate) fn read(
        environment: &'a Environment,
        reads_dotenv: bool,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Warning>,
    ) -> Self {
        if !reads_dotenv {
            return Self { environment, dotenv: Vec::new() };
        }
        let path = environment.directory.join(".env");
        let text = match std::fs::read(&path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => {
                problems.push(invalid("not valid UTF-8", "save it as UTF-8").of(".env", None));
                String::new()
            }
            // Ignore a directory named `.env`; some tools keep virtual environments there.
            Err(_) if !path.is_file() => String::new(),
            Err(error) => {
                let remedy = format!("make {} readable, or remove it", path.display());
                problems.push(invalid(format!("cannot be read ({})", error.kind()), remedy).of(".env", None));
                String::new()
            }
        };
        let (dotenv, bad) = dotenv::parse(&text, |name| environment.exact(name));
        warnings.extend(bad.into_iter().map(Warning::SkippedLine));
        Self { environment, dotenv }
    }

    /// The value of the first of `names` that is set.
    pub(crate) fn find(&self, names: &[impl AsRef<str>]) -> Option<(Value, Source)> {
        self.in_environment(names).or_else(|| self.in_dotenv(names))
    }

    /// Like [`find`](Self::find), in the environment only.
    pub(crate) fn in_environment(&self, names: &[impl AsRef<str>]) -> Option<(Value, Source)> {
        names.iter().find_map(|name| self.environment.find(name.as_ref())).map(|(name, value)| {
            let value = value.map_or(Value::Unreadable, |text| Value::Text(text.to_owned()));
            (value, Source::Environment(name.to_owned()))
        })
    }

    /// Like [`find`](Self::find), in `.env` only.
    pub(crate) fn in_dotenv(&self, names: &[impl AsRef<str>]) -> Option<(Value, Source)> {
        names.iter().map(AsRef::as_ref).find_map(|name| {
            let exact = self.dotenv.iter().rev().find(|entry| entry.name == name);
            let entry =
                exact.or_else(|| self.dotenv.iter().rev().find(|entry| entry.name.eq_ignore_ascii_case(name)))?;
            let value = Value::Text(entry.value.clone()?);
            Some((value, Source::DotEnv { name: entry.name.clone(), line: entry.line }))
        })
    }

    /// Adds warnings about variables that the program ignores.
    pub(crate) fn without_effect(&self, ignored: &[WithoutEffect], warnings: &mut Vec<Warning>) {
        for WithoutEffect { name, begins, instead } in ignored {
            if let Some((Value::Text(text), source)) = self.find(&[name])
                && !text.is_empty()
                && text.trim_start().starts_with(begins)
            {
                warnings.push(Warning::WithoutEffect { name, source, instead });
            }
        }
    }

    /// Adds warnings about variables that have one of the prefixes and look like misspelled names.
    pub(crate) fn near_misses(&self, known: &[String], prefixes: &[&str], warnings: &mut Vec<Warning>) {
        let environment = self.environment.names().map(|name| (name, Source::Environment(name.to_owned())));
        let dotenv = self
            .dotenv
            .iter()
            .map(|entry| (entry.name.as_str(), Source::DotEnv { name: entry.name.clone(), line: entry.line }));
        for (name, source) in environment.chain(dotenv) {
            let upper = name.to_ascii_uppercase();
            let ours = prefixes.iter().any(|prefix| upper.starts_with(prefix));
            if !ours || known.contains(&upper) {
                continue;
            }
            let near = nearest(&upper, known.iter().cloned());
            if near.is_some() {
                warnings.push(Warning::UnknownKey { key: name.to_owned(), source, nearest: near });
            }
        }
    }
}
