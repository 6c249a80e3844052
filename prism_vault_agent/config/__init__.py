"""Configuration: TOML files in, frozen settings out."""
