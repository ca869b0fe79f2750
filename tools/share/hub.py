"""The part of the hub's API that plug-ins need, kept in memory: what is uploaded is held to its SHA-256, as there."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class Hub:
    def __init__(self, token):
        self.token = token
        # Repositories: revisions by name, each a commit; commits hold the files, as bytes or as ("lfs", digest).
        self.repos, self.objects, self.seen, self.count = {}, {}, [], 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                hub.seen.append(f"{self.command} {self.path}")
                status, headers, answer = hub.answer(self.command, self.path, self.headers, body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer)

            do_GET = do_POST = do_PUT = do_HEAD = handle_any

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, method, path, headers, body):
        def give(value, status=200):
            return status, {"content-type": "application/json"}, json.dumps(value).encode()

        path, query = urlsplit(path).path, parse_qs(urlsplit(path).query)
        is_known = headers.get("authorization") == f"Bearer {self.token}"
        if method in ("POST", "PUT") and not is_known and not path.startswith("/upload/"):
            return give({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.repos:
                return give({"error": "You already created this model repo"}, 409)
            self.repos[name] = {"revisions": {"main": "0" * 40}, "commits": {"0" * 40: {}}}
            return give({"url": f"{self.address}/{name}"})
        if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            (asked,) = json.loads(body)["objects"]
            actions = {
                "upload": {"href": f"{self.address}/upload/{asked['oid']}", "header": {"x-own": "1"}},
                "verify": {"href": f"{self.address}/verify"},
            }
            there = asked["oid"] in self.objects
            return give({"objects": [{**asked, **({} if there else {"actions": actions})}]})
        if path.startswith("/upload/"):
            digest = path.rsplit("/", 1)[1]
            if hashlib.sha256(body).hexdigest() != digest or headers.get("x-own") != "1":
                return give({"error": "digest"}, 400)
            self.objects[digest] = bytearray(body)
            return give({})
        if path == "/verify":
            asked = json.loads(body)
            return give({}, 200 if len(self.objects.get(asked["oid"], b"")) == asked["size"] else 404)
        if path == "/api/models":
            words = query.get("search", [""])[0].lower().split()
            models = [{"id": name, "pipeline_tag": "image-classification", "downloads": 3}
                      for name in self.repos if all(word in name.lower() for word in words)]
            return give(models if query.get("filter") == ["melo"] else [])
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(commit|tag|revision)/(.+)", path):
            name, what, revision = found[1], found[2], unquote(found[3])
            repo = self.repos.get(name)
            if repo is None:
                return give({"error": "Repository not found"}, 401)
            if what == "commit":
                return give(self.commit(repo, revision, body))
            if what == "tag":
                repo["revisions"][json.loads(body)["tag"]] = repo["revisions"][revision]
                return give({})
            commit = repo["revisions"].get(revision, revision)
            if commit not in repo["commits"]:
                return give({"error": "Invalid rev id"}, 404)
            files = repo["commits"][commit]
            return give({"sha": commit, "siblings": [{"rfilename": file} for file in files]})
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo = self.repos.get(found[1], {"revisions": {}, "commits": {}})
            commit = repo["revisions"].get(unquote(found[2]), found[2])
            file = repo["commits"].get(commit, {}).get(found[3])
            if file is None:
                return give({"error": "Entry not found"}, 404)
            is_large = isinstance(file, tuple)
            content = bytes(self.objects[file[1]]) if is_large else file
            etag = file[1] if is_large else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            answer = {"etag": f'"{etag}"', "x-repo-commit": commit}
            if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
                first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
                answer["content-range"] = f"bytes {first}-{last}/{len(content)}"
                return 206, answer, content[first : last + 1]
            return 200, answer, content
        return give({"error": f"no {method} {path}"}, 404)

    def commit(self, repo, revision, body):
        self.count += 1
        files = dict(repo["commits"][repo["revisions"][revision]])
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                assert len(self.objects[value["oid"]]) == value["size"]
                files[value["path"]] = ("lfs", value["oid"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = hashlib.sha1(str(self.count).encode()).hexdigest()
        repo["commits"][commit], repo["revisions"][revision] = files, commit
        return {"commitOid": commit, "commitUrl": ""}
