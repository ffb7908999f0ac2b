"""Splits: which stimuli train and which test, as files with a hash."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from calcarine.display import html_table, listed
from calcarine.errors import (
    CalcarineError,
    DamagedFileError,
    LeakageError,
    MissingFileError,
    SettingError,
)
from calcarine.files import parse_json, write_text

__all__ = ["Split"]


@dataclass(frozen=True, repr=False)
class Split:
    """A named assignment of stimuli (never of trials) to training and test.

    Attributes
    ----------
    name : str
        Name of the split.
    train, test : tuple of str
        Ids of stimuli; no id is in both.
    rule : str
        How the assignment was made, in words.
    seed : int, optional
        Seed of the random numbers, None if there were none.

    Raises
    ------
    LeakageError
        If a stimulus is both in training and test.
    SettingError
        If a stimulus occurs twice or a side is empty.

    Examples
    --------
    >>> from calcarine.brain import Split
    >>> Split("mine", train=["a", "b", "c"], test=["d"], rule="by hand")
    Split(name='mine', train: 3 stimuli, test: 1 stimuli, rule='by hand', seed=None)
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

    def __repr__(self) -> str:
        return (
            f"Split(name={self.name!r}, train: {len(self.train):,} stimuli, "
            f"test: {len(self.test):,} stimuli, rule={self.rule!r}, seed={self.seed})"
        )

    def _repr_html_(self) -> str:
        rows = {
            "train": f"{len(self.train):,} stimuli ({listed(self.train, 3)})",
            "test": f"{len(self.test):,} stimuli ({listed(self.test, 3)})",
            "rule": self.rule,
            "seed": self.seed,
        }
        return html_table(f"Split {self.name}", rows)

    def digest(self) -> str:
        """Return the SHA-256 (hexadecimal) of the whole split."""
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
        """Return the split and its hash as JSON text."""
        return json.dumps({**self._content(), "sha256": self.digest()}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Split:
        """Read what `to_json` wrote.

        Raises
        ------
        DamagedFileError
            If something is missing or has the wrong type, or if the ids do not match the hash.
        """
        try:
            saved = parse_json(text)
            name, rule, seed = saved["name"], saved["rule"], saved["seed"]
            train, test = saved["train"], saved["test"]
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
        if saved.get("sha256", split.digest()) != split.digest():
            raise DamagedFileError(
                f"Split {name} was changed after it was saved: its ids do not match its hash; "
                "use the original file, or delete sha256 to make it a split of your own."
            )
        return split

    def save(self, path: str | Path) -> Path:
        """Write the split to a JSON file (an atomic write) and return its path.

        Examples
        --------
        >>> import calcarine as ca
        >>> path = ca.Split("mine", ("a", "b"), ("c",), rule="by hand").save("mine.json")
        >>> ca.Split.read(path).test
        ('c',)
        """
        write_text(Path(path), self.to_json())
        return Path(path)

    @classmethod
    def read(cls, path: str | Path) -> Split:
        """Read a split from a JSON file.

        Raises
        ------
        MissingFileError
            If there is no such file.
        DamagedFileError
            If the file is not a complete, unchanged split.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not a text file"
            kind = MissingFileError if isinstance(error, FileNotFoundError) else DamagedFileError
            raise kind(f"The split {path} cannot be read: {reason}.") from error
        try:
            return cls.from_json(text)
        except CalcarineError as error:
            raise type(error)(f"{path}: {error}") from error
