//! Documents that are generated from the code and committed.

use std::fs;
use std::path::Path;

/// Compares each document, given by name and text, with the file in `folder`; writes the files instead if the variable
/// `UPDATE_DOCUMENTS` is set.
///
/// # Panics
///
/// Panics if a file differs, or cannot be read or written.
pub fn check(folder: &Path, documents: &[(&str, String)]) {
    for (name, text) in documents {
        let path = folder.join(name);
        if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
            fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        } else {
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == *text,
                "docs/{name} is out of date; regenerate it with `just docs` (see CONTRIBUTING.md)"
            );
        }
    }
}
