import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def measured() -> Path:
    """Folder of the measured data sets, which are not part of the repository."""
    shared = os.environ.get("CALCARINE_SHARED", str(Path(__file__).parents[3] / "shared"))
    folder = Path(shared) / "data"
    if not folder.is_dir():
        pytest.skip(f"no measured data in {folder}; set CALCARINE_SHARED")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "measured" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real)
