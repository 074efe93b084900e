//! Project IDs of files and directories, as supported by XFS, ext4, F2FS and Lustre.

use std::os::fd::BorrowedFd;

use rustix::ioctl::{self, Getter, Opcode, Setter, opcode};

use crate::{Error, Project};

/// `struct fsxattr` in `linux/fs.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

const _: () = assert!(size_of::<Attributes>() == 28);

/// `FS_IOC_FSGETXATTR`.
const GET: Opcode = opcode::read::<Attributes>(b'X', 31);
/// `FS_IOC_FSSETXATTR`.
const SET: Opcode = opcode::write::<Attributes>(b'X', 32);
/// `FS_XFLAG_PROJINHERIT`: files and directories created in this directory get its project ID.
const INHERIT: u32 = 0x200;

/// Project ID and inheritance flag of a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// `None` if untagged.
    pub project: Option<Project>,
    /// Whether files and directories created in it get the same project ID. Only for directories.
    pub inherit: bool,
}

/// Reads the tag of an open file or directory (not opened with `O_PATH`).
pub fn get(fd: BorrowedFd<'_>) -> Result<Tag, Error> {
    let found = attributes(fd)?;
    Ok(Tag { project: Project::new(found.project), inherit: found.flags & INHERIT != 0 })
}

/// Sets the tag of an open file or directory; `inherit` is only for directories. Other attributes do not change. ENOSPC and
/// EDQUOT mean that the file or directory exceeds the limits of the project.
pub fn set(fd: BorrowedFd<'_>, tag: Tag) -> Result<(), Error> {
    let found = attributes(fd)?;
    let wanted = with(found, tag);
    if wanted == found {
        return Ok(());
    }
    #[expect(unsafe_code, reason = "rustix has no safe function for this ioctl")]
    // SAFETY: this ioctl only reads its argument, a `struct fsxattr`, and `Attributes` has that layout.
    unsafe { ioctl::ioctl(fd, Setter::<SET, Attributes>::new(wanted)) }
        .map_err(|errno| Error::Kernel { call: "FS_IOC_FSSETXATTR", errno })
}

fn attributes(fd: BorrowedFd<'_>) -> Result<Attributes, Error> {
    #[expect(unsafe_code, reason = "rustix has no safe function for this ioctl")]
    // SAFETY: this ioctl writes a `struct fsxattr`. `Attributes` has that layout, and every bit pattern is valid.
    unsafe { ioctl::ioctl(fd, Getter::<GET, Attributes>::new()) }
        .map_err(|errno| Error::Kernel { call: "FS_IOC_FSGETXATTR", errno })
}

fn with(found: Attributes, tag: Tag) -> Attributes {
    let flags = if tag.inherit { found.flags | INHERIT } else { found.flags & !INHERIT };
    Attributes { flags, project: tag.project.map_or(0, Project::get), ..found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn the_ioctl_numbers_match_the_kernel() {
        assert_eq!((GET, SET), (0x801c_581f, 0x401c_5820));
    }

    #[test]
    fn other_attributes_do_not_change() {
        let found =
            Attributes { flags: 0x1040, extent_size: 7, cow_extent_size: 8, padding: [9; 8], ..Attributes::default() };
        let tagged = with(found, Tag { project: Project::new(5), inherit: true });
        assert_eq!(tagged, Attributes { flags: 0x1240, project: 5, ..found });
        assert_eq!(with(tagged, Tag { project: None, inherit: false }), found);
    }

    #[test]
    fn an_unsupported_file_is_an_error_not_untagged() {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert!(get(file.as_fd()).unwrap_err().errno().is_some());
    }
}
