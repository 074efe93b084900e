"""Boots Debian's user-mode-linux, a kernel that runs as an ordinary process, within seconds.

Its root is this machine's, mounted read-only; its first process is a script. The folder whose path is in the variable
KERNEL_FOLDER is for results.
"""

import contextlib
import ctypes
import os
import subprocess
from pathlib import Path

PRELOADED = Path(__file__).resolve().parent / "ptrace.c"
PACKAGES = {"linux.uml": "user-mode-linux", "mkfs.xfs": "xfsprogs", "mkfs.ext4": "e2fsprogs"}


def boot(folder, first_process, patience, memory, images=()):
    """Boots the kernel with a script as first process; waits at most `patience` seconds until it halts.

    The images are its disks /dev/ubda, /dev/ubdb and so on. Its console is in the file `console` in the folder.
    """
    disks = [f"ubd{chr(ord('a') + number)}={image}" for number, image in enumerate(images)]
    command = ["linux.uml", f"mem={memory}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro",
               f"init={Path(first_process).resolve()}", "con=null", "con0=null,fd:1", f"KERNEL_FOLDER={folder}", *disks]
    preload = folder / "ptrace.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", preload, PRELOADED], check=True)
    with (folder / "console").open("w") as console:
        # In its own session, so that all its processes can be killed together.
        kernel = subprocess.Popen(command, env={**os.environ, "LD_PRELOAD": str(preload)}, stdin=subprocess.DEVNULL,
                                  stdout=console, stderr=console, start_new_session=True)
        try:
            kernel.wait(patience)
        except subprocess.TimeoutExpired:
            print(f"the kernel did not halt within {patience} s")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(kernel.pid, 9)
            kernel.wait()


# Inside the kernel


LIBC = ctypes.CDLL(None, use_errno=True)


def is_first_process():
    return os.getpid() == 1 and "KERNEL_FOLDER" in os.environ


def mount(source, target, kind, options=""):
    if LIBC.mount(source.encode(), target.encode(), kind.encode(), 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mounting {kind} at {target}: {os.strerror(ctypes.get_errno())}")


def load(module):
    """Loads a kernel module, such as `fs/quota/quota_v2`."""
    finit_module = 313
    path = f"/usr/lib/uml/modules/{os.uname().release}/kernel/{module}.ko"
    with open(path, "rb") as file:
        if LIBC.syscall(finit_module, file.fileno(), b"", 0) != 0:
            raise OSError(ctypes.get_errno(), f"loading {path}: {os.strerror(ctypes.get_errno())}")


def halt():
    os.sync()
    # RB_POWER_OFF
    LIBC.reboot(0x4321FEDC)
