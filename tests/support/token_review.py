"""A stand-in for the one call that OpenBao makes to Kubernetes: TokenReview. No cluster is needed to log in by it."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING

import jwt

from tests.support.fake_server import FakeServer, answer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey


class TokenReview(FakeServer):
    """Vouches for every service account token as ``<namespace>/<name>``."""

    def __init__(self, namespace: str, name: str) -> None:
        self.namespace, self.name = namespace, name
        super().__init__(self._review)

    def _review(self, connection: socket.socket, request: bytes) -> bool:
        head, _, body = request.partition(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        while len(body) < length:
            body += connection.recv(65_536)
        user = f"system:serviceaccount:{self.namespace}:{self.name}"
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{self.namespace}"]
        asked = json.loads(body)
        status = {
            "authenticated": True,
            "audiences": asked["spec"].get("audiences", []),
            "user": {"username": user, "uid": "uid-1", "groups": groups},
        }
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", **asked, "status": status}
        connection.sendall(answer(json.dumps(review).encode(), "201 Created", "Content-Type: application/json"))
        return True

    def service_account_token(self, key: RSAPrivateKey) -> str:
        """Return a token as the kubelet projects it."""
        now = int(time.time())
        claims = {
            "iss": "https://kubernetes.default.svc",
            "aud": ["https://kubernetes.default.svc"],
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "sub": f"system:serviceaccount:{self.namespace}:{self.name}",
            "kubernetes.io": {"namespace": self.namespace, "serviceaccount": {"name": self.name, "uid": "uid-1"}},
        }
        return jwt.encode(claims, key, algorithm="RS256")
