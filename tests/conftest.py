"""What every room's tests share: property tests are not timed, because the machine may be busy with the other workers."""

from hypothesis import settings

settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
