"""A Kubernetes API for unit tests: real HTTP on loopback in front of a dictionary, spoken to by the real client.

It lists by label, gets, merge-patches with the resource version checked, and serves logs. What a cluster does by itself
(controllers, admission) belongs to the end-to-end tests.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]


class KubernetesApi:
    """Objects by (plural, namespace, name); `logs` by (namespace, pod, container). Use as a context manager."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.logs: dict[tuple[str, str, str], str] = {}
        self.forbidden: set[str] = set()
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, plural: str, document: Mapping[str, Any]) -> Json:
        """Keep an object as if it had been created."""
        stored: Json = json.loads(json.dumps(document))
        metadata = stored["metadata"]
        metadata.setdefault("resourceVersion", "1")
        self.objects[(plural, metadata.get("namespace", ""), metadata["name"])] = stored
        return stored

    def kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig file for this API."""
        host, port = self._server.server_address[:2]
        file = folder / "kubeconfig"
        file.write_text(
            json.dumps(
                {
                    "clusters": [{"name": "test", "cluster": {"server": f"http://{host!s}:{port}"}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                    "current-context": "test",
                    "users": [{"name": "test", "user": {}}],
                }
            ),
            encoding="utf-8",
        )
        return file

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api._get(self)

            def do_PATCH(self) -> None:
                api._patch(self)

            def log_message(self, format: str, *args: object) -> None:
                api.requests.append(format % args)

        return Handler

    def _get(self, request: BaseHTTPRequestHandler) -> None:
        plural, namespace, name, sub = _place(request.path)
        query = parse_qs(urlsplit(request.path).query)
        if plural in self.forbidden:
            _answer(request, 403, _status(403, f"{plural} is forbidden"))
        elif sub == "log":
            text = self.logs.get((namespace, name, query.get("container", [""])[0]))
            if text is None:
                _answer(request, 400, _status(400, "the container has not started"))
            else:
                lines = text.splitlines(keepends=True)[-int(query.get("tailLines", ["1000"])[0]) :]
                _send(request, 200, "text/plain", "".join(lines).encode())
        elif name:
            found = self.objects.get((plural, namespace, name))
            _answer(request, 200 if found else 404, found or _status(404, f"{plural} {name} not found"))
        else:
            wanted = query.get("labelSelector", [""])[0]
            items = [
                item
                for (kind, space, _), item in sorted(self.objects.items())
                if kind == plural and space == namespace and _matches(item, wanted)
            ]
            _answer(request, 200, {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": items})

    def _patch(self, request: BaseHTTPRequestHandler) -> None:
        plural, namespace, name, _ = _place(request.path)
        patch = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        found = self.objects.get((plural, namespace, name))
        expected = patch.get("metadata", {}).pop("resourceVersion", None)
        if found is None:
            _answer(request, 404, _status(404, f"{plural} {name} not found"))
        elif found.get("immutable") or (expected and expected != found["metadata"]["resourceVersion"]):
            _answer(request, 409, _status(409, f"{plural} {name} was changed"))
        else:
            _merge(found, patch)
            found["metadata"]["resourceVersion"] = str(int(found["metadata"]["resourceVersion"]) + 1)
            _answer(request, 200, found)


def _place(path: str) -> tuple[str, str, str, str]:
    """Plural, namespace, name and subresource of an API path; "" where there is none."""
    parts = urlsplit(path).path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    plural, name, sub = [*parts, "", ""][:3]
    return plural, namespace, name, sub


def _matches(item: Json, selector: str) -> bool:
    labels = item["metadata"].get("labels", {})
    for term in filter(None, selector.split(",")):
        key, equals, value = term.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _merge(target: Json, patch: Json) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def _status(code: int, message: str) -> Json:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


def _answer(request: BaseHTTPRequestHandler, code: int, document: Json) -> None:
    _send(request, code, "application/json", json.dumps(document).encode())


def _send(request: BaseHTTPRequestHandler, code: int, kind: str, body: bytes) -> None:
    request.send_response(code)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
