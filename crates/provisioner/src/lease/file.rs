//! Leases as locks on files in the state directory. They end with the process, and exclude processes on one host only.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::FlockOperation;

use super::{LeaseError, Tokens};

/// The exclusive right to write to a state directory, until it is dropped.
#[derive(Debug)]
pub struct StateLock(#[expect(dead_code, reason = "held, never read")] File);

impl StateLock {
    /// Two programs that write the same journal would break it, whichever systems they drive.
    pub fn take(directory: &Path) -> Result<Self, LeaseError> {
        let path = directory.display().to_string();
        let file = File::open(directory).map_err(|source| LeaseError::File { path: path.clone(), source })?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LeaseError::State { path }),
            Err(error) => Err(LeaseError::File { path, source: error.into() }),
        }
    }
}

/// Takes all leases, or none. They are held until the files are closed.
pub(super) fn take(names: &[String], directory: &Path) -> Result<(Tokens, Vec<File>), LeaseError> {
    let (mut tokens, mut files) = (Tokens::new(), Vec::new());
    for name in names {
        let path = directory.join(format!("{name}.lease"));
        let failed = |source| LeaseError::File { path: path.display().to_string(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LeaseError::held(name)),
            Err(error) => return Err(failed(error.into())),
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let token = next(&text).map_err(failed)?;
        // Overwrites the old token, which is never longer: on a full disk, the old one stays.
        file.rewind().map_err(failed)?;
        file.write_all(format!("{token}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        tokens.insert(name.clone(), token);
        files.push(file);
    }
    Ok((tokens, files))
}

/// The token after the one in the text of a lease's file; 1 for an empty file.
fn next(text: &str) -> io::Result<u64> {
    if text.trim().is_empty() {
        return Ok(1);
    }
    let token = text.trim().parse::<u64>().ok().and_then(|token| token.checked_add(1));
    token.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it contains no token: remove the file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_program_at_a_time_writes_to_a_state_directory() {
        let folder = tempfile::tempdir().unwrap();
        let lock = StateLock::take(folder.path()).unwrap();
        assert!(matches!(StateLock::take(folder.path()), Err(LeaseError::State { .. })));
        drop(lock);
        assert!(StateLock::take(folder.path()).is_ok());
    }

    #[test]
    fn a_token_that_cannot_be_parsed_does_not_restart_at_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vast.lease");
        for (text, token) in
            [("", Some(1)), ("9\n", Some(10)), ("99", Some(100)), ("x", None), ("18446744073709551615", None)]
        {
            std::fs::write(&file, text).unwrap();
            let taken = take(&["vast".to_owned()], folder.path());
            assert_eq!(taken.ok().map(|(tokens, _)| tokens["vast"]), token, "{text:?}");
            let kept = token.map_or_else(|| text.to_owned(), |token| format!("{token}\n"));
            assert_eq!(std::fs::read_to_string(&file).unwrap(), kept);
        }
    }
}
