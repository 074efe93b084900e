#!/usr/bin/env python3
"""A small provisioner that follows docs/specification.md, as a pattern for your own. Python's standard library only.
Its storage is a JSON file, so it runs anywhere: replace the class Storage by calls of your storage system. docs/conformance.md has its
settings, the environment variables. It passes every case of: hpc-storage-conformance run -- examples/provisioner.py"""
import http.client, json, math, os, threading, time, urllib.error, urllib.parse, urllib.request
from datetime import datetime, timezone
from decimal import Decimal
from os import environ
from pathlib import Path

PROXY, WALDUR, TERABYTE = environ["STORAGE_PROXY_URL"], environ["WALDUR_API_URL"], Decimal(environ["STORAGE_TERABYTE"])
SITE_AGENT, BASIC = ["Marketplace.Slurm", "Marketplace.SiteAgent"], "Marketplace.Basic"
# A redirect is an error: a credential goes to its own origin only.
HTTP = urllib.request.build_opener(type("NoRedirects", (urllib.request.HTTPRedirectHandler,), {"redirect_request": lambda *_: None}))

class Hold(Exception):
    """The resource needs a person, or more time. Nothing more is done for it in this pass."""

class Storage:
    """Directories in a JSON file, which is replaced as a whole."""
    def __init__(self):
        self.path, self.confirmation = Path(environ["STORAGE_ROOT"], "storage.json"), Path(environ["STORAGE_STATE_DIRECTORY"], "confirmed")
        state = json.loads(self.path.read_text()) if self.path.exists() else {"directories": {}, "trash": {}}
        self.directories, self.trash = state["directories"], state["trash"]
    def save(self):
        new = self.path.with_suffix(".new")
        with open(new, "w") as file:
            print(json.dumps({"directories": self.directories, "trash": self.trash}), file=file, flush=True)
            os.fsync(file.fileno())
        new.replace(self.path)
    def owner(self, path):
        return self.directories.get(path, {}).get("itemId")
    def ensure(self, path, wanted):
        """Creates or changes the directory, takes it from the trash if it is there, and verifies it."""
        if self.owner(path) not in [None, wanted["itemId"]]:
            raise Hold(f"{path} belongs to {self.owner(path)}")
        if self.directories.get(path) != wanted:
            self.trash.pop(wanted["itemId"], None)
            self.directories[path] = wanted
            self.save()
        if Storage().directories.get(path) != wanted:
            raise Hold(f"{path} is not as it should be")
    def retire(self, path, item_id):
        if self.owner(path) == item_id:
            if sum(it["at"] > time.time() - 3600 for it in self.trash.values()) >= 10 and not self.confirmation.exists():
                raise PermissionError(f"ten removals in an hour: to confirm more, create {self.confirmation}, and delete it afterwards")
            self.trash[item_id] = {**self.directories.pop(path), "path": path, "at": time.time()}
            self.save()

class Client:
    token, renew_at = None, 0.0
    def bearer(self):
        if time.monotonic() >= self.renew_at:
            who = {"client_id": environ["STORAGE_CLIENT_ID"], "client_secret": environ["STORAGE_CLIENT_SECRET"]}
            form = urllib.parse.urlencode({"grant_type": "client_credentials", **who}).encode()
            with HTTP.open(environ["STORAGE_TOKEN_URL"], form, timeout=30) as response:
                answer = json.load(response)
            self.token, self.renew_at = answer["access_token"], time.monotonic() + 0.7 * answer["expires_in"]
        return f"Bearer {self.token}"
    def open(self, url, body=None, method=None, **headers):
        origin, proxy, waldur = (urllib.parse.urlsplit(each)[:2] for each in [url, PROXY, WALDUR])
        if origin not in [proxy, waldur]:
            raise Hold(f"{url} leads neither to the proxy nor to Waldur")
        headers["Authorization"] = self.bearer() if origin == proxy else f"Token {environ['WALDUR_API_TOKEN']}"
        data = None if body is None else json.dumps(body, default=float).encode()
        try:
            request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers}, method=method)
            return HTTP.open(request, timeout=30)
        except urllib.error.HTTPError as error:
            self.renew_at = 0.0 if error.code == 401 else self.renew_at
            raise
    def read(self, known):
        """The pages of the document and their tag. Waits while the tag is the known one; then the error 304 is raised."""
        pages, tags = [], set()
        while not pages or len(pages) < pages[0]["pagination"]["pages"]:
            query = {"storage_system": environ["STORAGE_SYSTEM"], "page_size": 500, "page": len(pages) + 1}
            wait = {"If-None-Match": known, "Prefer": "wait=20"} if known and not pages else {}
            with self.open(f"{PROXY}/api/storage-resources/?{urllib.parse.urlencode(query)}", **wait) as response:
                pages.append(json.load(response, parse_float=Decimal))
                tags.add(response.headers["ETag"])
                if int(response.headers["Age"] or 0) > 60 or "mock_identities" in pages[-1]:
                    raise ValueError("the document is old, or has invented identities")
        if len(tags) > 1 or sum(len(page["resources"]) for page in pages) != pages[0]["pagination"]["total"]:
            raise ValueError("the document changed while it was read, or is not complete")
        return pages, tags.pop()
    def call(self, item, name, body=None):
        """Sends a callback. After an error, the next pass sees in the document whether it arrived."""
        self.open(item[f"{name}_url"], body or {}).close()

class Reporter:
    """Reports each pass to the proxy, for its pages for operators. It must not delay a pass, so a thread sends the report, or none if it
    is still busy. The thread has a client of its own, as tokens are not shared between threads."""
    client, thread, last = Client(), None, None
    def send(self, began, resources=None, error=None):
        system = environ["STORAGE_SYSTEM"]
        if resources is not None:
            trash = [{"id": id, "system": system, "since": timestamp(it["at"])} for id, it in Storage().trash.items()]
            unit = "TB" if TERABYTE == 10**12 else "TiB"
            self.last = {"program": "example-provisioner 1.0", "nextWithinSeconds": 120 + 2 * math.ceil(float(environ["STORAGE_INTERVAL"])),
                         "systems": [{"name": system, "terabyte": unit}], "resources": resources, "trash": trash}
        # Before the first complete pass there is nothing to repeat.
        if self.last and not (self.thread and self.thread.is_alive()):
            now = time.time()
            ended = {"endedAt": timestamp(now), "durationSeconds": max(now - began, 0), "error": error}
            self.thread = threading.Thread(target=self.put, args=[{**self.last, "reportedAt": timestamp(now), "pass": ended}], daemon=True)
            self.thread.start()
    def put(self, report):
        try:
            self.client.open(f"{PROXY}/api/provisioners/example-{environ['STORAGE_SYSTEM']}/status", report, "PUT").close()
        except (OSError, http.client.HTTPException, ValueError, KeyError) as problem:
            print("no report:", repr(problem), flush=True)

def timestamp(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()

def reported(storage, item, problem):
    """A resource in a report. Control characters in a path, which the proxy rejects, are escaped."""
    path, id = str((item["mountPoint"] or {}).get("default") or ""), item["itemId"]
    observed = "present" if storage.owner(path) == id else "trashed" if id in storage.trash else "absent" if storage.owner(path) is None else "obstructed"
    resource = {"id": id, "system": environ["STORAGE_SYSTEM"], "path": ascii(path)[1:-1] if not path.isprintable() else path, "observed": observed}
    if problem:
        kind, turn = ("fault", "provisioner") if isinstance(problem, (OSError, http.client.HTTPException)) else ("refused", "operator")
        resource["hold"] = {"kind": kind, "turn": turn, "reason": (str(problem) or repr(problem))[:500]}
    return resource

def desired(item, order, problems):
    """The directory as it should be."""
    target = item["target"]["targetItem"]
    gid = (target.get("primaryProject") or target).get("unixGid")
    quotas = item["newQuotas"] if order.get("type") == "Update" and item["newQuotas"] else item["quotas"]
    if type(gid) is not int or not 0 < gid < 2**32 - 1 or item["itemId"] in problems or len(quotas or []) != 4:
        raise Hold("it has no valid GID, or quotas that cannot be trusted")
    wanted = {"itemId": item["itemId"], "gid": gid, "mode": item["permission"]["value"], "space": {}, "inodes": {}}
    for quota in quotas:
        value = wanted[quota["type"]][quota["enforcementType"]] = math.ceil(quota["quota"] * {"tera": TERABYTE, "none": 1}[quota["unit"]])
        if not 0 < value < 2**63 or quota["enforcementType"] not in ["soft", "hard"]:
            raise Hold("a quota is 0, which storage systems treat as unlimited, or too large, or of an unknown kind")
    return wanted

def work(client, storage, page, item, paths):
    """Carries one resource a step further. Returns whether there is a next step."""
    path, order = item["mountPoint"]["default"], page["orders"].get(item["itemId"]) or {}
    absolute = path.startswith("/") and path == os.path.normpath(path) and path.isprintable() and path.count("/") > 1 and len(path) <= 255
    if not absolute or paths.count(path) > 1 or item["status"] not in "pending active updating removing removed error unknown".split():
        raise Hold(f"{path!r} is not the path of one directory, or {item['status']} is an unknown status")
    kind, state, basic = order.get("type"), order.get("state"), order.get("offeringType") == BASIC
    due, is_called_off = state in ["pending-provider", "executing"], item["status"] == "active" and item["itemId"] in storage.trash
    if order and (kind not in ["Create", "Update", "Terminate", "Restore"] or order["offeringType"] not in [*SITE_AGENT, BASIC]):
        raise Hold(f"an order of an unknown kind: {kind} of {order['offeringType']}")
    if item["status"] == "removed" or kind == "Terminate" and state == "executing" and not basic:
        storage.retire(path, item["itemId"])
    elif kind != "Terminate" and (due or is_called_off or storage.owner(path) == item["itemId"]):
        wanted = desired(item, order if due else {}, page["quotaProblems"])
        # A site agent's order is carried out once it is approved, a Basic order before: its approval completes it.
        if state != "pending-provider" or basic:
            storage.ensure(path, wanted)
            if kind in ["Create", "Restore"] and due:
                client.call(item, "set_backend_id", {"backend_id": path})
    if state == "pending-provider":
        client.call(item, "approve_by_provider", {"attributes": {"new_options": order["newOptions"]}} if order.get("newOptions") else None)
    elif state == "executing":
        client.call(item, "set_state_done")
    return due

def run_pass(client, known, reporter):
    """Returns the tag to wait with, or None if the next pass is due soon."""
    pages, tag = client.read(known)
    began, problems = time.time(), {}
    items = [(page, item) for page in pages for item in page["resources"] if item["target"]["targetType"] in ["project", "user"]]
    paths = [(item["mountPoint"] or {}).get("default") for _, item in items if item["status"] != "removed"]
    for page, item in items:
        try:
            tag = None if work(client, Storage(), page, item, paths) else tag
        except (Hold, OSError, http.client.HTTPException, KeyError, TypeError, AttributeError, ValueError) as problem:
            print(item["itemId"], repr(problem), flush=True)
            problems[item["itemId"]] = problem
            tag = None if isinstance(problem, (OSError, http.client.HTTPException)) else tag
    storage = Storage()
    reporter.send(began, [reported(storage, item, problems.get(item["itemId"])) for _, item in items])
    return tag

if __name__ == "__main__":
    client, reporter, tag = Client(), Reporter(), None
    while True:
        began = time.time()
        try:
            tag = run_pass(client, tag, reporter)
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as problem:
            if tag and getattr(problem, "code", None) == 304 and problem.headers["Preference-Applied"]:
                # Nothing has changed: the provisioner shows that it still runs.
                reporter.send(time.time())
                continue
            print("no pass:", repr(problem), flush=True)
            reporter.send(began, error=repr(problem)[:500])
            tag = None
        time.sleep(float(environ["STORAGE_INTERVAL"]))
