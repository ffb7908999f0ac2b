"""Protocols: named, exact ways to compute a set of metrics."""

from __future__ import annotations

from calcarine.evaluation.protocols.protocol import (
    PROTOCOLS,
    Protocol,
    find_protocol,
    register_protocol,
)

__all__ = ["PROTOCOLS", "Protocol", "find_protocol", "register_protocol"]
