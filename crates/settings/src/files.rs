//! Reads small files.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Reads a regular file; fails if it is larger than `largest` bytes.
pub fn read(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(largest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest { Err(ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Describes why a file cannot be read.
pub fn why(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => String::from("cannot be read (no such file)"),
        ErrorKind::Other => format!("cannot be read ({error})"),
        kind => format!("cannot be read ({kind})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_regular_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        assert_eq!(why(&read(&path, 5).unwrap_err()), "cannot be read (no such file)");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(why(&read(directory.path(), 5).unwrap_err()), "cannot be read (not a regular file)");
    }
}
