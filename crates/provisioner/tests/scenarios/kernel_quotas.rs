//! Quotas on a real kernel, which `.ci/kernel` boots: users of the machine can write what was ordered in Waldur.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use simulator::world::{OrderState, ResourceState};

use crate::support::{BASIC, SLURM, Site, mode};

const MIB: u64 = 1 << 20;
const TB: u64 = 1_000_000_000_000;
/// The GID of the project in the HPC User API.
const GROUP: u32 = 30_500;

/// Runs a program as a user with this group. Returns its standard error if it fails.
fn run(group: u32, program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    let ended = command.args(arguments).env("LC_ALL", "C").uid(20_000).gid(group).output().unwrap();
    if ended.status.success() { Ok(()) } else { Err(String::from_utf8(ended.stderr).unwrap()) }
}

/// Allocates a file as a member of the project.
fn reserve(file: &Path, bytes: u64) -> Result<(), String> {
    run(GROUP, "fallocate", &["--length", &bytes.to_string(), file.to_str().unwrap()])
}

fn is_at_the_limit(ended: Result<(), String>) {
    let output = ended.unwrap_err();
    assert!(output.contains("No space left on device") || output.contains("Disk quota exceeded"), "{output}");
}

fn is_denied(ended: Result<(), String>) {
    let output = ended.unwrap_err();
    assert!(output.contains("Permission denied"), "{output}");
}

/// Size and free space of a directory in bytes, as in `df`.
fn size(directory: &Path) -> (u64, u64) {
    let stat = rustix::fs::statvfs(directory).unwrap();
    (stat.f_blocks * stat.f_frsize, stat.f_bfree * stat.f_frsize)
}

#[test]
#[ignore = "needs a kernel with project quotas: .ci/kernel runs it"]
fn a_real_xfs_enforces_the_quota_that_was_ordered() {
    let mount = std::env::var_os("KERNEL_XFS_LARGE").unwrap_or_else(|| panic!("only .ci/kernel sets it"));
    // Both systems are on one file system: with the same project ID they would share a quota.
    let system = json!({"driver": "xfs", "terabyte": "TB", "project_ids": {"from": 1000}});
    let site = Site::below(&PathBuf::from(mount), &system);
    for system in [SLURM, BASIC] {
        let made = site.order(system, 0, 1);
        site.apply().stdout_has("1 done, 0 failed");
        assert_eq!(site.states(made), (OrderState::Done, ResourceState::Ok), "{system}");
        let directory = site.at(&site.backend_id(made.resource));
        let it = fs::metadata(&directory).unwrap();
        assert_eq!((it.uid(), it.gid(), it.permissions().mode() & 0o7777), (0, GROUP, 0o2770));
        assert_eq!(size(&directory), (TB, TB));
        is_denied(run(GROUP + 1, "ls", &[directory.to_str().unwrap()]));

        reserve(&directory.join("most"), TB - 4 * MIB).unwrap();
        let more = directory.join("more");
        is_at_the_limit(reserve(&more, 16 * MIB));
        // Writing block by block finds the limit exactly.
        let rest = directory.join("rest");
        is_at_the_limit(run(GROUP, "dd", &["if=/dev/zero", &format!("of={}", rest.display()), "bs=4K", "count=2K"]));
        File::open(&rest).unwrap().sync_all().unwrap();
        assert_eq!(size(&directory), (TB, 0), "the last block is used, and no more");

        let grown = site.order_size(made.resource, 2);
        site.apply().stdout_has("1 done, 0 failed");
        assert_eq!(site.states(grown), (OrderState::Done, ResourceState::Ok), "{system}");
        assert_eq!(size(&directory), (2 * TB, TB));
        reserve(&more, 16 * MIB).unwrap();
        reserve(&directory.join("second"), TB - 32 * MIB).unwrap();
        is_at_the_limit(reserve(&directory.join("third"), 32 * MIB));

        let ended = site.order_end(made.resource);
        site.apply().stdout_has("1 done, 0 failed");
        assert_eq!(site.states(ended), (OrderState::Done, ResourceState::Terminated), "{system}");
        assert!(!directory.exists());
        let [trashed] = &site.trash(system)[..] else { panic!("{:?}", site.trash(system)) };
        let trashed = site.root(system).join(".trash").join(trashed);
        assert_eq!(mode(&trashed), 0);
        assert_eq!(size(&trashed).1, 0, "it is frozen at its usage");
        assert_eq!(fs::metadata(trashed.join("most")).unwrap().len(), TB - 4 * MIB);
        for path in [trashed.parent().unwrap(), &trashed, &trashed.join("most")] {
            is_denied(run(GROUP, "ls", &[path.to_str().unwrap()]));
        }
    }
}
