"""The central service: takes every host's audit events and decides what may be reserved. Needs the extra ``central``."""
