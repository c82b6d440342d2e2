"""What all tests share: how hard Hypothesis looks."""

import os

from hypothesis import settings

# deadlines measure the machine, not the code: two busy cores would break them
settings.register_profile("fast", deadline=None, max_examples=100)
settings.register_profile("deep", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))
