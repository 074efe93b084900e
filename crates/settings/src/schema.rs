//! The declaration of a program's settings.

use crate::loader::{Loader, Reported};
use crate::table::{Row, variables};
use crate::warning::WithoutEffect;

/// The settings `S` of a program.
#[derive(Debug)]
pub struct Schema<S> {
    /// Reads every setting, in the order of the reference, and checks rules that involve several settings. Must not
    /// return early: the settings that are not read would be missing in the reference and in reports.
    pub read: fn(&mut Loader<'_>) -> Result<S, Reported>,
    /// Variables with the path of the YAML file, in the environment or in `.env`; the preferred one first.
    pub config_variables: &'static [&'static str],
    /// Whether `.env` in the working directory is read. Set it to false for programs run as root in any directory: the owner
    /// of the directory could change their settings.
    pub reads_dotenv: bool,
    /// Prefixes, in capitals, of the program's variables. Only variables with such a prefix are checked for misspellings.
    pub prefixes: &'static [&'static str],
    /// Checks for valid but suspicious settings.
    pub oddities: Oddities<S>,
    /// Variables of a replaced program that this program ignores. Giving one causes a warning.
    pub without_effect: &'static [WithoutEffect],
}

/// Returns warnings for the operator, without secrets. The second argument returns whether a key was given.
pub type Oddities<S> = fn(&S, &dyn Fn(&str) -> bool) -> Vec<String>;

impl<S> Schema<S> {
    /// Every setting, in the order of the reference and of reports.
    pub fn table(&self) -> Vec<Row> {
        self.described().rows
    }

    /// The variables of each setting with its key and meaning, for the manual page.
    pub fn manual(&self) -> impl Iterator<Item = (String, String)> {
        self.table().into_iter().map(|row| (row.variables.join(", "), format!("({}) {}", row.key, row.doc)))
    }

    /// All variables: of values, of secret files, of the YAML file.
    pub(crate) fn variables(&self, table: &[Row]) -> Vec<String> {
        variables(table).chain(self.config_variables.iter().map(|name| (*name).to_owned())).collect()
    }

    /// A loader that has seen every setting and validated the defaults.
    pub(crate) fn described(&self) -> Loader<'static> {
        let mut loader = Loader::describing();
        // No setting has a value.
        let _ = (self.read)(&mut loader);
        loader
    }
}
