"""What the imports of the page on migration make of its examples, by the commands themselves."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

LAUNCHER: Final = Path(sys.executable).with_name("prism-vault")
ENV_FILE: Final = """\
# web, production
export DATABASE_URL="postgres://web:s3cret@db/web"
API_TOKEN='t0ken'
"""
VAULT_AGENT: Final = """\
pid_file = "/run/vault-agent.pid"
vault { address = "https://vault.lan:8200" }
auto_auth {
  method "approle" {
    config = {
      role_id_file_path   = "/etc/vault/role-id"
      secret_id_file_path = "/etc/vault/secret-id"
    }
  }
}
template {
  contents = <<-EOT
    [database]
    {{- with secret "secret/data/prism/lan/web" }}
    url = {{ .Data.data.url }}
    {{- if .Data.data.replica }}
    replica = {{ .Data.data.replica }}
    {{- end }}
    {{- end }}
    EOT
  destination = "/etc/web/web.ini"
  perms       = "0440"
  group       = "www-data"
  command     = ["/usr/bin/systemctl", "reload", "web"]
}
template {
  contents    = "{{ range service \\"web\\" }}server {{ .Address }}{{ end }}"
  perms       = "0400"
  destination = "/etc/web/upstreams.conf"
}
"""
NAMES: Final = ("--scope", "web", "--project", "prism", "--environment", "lan")


def of_env_file() -> str:
    """Return a .env file and the scope that is made of it."""
    return _shown(".env", ENV_FILE, ("env", ".env", *NAMES, "--path", "secret/prism/lan/web"))


def of_vault_agent() -> str:
    """Return a configuration of Vault Agent, the scope that is made of it, and its template."""
    return _shown("vault-agent.hcl", VAULT_AGENT, ("vault-agent", "vault-agent.hcl", *NAMES, "--templates", "templates"))


def _shown(name: str, content: str, words: tuple[str, ...]) -> str:
    """Return a file, the command that reads it, and what it prints and writes, with what is this machine's own made the same."""
    with tempfile.TemporaryDirectory() as place:
        Path(place, name).write_text(content, encoding="utf-8")
        done = subprocess.run([LAUNCHER, "import", *words], cwd=place, capture_output=True, text=True, check=False, timeout=60)
        if "Traceback" in done.stderr or done.returncode not in (0, 78):
            raise SystemExit(f"prism-vault import failed with {done.returncode}: {done.stderr}")
        command = " ".join(words).replace("--templates templates", "--templates /etc/prism-vault/templates")
        text = f"$ cat {name}\n{content}$ prism-vault import {command}\n{done.stdout}{done.stderr}"
        for template in sorted(Path(place).glob("templates/*")):
            text += f"$ cat /etc/prism-vault/templates/{template.name}\n{template.read_text(encoding='utf-8')}"
        text = text.replace(f"{Path(place).resolve()}/templates", "/etc/prism-vault/templates")
    return re.sub(r"\buid = \d+", "uid = 1000", text)
