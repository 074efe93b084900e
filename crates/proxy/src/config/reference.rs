//! The reference of all settings, generated from the table.

use super::load::SCHEMA;

const HEAD: &str = include_str!("reference.md");

/// The reference as Markdown, committed as `docs/settings.md`.
pub fn reference() -> String {
    settings::reference(&SCHEMA, HEAD)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_migration_guide_names_existing_settings() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/migration.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (_, rest) = document.split_once("| variable there | key there | here | difference |\n").unwrap();
        let table = SCHEMA.table();
        let mut rows = 0;
        for row in rest.lines().skip(1).take_while(|line| line.starts_with('|')) {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let [_, variable, _, key, ..] = cells[..] else { panic!("{row}") };
            let setting = table.iter().find(|setting| setting.key == key).unwrap_or_else(|| panic!("no {key}"));
            assert!(setting.variables.contains(&variable), "{key} has no variable {variable}");
            rows += 1;
        }
        assert!(rows >= 27, "{rows}");
        // Remedies elsewhere in the guide name existing variables, too.
        let known: Vec<_> = table.iter().flat_map(|setting| setting.variables).copied().collect();
        for variable in ["SYSTEM_IDENTIFIER", "ON_PROCESSING_ERROR", "CACHE_MAX_AGE", "SERVER_LISTEN", "WALDUR_TIMEOUT"]
        {
            assert!(document.contains(variable) && known.contains(&variable), "{variable}");
        }
    }
}
