"""What tests in a real browser need: Chromium and Node.js from Debian, modules from npm."""

import contextlib
import json
import subprocess

import rig

# Command: Debian package.
COMMANDS = {"chromium": "chromium", "node": "nodejs", "npm": "npm"}
# Later releases of playwright-core do not support the Node.js of Debian 12.
MODULES = {"playwright-core": "1.61.1", "axe-core": "4.14.1"}


def modules():
    """Installs the modules; returns the folder that contains them."""
    folder = rig.target() / "browser/node_modules"

    def version(name):
        with contextlib.suppress(OSError):
            return json.loads((folder / name / "package.json").read_text())["version"]

    if any(version(name) != wanted for name, wanted in MODULES.items()):
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"{name}@{wanted}" for name, wanted in MODULES.items()]
        options = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder.parent]
        rig.run(["npm", "install", *options, *names], stdout=subprocess.DEVNULL)
    return folder
