//! Secrets in files of their own, as container platforms mount them: a variable with `_FILE` appended, or a YAML key with
//! `_file` appended, names the file.

use std::io::ErrorKind;
use std::path::Path;

use crate::fault::{Fault, Wrong, wrong};
use crate::files;
use crate::source::Source;
use crate::value::Value;

/// No secret is larger.
const LARGEST: u64 = 64 * 1024;

/// What one source says of a setting: its value, or what the file holds that it names. Both are a fault; an empty text
/// names no file, and is no value beside a file.
pub(crate) fn value_or_file(
    key: &str,
    value: Option<(Value, Source)>,
    file: Option<(Value, Source)>,
    directory: &Path,
) -> Result<Option<(Value, Source)>, Fault> {
    let is_given = |(value, _): &(Value, Source)| !matches!(value, Value::Null) && *value != Value::Text(String::new());
    let Some((path, named)) = file.filter(is_given) else { return Ok(value) };
    if let Some((_, other)) = value.filter(is_given) {
        let what = format!("given twice: its value too is there ({other})");
        return Err(wrong(what, "remove one of the two").of(key, Some(named)));
    }
    let read = path.scalar().and_then(|path| Ok((read(&directory.join(path))?, directory.join(path))));
    match read {
        Ok((secret, path)) => Ok(Some((Value::Text(secret), Source::SecretFile { path, named: Box::new(named) }))),
        Err(wrong) => Err(wrong.of(key, Some(named))),
    }
}

/// The secret in a file, without the end of its line.
pub fn read(path: &Path) -> Result<String, Wrong> {
    let shown = path.display();
    let bytes = files::read(path, LARGEST).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => {
            wrong(format!("{shown} is larger than 64 KiB"), "name a file that holds the secret and nothing else")
        }
        _ => wrong(format!("{shown} {}", files::why(&error)), "correct the path, or make it readable"),
    })?;
    let text = String::from_utf8(bytes).map_err(|_| wrong(format!("{shown} is not valid UTF-8"), "write it again"))?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        return Err(wrong(format!("{shown} is empty"), "write the secret into it"));
    }
    Ok(secret.to_owned())
}
