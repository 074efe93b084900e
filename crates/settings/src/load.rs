//! Loads settings from their sources.

use std::path::{Path, PathBuf};

use crate::environment::Environment;
use crate::file::{self, File};
use crate::loader::{InForce, Loader};
use crate::problem::Problems;
use crate::schema::Schema;
use crate::source::Source;
use crate::sources::{GivenOption, Sources};
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
    let table = schema.table();
    let is_known = |given: &GivenOption| table.iter().any(|row| row.key == given.key);
    debug_assert!(overrides.options.iter().all(is_known), "an option gives a setting that is not in the table");
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let variables = Variables::read(environment, schema.reads_dotenv, &mut problems, &mut warnings);
    let config = config_path(schema, overrides, &variables);
    let directory = &environment.directory;
    let file = match &config {
        Some((path, source)) => file::read(&table, &directory.join(path), source, &mut problems, &mut warnings),
        None => Ok(File::default()),
    };
    let file = file.map_err(|problem| problems.push(problem)).ok();
    variables.near_misses(&schema.variables(&table), schema.prefixes, &mut warnings);

    let mut loader = Loader::new(Sources { options: &overrides.options, variables: &variables, file, directory });
    let settings = (schema.read)(&mut loader);
    let Loader { in_force, problems: invalid, violations, .. } = loader;
    problems.extend(invalid.into_iter().chain(violations));
    let settings = match settings {
        Ok(settings) if problems.is_empty() => settings,
        _ => {
            if config.is_none() && problems.iter().any(|problem| problem.source.is_none()) {
                let variables = schema.config_variables.join(" or ");
                warnings
                    .push(Warning::Odd(format!("no settings file was given; --config FILE or {variables} names one")));
            }
            return Err(Problems { problems, warnings });
        }
    };
    variables.without_effect(schema.without_effect, &mut warnings);
    let is_given = |key: &str| in_force.iter().any(|row| row.key == key && row.source != Source::Default);
    warnings.extend((schema.oddities)(&settings, &is_given).into_iter().map(Warning::Odd));
    Ok(Loaded { settings, provenance: in_force, warnings, config: config.map(|(path, _)| path) })
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
