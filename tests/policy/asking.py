"""Scopes, callers and requests: built by name, and drawn by Hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from prism_vault_agent.model import Caller, Request
from prism_vault_agent.scope import Binding, CallerRule, Purpose, Scope, ScopeName, SecretReference

PATHS = ["secret/a", "secret/b", "kv/a/b"]


def scope(name: str = "web", **fields: Any) -> Scope:
    """Return a scope of uid 1000 with one purpose."""
    given = {
        "project": "prism",
        "environment": "lan",
        "purposes": ("service",),
        "callers": (CallerRule("service", uid=1000),),
        **fields,
    }
    return Scope(name=ScopeName(name), **given)


def caller(**fields: Any) -> Caller:
    """Return an attested caller with uid 1000."""
    given = {"pid": 4711, "uid": 1000, "gid": 1000, "groups": frozenset({1000}), "executable": "/usr/bin/app", "started": 1}
    return Caller(**{**given, **fields})


def request(*scopes: str, **fields: Any) -> Request:
    """Return a request for ``scopes``, for ``web`` where none is named."""
    return Request(tuple(ScopeName(name) for name in scopes or ("web",)), **fields)


def binding(name: str | None, path: str = "secret/a", key: str | None = "k") -> Binding:
    """Return a binding of one key."""
    return Binding(name, SecretReference(path, key))


KINDS = st.sampled_from(["service", "agent", "worker", "operator"])
UIDS = st.sampled_from([0, 1000, 1001])
PURPOSES = st.sampled_from([Purpose("service"), Purpose("deploy"), Purpose("debug")])
EXECUTABLES = st.sampled_from(["/usr/bin/app", "/usr/bin/python3"])
UNITS = st.sampled_from(["web.service", "job.service"])
CONTAINERS = st.sampled_from(["a" * 64, "b" * 64])
RULES = st.builds(
    CallerRule,
    kind=KINDS,
    uid=st.none() | UIDS,
    gid=st.none() | UIDS,
    executable=st.none() | EXECUTABLES,
    unit=st.none() | UNITS,
    container=st.none() | CONTAINERS,
)
CALLERS = st.builds(
    caller,
    uid=UIDS,
    gid=UIDS,
    groups=st.frozensets(UIDS),
    executable=EXECUTABLES,
    unit=st.none() | UNITS,
    container=st.none() | CONTAINERS,
)
BINDINGS = st.builds(binding, st.sampled_from(["A", "B", "PATH", "1X"]), st.sampled_from(PATHS))
NAMES = st.sampled_from(["web", "jobs", "other"])
FIELDS = st.fixed_dictionaries(
    {
        "project": st.sampled_from(["prism", "other"]),
        "purposes": st.lists(PURPOSES, min_size=1, max_size=3, unique=True).map(tuple),
        "callers": st.lists(RULES, max_size=3).map(tuple),
        "bindings": st.lists(BINDINGS, max_size=2).map(tuple),
        "allow_paths": st.lists(st.sampled_from([*PATHS, "secret/*", "kv/a/*"]), max_size=2).map(tuple),
        "allow_names": st.frozensets(st.sampled_from(["PATH"])),
        "pristine": st.none() | st.booleans(),
    }
)
SCOPES = st.dictionaries(NAMES, FIELDS, max_size=3).map(
    lambda drawn: {ScopeName(name): scope(name, **fields) for name, fields in drawn.items()}
)
REQUESTS = st.builds(
    lambda names, **fields: request(*names, **fields),
    st.lists(NAMES, min_size=1, max_size=2),
    purpose=st.none() | PURPOSES,
    run_ref=st.none() | st.sampled_from(["run-1", ""]),
    job_id=st.none() | st.sampled_from(["job-1"]),
    references=st.lists(BINDINGS, max_size=2).map(tuple),
)
