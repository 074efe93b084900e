"""The files of the packages, shared by deb/build, rpm/build and release.

Everything is reproducible: times are SOURCE_DATE_EPOCH (by default the time of the last commit); owners, modes and order are
fixed. Needs binutils, no network.
"""

import argparse
import gzip
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROXY, PROVISIONER = "hpc-storage-proxy", "hpc-storage-provisioner"
# For each package: the destinations of files, and its documents, which are compressed. All files are world-readable except the
# settings, which can contain secrets.
PACKAGES = {
    PROXY: {
        "files": {
            "packaging/systemd/hpc-storage-proxy.service": "usr/lib/systemd/system/hpc-storage-proxy.service",
            "packaging/systemd/hpc-storage-proxy.socket": "usr/lib/systemd/system/hpc-storage-proxy.socket",
            "packaging/systemd/sysusers.conf": "usr/lib/sysusers.d/hpc-storage-proxy.conf",
            "packaging/systemd/credentials.conf": "usr/share/doc/hpc-storage-proxy/examples/credentials.conf",
            "packaging/settings.yaml": "etc/hpc-storage-proxy/settings.yaml",
            # Not compressed, because alerts refer to it.
            "docs/runbook.md": "usr/share/doc/hpc-storage-proxy/runbook.md",
            "ops/prometheus/alerts.yml": "usr/share/doc/hpc-storage-proxy/examples/alerts.yml",
            "ops/grafana/hpc-storage-proxy.json": "usr/share/doc/hpc-storage-proxy/examples/dashboard.json",
        },
        "packed": ["README.md", "docs/settings.md", "docs/deployment.md", "docs/metrics.md", "docs/migration.md", "docs/faults.md",
                   "docs/keycloak.md", "docs/stability.md"],
    },
    PROVISIONER: {
        "files": {
            "packaging/systemd/hpc-storage-provisioner.service": "usr/lib/systemd/system/hpc-storage-provisioner.service",
            "packaging/systemd/hpc-storage-provisioner-usage.service":
                "usr/lib/systemd/system/hpc-storage-provisioner-usage.service",
            "packaging/systemd/hpc-storage-provisioner-usage.timer": "usr/lib/systemd/system/hpc-storage-provisioner-usage.timer",
            "packaging/systemd/storage.conf": "usr/share/doc/hpc-storage-provisioner/examples/storage.conf",
            "packaging/systemd/usage.conf": "usr/share/doc/hpc-storage-provisioner/examples/usage.conf",
            "packaging/provisioner.yaml": "etc/hpc-storage-provisioner/settings.yaml",
            "docs/provisioner-runbook.md": "usr/share/doc/hpc-storage-provisioner/runbook.md",
            "ops/prometheus/provisioner-alerts.yml": "usr/share/doc/hpc-storage-provisioner/examples/alerts.yml",
            "ops/grafana/hpc-storage-provisioner.json": "usr/share/doc/hpc-storage-provisioner/examples/dashboard.json",
        },
        "packed": ["docs/provisioner.md", "docs/provisioner-settings.md", "docs/provisioner-cli.md", "docs/deployment.md",
                   "docs/exec-drivers.md", "docs/stability.md"],
    },
}


def arguments(description, out):
    """The arguments of the package builders."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", choices=PACKAGES, default=PROXY, help=f"default: {PROXY}")
    parser.add_argument("--binary", type=Path, help="default: target/release/PACKAGE, or target/debug/…")
    parser.add_argument("--runnable", type=Path, metavar="BINARY",
                        help="the same program for this machine, which prints completions and man pages; default: --binary")
    parser.add_argument("--sbom", type=Path, metavar="FILE", help="the bill of materials; default: what packaging/sbom prints")
    parser.add_argument("--revision", type=int, default=1, help="revision of the package of the same version; default: 1")
    parser.add_argument("--debug", action="store_true", help="a debug build, for tests: the version says so, and compression is fast")
    parser.add_argument("--out", type=Path, default=ROOT / "target" / out, help="folder for the package")
    given = parser.parse_args()
    given.binary = (given.binary or ROOT / "target" / ("debug" if given.debug else "release") / given.package).resolve()
    given.runnable = (given.runnable or given.binary).resolve()
    for binary in [given.binary, given.runnable]:
        if not binary.exists():
            parser.error(f"there is no {binary}; build it first")
    given.out.mkdir(parents=True, exist_ok=True)
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch())
    return given


def fill(tree, given, zsh):
    """Puts the files that all kinds of packages have into the folder. `zsh` is the folder of completions below usr/share/zsh."""
    name, package = given.package, PACKAGES[given.package]
    installed = tree / "usr/bin" / name
    installed.parent.mkdir(parents=True)
    shutil.copyfile(given.binary, installed)
    strip = "strip" if machine(installed) == os.uname().machine else f"{machine(installed)}-linux-gnu-strip"
    run(strip, "--strip-unneeded", "--remove-section=.comment", "--remove-section=.note", installed)
    for source, target in package["files"].items():
        copy(ROOT / source, tree / target)
    documents = tree / "usr/share/doc" / name
    for source in package["packed"]:
        pack(documents / Path(source).name, (ROOT / source).read_bytes())
    pack(documents / "changelog", (ROOT / "CHANGELOG.md").read_bytes())
    pack(documents / "sbom.cdx.json", given.sbom.read_bytes() if given.sbom else run(ROOT / "packaging/sbom", "--package", name))
    for shell, target in {
        "bash": f"bash-completion/completions/{name}",
        "fish": f"fish/vendor_completions.d/{name}.fish",
        "zsh": f"zsh/{zsh}/_{name}",
    }.items():
        write(tree / "usr/share" / target, run(given.runnable, "completions", shell))
    with tempfile.TemporaryDirectory() as pages:
        run(given.runnable, "man", pages)
        for page in sorted(Path(pages).iterdir()):
            pack(tree / "usr/share/man/man1" / page.name, page.read_bytes())
    return installed


def settle(tree, name, programs=()):
    """Sets fixed modes and times, independent of the umask and the checkout."""
    programs = {tree / "usr/bin" / name, *programs}
    for path in [tree, *tree.rglob("*")]:
        private = path == tree / "etc" / name / "settings.yaml"
        path.chmod(0o755 if path.is_dir() or path in programs else 0o640 if private else 0o644)
        os.utime(path, (epoch(), epoch()))


def epoch():
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return int(given or run("git", "-C", ROOT, "log", "-1", "--format=%ct"))


def version(debug=False):
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    # Both dpkg and rpm sort a tilde before the end.
    return manifest["workspace"]["package"]["version"] + ("~debug" if debug else "")


def machine(binary):
    """The architecture of the binary, as the kernel calls it."""
    text = run("readelf", "--file-header", binary).decode()
    return {"Advanced Micro Devices X86-64": "x86_64", "AArch64": "aarch64"}[re.search(r"Machine: +(.*)", text)[1]]


def glibc(binary):
    """The newest version of the C library that the binary requires; none if it is static."""
    text = run("readelf", "--version-info", "--wide", binary).decode()
    wanted = {tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_([0-9.]+)", text)}
    return max(wanted, default=None)


def copy(source, target):
    write(target, source.read_bytes())


def write(target, content):
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def pack(target, content):
    write(target.with_name(target.name + ".gz"), gzip.compress(content, 9, mtime=0))


def run(*command, **more):
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, **more).stdout
