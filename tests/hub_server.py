"""A small Hub on the loopback interface: what huggingface_hub asks for to push and load models, with faults on demand.

with HubServer() as hub:
    subprocess.run(..., env={**os.environ, **hub.environment(cache)})
    hub.files("user/name")
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

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

    def find(self, revision):
        sha = self.branches.get(revision, revision)
        return sha if sha in self.commits else None


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
    routes = []

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
            for method, pattern, function in self.routes:
                match = re.fullmatch(pattern, path)
                if match and self.command in method:
                    return function(self, body, *match.groups())
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

    @property
    def has_token(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repo(self, name, write=False):
        """A repository; None if an error was answered."""
        repo = self.hub.repos.get(name)
        if write and not self.has_token:
            return self.error(401, "", "Invalid user token")
        if repo is None or (repo.private and not self.has_token):
            return self.error(404 if self.has_token else 401, "RepoNotFound", "Repository not found")
        return repo


def route(methods, pattern):
    def add(function):
        Handler.routes.append((methods.split(), pattern, function))
        return function

    return add


REPO = r"([\w.-]+/[\w.-]+)"


@route("POST", "/api/repos/create")
def create(request, body):
    wanted = json.loads(body)
    owner, name = wanted.get("organization") or USER, wanted["name"]
    if not request.has_token:
        return request.error(401, "", "Invalid user token")
    if owner != USER:
        return request.error(403, "", f"You don't have the rights to create a model under the namespace {owner}")
    full, url = f"{owner}/{name}", f"{request.hub.url}/{owner}/{name}"
    if full in request.hub.repos:
        return request.answer(409, {"error": "You already created this model repo", "url": url})
    private = wanted.get("private") is True or wanted.get("visibility") == "private"
    request.hub.repos[full] = Repo(private)
    request.hub.repos[full].commit("main", {".gitattributes": b""}, "initial commit")
    return request.answer(200, {"url": url, "name": full})


@route("POST", "/api/validate-yaml")
def validate_yaml(request, body):
    request.answer(200, {"errors": [], "warnings": []})


@route("GET", rf"/api/models/{REPO}(?:/revision/(.+))?")
def info(request, body, name, revision):
    if repo := request.repo(name):
        sha = repo.find(revision or "main")
        if sha is None:
            return request.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings = [{"rfilename": file} for file in repo.commits[sha]]
        facts = {"id": name, "modelId": name, "sha": sha, "private": repo.private, "lastModified": DATE, "tags": []}
        return request.answer(200, {**facts, "siblings": siblings})
    return None


@route("GET", rf"/api/models/{REPO}/tree/([^/]+)(/.+)?")
def tree(request, body, name, revision, folder):
    if repo := request.repo(name):
        sha = repo.find(revision)
        if sha is None:
            return request.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if folder:
            return request.error(404, "EntryNotFound", f"{folder} does not exist")
        files = repo.commits[sha].items()
        return request.answer(
            200,
            [{"type": "file", "path": file, "oid": blob_id(content), "size": len(content)} for file, content in files],
        )
    return None


@route("POST", rf"/api/models/{REPO}/branch/(.+)")
def branch(request, body, name, revision):
    if repo := request.repo(name, write=True):
        if revision in repo.branches:
            return request.error(409, "", "Reference already exists")
        repo.branches[revision] = repo.branches["main"]
        return request.answer(200, {})
    return None


@route("POST", rf"/api/models/{REPO}/preupload/(.+)")
def preupload(request, body, name, revision):
    if repo := request.repo(name, write=True):
        answers = []
        for file in json.loads(body)["files"]:
            mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
            present = repo.commits[repo.find(revision)].get(file["path"])
            oid = (
                None
                if present is None
                else (hashlib.sha256(present).hexdigest() if mode == "lfs" else blob_id(present))
            )
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return request.answer(200, {"files": answers})
    return None


@route("POST", rf"/{REPO}\.git/info/lfs/objects/batch")
def lfs_batch(request, body, name):
    if request.repo(name, write=True):
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{request.hub.url}/lfs/{wanted['oid']}"}}}
            for wanted in json.loads(body)["objects"]
        ]
        return request.answer(200, {"transfer": "basic", "objects": objects})
    return None


@route("PUT", r"/lfs/([0-9a-f]{64})")
def lfs_upload(request, body, oid):
    assert hashlib.sha256(body).hexdigest() == oid
    request.hub.uploads[oid] = body
    request.answer(200)


@route("POST", rf"/api/models/{REPO}/commit/(.+)")
def commit(request, body, name, revision):
    if repo := request.repo(name, write=True):
        files, title = dict(repo.commits[repo.find(revision)]), ""
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
        made = {"success": True}
        if "create_pr" in request.query:
            revision = "refs/pr/1"
            made["pullRequestUrl"] = f"{request.hub.url}/{name}/discussions/1"
        sha = repo.commit(revision, files, title)
        return request.answer(200, {**made, "commitOid": sha, "commitUrl": f"{request.hub.url}/{name}/commit/{sha}"})
    return None


@route("GET HEAD", rf"/{REPO}/resolve/([^/]+)/(.+)")
def resolve(request, body, name, revision, file):
    if repo := request.repo(name):
        sha = repo.find(revision)
        if sha is None:
            return request.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if file not in repo.commits[sha]:
            return request.error(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": sha})
        content = repo.commits[sha][file]
        return request.answer(200, content, {"ETag": f'"{blob_id(content)}"', "X-Repo-Commit": sha})
    return None


def blob_id(content):
    """Git's id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
