//! Secrets in files of their own, as container platforms mount them: a variable with `_FILE` appended, or a YAML key with
//! `_file` appended, names the file.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::LazyLock;

use super::fault::{Fault, Wrong, wrong};
use super::setting::{Setting, scalar};
use super::source::Source;
use super::table::TABLE;
use super::yaml::Value;
use crate::files;

/// No secret is larger.
const LARGEST: u64 = 64 * 1024;

/// A setting whose secret may stand in a file: its key, and what names the file.
struct Names {
    key: &'static str,
    file_key: String,
    file_variables: Vec<String>,
}

static NAMES: LazyLock<Vec<Names>> = LazyLock::new(|| {
    let secrets = TABLE.iter().filter(|setting| setting.is_secret());
    let names = secrets.map(|setting| Names {
        key: setting.key,
        file_key: format!("{}_file", setting.key),
        file_variables: setting.variables.iter().map(|name| format!("{name}_FILE")).collect(),
    });
    names.collect()
});

/// The variables that name files.
pub(super) fn variables() -> impl Iterator<Item = &'static str> {
    NAMES.iter().flat_map(|names| &names.file_variables).map(String::as_str)
}

/// The YAML keys that name files.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|names| names.file_key.as_str())
}

/// The variables that name the file of this setting: none where it is no secret.
pub(super) fn variables_of(setting: &Setting) -> Vec<&'static str> {
    let names = NAMES.iter().filter(|names| names.key == setting.key);
    names.flat_map(|names| &names.file_variables).map(String::as_str).collect()
}

/// The YAML key that names the file of this setting.
pub(super) fn key(setting: &Setting) -> Option<&'static str> {
    NAMES.iter().find(|names| names.key == setting.key).map(|names| names.file_key.as_str())
}

/// What one source says of a setting: its value, or what the file holds that it names. Both are a fault; an empty text
/// names no file, and is no value beside a file.
pub(super) fn value_or_file(
    setting: &Setting,
    value: Option<(Value, Source)>,
    file: Option<(Value, Source)>,
    directory: &Path,
) -> Result<Option<(Value, Source)>, Fault> {
    let is_given = |(value, _): &(Value, Source)| !matches!(value, Value::Null) && *value != Value::Text(String::new());
    let Some((path, named)) = file.filter(is_given) else { return Ok(value) };
    if let Some((_, other)) = value.filter(is_given) {
        let what = format!("given twice: its value too is there ({other})");
        return Err(wrong(what, "remove one of the two").of(setting.key, Some(named)));
    }
    let read = scalar(&path).and_then(|path| Ok((read(&directory.join(path))?, directory.join(path))));
    match read {
        Ok((secret, path)) => Ok(Some((Value::Text(secret), Source::SecretFile { path, named: Box::new(named) }))),
        Err(wrong) => Err(wrong.of(setting.key, Some(named))),
    }
}

/// The secret in a file, without the end of its line.
fn read(path: &Path) -> Result<String, Wrong> {
    let shown = path.display();
    let bytes = files::read(path, LARGEST).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => {
            wrong(format!("{shown} is larger than 64 KiB"), "name a file that holds the secret and nothing else")
        }
        _ => wrong(format!("{shown} {}", files::why(&error)), "correct the path, or make it readable"),
    })?;
    let text = String::from_utf8(bytes).map_err(|_| wrong(format!("{shown} is not valid UTF-8"), "write it anew"))?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        return Err(wrong(format!("{shown} is empty"), "write the secret into it"));
    }
    Ok(secret.to_owned())
}
