"""The demo's command: says which of the variables it was asked about it has, and never what is in them."""

import os
import sys

for name in sys.argv[1:]:
    value = os.environ.get(name)
    print(f"{name} = " + ("not set" if value is None else f"{'*' * 8} ({len(value)} characters)"))
credentials = [name for name in os.environ if name.startswith(("PRISM_VAULT_", "VAULT_", "BAO_"))]
print(f"variables of prism-vault, Vault or OpenBao that came along: {len(credentials)}")
