"""How long to look: `make test` tries the same few hundred inputs every time, `make fuzz` thousands of new ones."""

import datetime

from hypothesis import HealthCheck, settings

# A fixture's folder is shared by a test's examples, which the tests allow for; no example may take long.
_ALWAYS = {"deadline": datetime.timedelta(seconds=10), "suppress_health_check": list(HealthCheck)}
settings.register_profile("short", max_examples=20, derandomize=True, database=None, **_ALWAYS)
settings.register_profile("long", max_examples=5_000, print_blob=True, **_ALWAYS)
settings.register_profile("some", max_examples=300, print_blob=True, **_ALWAYS)
settings.load_profile("short")  # --hypothesis-profile is read later and wins
