"""Where logs go: standard error, so that standard output is for what was asked."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

import structlog


class _ToStderr(structlog.PrintLogger):
    """Standard error as it is with each line; closed or broken, it loses lines and never makes a link fail."""

    def msg(self, message: str) -> None:
        with suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = fatal = failure = err = error = critical = exception = msg


def log_to_stderr(level: int = logging.INFO) -> None:
    """Lamina's own log from `level` on; of the libraries beneath only what is critical."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    for name in ("asyncua", "pymodbus", "mqtt", "amqtt"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        logger_factory=lambda *_: _ToStderr(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
