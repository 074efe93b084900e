//! Secret files, as container platforms mount them. A variable with the suffix `_FILE`, or a YAML key with the suffix
//! `_file`, contains the path.

use std::io::ErrorKind;
use std::path::Path;

use crate::files;
use crate::problem::{Invalid, Problem, invalid};
use crate::source::Source;
use crate::value::Value;

/// Maximum size in bytes.
const LARGEST: u64 = 64 * 1024;

/// The value that one source gives for a setting, directly or through a file. Giving both is an error. An empty text is
/// no path, and counts as no value if there is a file.
pub(crate) fn value_or_file(
    key: &str,
    value: Option<(Value, Source)>,
    file: Option<(Value, Source)>,
    directory: &Path,
) -> Result<Option<(Value, Source)>, Problem> {
    let is_given = |(value, _): &(Value, Source)| !matches!(value, Value::Null) && *value != Value::Text(String::new());
    let Some((path, named)) = file.filter(is_given) else { return Ok(value) };
    if let Some((_, other)) = value.filter(is_given) {
        let what = format!("given twice: the value is also set directly ({other})");
        return Err(invalid(what, "remove one of the two").of(key, Some(named)));
    }
    let read = path.scalar().and_then(|path| Ok((read(&directory.join(path))?, directory.join(path))));
    match read {
        Ok((secret, path)) => Ok(Some((Value::Text(secret), Source::SecretFile { path, named: Box::new(named) }))),
        Err(wrong) => Err(wrong.of(key, Some(named))),
    }
}

/// Reads the secret in a file, without the final line break.
pub fn read(path: &Path) -> Result<String, Invalid> {
    let shown = path.display();
    let bytes = files::read(path, LARGEST).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => {
            invalid(format!("{shown} is larger than 64 KiB"), "give the path of a file that contains only the secret")
        }
        _ => invalid(format!("{shown} {}", files::why(&error)), "correct the path, or make it readable"),
    })?;
    let text =
        String::from_utf8(bytes).map_err(|_| invalid(format!("{shown} is not valid UTF-8"), "write the file again"))?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        return Err(invalid(format!("{shown} is empty"), "write the secret into the file"));
    }
    Ok(secret.to_owned())
}
