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

    others: list[str] = []
    monkeypatch.setattr(module, "app", command)
    monkeypatch.setattr(warnings, "showwarning", lambda *given: others.append(given[2]))
    before = warnings.showwarning
    main()
    assert capsys.readouterr().err.splitlines() == ["Note: a table is odd"]
    assert others == ["/elsewhere/other.py"] * 2
    assert warnings.showwarning is before
