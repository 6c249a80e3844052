"""How a daemon has its configuration read: this file, by an isolated interpreter, with the package that the file is of."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, __file__.rpartition("/prism_vault_agent/")[0])
    from prism_vault_agent.config.apart import answer

    sys.exit(answer(sys.argv[1], os.environ))
