"""`perjoule demo`: an embedded engine, the sidecar in front of it, a few dozen requests, and what each of them cost.

Nothing is needed but this package. The joules are simulated, which has one advantage over real ones: the engine knows what
each request truly cost, so the demo can also say how far off the sidecar's shares are.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import aiohttp
from openai import AsyncOpenAI
from rich.console import Console
from rich.live import Live

from perjoule.bench import demo_view
from perjoule.bench.dialect import MODEL
from perjoule.bench.visits import Visit, make, plan

SPEED = 0.25  # slow motion: hundreds of tokens a second, which any laptop can follow
MAX_NUM_SEQS = 16
START_S = 20.0
SETTLE_S = 5.0
REFRESH_S = 0.125


class FailedError(Exception):
    """The demo cannot go on; the text says why."""
