//! All sources of settings in their order of precedence.

use std::path::Path;

use crate::file::File;
use crate::problem::Problem;
use crate::secret_file::value_or_file;
use crate::source::Source;
use crate::table::Row;
use crate::value::Value;
use crate::variables::Variables;

/// A command-line option that sets a setting.
#[derive(Debug, Clone)]
pub struct GivenOption {
    /// Name of the option, for example `--listen`.
    pub option: &'static str,
    pub key: &'static str,
    pub value: Value,
}

/// The sources of one load.
pub(crate) struct Sources<'a> {
    pub(crate) options: &'a [GivenOption],
    pub(crate) variables: &'a Variables<'a>,
    /// `None`: the file cannot be read, so that nothing is known of the settings that no other source has.
    pub(crate) file: Option<File>,
    /// Base of relative paths.
    pub(crate) directory: &'a Path,
}

impl Sources<'_> {
    /// The value from the source with the highest precedence that has the setting.
    pub(crate) fn find(&self, row: &Row) -> Result<Option<(Value, Source)>, Problem> {
        if let Some(given) = self.options.iter().find(|given| given.key == row.key) {
            return Ok(Some((given.value.clone(), Source::CommandLine(given.option))));
        }
        let (variables, file) = (self.variables, self.file.as_ref());
        let (path_variables, path_key) = (row.file_variables(), row.file_key());
        let in_file = |key: &str| file.and_then(|file| file.find(key));
        #[expect(clippy::type_complexity, reason = "used once, in the next loop")]
        let sources: [[&dyn Fn() -> Option<(Value, Source)>; 2]; 3] = [
            [&|| variables.in_environment(row.variables), &|| variables.in_environment(&path_variables)],
            [&|| variables.in_dotenv(row.variables), &|| variables.in_dotenv(&path_variables)],
            [&|| in_file(row.key), &|| in_file(path_key.as_deref()?)],
        ];
        for [value, path] in sources {
            let found = value_or_file(row.key, value(), path(), self.directory)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}
