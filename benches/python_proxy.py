"""Installs and starts the Python proxy that this proxy replaces."""

import sys

from rig import free_port, run, progress, settings, target

# The newest set of packages that it works with.
PACKAGES = [
    "waldur-cscs-hpc-storage==0.10.0", "waldur-api-client==8.0.6", "fastapi-keycloak-middleware==1.3.0",
    "fastapi==0.124.4", "starlette==0.50.0", "pydantic==2.12.5", "python-keycloak==5.8.1", "uvicorn[standard]==0.38.0",
]


def install():
    """Installs the Python proxy; returns the path of its Python interpreter."""
    folder = target() / "benches" / "python-proxy"
    python, stamp = folder / "bin" / "python", folder / "packages"
    if not stamp.exists() or stamp.read_text().split() != PACKAGES:
        progress("installing the Python proxy …")
        run([sys.executable, "-m", "venv", "--clear", folder])
        run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES])
        stamp.write_text("\n".join(PACKAGES))
    return python


def start(on, python, simulator, **more):
    """Starts the Python proxy. It uses an endpoint for staff, so it needs the token of a staff user."""
    port = free_port()
    application = "waldur_cscs_hpc_storage.api.main:app"
    command = [python, "-m", "uvicorn", application, "--host", "127.0.0.1", "--port", port]
    environment = {**settings(simulator, simulator.printed["staff"], auth=False), **more}
    program = on.start(command, environment)
    program.port = port
    return program
