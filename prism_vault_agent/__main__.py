"""The command `prism-vault`: `exec` goes to the thin client, everything else to the command line proper."""
