# SPDX-License-Identifier: LGPL-2.1-or-later
"""Steps that QEMU is busy with, while the toolstack does others beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

_TURNS_TO_QEMU = 4
"""Turns of the event loop until a step that begins with a QMP command has sent it. With fewer the next step
would be done before it instead of beside it, which is slower and no less right."""


class StepsInFlight:
    """The steps of one plan that have begun and are waited for later, by their index in the plan."""

    def __init__(self) -> None:
        self._steps: dict[int, asyncio.Task[None]] = {}

    async def begin(self, index: int, step: Coroutine[Any, Any, None]) -> None:
        """Begin a step, and go on when QEMU has been told."""
        self._steps[index] = asyncio.create_task(step)
        for _ in range(_TURNS_TO_QEMU):
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """Wait for all; raise the first error."""
        if self._steps:
            await asyncio.gather(*self._steps.values())
            self._steps.clear()

    async def give_up(self, current: int, error: BaseException) -> tuple[int, BaseException]:
        """Wait for all, however they end; return which step failed first, and why.

        `error` was raised while `current` was the last step.
        """
        results = await asyncio.gather(*self._steps.values(), return_exceptions=True)
        failed = ((index, item) for index, item in zip(self._steps, results, strict=True) if item is not None)
        return next(failed, (current, error))
