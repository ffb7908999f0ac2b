"""The folder of a study and its database."""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from calcarine.errors import CalcarineError, DamagedFileError, SettingError
from calcarine.files import free_space, parse_json, read_json
from calcarine.study.design import CATCH, MAIN, PRACTICE, PlannedTrial, plan_trials
from calcarine.study.settings import StudySettings

__all__ = [
    "Study",
    "StudyDatabaseError",
    "check_raters",
    "connect",
    "connect_new",
    "create_database",
    "find_rater",
    "token_hash",
]

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE images (
    id INTEGER PRIMARY KEY, file TEXT NOT NULL UNIQUE, original TEXT NOT NULL,
    method TEXT NOT NULL, source TEXT NOT NULL);
CREATE TABLE questions (
    id INTEGER PRIMARY KEY, part TEXT NOT NULL, comparison INTEGER NOT NULL,
    item INTEGER NOT NULL, original_image INTEGER NOT NULL REFERENCES images,
    first_image INTEGER NOT NULL REFERENCES images,
    second_image INTEGER NOT NULL REFERENCES images,
    UNIQUE (part, comparison, item));
CREATE TABLE raters (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, token_hash TEXT NOT NULL UNIQUE,
    invited REAL NOT NULL, consented REAL);
CREATE TABLE trials (
    id INTEGER PRIMARY KEY, rater INTEGER NOT NULL REFERENCES raters, position INTEGER NOT NULL,
    key TEXT NOT NULL UNIQUE, question INTEGER NOT NULL REFERENCES questions,
    first_left INTEGER NOT NULL, original_token TEXT NOT NULL UNIQUE,
    left_token TEXT NOT NULL UNIQUE, right_token TEXT NOT NULL UNIQUE,
    UNIQUE (rater, position));
CREATE TABLE shown (
    trial INTEGER PRIMARY KEY REFERENCES trials, first REAL NOT NULL, last REAL NOT NULL,
    times INTEGER NOT NULL);
CREATE TABLE answers (
    trial INTEGER PRIMARY KEY REFERENCES trials, choice TEXT NOT NULL
        CHECK (choice IN ('left', 'right')),
    client_ms REAL NOT NULL, paused_ms REAL NOT NULL, server_ms REAL NOT NULL,
    input TEXT NOT NULL, answered REAL NOT NULL);
"""
_LINKS = "invitations.csv"


class StudyDatabaseError(CalcarineError):
    """The database of a study cannot be read or written.

    Parameters
    ----------
    database : Path
    error : Exception
        The error of SQLite.
    """

    def __init__(self, database: Path, error: Exception) -> None:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            how = "another program is using it; stop that program and try again"
        elif code == sqlite3.SQLITE_FULL:
            how = f"{free_space(database)}; free some space and try again"
        elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            how = "copy the whole folder to a place with write permission"
        else:
            how = (
                "stop the server, keep a copy of study.sqlite, study.sqlite-wal and -shm, and "
                "restore them from a backup, or recover the readable part with "
                f"'sqlite3 {database.name} .recover'"
            )
        super().__init__(f"{database} cannot be used ({error}): {how}.")


class Study:
    """A study folder.

    Parameters
    ----------
    path : Path
        Folder with ``study.sqlite``, ``study.json`` and ``images/``.

    Raises
    ------
    CalcarineError
        If the folder is not a study, or its settings were changed after it was made.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.study import Study
    >>> study = Study(Path("study"))  # doctest: +SKIP
    >>> invited = study.invite(2)  # doctest: +SKIP
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.database.is_file() or not (self.path / "study.json").is_file():
            raise CalcarineError(
                f"{self.path} is not a study; make one with 'calcarine study make RUN "
                f"--out {self.path}'."
            )
        self.check()
        try:
            with self.connection() as con:
                row = con.execute("SELECT value FROM meta WHERE name = 'settings'").fetchone()
            fixed = parse_json(row["value"])
            sentences = read_json(self.path / "study.json")
            self.settings = StudySettings.model_validate(fixed)
        except (TypeError, ValueError) as error:
            raise DamagedFileError(
                f"The study {self.path} is damaged ({type(error).__name__}); restore study.sqlite "
                "and study.json from a backup."
            ) from error
        if sentences != fixed:
            raise CalcarineError(
                f"{self.path / 'study.json'} was changed after the study was made, but the rules "
                "of a study are fixed; undo the change or make a new study."
            )

    @property
    def database(self) -> Path:
        return self.path / "study.sqlite"

    @property
    def images(self) -> Path:
        return self.path / "images"

    @contextmanager
    def connection(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Open a connection; with ``write``, as a transaction that is committed at the end.

        Raises
        ------
        StudyDatabaseError
            If the database is damaged, not writable, or locked by another program.
        """
        con = None
        try:
            con = connect(self.database)
            if write:
                con.execute("BEGIN IMMEDIATE")
                yield con
                con.execute("COMMIT")
            else:
                yield con
        except sqlite3.IntegrityError:
            raise
        except (sqlite3.DatabaseError, sqlite3.InterfaceError, UnicodeDecodeError) as error:
            raise StudyDatabaseError(self.database, error) from error
        finally:
            if con is not None:
                con.close()  # rolls back an uncommitted transaction

    def check(self) -> None:
        """Check the integrity of the database.

        Raises
        ------
        StudyDatabaseError
            If it is damaged, or has not all tables and columns.
        """
        if not self.database.stat().st_size:
            raise StudyDatabaseError(self.database, sqlite3.DatabaseError("the file is empty"))
        with self.connection() as con:
            for pragma in ("integrity_check", "foreign_key_check"):
                for row in con.execute(f"PRAGMA {pragma}"):
                    if row[0] != "ok":
                        sentences = ", ".join(map(str, tuple(row)))
                        raise sqlite3.DatabaseError(sentences.splitlines()[0])
            with closing(connect_new()) as required:
                for (table,) in required.execute(
                    "SELECT name FROM sqlite_master WHERE sql NOT NULL"
                ):
                    columns = [
                        {row["name"] for row in of.execute(f"PRAGMA table_info({table})")}
                        for of in (required, con)
                    ]
                    if not columns[0] <= columns[1]:
                        raise sqlite3.DatabaseError(f"the table {table} is incomplete")

    def invite(self, n: int) -> list[tuple[str, str]]:
        """Invite raters.

        Parameters
        ----------
        n : int
            Number of raters.

        Returns
        -------
        list of (str, str)
            Pseudonym and token of each rater. The database stores only a hash of the token. The
            tokens are added to ``invitations.csv``, which you can delete after sending the links.
        """
        check_raters(n)
        new = []
        with self.connection(write=True) as con:
            questions = {
                (row["part"], row["comparison"], row["item"]): row["id"]
                for row in con.execute("SELECT * FROM questions")
            }
            before = con.execute("SELECT count(*) FROM raters").fetchone()[0]
            for number in range(before, before + n):
                name, token = f"rater-{number + 1:02d}", secrets.token_urlsafe(24)
                con.execute(
                    "INSERT INTO raters VALUES (?, ?, ?, ?, NULL)",
                    (number, name, token_hash(token), time.time()),
                )
                con.executemany(
                    "INSERT INTO trials (rater, position, key, question, first_left, "
                    "original_token, left_token, right_token) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [
                        (
                            *(number, position, _opaque(), _question(questions, place)),
                            *(place.first_left, _opaque(), _opaque(), _opaque()),
                        )
                        for position, place in enumerate(self._places(questions, number))
                    ],
                )
                new.append((name, token))
            self._keep_links(new)
        return new

    def links(self) -> list[tuple[str, str]]:
        """Return the pseudonyms and tokens in ``invitations.csv``."""
        file = self.path / _LINKS
        if not file.exists():
            return []
        with open(file, encoding="utf-8", newline="") as lines:
            return [(row[0], row[1]) for row in list(csv.reader(lines))[1:] if len(row) == 2]

    def _places(self, questions: dict[tuple[str, int, int], int], rater: int) -> list[PlannedTrial]:
        parts = [part for part, _, _ in questions]
        settings = self.settings
        return plan_trials(
            len(settings.comparisons),
            len(settings.originals),
            parts.count(CATCH),
            parts.count(PRACTICE),
            settings.seed,
            rater,
        )

    def _keep_links(self, new: list[tuple[str, str]]) -> None:
        file = self.path / _LINKS
        fresh = not file.exists()
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(handle, "a", encoding="utf-8", newline="") as lines:
            writer = csv.writer(lines)
            if fresh:
                writer.writerow(("rater", "token"))
            writer.writerows(new)
            lines.flush()
            os.fsync(lines.fileno())


def check_raters(n: int) -> None:
    """Raise if ``n`` raters cannot be invited at once."""
    if not 1 <= n <= 1000:
        raise SettingError(f"{n} raters cannot be invited; choose between 1 and 1000.")


def connect(database: Path) -> sqlite3.Connection:
    """Open a database with durable commits."""
    con = sqlite3.connect(database, timeout=30, isolation_level=None)
    con.row_factory = sqlite3.Row
    con.execute("PRAGMA journal_mode = WAL")
    con.execute("PRAGMA synchronous = FULL")
    con.execute("PRAGMA foreign_keys = ON")
    return con


def connect_new() -> sqlite3.Connection:
    """Create an empty database in memory with the tables of a study."""
    con = sqlite3.connect(":memory:")
    con.row_factory = sqlite3.Row
    con.executescript(_SCHEMA)
    return con


def create_database(database: Path, settings: StudySettings) -> sqlite3.Connection:
    """Create the database of a study and store the settings in it."""
    con = connect(database)
    con.executescript(_SCHEMA)
    con.execute(
        "INSERT INTO meta VALUES ('settings', ?)", (json.dumps(settings.model_dump(mode="json")),)
    )
    return con


def token_hash(token: str) -> str:
    """Return the hash of a token; tokens are long and random, so no salt is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def find_rater(con: sqlite3.Connection, token: str) -> sqlite3.Row | None:
    """Find the rater of a token, in a time that does not depend on the token."""
    required = token_hash(token)
    result = None
    for row in con.execute("SELECT * FROM raters"):
        if hmac.compare_digest(row["token_hash"], required):
            result = row
    return result


def _opaque() -> str:
    return secrets.token_urlsafe(16)


def _question(questions: dict[tuple[str, int, int], int], place: PlannedTrial) -> int:
    comparison = place.comparison if place.part == MAIN else 0
    try:
        return questions[(place.part, comparison, place.item)]
    except KeyError:
        raise sqlite3.DatabaseError("a question is missing") from None
