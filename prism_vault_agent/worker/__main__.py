"""How the agent starts its warm parent: this file, by an isolated interpreter that knows no site-packages."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.append(__file__.rpartition("/prism_vault_agent/")[0])
    from prism_vault_agent.worker.parent import run

    sys.exit(run(int(sys.argv[1])))
