#!/usr/bin/env python3
"""Runs hpc-storage-provisioner under the conformance suite: translates the environment of docs/conformance.md into its settings.

    hpc-storage-conformance run --probe posix -- examples/run-hpc-storage-provisioner.py [PROGRAM]
"""

import json
import os
import sys

env = os.environ
root = os.path.join(env["STORAGE_ROOT"], env["STORAGE_SYSTEM"])
os.makedirs(root, exist_ok=True)
system = {
    "driver": env.get("DRIVER", "posix"),
    "terabyte": "TB",
    "root": root,
    # The root is a folder of a test, not a mounted file system.
    "must_be_mounted": False,
    "change_owner": "STORAGE_UNPRIVILEGED" not in env,
    # Several directories of one group.
    "project_ids": {"from": 100000},
}
settings = {
    "PROVISIONER_PROXY_URL": env["STORAGE_PROXY_URL"],
    "PROVISIONER_TOKEN_URL": env["STORAGE_TOKEN_URL"],
    "PROVISIONER_CLIENT_ID": env["STORAGE_CLIENT_ID"],
    "PROVISIONER_CLIENT_SECRET": env["STORAGE_CLIENT_SECRET"],
    "PROVISIONER_WALDUR_API_URL": env["WALDUR_API_URL"],
    "PROVISIONER_WALDUR_API_TOKEN": env["WALDUR_API_TOKEN"],
    "PROVISIONER_STATE_DIRECTORY": env["STORAGE_STATE_DIRECTORY"],
    "PROVISIONER_SYSTEMS": json.dumps({env["STORAGE_SYSTEM"]: system}),
    "PROVISIONER_RUN_INTERVAL": env["STORAGE_INTERVAL"],
}
program = sys.argv[1] if len(sys.argv) > 1 else "hpc-storage-provisioner"
os.execvpe(program, [program, "run"], {**env, **settings})
