//! Reads and writes the extended attributes with ACLs.

use std::os::fd::AsFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::{Acl, Acls};
use crate::handle::temporary_error;
use storage_driver::DriverError;

/// The directory's own ACL, and the default for new files in it.
const NAMES: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];
/// Longest extended attribute in Linux, in bytes.
const LONGEST: usize = 65_536;

pub(in crate::tree) fn read(directory: impl AsFd) -> Result<Acls, DriverError> {
    let [access, default] = NAMES.map(|name| one(directory.as_fd(), name));
    Ok(Acls { access: access?, default: default? })
}

fn one(directory: impl AsFd, name: &str) -> Result<Option<Acl>, DriverError> {
    let mut bytes = vec![0; LONGEST];
    match rustix::fs::fgetxattr(directory, name, &mut bytes[..]) {
        Ok(length) => Acl::decode(&bytes[..length])
            .map(Some)
            .ok_or_else(|| DriverError::temporary(format!("the ACL {name} of a directory has an unknown version"))),
        Err(Errno::NODATA) => Ok(None),
        Err(Errno::OPNOTSUPP) => Err(DriverError::temporary(
            "the file system has no POSIX ACLs: mount it with them (`-o acl`), or take `acl` out of this system's settings",
        )),
        Err(error) => Err(temporary_error(format!("the ACL {name} of a directory cannot be read"), error)),
    }
}

/// Sets the ACLs of a directory. This changes the permission bits of its mode and can clear the set-group-ID bit.
pub(in crate::tree) fn write(directory: impl AsFd, acls: &Acls) -> Result<(), DriverError> {
    for (name, acl) in NAMES.into_iter().zip([&acls.access, &acls.default]) {
        let set = match acl {
            Some(acl) => rustix::fs::fsetxattr(&directory, name, &acl.encode(), XattrFlags::empty()),
            None => rustix::fs::fremovexattr(&directory, name),
        };
        match set {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(error) => return Err(temporary_error(format!("the ACL {name} of a directory cannot be set"), error)),
        }
    }
    Ok(())
}
