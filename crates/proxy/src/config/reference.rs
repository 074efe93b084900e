//! The reference of all settings, made from the table.

use super::load::SCHEMA;

const HEAD: &str = include_str!("reference.md");

/// The reference as Markdown, as it stands in `docs/settings.md`.
pub fn reference() -> String {
    settings::reference(&SCHEMA, HEAD)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_document_on_migration_names_settings_that_there_are() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/migration.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (_, rest) = document.split_once("| variable there | key there | here | fate |\n").unwrap();
        let mut rows = 0;
        for row in rest.lines().skip(1).take_while(|line| line.starts_with('|')) {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let [_, variable, _, key, ..] = cells[..] else { panic!("{row}") };
            let setting = SCHEMA.table.iter().find(|setting| setting.key == key).unwrap_or_else(|| panic!("no {key}"));
            assert!(setting.variables.contains(&variable), "{key} has no variable {variable}");
            rows += 1;
        }
        assert!(rows >= 27, "{rows}");
        // Elsewhere in it, too, only variables that are read are given as a remedy.
        let known: Vec<_> = SCHEMA.table.iter().flat_map(|setting| setting.variables).copied().collect();
        for variable in ["SYSTEM_IDENTIFIER", "ON_PROCESSING_ERROR", "CACHE_MAX_AGE", "SERVER_LISTEN", "WALDUR_TIMEOUT"]
        {
            assert!(document.contains(variable) && known.contains(&variable), "{variable}");
        }
    }
}
