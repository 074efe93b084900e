"""Shared code of the benchmarks and long runs: building, starting and stopping programs, an HTTP client, a clock, tables.

All programs listen on 127.0.0.1 only. Leaving `stage()` stops all programs started in it, even after an error.
"""

import contextlib
import http.client
import json
import os
import platform
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
SYSTEMS = ["capstor", "vast", "iopsstor"]
LISTING = "/api/storage-resources/"
# Timeout in seconds. The slowest operation, the Python proxy's first listing of 10,000 resources, takes about two minutes.
TIMEOUT = 900


# Programs


def target():
    """Returns cargo's target directory."""
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"]
    return Path(json.loads(subprocess.check_output(command, cwd=ROOT))["target_directory"])


def build(*more):
    """Builds the proxy, the simulator and more packages in release mode; returns the directory of the binaries."""
    progress("building (release) …")
    packages = [f"--package={package}" for package in ("hpc-storage-proxy", "simulator", *more)]
    run(["cargo", "build", "--release", "--locked", "--quiet", *packages], cwd=ROOT)
    return target() / "release"


def build_debug():
    """Builds all programs and tests in debug mode; returns the directory of the binaries.

    A build of some packages enables other features of their dependencies, so it would compile these again."""
    run(["cargo", "build", "--workspace", "--bins", "--tests", "--locked", "--quiet"], cwd=ROOT)
    return target() / "debug"


def run(command, **more):
    """Runs a command; exits if it fails."""
    code = subprocess.run([str(part) for part in command], **more).returncode
    if code:
        raise SystemExit(f"`{' '.join(str(part) for part in command)}` failed with exit code {code}")


def packages(commands):
    """Installs missing commands. `commands` maps each command to its Debian package."""
    missing = [package for command, package in commands.items() if not shutil.which(command, path=PATH)]
    if not missing:
        return
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    progress(f"installing {' '.join(missing)} …")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-q"], ["install", "-qy", "--no-install-recommends", *missing]):
        run([*sudo, "apt-get", *arguments], env=environment, stdout=subprocess.DEVNULL)


PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@contextlib.contextmanager
def stage():
    """Provides a `Stage` with a temporary directory. Stops its programs at the end."""

    def end(number, _frame):
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    with tempfile.TemporaryDirectory(prefix="benches-") as folder, contextlib.ExitStack() as stack:
        yield Stage(Path(folder), stack)


class Stage:
    """Starts programs and stops them at the end."""

    def __init__(self, folder, stack):
        self.folder, self.stack, self.count = folder, stack, 0

    def start(self, command, environment=None, cpu=None):
        """Starts a program with only this environment (and PATH), in an empty directory, with its output in a file."""
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        if cpu is not None:
            command = ["taskset", "--cpu-list", str(cpu), *command]
        with open(folder / "log", "wb") as log:
            environment = {"PATH": PATH, **(environment or {})}
            began = time.perf_counter()
            process = subprocess.Popen(
                [str(part) for part in command], env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT
            )
        program = Program(process, folder / "log", began)
        self.stack.callback(program.stop)
        return program

    def simulator(
        self, binaries, resources, page_ms=0, item_us=0, concurrency=None, cpu=None, world=None, environment=None
    ):
        """Starts the simulated Waldur, HPC User API and Keycloak; `printed` contains their URLs and tokens."""
        arguments = ["--world", world or f"large:{resources}", "--latency-page-ms", page_ms, "--latency-item-us", item_us]
        if concurrency is not None:
            arguments += ["--concurrency", concurrency]
        program = self.start([binaries / "simulator", "--listen", "127.0.0.1:0", *arguments], environment, cpu)
        # The token is the last line of the output.
        text = program.wait_for_log(r"Access token of a user, valid for a day:\n +\S+\n")
        find = lambda pattern: re.search(pattern, text).group(1)
        program.printed = {
            "base": find(r"Waldur +(http\S+)/api/"),
            "hpc": find(r"HPC User API +(\S+)"),
            "keycloak": find(r"Keycloak +(\S+)"),
            "realm": find(r"realm (\S+)"),
            "token_url": find(r"Token endpoint +(\S+)"),
            "provider": find(r"storage-proxy +([0-9a-f]{40})"),
            "staff": find(r"staff +([0-9a-f]{40})"),
            "bearer": find(r"valid for a day:\n +(\S+)"),
        }
        return program

    def proxy(self, binaries, simulator, cpu=None, auth=False, port=None, **more):
        """Starts our proxy with the simulator as upstream, on this or a free port, stored in `port`."""
        port = port or free_port()
        environment = {**settings(simulator, simulator.printed["provider"], auth), **more}
        command = [binaries / "hpc-storage-proxy", "serve", "--listen", f"127.0.0.1:{port}"]
        program = self.start(command, environment, cpu)
        program.port = port
        return program


# Each refresh reads everything: the figures of a fresh listing are those of a full reading.
FULL = {"CACHE_FULL_INTERVAL": "0"}


def settings(simulator, waldur_token, auth):
    """Settings that both proxies support."""
    printed = simulator.printed
    return {
        "WALDUR_API_URL": printed["base"] + "/api/",
        "WALDUR_API_TOKEN": waldur_token,
        "STORAGE_SYSTEMS": json.dumps({name: name for name in SYSTEMS}),
        "HPC_USER_API_URL": printed["hpc"],
        "HPC_USER_CLIENT_ID": "hpc-client",
        "HPC_USER_CLIENT_SECRET": "hpc-secret",
        "HPC_USER_OIDC_TOKEN_URL": printed["token_url"],
        "HPC_USER_OIDC_SCOPE": "openid",
        "CSCS_KEYCLOAK_URL": printed["keycloak"],
        "CSCS_KEYCLOAK_REALM": printed["realm"],
        "DISABLE_AUTH": "false" if auth else "true",
    }


def furnish(provisioner, environment=None):
    """Creates the missing directories of resources in use. On an empty system the provisioner does not create them by itself."""
    run([*provisioner, "restore", "--make", "--all", "--yes"], env=environment, stdout=subprocess.DEVNULL)


CHOSEN_PORTS = set()


def free_port():
    """A port that no other process gets before a program binds it, nor while the program restarts: it is below those that the kernel
    gives to connections and to programs that bind port 0, and chosen at random."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    # Without enough room below them, any port that is rarely used.
    ports = range(10000, lowest) if lowest > 20000 else range(61000, 65536)
    while True:
        port = random.choice(ports)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in CHOSEN_PORTS:
                CHOSEN_PORTS.add(port)
                return port


class Clock:
    """A wall clock for the programs that are started with `environment`, by libfaketime. Their monotonic time stays real."""

    def __init__(self, folder):
        packages({"faketime": "faketime"})
        libraries = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not libraries:
            raise SystemExit("libfaketimeMT.so.1 is missing below /usr/lib")
        self.file, self.ahead = Path(folder) / "clock", 0
        self.environment = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            # The file is read whenever a program reads the time.
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
        }
        self.set(0)

    def set(self, ahead):
        """Sets the clock this many seconds ahead of the machine's."""
        self.ahead = ahead
        new = self.file.with_suffix(".new")
        new.write_text(f"{ahead:+.3f}\n")
        new.replace(self.file)

    def now(self):
        return time.time() + self.ahead


class Program:
    """A running program."""

    def __init__(self, process, log, began):
        self.process, self.log, self.began = process, log, began

    def elapsed(self):
        """Seconds since exec."""
        return time.perf_counter() - self.began

    def stop(self):
        """Terminates the program, and kills it if it does not stop within 10 seconds."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def check(self):
        """Exits with the end of the program's log if the program has stopped."""
        if self.process.poll() is not None:
            end = self.log.read_text(errors="replace")[-2000:]
            raise SystemExit(f"{self.process.args[0]} ended with {self.process.returncode}:\n{end}")

    def wait_for_log(self, pattern):
        """Waits until the log matches `pattern`; returns the log."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            text = self.log.read_text(errors="replace")
            if re.search(pattern, text):
                return text
            self.check()
            time.sleep(0.02)
        raise SystemExit(f"{self.process.args[0]} did not log {pattern} within {TIMEOUT} s")

    def first_answer(self, path):
        """Repeats a request until there is an answer with any status; returns the seconds since exec."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionError), contextlib.closing(Client(self.port)) as client:
                client.get(path)
                return self.elapsed()
            self.check()
            time.sleep(0.001)
        raise SystemExit(f"{self.process.args[0]} did not answer within {TIMEOUT} s")

    def processor_time(self):
        """Processor time used, in seconds, in user and kernel mode."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak(self):
        """Peak memory in bytes (VmHWM)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024


# Requests


class Client:
    """A persistent connection to 127.0.0.1."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)

    def close(self):
        self.connection.close()

    def get(self, path, **headers):
        """Returns status, headers and body. Underscores in header names become dashes."""
        self.connection.request("GET", path, headers={key.replace("_", "-"): value for key, value in headers.items()})
        answer = self.connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def page(self, number=1, size=500, fresh=False, bearer=None):
        """Returns the bytes of a page of the listing; exits unless the status is 200."""
        headers = {"Cache_Control": "no-cache"} if fresh else {}
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        status, _, body = self.get(f"{LISTING}?page={number}&page_size={size}", **headers)
        if status != 200:
            raise SystemExit(f"the listing returned {status}: {body[:500]!r}")
        return body


def pages(client, size=500, fresh=False):
    """Returns all pages of the listing. With `fresh`, the first one is fresh."""
    first = client.page(1, size, fresh)
    # Parse only the pagination, to keep the client's own time short.
    pagination = json.JSONDecoder().raw_decode(first[first.rindex(b'"pagination"') + 13 :].decode().lstrip())[0]
    last = pagination["pages"]
    return [first, *(client.page(number, size) for number in range(2, last + 1))]


def requests(simulator, forget=False):
    """Returns the requests that the simulator received; with `forget`, clears them instead."""
    with contextlib.closing(http.client.HTTPConnection(urlsplit(simulator.printed["base"]).netloc)) as connection:
        connection.request("DELETE" if forget else "GET", "/_simulator/requests")
        body = connection.getresponse().read()
    return None if forget else json.loads(body)


def change_state(simulator, state):
    """Changes the state of a resource in Waldur."""
    with contextlib.closing(http.client.HTTPConnection(urlsplit(simulator.printed["base"]).netloc)) as connection:
        body = json.dumps({"change": "state", "resource": "resource-0", "state": state})
        connection.request("POST", "/_simulator/changes", body)
        if (answer := connection.getresponse()).status != 204:
            raise SystemExit(f"the change returned {answer.status}: {answer.read()[:200]!r}")


def items_of(page):
    """Returns the rendered items of a page of our listing."""
    start = page.index(b'"resources":[') + len(b'"resources":[')
    return page[start : page.rindex(b'],"pagination":')]


# Figures


def timed(action):
    """Runs `action`; returns the seconds it took, and its result."""
    began = time.perf_counter()
    result = action()
    return time.perf_counter() - began, result


def cpu_loop():
    """Seconds for a fixed amount of work; their spread shows the noise of the machine."""
    return timed(lambda: sum(number * number for number in range(2_000_000)))[0]


def noise(loops):
    """Describes the noise of the machine during the run."""
    middle = statistics.median(loops)
    return (
        f"noise: a fixed CPU loop took {seconds(middle)} (median), {seconds(min(loops))} to {seconds(max(loops))}; "
        f"load average {os.getloadavg()[0]:.1f}"
    )


def machine():
    """Describes the date and the machine."""
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1)) / 2**20
    cores = len(os.sched_getaffinity(0))
    cargo = subprocess.check_output(["rustc", "--version"], cwd=ROOT, text=True).strip()
    name = cpu.group(1) if cpu else platform.machine()
    return f"{date.today()}; {name}, {cores} cores, {memory:.0f} GiB; Linux {platform.release()}; {cargo}"


def seconds(value):
    if value >= 100:
        return f"{value:.0f} s"
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1000:.1f} ms"


def mebibytes(value):
    return f"{value / 2**20:.1f} MiB"


def spread(values, unit=seconds):
    """Formats the median, with the range if there is more than one value."""
    if len(values) == 1:
        return unit(values[0])
    return f"{unit(statistics.median(values))} ({unit(min(values))} – {unit(max(values))})"


def table(heads, rows):
    """Prints a Markdown table."""
    lines = [[str(cell) for cell in row] for row in [heads, *rows]]
    widths = [max(len(row[column]) for row in lines) for column in range(len(heads))]
    draw = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"
    print()
    print(draw(lines[0]))
    print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for row in lines[1:]:
        print(draw(row))
    print(flush=True)


def progress(text):
    """Prints progress to standard error, separate from the results."""
    print(text, file=sys.stderr, flush=True)
