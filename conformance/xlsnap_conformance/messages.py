# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all messages of the driver protocol have in common; `protocol` has the messages."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

R = TypeVar("R", bound="Result")


class Request(msgspec.Struct, Generic[R], frozen=True, kw_only=True, omit_defaults=True):
    """Base of all requests' arguments; `R` is the type of the result."""


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all results."""


class Done(Result, frozen=True, kw_only=True):
    """Nothing to tell: it was done."""
