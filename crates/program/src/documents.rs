//! Documents that are generated from the code and committed. Tests compare the two and write the documents.

use std::fs;
use std::path::Path;

/// Asserts that each document, given by name and text, is equal to the file in `folder`. `command` writes the files.
///
/// # Panics
///
/// Panics if a file differs or cannot be read.
pub fn assert_committed(folder: &Path, documents: &[(&str, String)], command: &str) {
    for (name, text) in documents {
        let committed = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(committed == *text, "{name} is out of date; regenerate it with\n  {command}");
    }
}

/// Writes each document, given by name and text, into `folder`.
///
/// # Panics
///
/// Panics if a file cannot be written.
pub fn write(folder: &Path, documents: &[(&str, String)]) {
    for (name, text) in documents {
        fs::write(folder.join(name), text).unwrap_or_else(|error| panic!("cannot write {name}: {error}"));
    }
}
