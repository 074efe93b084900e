#!/usr/bin/python3 -BS
"""A program for `driver: exec`: directories on a mounted file system, with limits that are recorded but not enforced.

For your storage, write a subclass of Directories with the methods that differ. In xfs.py these are the ones for quotas; in zfs.py there
are datasets instead of directories.
"""
import fcntl, json, os, stat, sys

UNSUPPORTED, CONFLICT, TEMPORARY = 64, 73, 75
# Users cannot change attributes that begin with `trusted`. Without root, for trials, the mark is an ordinary one.
MARK = ("trusted" if os.geteuid() == 0 else "user") + ".hpc-storage.exec"


def fail(code, text):
    print(text, file=sys.stderr)
    sys.exit(code)


def run(*command):
    import subprocess  # Slow to load.
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", close_fds=False)
    return fail(TEMPORARY, f"{' '.join(command)}: {ended.stderr}") if ended.returncode else ended.stdout


def mark(path):
    """The mark of a directory: at least `id`, its resource, which is None if it has no mark."""
    is_marked = os.path.isdir(path) and MARK in os.listxattr(path, follow_symlinks=False)
    return json.loads(os.getxattr(path, MARK, follow_symlinks=False)) if is_marked else {"id": None}


def set_mark(path, **values):
    os.setxattr(path, MARK, json.dumps({**mark(path), **values}).encode(), follow_symlinks=False)


class Directories:
    capabilities = {"version": 1, "block": 1, "soft_limits": True}
    # The states in which a verb does its work, or has done it.
    accepted = {"ensure": ["absent", "ours"], "restore": ["absent", "ours", "trashed"], "adopt": ["unmarked", "ours"],
                "retire": ["absent", "ours", "trashed", "purging"]}

    def __init__(self, verb, root, **fields):
        self.verb, self.root, self.fields = verb, root, fields
        self.top, self.trash = root, f"{root}/.trash"

    # What a subclass can replace

    def ready(self):
        os.scandir(self.root)

    def quota(self, path):
        """The limits of a directory, and its usage if that is known without a walk over its files."""
        return {"limits": mark(path).get("limits")}

    def limit(self, path, limits):
        set_mark(path, limits=limits)

    def freeze(self, path):
        """Takes access from a directory that is being removed, and stops its growth: files in it can be open."""
        os.chown(path, os.geteuid(), os.getegid())
        os.chmod(path, 0o700)

    def release(self, path):
        """Removes the limits of a directory that is about to be deleted."""

    def usage(self, path):
        # Users delete files meanwhile, and nest directories deeply.
        blocks = run("find", path, "-xdev", "-ignore_readdir_race", "-printf", "%b\n").split()
        return {"space": sum(map(int, blocks)) * 512, "inodes": len(blocks)}

    def id(self, path):
        return mark(path)["id"]

    def set_id(self, path, id):
        set_mark(path, id=id)

    def exists(self, path):
        return os.path.lexists(path)

    def obstacle(self, path):
        return os.path.realpath(path) != path or os.path.lexists(path) and not os.path.isdir(path)

    def move(self, source, target):
        os.makedirs(self.trash, 0o700, exist_ok=True)
        os.rename(source, target)
        for folder in {os.path.dirname(source), os.path.dirname(target)}:
            os.fsync(os.open(folder, os.O_RDONLY))

    def delete(self, path):
        run("rm", "-rf", "--one-file-system", path)

    def in_trash(self):
        return os.listdir(self.trash) if os.path.isdir(self.trash) else []

    def put(self, want, path, trashed):
        """Creates a directory, brings it back from the trash, or changes it. It is complete when it appears at its path."""
        for it in want["parents"]:
            if not os.path.isdir(parent := f"{self.root}/{it['path']}"):
                os.makedirs(aside := f"{self.root}/.new-parent", 0o700, exist_ok=True)
                os.chmod(aside, int(it["mode"], 8))
                self.move(aside, parent)
        source = trashed or (path if os.path.isdir(path) else f"{self.root}/.new-{want['id']}")
        os.makedirs(source, 0o700, exist_ok=True)
        set_mark(source, id=want["id"])
        self.limit(source, want["limits"])
        os.chown(source, want["uid"], want["gid"])
        os.chmod(source, int(want["mode"], 8))  # After chown, which removes the setgid bit.
        self.move(source, path)

    def marked(self, folder, levels):
        for it in os.scandir(folder) if levels else []:
            if it.is_dir(follow_symlinks=False) and not it.name.startswith("."):
                id = self.id(it.path)
                yield from [{"id": id, "path": os.path.relpath(it.path, self.root)}] if id else self.marked(it.path, levels - 1)

    # The verbs

    def removed(self):
        for name in self.in_trash():
            id, since = name.removeprefix("purge-").split(".")
            yield {"id": id, "since": int(since), "claimed": name.startswith("purge-")}

    def state(self, want):
        path = f"{self.top}/{want['path']}"
        others = {self.id(f"{self.top}/{it['path']}") for it in [*want["parents"], want]} - {None, want["id"]}
        if others or self.obstacle(path):
            why = f"of resource {others.pop()}" if others else "in the way"
            return {"state": "obstructed", "why": f"{path} is, or is below, something {why}"}
        if self.exists(path):
            found = os.lstat(f"{self.root}/{want['path']}")
            return {"state": "ours" if self.id(path) else "unmarked", "uid": found.st_uid, "gid": found.st_gid,
                    "mode": f"{stat.S_IMODE(found.st_mode):o}", **self.quota(path)}
        it = next((it for it in self.removed() if it["id"] == want["id"]), None)
        return {"state": "purging" if it["claimed"] else "trashed", "since": it["since"]} if it else {"state": "absent"}

    def change(self, want, now=None):
        """All of it can be killed and repeated."""
        found, accepted, path = self.state(want), self.accepted[self.verb], f"{self.top}/{want['path']}"
        if found["state"] not in accepted:
            fail(CONFLICT, found.get("why") or f"{path} is {found['state']}, and not one of: {', '.join(accepted)}")
        trashed = f"{self.trash}/{want['id']}.{found.get('since', now)}"
        if self.verb == "adopt":
            self.set_id(path, want["id"])
        elif self.verb != "retire":
            self.put(want, path, trashed if found["state"] == "trashed" else None)
        elif self.exists(path):
            self.freeze(path)
            self.move(path, trashed)

    def remove(self, it):
        waiting, claimed = (f"{self.trash}/{prefix}{it['id']}.{it['since']}" for prefix in ("", "purge-"))
        if self.verb == "claim" and self.exists(waiting):
            self.move(waiting, claimed)
        elif self.verb == "purge" and self.exists(claimed):
            self.release(claimed)
            self.delete(claimed)

    def used(self, it):
        path = f"{self.top}/{it['path']}" if "path" in it else f"{self.trash}/{it['id']}.{it['since']}"
        return {"id": it["id"], "usage": self.usage(path) if self.id(path) == it["id"] else None}

    def answer(self):
        verb, fields = self.verb, self.fields
        if verb == "capabilities":
            return self.capabilities
        if verb == "ready":
            return self.ready() or {}
        if verb == "observe":
            return {"directories": [{"id": it["id"], **self.state(it)} for it in fields["directories"]]}
        if verb == "usage":
            return {"usages": [self.used(it) for it in fields.get("directories", []) + fields.get("trashed", [])]}
        if verb == "trash":
            return {"trash": list(self.removed())}
        if verb == "marked":
            return {"marked": list(self.marked(self.root, fields["levels"]))}
        if verb in ("claim", "purge"):
            return self.remove(fields["trashed"]) or {}
        if verb in self.accepted:
            return self.change(fields["directory"], fields.get("now")) or {}
        return fail(UNSUPPORTED, f"there is no verb {verb}")


def main(system):
    request = json.load(sys.stdin)
    if request.pop("version") != 1:
        fail(UNSUPPORTED, "only version 1 of the protocol is supported")
    try:
        if request["verb"] in ("ensure", "restore", "adopt", "retire", "claim"):
            # One after the other, before anything is read. Commands inherit the lock, so it is held until they end, even if only this
            # process was killed.
            lock = os.open(request["root"], os.O_RDONLY)
            os.set_inheritable(lock, True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        print(json.dumps(system(**request).answer()))
    except OSError as error:
        fail(TEMPORARY, error)


if __name__ == "__main__":
    main(Directories)
