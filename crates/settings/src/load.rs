//! Loads settings from their sources.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::environment::Environment;
use crate::file::{self, File};
use crate::problem::{Problem, Problems, invalid};
use crate::schema::Schema;
use crate::secret_file;
use crate::setting::{Preset, Setting};
use crate::source::Source;
use crate::value::Value;
use crate::variables::Variables;
use crate::warning::Warning;

/// Settings from the command line, which take precedence over every other source.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`: path of the YAML file.
    pub config: Option<PathBuf>,
    /// The options given that set a setting.
    pub options: Vec<GivenOption>,
}

/// A command-line option that sets a setting.
#[derive(Debug, Clone)]
pub struct GivenOption {
    /// Name of the option, for example `--listen`.
    pub option: &'static str,
    pub key: &'static str,
    pub value: Value,
}

/// Settings in force and their sources.
#[derive(Debug, Clone)]
pub struct Loaded<S> {
    pub settings: S,
    /// Each setting with its source, in the order of the reference.
    pub provenance: Vec<InForce>,
    /// Warnings to log at start.
    pub warnings: Vec<Warning>,
    /// The YAML file that was read.
    pub config: Option<PathBuf>,
}

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// Key, for example `server.listen`.
    pub key: &'static str,
    /// The value, safe to show: secrets are masked, proxies have no credentials. `None`: not set.
    pub value: Option<String>,
    pub source: Source,
    /// Changes when the value changes, within this process. Reveals nothing about a secret.
    fingerprint: u64,
}

/// A setting whose value changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: &'static str,
    /// The old value, safe to show; `None`: not set.
    pub before: Option<String>,
    /// The new value, safe to show; `None`: not set.
    pub after: Option<String>,
    /// Source of the new value.
    pub source: Source,
}

impl<S> Loaded<S> {
    /// The secret files that were read.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        self.provenance.iter().filter_map(|row| match &row.source {
            Source::SecretFile { path, .. } => Some(path.as_path()),
            _ => None,
        })
    }

    /// The settings whose values differ from `before`, regardless of their source.
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        let pairs = self.provenance.iter().zip(&before.provenance);
        let changed = pairs.filter(|(now, before)| now.fingerprint != before.fingerprint);
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

/// Loads and validates all settings; reports all errors at once.
pub fn load<S>(schema: &Schema<S>, environment: &Environment, overrides: &Overrides) -> Result<Loaded<S>, Problems> {
    let known_key = |given: &GivenOption| schema.keys().any(|key| key == given.key);
    debug_assert!(overrides.options.iter().all(known_key), "an option gives a setting that is not in the table");
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let variables = Variables::read(environment, schema.reads_dotenv, &mut problems, &mut warnings);
    let config = config_path(schema, overrides, &variables);
    let file = match &config {
        Some((path, source)) => {
            file::read(schema, &environment.directory.join(path), source, &mut problems, &mut warnings)
        }
        None => Ok(File::default()),
    };
    // If the file cannot be read, do not report a setting as missing: the file may contain it.
    let known = file.is_ok();
    let file = file.unwrap_or_else(|problem| {
        problems.push(problem);
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
        let row = given.map_err(|problem| vec![problem]).and_then(|given| put(schema, setting, given, &mut settings));
        match row {
            Ok(row) => provenance.push(row),
            Err(found) => problems.extend(found.into_iter().filter(|problem| known || problem.source.is_some())),
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
    problems.extend(broken.into_iter().map(|(key, wrong)| wrong.of(key, source_of(key))));
    if !problems.is_empty() {
        return Err(Problems { problems, warnings });
    }
    variables.without_effect(schema, &mut warnings);
    let odd = (schema.oddities)(&settings, &|key| source_of(key).is_some());
    warnings.extend(odd.into_iter().map(Warning::Odd));
    Ok(Loaded { settings, provenance, warnings, config: config.map(|(path, _)| path) })
}

/// The path of the YAML file and the source of that path. An empty variable counts as absent.
fn config_path<S>(schema: &Schema<S>, overrides: &Overrides, variables: &Variables<'_>) -> Option<(PathBuf, Source)> {
    if let Some(path) = &overrides.config {
        return Some((path.clone(), Source::CommandLine("--config")));
    }
    match variables.find(schema.config_variables)? {
        (Value::Text(path), source) if !path.is_empty() => Some((PathBuf::from(path), source)),
        _ => None,
    }
}

/// The value from the source with the highest precedence that has the setting.
fn given<S>(
    setting: &Setting<S>,
    variables: &Variables<'_>,
    file: &File,
    directory: &Path,
) -> Result<Option<(Value, Source)>, Problem> {
    let (files, file_key) = (setting.file_variables(), setting.file_key());
    #[expect(clippy::type_complexity, reason = "used once, in the next loop")]
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

/// Stores the given value, or the preset, in the settings.
fn put<S>(
    schema: &Schema<S>,
    setting: &Setting<S>,
    given: Option<(Value, Source)>,
    settings: &mut S,
) -> Result<InForce, Vec<Problem>> {
    // An absent value keeps its source: a variable that is empty on purpose hides the value in the file.
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
            return Err(vec![invalid("required, but not given", schema.how_to_set(setting.key)).of(setting.key, None)]);
        }
        return Ok(InForce { key: setting.key, value: None, source, fingerprint: fingerprint(&Value::Null) });
    };
    match setting.put(&value, settings) {
        Ok(shown) => Ok(InForce { key: setting.key, value: Some(shown), source, fingerprint: fingerprint(&value) }),
        Err(found) => Err(found.into_iter().map(|wrong| wrong.of(setting.key, Some(source.clone()))).collect()),
    }
}

/// A hash of the value with a random key of this process, so that short secrets cannot be guessed from it.
fn fingerprint(value: &Value) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(format!("{value:?}"))
}
