//! The system call `quotactl_fd`, for which neither the C library nor rustix has a function.

use std::ffi::c_uint;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::Error;

/// `PRJQUOTA` of `linux/quota.h`.
const PROJECT_QUOTA: c_uint = 2;

/// A command of quotactl.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command {
    pub(crate) number: c_uint,
    pub(crate) name: &'static str,
}

/// What the kernel reads and writes at the address that it is given.
///
/// # Safety
///
/// `repr(C)`, laid out as in the kernel's header, every bit pattern valid.
#[expect(unsafe_code, reason = "whoever implements it vouches for the layout")]
pub(crate) unsafe trait Layout: Default {
    /// The commands that work on this structure.
    const COMMANDS: &'static [c_uint];
}

/// Asks the kernel about the project `id` on the file system of `fd`; the answer, if any, is written into `data`.
pub(crate) fn quotactl<T: Layout>(fd: BorrowedFd<'_>, command: Command, id: u32, data: &mut T) -> Result<(), Error> {
    assert!(T::COMMANDS.contains(&command.number), "{} works on another structure", command.name);
    // QCMD of the header.
    let number = (command.number << 8) | PROJECT_QUOTA;
    #[expect(unsafe_code, reason = "there is no safe function for this call")]
    // SAFETY: `data` is exclusively borrowed and lives through the call, and `Layout` says that it is the structure which
    // these commands read or write and that the kernel can write nothing invalid into it. `fd` is open while borrowed.
    let answer = unsafe { libc::syscall(libc::SYS_quotactl_fd, fd.as_raw_fd(), number, id, std::ptr::from_mut(data)) };
    if answer == 0 {
        return Ok(());
    }
    let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    Err(Error::Kernel { call: command.name, errno })
}
