"""Reading a process's unit and container: only what the host's systemd and container engine say counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.agent.front.cgroup import container_of, unit_of

CONTAINER = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("cgroup", "unit", "container"),
    [
        ("0::/", None, None),
        ("", None, None),
        ("0::/system.slice/web.service", "web.service", None),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service", "user@1000.service", None),
        (f"0::/user.slice/user-1000.slice/user@1000.service/docker-{CONTAINER}.scope", "user@1000.service", None),
        (f"0::/user.slice/user-1000.slice/user@1000.service/docker/{CONTAINER}", "user@1000.service", None),
        (f"0::/mine/docker/{CONTAINER}", None, None),
        ("0::/mine/web.service", None, None),
        ("0::/a\r0::/web.service", None, None),
        ("0::/a\x0b0::/system.slice/web.service", None, None),
        ("0::/user.slice/user-1000.slice/session-3.scope", "session-3.scope", None),
        ("0::/system.slice/web.service/worker", "web.service", None),
        ("12:pids:/a.service\n1:name=systemd:/system.slice/b.service\n0::/\n", "b.service", None),
        (f"0::/system.slice/docker-{CONTAINER}.scope", f"docker-{CONTAINER}.scope", CONTAINER),
        (f"0::/docker/{CONTAINER}", None, CONTAINER),
        (f"0::/machine.slice/libpod-{CONTAINER}.scope/container", f"libpod-{CONTAINER}.scope", CONTAINER),
        (f"0::/kubepods/burstable/podX/cri-containerd-{CONTAINER}.scope", None, CONTAINER),
        (f"0::/../docker-{CONTAINER}.scope", f"docker-{CONTAINER}.scope", CONTAINER),
        (f"0::/../{CONTAINER}", None, CONTAINER),
        ("0::/../../system.slice/web.service", "web.service", None),
        (f"0::/kubepods.slice/crio-{CONTAINER}.scope", f"crio-{CONTAINER}.scope", CONTAINER),
        (f"0::/docker/{CONTAINER[:-1]}", None, None),
        ("0::/system.slice/web.servicex", None, None),
        ("0::/system.slice/.service", None, None),
    ],
)
def test_unit_and_container(cgroup, unit, container):
    """The unit and the container are those that the host's systemd and engine made; what users make below has no say."""
    assert (unit_of(cgroup), container_of(cgroup)) == (unit, container)


NAMES = st.text(st.characters(exclude_characters="/\n", codec="utf-8"), min_size=1, max_size=20)


@given(st.lists(NAMES, max_size=3), NAMES, st.sampled_from(["service", "scope"]), st.lists(NAMES, max_size=5))
def test_nothing_below_a_unit_changes_it(above, name, kind, below):
    """Whatever slices lie above it and whatever cgroups its user makes below it, a unit is that unit and no container."""
    path = "/".join(["", *(f"{slices}.slice" for slices in above), f"{name}.{kind}", *below])
    cgroup = f"4:memory:/x.service\n0::{path}\n"
    assert (unit_of(cgroup), container_of(cgroup)) == (f"{name}.{kind}", None)


@given(st.text(max_size=300))
def test_any_cgroup_text_is_read(text):
    """No text of a cgroup file is a defect."""
    assert isinstance(unit_of(text), str | None)
    assert isinstance(container_of(text), str | None)
