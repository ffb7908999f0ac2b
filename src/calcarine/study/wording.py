"""What raters read unless a study has words of its own."""

from __future__ import annotations

__all__ = ["CONSENT", "QUESTION", "TITLE"]

QUESTION = "Which picture is more similar to the original?"
TITLE = "Similarity of pictures"
CONSENT = (
    "Participation is voluntary. You can stop at any time by closing the page, without giving a "
    "reason. We store which picture you choose, how long it takes, and whether you use a key, a "
    "mouse or touch. We do not store your name, your address or information about your device."
)
