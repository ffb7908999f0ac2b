"""Which stimuli are for training and which for the test, as a file with a hash."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from calcarine.errors import (
    CalcarineError,
    DamagedFileError,
    LeakageError,
    MissingFileError,
    SettingError,
)
from calcarine.files import write_text

__all__ = ["Split"]


@dataclass(frozen=True)
class Split:
    """A named, saved assignment of stimuli (never of trials) to training and test.

    Attributes
    ----------
    name
        How it is called.
    train, test
        Ids of stimuli; no id is in both.
    rule
        In words, how the assignment was made.
    seed
        Of the random numbers used, None if there were none.

    Raises
    ------
    LeakageError
        If a stimulus is both in training and test.
    CalcarineError
        If a stimulus occurs twice or a side is empty.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    rule: str
    seed: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "train", tuple(self.train))
        object.__setattr__(self, "test", tuple(self.test))
        in_training = set(self.train)
        both = [key for key in self.test if key in in_training]
        if both:
            raise LeakageError(
                f"Split {self.name} has stimulus {both[0]} in training and in test"
                f" ({len(both)} such stimuli in all); take it out of one of them."
            )
        for side, keys in (("train", self.train), ("test", self.test)):
            if not keys:
                raise SettingError(f"Split {self.name} has no {side} stimuli; give some.")
            twice = [key for key, times in Counter(keys).items() if times > 1]
            if twice:
                raise SettingError(
                    f"Split {self.name} lists {twice[0]} twice in {side}; list each stimulus once."
                )

    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the whole split."""
        return hashlib.sha256(json.dumps(self._content()).encode()).hexdigest()

    def _content(self) -> dict[str, object]:
        return {
            "name": self.name,
            "rule": self.rule,
            "seed": self.seed,
            "train": list(self.train),
            "test": list(self.test),
        }

    def to_json(self) -> str:
        """Write the split and its hash as JSON text."""
        return json.dumps({**self._content(), "sha256": self.digest()}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Split:
        """Read what `to_json` wrote.

        Raises
        ------
        CalcarineError
            If something is missing or of another kind, or if the ids do not
            give the hash that is written beside them.
        """
        try:
            found = json.loads(text)
            name, rule, seed = found["name"], found["rule"], found["seed"]
            train, test = found["train"], found["test"]
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedFileError(
                f"This is not a saved split ({error}); it needs name, rule, seed, train and test."
            ) from error
        for keys in (train, test):
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                raise DamagedFileError(
                    "A saved split needs lists of stimulus ids as train and test."
                )
        if not (seed is None or (isinstance(seed, int) and not isinstance(seed, bool))):
            raise DamagedFileError(f"The seed of a saved split is a whole number, not {seed!r}.")
        split = cls(str(name), tuple(train), tuple(test), str(rule), seed)
        if found.get("sha256", split.digest()) != split.digest():
            raise DamagedFileError(
                f"Split {name} was changed after it was saved: its hash is no longer that of its "
                "ids; take the original file, or delete sha256 to make it a split of your own."
            )
        return split

    def save(self, path: str | Path) -> Path:
        """Write the split to a JSON file, whole or not at all."""
        write_text(Path(path), self.to_json())
        return Path(path)

    @classmethod
    def read(cls, path: str | Path) -> Split:
        """Read a split from a JSON file.

        Raises
        ------
        CalcarineError
            If the file cannot be read or is not a whole, unchanged split.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            kind = MissingFileError if isinstance(error, FileNotFoundError) else DamagedFileError
            raise kind(f"The split {path} cannot be read: {reason}.") from error
        try:
            return cls.from_json(text)
        except CalcarineError as error:
            raise type(error)(f"{path}: {error}") from error
