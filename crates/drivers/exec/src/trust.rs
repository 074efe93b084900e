//! Checks who could replace the program, which runs with the provisioner's privileges.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use storage_driver::DriverError;

const STICKY: u32 = 0o1000;

/// Checks that the program and all directories above it belong to root or to this program's user, and that nobody else can write to
/// them.
pub(crate) fn check(program: &Path) -> Result<(), DriverError> {
    let unreadable = |path: &Path, error| {
        DriverError::temporary_from(
            format!("the driver {}: {} cannot be read", program.display(), path.display()),
            error,
        )
    };
    let real = program.canonicalize().map_err(|error| unreadable(program, error))?;
    if real != program {
        return Err(DriverError::temporary(format!(
            "the driver {} is a symlink, or is below one: write its real path in the settings, {}",
            program.display(),
            real.display()
        )));
    }
    for path in program.ancestors() {
        let found = path.metadata().map_err(|error| unreadable(path, error))?;
        let (uid, mode) = (found.uid(), found.mode() & 0o7777);
        if uid != 0 && uid != rustix::process::geteuid().as_raw() {
            return Err(DriverError::temporary(format!(
                "{} belongs to user {uid}, who could replace the driver {}: make root its owner",
                path.display(),
                program.display()
            )));
        }
        // In a directory with the sticky bit, only the owner of an entry can replace it.
        let is_sticky = found.is_dir() && mode & STICKY != 0;
        if mode & 0o022 != 0 && !is_sticky {
            return Err(DriverError::temporary(format!(
                "others can write to {} (mode {mode:o}), and could replace the driver {}: chmod go-w {0}",
                path.display(),
                program.display()
            )));
        }
    }
    Ok(())
}
