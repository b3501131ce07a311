# SPDX-License-Identifier: LGPL-2.1-or-later
"""A second driver in the directory of the suite's own: for two operations at once, and to be killed.

What a killed driver has been asked is open: it was done, or not, or in part. `emulators` finds the processes
that have a domain's images open, which can end as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from . import protocol as p
from .driver import Driver
from .failures import DriverError, HarnessError, ImplementationError
from .subject import Subject

ANSWER_SECONDS = 180.0
"""How long a request may take that is asked in the background."""


class Asked:
    """A request that was sent in the background.

    ``result`` is its result, ``error`` its refusal, ``died`` is true if the driver has ended; None and False
    as long as it is running.
    """

    def __init__(self, driver: Driver, request: p.Request[Any]) -> None:
        self.result: Any = None
        self.error: ImplementationError | None = None
        self.died = False
        self._broken: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(driver, request), daemon=True)
        self._thread.start()

    def _run(self, driver: Driver, request: p.Request[Any]) -> None:
        try:
            self.result = driver.call(request)
        except ImplementationError as error:
            self.error = error
        except DriverError:
            self.died = True
        except Exception as error:  # told to who waits
            self._broken = error

    @property
    def running(self) -> bool:
        """Whether there is no answer yet."""
        return self._thread.is_alive()

    def wait(self, seconds: float = ANSWER_SECONDS) -> bool:
        """Wait for the end; say whether it has come."""
        self._thread.join(timeout=seconds)
        if self._broken is not None:
            raise self._broken
        return not self.running


class Second:
    """The second driver. A context manager: leaving it ends it; nothing that it made is removed."""

    def __init__(self, subject: Subject) -> None:
        """Start it in the subject's directory.

        :raise HarnessError: if it does not work there.
        """
        self._subject = subject
        self.driver = Driver(subject.driver.command, log=subject.fence.log)
        try:
            self.driver.call(p.Setup(root=str(subject.fence.driver_root), join=True))
        except ImplementationError as error:
            self.driver.close()
            raise HarnessError(f"a second driver cannot be set up: {error}") from error
        except BaseException:
            self.driver.close()
            raise

    def __enter__(self) -> Second:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(HarnessError):
            self.driver.close()

    def ask(self, request: p.Request[Any]) -> Asked:
        """Send a request in the background."""
        self._subject.fence.check(request)
        return Asked(self.driver, request)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the driver and to what it has started in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.driver.pid, number)


def emulators(directory: Path) -> list[psutil.Process]:
    """Return the processes that have files of a directory open: those that run its domain."""
    base = f"{os.path.realpath(directory)}{os.sep}"
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.pid != os.getpid() and process.uids().real == os.getuid()
            if ours and any(file.path.startswith(base) for file in process.open_files()):
                found.append(process)
    return found


def wait_until(holds: Callable[[], bool], asked: Asked | None = None, seconds: float = 60.0) -> bool:
    """Wait until something holds, or until `asked` has ended; say whether it holds."""
    end = time.monotonic() + seconds
    while not holds():
        if (asked is not None and not asked.running) or time.monotonic() > end:
            return holds()
        time.sleep(0.0005)
    return True
