//! The drivers of this crate: one tree of directories, with different quotas.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::Deserialize;
use storage_driver::DriverError;
use storage_driver::registration::{InvalidSettings, OpenDriver, Registration, SystemSettings};

use crate::command::Program;
use crate::handle::open_root;
use crate::quotas::Quotas;
use crate::quotas::ceph::Ceph;
use crate::quotas::declared::Declared;
use crate::quotas::kernel::Kernel;
use crate::quotas::lustre::Lustre;
use crate::tree::acl::{self, AclEntries};
use crate::tree::{Rules, Tree};

/// The drivers `posix`, `xfs`, `ext4`, `lustre` and `cephfs`.
pub const DRIVERS: &[Registration] = &[
    // Limits are stored, not enforced.
    driver("posix", false, |settings| {
        configure(settings, |settings, _| Ok(Declared::new(if settings.change_owner { "trusted" } else { "user" })))
    }),
    driver("xfs", true, kernel),
    driver("ext4", true, kernel),
    driver("lustre", true, |settings| {
        configure(settings, |settings, root| {
            let lfs = Program::find("lfs")
                .map_err(|error| DriverError::temporary_from("Lustre's tools are needed", error))?;
            let mount = settings.mount.as_deref().unwrap_or(root);
            Lustre::new(lfs, &mount.display().to_string())
        })
    }),
    driver("cephfs", false, |settings| configure(settings, |_, _| Ok(Ceph::default()))),
];

type Configure = fn(SystemSettings) -> Result<OpenDriver, InvalidSettings>;

const fn driver(name: &'static str, project_ids: bool, configure: Configure) -> Registration {
    let keys = &["mount", "must_be_mounted", "change_owner", "acl"];
    Registration { name, keys, project_ids, local_root: true, configure }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Where the file system is mounted, for `lustre`; the root unless given.
    mount: Option<PathBuf>,
    #[serde(default = "enabled")]
    must_be_mounted: bool,
    #[serde(default = "enabled")]
    change_owner: bool,
}

fn enabled() -> bool {
    true
}

fn kernel(settings: SystemSettings) -> Result<OpenDriver, InvalidSettings> {
    configure(settings, |_, root| {
        Kernel::of(open_root(&format!("the root {}", root.display()), root, OFlags::RDONLY)?.as_fd())
    })
}

fn configure<Q: Quotas + 'static>(
    mut settings: SystemSettings,
    quotas: fn(&Settings, &Path) -> Result<Q, DriverError>,
) -> Result<OpenDriver, InvalidSettings> {
    let (root, acl) = (settings.root.clone(), acl(settings.values.remove("acl"))?);
    let settings: Settings = settings.read()?;
    Ok(OpenDriver::new(move |walked| {
        let (must_be_mounted, change_owner) = (settings.must_be_mounted, settings.change_owner);
        let rules = Rules { must_be_mounted, change_owner, acl: acl.clone() };
        Ok(Box::new(Tree::new(root.clone(), quotas(&settings, &root)?, rules).with_counter(walked)))
    }))
}

/// Reads the ACL entries apart from the other settings, for errors that show what an entry looks like.
fn acl(value: Option<serde_json::Value>) -> Result<Option<AclEntries>, InvalidSettings> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let texts: Vec<String> =
        serde_json::from_value(value).map_err(|_| InvalidSettings::new("`acl` is not a list of texts", acl::FORM))?;
    AclEntries::parse(&texts).map(Some).map_err(|error| InvalidSettings::new(error.to_string(), acl::FORM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_the_root_must_be_mounted_and_owners_are_changed() {
        let values = serde_json::Map::new();
        let settings: Settings = SystemSettings { root: "/".into(), values }.read().unwrap();
        assert!(settings.must_be_mounted && settings.change_owner);
    }
}
