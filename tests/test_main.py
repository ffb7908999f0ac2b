"""What the command line makes of warnings."""

from __future__ import annotations

import sys
import warnings

from calcarine.cli import main


def test_warnings_of_our_own_are_sentences_said_once(monkeypatch, capsys):
    module = sys.modules["calcarine.cli.main"]

    def command() -> None:
        warnings.simplefilter("always")
        for _ in range(2):
            for file in (str(module.PACKAGE / "stimuli" / "tables.py"), "/elsewhere/other.py"):
                warnings.warn_explicit("a table is odd", UserWarning, file, 3)

    monkeypatch.setattr(module, "app", command)
    before = warnings.showwarning
    main()
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("Note: a table is odd") == 1
    assert lines.count("/elsewhere/other.py:3: UserWarning: a table is odd") == 2
    assert warnings.showwarning is before
