"""The stat logger that vLLM loads by its entry point `vllm.stat_logger_plugins`, in the process of its API server.

It does nothing unless `PERJOULE_STEPS` says where a sidecar listens, and whatever goes wrong in it stays in it: an engine must not be
slower or less safe for being metered.
"""

import logging
import os
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from perjoule.vllm.telling import Telling

MOST_FAILURES = 100  # then it is another vLLM than those it was written for, and it stops trying

logger = logging.getLogger("vllm.perjoule")


class StepsLogger(StatLoggerBase):  # type: ignore[misc]  # vLLM is not there where types are checked
    """Tells of each step of one engine core."""

    def __init__(self, vllm_config: Any = None, engine_index: int = 0, *_: Any, **__: Any) -> None:
        self._rank, self._failures, self._said = engine_index, 0, ""
        self._telling: Telling | None = None
        self._has_details = False
        try:
            where = os.environ.get("PERJOULE_STEPS", "")
            observability = getattr(vllm_config, "observability_config", None)
            self._has_details = bool(getattr(observability, "enable_logging_iteration_details", False)) and _tells_details()
            self._telling = Telling(where) if where else None
            logger.info("perjoule: steps are told to %s, prompt tokens of each %s", where or "nobody, since PERJOULE_STEPS is not set",
                        "included" if self._has_details else "not included (--enable-logging-iteration-details)")
        except Exception as error:
            logger.warning("perjoule: steps are not told: %r", error)

    def record(self, scheduler_stats: Any = None, iteration_stats: Any = None, *_: Any, engine_idx: int | None = None, **__: Any) -> None:
        """Outputs have come."""
        if self._telling is None:
            return
        try:
            self._telling.tell(self._rank if engine_idx is None else engine_idx, scheduler_stats, iteration_stats,
                               has_details=self._has_details)
            if self._telling.trouble != self._said:
                self._said = self._telling.trouble
                logger.info("perjoule: a step was told to nobody (%s); steps are told as soon as somebody listens", self._said)
        except Exception as error:
            self._failures += 1
            if self._failures == 1:
                logger.warning("perjoule: a step could not be told: %r", error)
            if self._failures == MOST_FAILURES:
                self._telling = None
                logger.warning("perjoule: steps are not told any more")

    def log(self, *_: Any, **__: Any) -> None:
        """Nothing to say now and then."""

    def log_engine_initialized(self, *_: Any, **__: Any) -> None:
        """Nothing to say at the start."""


# A later vLLM may ask for another method: better that it is not there than that the engine does not start.
StepsLogger.__abstractmethods__ = frozenset()


def _tells_details() -> bool:
    """Whether this vLLM gives details to stat loggers: older ones, as 0.25.1, only write them to their log."""
    from vllm.v1.metrics.stats import SchedulerStats

    return "iteration_details" in getattr(SchedulerStats, "__dataclass_fields__", {})
