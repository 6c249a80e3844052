"""`prism-vault dev`: OpenBao, central and an agent on one machine, for trying things out. Needs the extra ``dev-stack``."""
