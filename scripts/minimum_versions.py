"""The lowest versions that pyproject.toml allows, for ``make test-minimum``.

    python scripts/minimum_versions.py requirements-minimum.txt              # needs uv
    python scripts/minimum_versions.py requirements-3.13.txt --python 3.13   # needs uv
    python scripts/minimum_versions.py --share-torch .venv .venv-minimum

The first two write, for Python 3.11 or another, the lowest version of each direct dependency, and
versions of all others that go with them. The last lets an environment use the torch and torchvision
of another one: their old builds are gigabytes. (That torch 2.6 reads original checkpoints and
published weights, and that 2.5 does not read all of them, was tried by hand.)
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = "3.11"
TORCH = ("fsspec>=2024.2", "networkx>=3.2", "sympy>=1.13.3")
TESTS = (
    "himalaya",
    "httpx",
    "hypothesis",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "scikit-image",
)
_SHARED = ("torch", "torchvision", "torchgen", "functorch", "triton", "nvidia")


def compile_requirements(target: Path, python: str = PYTHON) -> None:
    """Resolve the lowest direct versions with uv and write them as requirements for pip."""
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("uv resolves the lowest versions and was not found: pip install uv")
    with tempfile.TemporaryDirectory() as folder:
        extra, without = Path(folder, "extra.in"), Path(folder, "without.txt")
        extra.write_text("\n".join(_extra_requirements()))
        without.write_text('torch; python_version < "3"\ntorchvision; python_version < "3"\n')
        command = [
            uv,
            "pip",
            "compile",
            "--resolution",
            "lowest-direct",
            "--only-binary",
            ":all:",
            "--python-version",
            python,
            "--extra",
            "all",
            "--override",
            str(without),
            "--no-annotate",
            "--no-header",
            "-q",
            "pyproject.toml",
            str(extra),
        ]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        sys.exit(found.stderr)
    head = "# Made by: python scripts/minimum_versions.py requirements-minimum.txt\n"
    target.write_text(head + found.stdout)


def _extra_requirements() -> list[str]:
    """What the tests need, with the bounds of the extra ``test``, and what torch needs."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    wanted = [text for text in extras["test"] if text.split(">=")[0] in TESTS]
    return [*wanted, *TORCH]


def share_torch(source: Path, target: Path) -> None:
    """Let the environment `target` import torch and torchvision of the environment `source`."""
    places = [next(env.glob("lib/python*/site-packages")).resolve() for env in (source, target)]
    shared = target.resolve() / "shared"
    shared.mkdir(exist_ok=True)
    for found in places[0].iterdir():
        if found.name.split("-")[0].split(".")[0].split("_")[0] in _SHARED:
            link = shared / found.name
            link.unlink(missing_ok=True)
            link.symlink_to(found)
    (places[1] / "shared_torch.pth").write_text(f"{shared}\n")


def main(arguments: list[str]) -> None:
    if len(arguments) == 3 and arguments[0] == "--share-torch":
        share_torch(Path(arguments[1]), Path(arguments[2]))
    elif len(arguments) == 3 and arguments[1] == "--python":
        compile_requirements(Path(arguments[0]), arguments[2])
    elif len(arguments) == 1:
        compile_requirements(Path(arguments[0]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
