//! The table of all settings, without their values.

/// What is known of a setting before it is loaded.
#[derive(Debug, Clone)]
pub struct Row {
    /// Key in the YAML file: `section.name` or `name`.
    pub key: &'static str,
    /// Names of environment variables, the preferred one first.
    pub variables: &'static [&'static str],
    /// Kind of value.
    pub label: &'static str,
    /// Whether the value can be given as the path of a file that contains it.
    pub secret: bool,
    pub preset: Preset,
    /// What the setting does, with units and range; one or more sentences of Markdown.
    pub doc: &'static str,
}

/// The value of a setting that is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// None: a missing value is an error.
    Required,
    /// The setting is off.
    Absent,
    /// This value, written as in an environment variable.
    Is(&'static str),
}

impl Row {
    /// The section of the key, if it has one.
    pub(crate) fn section(&self) -> Option<&'static str> {
        self.key.split_once('.').map(|(section, _)| section)
    }

    /// The variables with the path of a secret file; empty if the setting is not secret.
    pub(crate) fn file_variables(&self) -> Vec<String> {
        let variables = if self.secret { self.variables } else { &[] };
        variables.iter().map(|name| format!("{name}_FILE")).collect()
    }

    /// The YAML key with the path of a secret file; `None` if the setting is not secret.
    pub(crate) fn file_key(&self) -> Option<String> {
        self.secret.then(|| format!("{}_file", self.key))
    }

    /// The remedy if the setting is missing.
    pub(crate) fn how_to_set(&self) -> String {
        let key = self.key;
        self.variables.first().map_or_else(
            || format!("give {key} in the YAML file"),
            |variable| format!("set {variable}, or {key} in the YAML file"),
        )
    }
}

/// All variables: of values and of secret files.
pub(crate) fn variables(table: &[Row]) -> impl Iterator<Item = String> {
    let values = table.iter().flat_map(|row| row.variables).map(|name| (*name).to_owned());
    values.chain(table.iter().flat_map(Row::file_variables))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_names_the_variable_if_there_is_one() {
        let row = |key, variables| Row { key, variables, label: "", secret: false, preset: Preset::Absent, doc: "" };
        assert_eq!(row("s.a", &["A", "OLD_A"]).how_to_set(), "set A, or s.a in the YAML file");
        assert_eq!(row("s.b", &[]).how_to_set(), "give s.b in the YAML file");
    }
}
