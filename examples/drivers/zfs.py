#!/usr/bin/python3 -BS
"""A program for `driver: exec`: a ZFS dataset for each resource, with `refquota`, and `groupobjquota` of the resource's group.

The root is the mount point of a dataset. A removed dataset is in its dataset `.trash`, without a mount. Needs directories.py in the same
directory, and root's privileges."""
import os

from directories import CONFLICT, TEMPORARY, Directories, fail, main, run
MARK = "hpc-storage:resource"

def zfs(*arguments):
    return run("zfs", *arguments)

class Zfs(Directories):
    capabilities = {"version": 1, "soft_limits": False}
    accepted = {verb: [*states, "unknown"] for verb, states in Directories.accepted.items()}  # "unknown": not mounted

    def __init__(self, verb, root, **fields):
        super().__init__(verb, root, **fields)
        self.top, mounted_at = zfs("list", "-H", "-o", "name,mountpoint", root).rstrip("\n").split("\t")
        if mounted_at != root:
            fail(TEMPORARY, f"{root} is not the mount point of a dataset, but part of {self.top}")
        self.trash = f"{self.top}/.trash"
        self.read()

    def read(self):
        self.known, columns = {}, f"{MARK},refquota,referenced,mounted"
        for line in zfs("get", "-Hpr", "-t", "filesystem", "-o", "name,property,value,source", columns, self.top).splitlines():
            name, key, value, source = line.split("\t")
            # Datasets inherit the marks of those above them.
            self.known.setdefault(name, {})[key] = None if key == MARK and source.split()[0] in ("-", "inherited") else value

    exists = lambda self, name: name in self.known
    id = lambda self, name: self.known.get(name, {MARK: None})[MARK]
    path = lambda self, name: self.root + name.removeprefix(self.top)
    obstacle = lambda self, name: name not in self.known and os.path.lexists(self.path(name))
    is_mounted = lambda self, name: self.known[name]["mounted"] == "yes"
    set_id = lambda self, name, id: zfs("set", f"{MARK}={id}", name)
    move = lambda self, source, target: zfs("rename", "-f", source, target)
    delete = lambda self, name: zfs("destroy", "-r", name)

    def state(self, want):
        name = f"{self.top}/{want['path']}"
        if name in self.known and not self.is_mounted(name) and self.id(name) in (None, want["id"]):
            return {"state": "unknown" if self.id(name) else "obstructed", "why": f"{name} is not mounted: zfs mount {name}"}
        return super().state(want)

    def quota(self, name):
        gid = os.lstat(self.path(name)).st_gid
        values = [self.known[name]["refquota"], zfs("get", "-Hp", "-o", "value", f"groupobjquota@{gid}", name).strip()]
        space, inodes = (int(value) if value.isdigit() else 0 for value in values)
        limits = {"space_soft": space, "space_hard": space, "inodes_soft": inodes, "inodes_hard": inodes}
        return {"limits": limits if space and inodes else None}

    def usage(self, name):
        inodes = sum(map(int, zfs("groupspace", "-Hp", "-o", "objused", name).split()))
        return {"space": int(self.known[name]["referenced"]), "inodes": inodes}

    def in_trash(self):
        names = [name.removeprefix(f"{self.trash}/") for name in self.known if name.startswith(f"{self.trash}/")]
        return [name for name in names if not name.startswith("new-")]

    def freeze(self, name):
        if self.trash not in self.known:
            zfs("create", "-o", "canmount=off", "-o", "mountpoint=none", self.trash)

    def parent(self, name, mode):
        if self.obstacle(name):
            fail(CONFLICT, f"{self.path(name)} is a directory, which a dataset would hide: move it away")
        if name in self.known:
            return self.is_mounted(name) or zfs("mount", name)
        zfs("create", name)
        os.chmod(self.path(name), mode)

    def put(self, want, name, trashed):
        for it in want["parents"]:
            self.parent(f"{self.top}/{it['path']}", int(it["mode"], 8))
        if name not in self.known:
            # `zfs create -o` can be interrupted before it has set the mark.
            aside = trashed or f"{self.trash}/new-{want['id']}"
            self.freeze(name)
            aside in self.known or zfs("create", aside)
            self.set_id(aside, want["id"])
            self.move(aside, name)
            self.read()
        self.is_mounted(name) or zfs("mount", name)
        zfs("set", f"refquota={want['limits']['space_hard']}", name)
        zfs("set", f"groupobjquota@{want['gid']}={want['limits']['inodes_hard']}", name)
        os.chown(self.path(name), want["uid"], want["gid"])
        os.chmod(self.path(name), int(want["mode"], 8))  # After chown, which removes the setgid bit.

    def marked(self, folder, levels):
        for name in self.known:
            path = name.removeprefix(f"{self.top}/")
            if self.id(name) and not name.startswith(self.trash) and path.count("/") < levels:
                yield {"id": self.id(name), "path": path}
if __name__ == "__main__":
    main(Zfs)
