"""The two databases that can hold the log: tables, connections, migrations."""
