#!/usr/bin/python3 -BS
"""A program for `driver: exec`: directories on XFS with project quotas, set with `xfs_quota`.

The root is the mount point, mounted with `prjquota`. Needs directories.py in the same directory, and root's privileges. The mark contains
the project ID, because the owner of a directory can change the one in its inode.
"""
import fcntl, functools, os, re, struct, subprocess

from directories import TEMPORARY, Directories, fail, main, mark, set_mark

FIRST_PROJECT = 100_000
BLOCK = 4096
FS_IOC_FSGETXATTR = 0x801C581F
LIMITS = {"space_soft": "bsoft", "space_hard": "bhard", "inodes_soft": "isoft", "inodes_hard": "ihard"}


class Xfs(Directories):
    capabilities = {"version": 1, "block": BLOCK}

    def run(self, command):
        ended = subprocess.run(["xfs_quota", "-x", "-c", command, self.root], capture_output=True, text=True, close_fds=False)
        # Some errors have the exit code 0.
        return fail(TEMPORARY, f"xfs_quota: {ended.stderr}") if ended.returncode or ended.stderr else ended.stdout

    @functools.cached_property
    def report(self):
        """The numbers of each project: space used, soft and hard limit, and the same of inodes. Space is shown in KiB."""
        rows = [re.sub(r"\[.*?\]", "", row).strip("#").split() for row in self.run("report -p -n -N -b -i").splitlines()]
        return {int(row[0]): [int(row[at]) * (1024 if at < 4 else 1) for at in (1, 2, 3, 5, 6, 7)] for row in rows if row}

    def ready(self):
        if "Enforcement: ON" not in self.run("state -p"):
            fail(TEMPORARY, f"{self.root} has no project quotas: mount it with `prjquota`")

    def quota(self, path):
        project, handle, attributes = mark(path).get("project"), os.open(path, os.O_RDONLY | os.O_NOFOLLOW), bytearray(28)
        fcntl.ioctl(handle, FS_IOC_FSGETXATTR, attributes)
        os.close(handle)
        used, *space, inodes, soft, hard = self.report.get(project, [0] * 6)
        is_limited = struct.unpack_from("=I", attributes, 12)[0] == project and all([*space, soft, hard])
        limits = dict(zip(LIMITS, [*space, soft, hard])) if is_limited else None
        return {"limits": limits, "usage": {"space": used, "inodes": inodes}}

    def usage(self, path):
        return self.quota(path)["usage"]

    def set(self, project, limits):
        self.run(f"limit -p {' '.join(f'{LIMITS[name]}={value}' for name, value in limits.items())} {project}")

    def limit(self, path, limits):
        project = mark(path).get("project")
        if project is None or self.quota(path)["limits"] is None:
            # A number that has neither files nor limits.
            project = project or max([FIRST_PROJECT - 1, *self.report]) + 1
            self.run(f"project -s -p {path} {project}")
            set_mark(path, project=project)
        self.set(project, limits)

    def freeze(self, path):
        super().freeze(path)
        used = self.usage(path)
        space, inodes = max(used["space"], BLOCK), max(used["inodes"], 1)
        self.limit(path, {"space_soft": space, "space_hard": space, "inodes_soft": inodes, "inodes_hard": inodes})

    def release(self, path):
        self.set(mark(path)["project"], dict.fromkeys(LIMITS, 0))


if __name__ == "__main__":
    main(Xfs)
