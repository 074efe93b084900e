//! The system call `quotactl_fd`, which neither the C library nor rustix wraps.

use std::ffi::c_uint;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::Error;

/// `PRJQUOTA` in `linux/quota.h`.
const PROJECT_QUOTA: c_uint = 2;

/// A command of `quotactl_fd`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command {
    pub(crate) number: c_uint,
    pub(crate) name: &'static str,
}

/// A structure that the kernel reads and writes.
///
/// # Safety
///
/// The type must be `repr(C)`, with the layout in the kernel's header, and every bit pattern must be valid.
#[expect(unsafe_code, reason = "implementations guarantee the layout")]
pub(crate) unsafe trait Layout: Default {
    /// The commands that take this structure.
    const COMMANDS: &'static [c_uint];
}

/// Calls `quotactl_fd` for the project `id` on the file system of `fd`. The kernel may write its answer into `data`.
pub(crate) fn quotactl<T: Layout>(fd: BorrowedFd<'_>, command: Command, id: u32, data: &mut T) -> Result<(), Error> {
    assert!(T::COMMANDS.contains(&command.number), "{} takes another structure", command.name);
    // `QCMD` in the header.
    let number = (command.number << 8) | PROJECT_QUOTA;
    #[expect(unsafe_code, reason = "there is no safe function for this call")]
    // SAFETY: `data` is exclusively borrowed and outlives the call. `Layout` guarantees that it is the structure that these
    // commands read or write, and that every value the kernel writes is valid. `fd` is open while borrowed.
    let answer = unsafe { libc::syscall(libc::SYS_quotactl_fd, fd.as_raw_fd(), number, id, std::ptr::from_mut(data)) };
    if answer == 0 {
        return Ok(());
    }
    let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    Err(Error::Kernel { call: command.name, errno })
}
