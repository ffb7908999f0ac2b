"""Protocols: named, exact ways to compute a set of metrics."""
