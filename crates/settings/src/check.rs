//! Validates single values. Errors never include a text or a URL, because either may be a misplaced secret.

mod number;
mod url;

use std::path::Path;

pub use self::number::{age, count, mode, number, positive, seconds, share};
pub use self::url::{MASK, base_url, endpoint, masked, of_scheme, proxy, public_part};
use crate::problem::{Invalid, invalid, quoted};

/// Reads a boolean in any spelling that pydantic accepts, in any case.
pub fn flag(text: &str) -> Result<bool, Invalid> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" | "y" => Ok(true),
        "false" | "0" | "no" | "off" | "f" | "n" => Ok(false),
        _ => Err(invalid(format!("{} is not a boolean", quoted(text)), "give true or false")),
    }
}

/// Accepts text that is not blank and has no control characters.
pub fn plain(text: &str) -> Result<(), Invalid> {
    if text.trim().is_empty() {
        Err(invalid("blank", "give a text, or leave the setting out"))
    } else if text.chars().any(char::is_control) {
        Err(invalid("it contains a control character", "remove it"))
    } else {
        Ok(())
    }
}

/// Accepts an absolute path of a file or directory.
pub fn absolute_path(text: &str) -> Result<(), Invalid> {
    plain(text)?;
    if Path::new(text).is_absolute() {
        Ok(())
    } else {
        Err(invalid("it does not begin with `/`", "give an absolute path"))
    }
}

/// Accepts a secret that is not blank.
pub fn secret(text: &str) -> Result<(), Invalid> {
    if text.trim().is_empty() { Err(invalid("blank", "give the secret, or leave the setting out")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_those_of_pydantic() {
        for text in ["true", "TRUE", "1", "yes", "On", "t", "Y"] {
            assert_eq!(flag(text), Ok(true), "{text}");
        }
        for text in ["false", "0", "No", "OFF", "f", "n"] {
            assert_eq!(flag(text), Ok(false), "{text}");
        }
        for text in ["", " true ", "2", "enabled"] {
            assert!(flag(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_absolute() {
        assert!(absolute_path("/capstor/store").is_ok());
        for text in ["", " ", "store", "./store", "/a\nb"] {
            assert!(absolute_path(text).is_err(), "{text}");
        }
    }
}
