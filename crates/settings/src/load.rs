//! From sources to settings.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::environment::Environment;
use crate::fault::{Fault, Faults, wrong};
use crate::file::{self, File};
use crate::schema::Schema;
use crate::secret_file;
use crate::setting::{Preset, Setting};
use crate::source::Source;
use crate::value::Value;
use crate::variables::Variables;
use crate::warning::Warning;

/// What the command line says. It goes before every other source.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`: the YAML file.
    pub config: Option<PathBuf>,
    /// Settings that have an option, where it was given.
    pub options: Vec<GivenOption>,
}

/// An option of the command line that gives a setting.
#[derive(Debug, Clone)]
pub struct GivenOption {
    /// Its name, for example `--listen`.
    pub option: &'static str,
    /// Key of the setting.
    pub key: &'static str,
    /// The value.
    pub value: Value,
}

/// Settings in force and how they came about.
#[derive(Debug, Clone)]
pub struct Loaded<S> {
    /// The settings.
    pub settings: S,
    /// Each setting with its source, in the order of the reference.
    pub provenance: Vec<InForce>,
    /// What is odd, to be logged at start.
    pub warnings: Vec<Warning>,
    /// The YAML file that was read.
    pub config: Option<PathBuf>,
}

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// Key, for example `server.listen`.
    pub key: &'static str,
    /// The value as it may be shown: a secret is masked, a proxy has no credentials. `None`: not set.
    pub value: Option<String>,
    /// Where it came from.
    pub source: Source,
    /// Tells a value from another one within this process, secrets too, and says nothing else.
    trace: u64,
}

/// A setting whose value is another one than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its key.
    pub key: &'static str,
    /// The value that it had, as it may be shown; `None`: not set.
    pub before: Option<String>,
    /// The value that it has.
    pub after: Option<String>,
    /// Where that came from.
    pub source: Source,
}

impl<S> Loaded<S> {
    /// The files of secrets that were read.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        self.provenance.iter().filter_map(|row| match &row.source {
            Source::SecretFile { path, .. } => Some(path.as_path()),
            _ => None,
        })
    }

    /// The settings whose values differ from those `before`, wherever they came from.
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        let pairs = self.provenance.iter().zip(&before.provenance);
        let changed = pairs.filter(|(now, before)| now.trace != before.trace);
        let change = |(now, before): (&InForce, &InForce)| Change {
            key: now.key,
            before: before.value.clone(),
            after: now.value.clone(),
            source: now.source.clone(),
        };
        changed.map(change).collect()
    }

    /// The settings in force as rows of key, masked value and source, for the `config` command and the log.
    pub fn report(&self) -> impl Iterator<Item = (&'static str, &str, String)> {
        self.provenance.iter().map(|row| (row.key, row.value.as_deref().unwrap_or("not set"), row.source.to_string()))
    }
}

/// Reads and judges all settings. Either they are valid, or every fault is told.
pub fn load<S>(schema: &Schema<S>, environment: &Environment, overrides: &Overrides) -> Result<Loaded<S>, Faults> {
    let known_key = |given: &GivenOption| schema.keys().any(|key| key == given.key);
    debug_assert!(overrides.options.iter().all(known_key), "an option gives a setting that is not in the table");
    let (mut faults, mut warnings) = (Vec::new(), Vec::new());
    let variables = Variables::read(environment, schema.reads_dotenv, &mut faults, &mut warnings);
    let config = config_path(schema, overrides, &variables);
    let file = match &config {
        Some((path, source)) => {
            file::read(schema, &environment.directory.join(path), source, &mut faults, &mut warnings)
        }
        None => Ok(File::default()),
    };
    // What a file holds that cannot be read is not known: of what nothing else gives, nothing can be said.
    let known = file.is_ok();
    let file = file.unwrap_or_else(|fault| {
        faults.push(fault);
        File::default()
    });
    variables.near_misses(schema, &mut warnings);

    let mut settings = (schema.unset)();
    let mut provenance = Vec::new();
    for setting in schema.table {
        let given = match command_line(setting.key, overrides) {
            None => given(setting, &variables, &file, &environment.directory),
            value => Ok(value),
        };
        let row = given.map_err(|fault| vec![fault]).and_then(|given| put(schema, setting, given, &mut settings));
        match row {
            Ok(row) => provenance.push(row),
            Err(found) => faults.extend(found.into_iter().filter(|fault| known || fault.source.is_some())),
        }
    }

    let source_of = |key: &str| {
        provenance
            .iter()
            .find(|row| row.key == key)
            .map(|row| row.source.clone())
            .filter(|source| *source != Source::Default)
    };
    let sound = |key: &str| provenance.iter().any(|row| row.key == key && (known || row.source != Source::Default));
    let broken = (schema.rules)(&settings, &sound);
    faults.extend(broken.into_iter().map(|(key, wrong)| wrong.of(key, source_of(key))));
    if !faults.is_empty() {
        return Err(Faults { faults, warnings });
    }
    variables.without_effect(schema, &mut warnings);
    let odd = (schema.oddities)(&settings, &|key| source_of(key).is_some());
    warnings.extend(odd.into_iter().map(Warning::Odd));
    Ok(Loaded { settings, provenance, warnings, config: config.map(|(path, _)| path) })
}

/// The YAML file and who named it. An empty variable names none.
fn config_path<S>(schema: &Schema<S>, overrides: &Overrides, variables: &Variables<'_>) -> Option<(PathBuf, Source)> {
    if let Some(path) = &overrides.config {
        return Some((path.clone(), Source::CommandLine("--config")));
    }
    match variables.find(schema.config_variables)? {
        (Value::Text(path), source) if !path.is_empty() => Some((PathBuf::from(path), source)),
        _ => None,
    }
}

/// What the first source that knows the setting says of it.
fn given<S>(
    setting: &Setting<S>,
    variables: &Variables<'_>,
    file: &File,
    directory: &Path,
) -> Result<Option<(Value, Source)>, Fault> {
    let (files, file_key) = (setting.file_variables(), setting.file_key());
    #[expect(clippy::type_complexity, reason = "it is gone through at once")]
    let sources: [[&dyn Fn() -> Option<(Value, Source)>; 2]; 3] = [
        [&|| variables.in_environment(setting.variables), &|| variables.in_environment(&files)],
        [&|| variables.in_dotenv(setting.variables), &|| variables.in_dotenv(&files)],
        [&|| file.find(setting.key), &|| file.find(file_key.as_deref()?)],
    ];
    for [value, path] in sources {
        let found = secret_file::value_or_file(setting.key, value(), path(), directory)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn command_line(key: &str, overrides: &Overrides) -> Option<(Value, Source)> {
    let given = overrides.options.iter().find(|given| given.key == key)?;
    Some((given.value.clone(), Source::CommandLine(given.option)))
}

/// Puts what is given, or the preset, into the settings.
fn put<S>(
    schema: &Schema<S>,
    setting: &Setting<S>,
    given: Option<(Value, Source)>,
    settings: &mut S,
) -> Result<InForce, Vec<Fault>> {
    // An absent value keeps its source: a variable that is empty on purpose hides what the file gives.
    let (value, source) = match given {
        Some((value, source)) if !setting.is_absent(&value) => (Some(value), source),
        Some((Value::Null, _)) | None => (None, Source::Default),
        Some((_, source)) => (None, source),
    };
    let preset = || match setting.preset {
        Preset::Is(text) | Preset::IfEmpty(text) => Some(Value::Text(text.to_owned())),
        Preset::Required | Preset::Absent => None,
    };
    let Some(value) = value.or_else(preset) else {
        if setting.preset == Preset::Required {
            return Err(vec![wrong("required, but not given", schema.how_to_set(setting.key)).of(setting.key, None)]);
        }
        return Ok(InForce { key: setting.key, value: None, source, trace: trace(&Value::Null) });
    };
    match setting.put(&value, settings) {
        Ok(shown) => Ok(InForce { key: setting.key, value: Some(shown), source, trace: trace(&value) }),
        Err(found) => Err(found.into_iter().map(|wrong| wrong.of(setting.key, Some(source.clone()))).collect()),
    }
}

/// Another number for another value, until the process ends: a short secret cannot be guessed by it.
fn trace(value: &Value) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(format!("{value:?}"))
}
