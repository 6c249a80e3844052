"""One scope with many paths: ``python -m tests.bench.paths [PATHS] [ROUNDS]``.

Warm exec through a proxy that counts its requests, against a standard-library script that reads one path after the other on
one connection, and OpenBao's agent with a template for each path.
"""

from __future__ import annotations

import json
import statistics
import sys

from tests.bench.stand import PYTHON, Stand, interleaved, once, stand, table
from tests.support.agent import LAUNCHER

WARM = "prism-vault exec (warm)"
SEQUENTIAL = "standard-library script, one by one"
BAO = "bao agent exec"
SCRIPT = """
import http.client, json, os, sys
from urllib.parse import urlsplit
address, role_id, secret_id, paths = sys.argv[1:5]
connection = http.client.HTTPConnection(urlsplit(address).netloc)
login = {"role_id": open(role_id).read(), "secret_id": open(secret_id).read()}
connection.request("POST", "/v1/auth/approle/login", json.dumps(login))
token = json.load(connection.getresponse())["auth"]["client_token"]
for number in range(int(paths)):
    connection.request("GET", f"/v1/secret/data/many/p{number}", headers={"X-Vault-Token": token})
    os.environ[f"P{number}"] = json.load(connection.getresponse())["data"]["data"]["k"]
os.execvp(sys.argv[5], sys.argv[5:])
"""


def main() -> None:
    """Run and print the table and the goals."""
    paths = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    many = {f"P{n}": f"vault://secret/many/p{n}#k" for n in range(paths)}
    with stand({"many": many}, proxied=True) as through, stand({"many": many}) as here:
        for each in (through, here):
            for number in range(paths):
                each.openbao.kv_put(f"secret/many/p{number}", {"k": f"value-{number}"})
        asked, connections = requests(through)
        warm = [LAUNCHER, "exec", "--scope", "many", "--timeout", "60s", "--", "/bin/true"]
        contenders = {
            WARM: (warm, rounds),
            SEQUENTIAL: ([*here.script(SCRIPT), str(paths), "/bin/true"], rounds),
            BAO: (here.bao_agent("/bin/true", keys={f"P{n}": (f"many/p{n}", "k") for n in range(paths)}), 2),
        }
        once(warm, here.environment())
        times = interleaved(contenders, here.environment(), rounds)
        one = [once([PYTHON, "-I", "-c", "pass"], here.environment()) for _ in range(rounds)]
    table(times, SEQUENTIAL)
    print(f"\n{paths} paths in one exec, the second of an agent: {asked} requests on {connections} connections (goal: {paths})")
    took = statistics.median(times[WARM])
    print(f"warm exec: {took:.0f} ms, of it the interpreter {statistics.median(one):.0f} ms (goal: below 1000)")


def requests(here: Stand) -> tuple[int, int]:
    """Return how many requests and connections one exec makes at the provider, where the mount is known already."""
    assert here.counted is not None
    command = [LAUNCHER, "exec", "--scope", "many", "--timeout", "60s", "--", "/usr/bin/env"]
    once(command, here.environment())
    lines, connections = len(here.counted.lines), here.counted.connections
    once(command, here.environment())
    success = [row for row in here.central.events() if row["kind"] == "success"][-1]
    assert len(json.loads(success["body"])["names"]) == len(json.loads(success["body"])["leases"])
    return len(here.counted.lines) - lines, here.counted.connections - connections


if __name__ == "__main__":
    main()
