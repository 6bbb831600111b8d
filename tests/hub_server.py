"""A small Hub on the loopback interface: what huggingface_hub asks for to push and load models, with faults on demand.

with HubServer() as hub:
    subprocess.run(..., env={**os.environ, **hub.environment(cache)})
    hub.files("user/name")

With the fixture `hub`, huggingface_hub talks to it in the tests' own process.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from huggingface_hub import constants

TOKEN, USER = "hf_loopback", "user"
DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class Repo:
    private: bool
    commits: dict = field(default_factory=dict)
    """By sha: the files, name -> content."""
    branches: dict = field(default_factory=dict)
    titles: list = field(default_factory=list)

    def commit(self, branch, files, title):
        sha = hashlib.sha1(repr((len(self.commits), branch, title, sorted(files))).encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        self.titles.append(title)
        return sha


class HubServer:
    def __init__(self):
        self.repos, self.uploads, self.faults, self.requests = {}, {}, [], []
        self.lock = threading.Lock()

    def __enter__(self):
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()

    def environment(self, cache, token=TOKEN):
        """For a client process."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": token,
            "HF_HOME": str(cache),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def fail(self, method, path, status, times=1):
        """Answer the next `times` requests whose path has the pattern `path` with an error."""
        self.faults.append([method, path, status, times])

    def files(self, name, branch="main"):
        """The files of a branch: name -> content."""
        return self.repos[name].commits[self.repos[name].branches[branch]]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None

    def log_message(self, *args):
        pass

    def serve(self):
        body = self.read_body()
        url = urlsplit(self.path)
        path, self.query = unquote(url.path), parse_qs(url.query)
        with self.hub.lock:
            self.hub.requests.append((self.command, path))
            for fault in self.hub.faults:
                if fault[0] == self.command and re.search(fault[1], path) and fault[3] > 0:
                    fault[3] -= 1
                    return self.answer(fault[2], {"error": "made to fail"})
            for methods, pattern, function in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in methods:
                    return self.dispatch(function, body, match.groupdict())
        return self.error(404, "", f"the test server has no {self.command} {path}")

    do_GET = do_POST = do_PUT = do_HEAD = serve

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self, status, content=b"", headers=None):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def error(self, status, code, message, **headers):
        self.answer(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message, **headers})

    def dispatch(self, function, body, names):
        """Look up repository, revision and commit, if the path names them, and call the function of the route."""
        has_token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.command in ("POST", "PUT") and not has_token and function not in (validate_yaml, lfs_upload):
            return self.error(401, "", "Invalid user token")
        if "name" in names:
            repo = names["repo"] = self.hub.repos.get(names["name"])
            if repo is None or (repo.private and not has_token):
                return self.error(404 if has_token else 401, "RepoNotFound", "Repository not found")
            names["revision"] = names.get("revision") or "main"
            names["sha"] = repo.branches.get(names["revision"], names["revision"])
            if names["sha"] not in repo.commits and function is not branch:
                return self.error(404, "RevisionNotFound", f"Invalid rev id: {names['revision']}")
        return function(self, body, **names)


ROUTES = []
REPO = r"(?P<name>[\w.-]+/[\w.-]+)"
REVISION = r"(?P<revision>[^/]+)"


def route(methods, pattern):
    def add(function):
        ROUTES.append((methods.split(), pattern, function))
        return function

    return add


@route("POST", "/api/repos/create")
def create(request, body):
    wanted = json.loads(body)
    owner = wanted.get("organization") or USER
    full = f"{owner}/{wanted['name']}"
    if owner != USER:
        return request.error(403, "", f"You don't have the rights to create a model under the namespace {owner}")
    answer = {"url": f"{request.hub.url}/{full}", "name": full}
    if full in request.hub.repos:
        return request.answer(409, {**answer, "error": "You already created this model repo"})
    repo = request.hub.repos[full] = Repo(wanted.get("private") is True or wanted.get("visibility") == "private")
    repo.commit("main", {".gitattributes": b""}, "initial commit")
    return request.answer(200, answer)


@route("POST", "/api/validate-yaml")
def validate_yaml(request, body):
    request.answer(200, {"errors": [], "warnings": []})


@route("GET", rf"/api/models/{REPO}(?:/revision/(?P<revision>.+))?")
def info(request, body, name, repo, revision, sha):
    facts = {"id": name, "modelId": name, "sha": sha, "private": repo.private, "lastModified": DATE, "tags": []}
    request.answer(200, {**facts, "siblings": [{"rfilename": file} for file in repo.commits[sha]]})


@route("GET", rf"/api/models/{REPO}/tree/{REVISION}(?P<folder>/.+)?")
def tree(request, body, name, repo, revision, sha, folder):
    if folder:
        return request.error(404, "EntryNotFound", f"{folder} does not exist")
    files = repo.commits[sha].items()
    facts = [{"type": "file", "path": file, "oid": blob_id(content), "size": len(content)} for file, content in files]
    return request.answer(200, facts)


@route("POST", rf"/api/models/{REPO}/branch/(?P<revision>.+)")
def branch(request, body, name, repo, revision, sha):
    if revision in repo.branches:
        return request.error(409, "", "Reference already exists")
    repo.branches[revision] = repo.branches["main"]
    return request.answer(200, {})


@route("POST", rf"/api/models/{REPO}/preupload/{REVISION}")
def preupload(request, body, name, repo, revision, sha):
    answers = []
    for file in json.loads(body)["files"]:
        mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
        old = repo.commits[sha].get(file["path"])
        oid = None if old is None else hashlib.sha256(old).hexdigest() if mode == "lfs" else blob_id(old)
        answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    request.answer(200, {"files": answers})


@route("POST", rf"/{REPO}\.git/info/lfs/objects/batch")
def lfs_batch(request, body, name, repo, revision, sha):
    objects = json.loads(body)["objects"]
    for item in objects:
        item["actions"] = {"upload": {"href": f"{request.hub.url}/lfs/{item['oid']}"}}
    request.answer(200, {"transfer": "basic", "objects": objects})


@route("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})")
def lfs_upload(request, body, oid):
    assert hashlib.sha256(body).hexdigest() == oid
    request.hub.uploads[oid] = body
    request.answer(200)


@route("POST", rf"/api/models/{REPO}/commit/{REVISION}")
def commit(request, body, name, repo, revision, sha):
    files, title, made = dict(repo.commits[sha]), "", {"success": True}
    for line in body.splitlines():
        entry = json.loads(line)
        key, value = entry["key"], entry["value"]
        if key == "header":
            title = value["summary"]
        elif key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            files[value["path"]] = request.hub.uploads[value["oid"]]
        elif key == "deletedFile":
            del files[value["path"]]
    if "create_pr" in request.query:
        revision, made["pullRequestUrl"] = "refs/pr/1", f"{request.hub.url}/{name}/discussions/1"
    made["commitOid"] = repo.commit(revision, files, title)
    request.answer(200, {**made, "commitUrl": f"{request.hub.url}/{name}/commit/{made['commitOid']}"})


@route("GET HEAD", rf"/{REPO}/resolve/{REVISION}/(?P<file>.+)")
def resolve(request, body, name, repo, revision, sha, file):
    if file not in repo.commits[sha]:
        return request.error(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": sha})
    content = repo.commits[sha][file]
    return request.answer(200, content, {"ETag": f'"{blob_id(content)}"', "X-Repo-Commit": sha})


def blob_id(content):
    """Git's id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def hub(monkeypatch):
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # it remembers the address
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
