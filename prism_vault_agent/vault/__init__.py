"""The Vault and OpenBao adapter: blocking code for single-use workers and for ``exec --direct``."""
