//! Small files that others write: how they are read.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// What a regular file holds; an error when that is more than `largest` bytes.
pub fn read(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    // A pipe would have us wait for whoever writes to it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(largest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest { Err(ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Why a file cannot be read, in the words of people.
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
    fn only_regular_files_of_the_right_size_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        assert_eq!(why(&read(&path, 5).unwrap_err()), "cannot be read (no such file)");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(why(&read(directory.path(), 5).unwrap_err()), "cannot be read (not a regular file)");
    }
}
