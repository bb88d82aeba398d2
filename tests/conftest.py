"""Drawn examples are the same in every run, so that what fails, fails again; `LAMINA_SOAK=1` draws others each time."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True, database=None)
settings.register_profile("soak", derandomize=False, print_blob=True)
settings.load_profile("soak" if os.environ.get("LAMINA_SOAK") else "same")
