//! The drivers that a system's settings can name.

use std::fs::File;
use std::os::fd::AsFd;

use driver_posix::command::Program;
use driver_posix::quotas::ceph::Ceph;
use driver_posix::quotas::declared::Declared;
use driver_posix::quotas::kernel::Kernel;
use driver_posix::quotas::lustre::Lustre;
use driver_posix::tree::{Rules, Tree};
use driver_scale::Scale;
use driver_vast::Vast;
use storage_driver::memory::Memory;
use storage_driver::walked::Walked;
use storage_driver::{Driver, DriverError};

use crate::settings::{DriverName, SystemConfig};

pub(crate) mod on_demand;

/// Opens the driver of a system.
pub(crate) fn open(config: &SystemConfig, walked: &Walked) -> Result<Box<dyn Driver>, DriverError> {
    let rules =
        Rules { must_be_mounted: config.must_be_mounted, change_owner: config.change_owner, acl: config.acl.clone() };
    let root = config.root();
    Ok(match config.driver {
        DriverName::Memory => Box::new(Memory::default()),
        DriverName::Posix => {
            let namespace = if config.change_owner { "trusted" } else { "user" };
            Box::new(Tree::new(root, Declared::new(namespace), rules).counting(walked))
        }
        DriverName::Xfs | DriverName::Ext4 => {
            let handle = File::open(&root).map_err(|error| {
                DriverError::passing(format!("the root {} cannot be opened", root.display()), error)
            })?;
            let kernel = Kernel::of(handle.as_fd())?;
            Box::new(Tree::new(root, kernel, rules).counting(walked))
        }
        DriverName::Lustre => {
            let lfs = Program::find("lfs").map_err(|error| DriverError::passing("Lustre's tools are needed", error))?;
            let mount = config.mount.clone().unwrap_or_else(|| root.clone());
            Box::new(Tree::new(root, Lustre::new(lfs, &mount.display().to_string())?, rules).counting(walked))
        }
        DriverName::Scale => {
            let settings =
                config.scale.as_ref().ok_or_else(|| DriverError::unclear("the mapping `scale` is missing"))?;
            Box::new(Scale::new(settings).map_err(|error| DriverError::passing("Storage Scale is not set up", error))?)
        }
        DriverName::Vast => {
            let settings = config.vast.as_ref().ok_or_else(|| DriverError::unclear("the mapping `vast` is missing"))?;
            let vast = Vast::new(settings).map_err(|error| DriverError::passing("VAST is not set up", error))?;
            Box::new(vast.counting(walked))
        }
        DriverName::Cephfs => Box::new(Tree::new(root, Ceph::default(), rules).counting(walked)),
    })
}
