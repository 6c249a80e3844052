"""The processes and units that hold values: watched, ended, recorded for the next agent."""
