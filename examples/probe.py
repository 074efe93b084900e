#!/usr/bin/env python3
"""A probe of the conformance suite, as a pattern for your own: prints the state of one directory of examples/provisioner.py.
docs/conformance.md has the protocol. Try it: hpc-storage-conformance run --probe examples/probe.py -- examples/provisioner.py"""
import json, os, sys

path, item = sys.argv[1:]
try:
    with open(os.path.join(os.environ["STORAGE_ROOT"], "storage.json")) as file:
        state = json.load(file)
except FileNotFoundError:
    state = {"directories": {}, "trash": {}}
directory, trash = state["directories"].get(path), item in state["trash"]
if directory and directory["itemId"] == item:
    answer = {"exists": True, "trash": trash, **{key: directory[key] for key in ["gid", "mode", "space", "inodes"]}}
else:
    answer = {"exists": False, "trash": trash}
print(json.dumps(answer))
