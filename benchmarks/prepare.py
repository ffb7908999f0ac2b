"""Speed and memory of preparing full-size NSD sessions, against bare reads of the same files.

    python benchmarks/prepare.py --sessions 4 --repeats 3
    python benchmarks/prepare.py --folder /big/disk/fake --sessions 40      # keeps what it makes

Files are simulated, of true size: 750 x 83 x 104 x 81 int16 a session, a mask of 15,724 voxels.
Where there are fewer files than 40, sessions beyond them are links to the first ones again.

Bare: h5py reads each whole session, one after the other, into one buffer that is used again.
Prepare: `calcarine.datasets.prepare` with two workers reads, masks, scales and writes.
Each side runs in a process of its own, in turn; besides the time that passed, its processor time is
printed, which other work on the machine disturbs less. "cold": a file's pages are dropped from
memory before it is read, as with 42 GB of sessions on a usual machine; "warm": the files are in
memory already, as far as they fit. Before a time counts, the numbers are compared."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from memory import peak_bytes

OFFICIAL = 40
SUBJECT = "subj01"
TARGET_SPEED, TARGET_MEMORY = 0.6, 2.0


def layout(folder: Path):
    from calcarine.datasets.nsd.layout import NSDLayout

    return NSDLayout(folder, SUBJECT)


def make(folder: Path, sessions: int) -> None:
    """Write what is not there yet, and links for the sessions beyond."""
    from calcarine.datasets import registry

    if not folder.exists() or not any(folder.iterdir()):
        registry.write_fake_dataset("nsd", folder, full_size=True, sessions=sessions, images=20)
    files = layout(folder)
    real = [n for n in files.sessions() if not files.session(n).is_symlink()]
    for number in range(1, OFFICIAL + 1):
        path = files.betas / f"betas_session{number:02d}.hdf5"
        if not path.exists():
            path.symlink_to(files.session(real[(number - 1) % len(real)]).name)
    os.sync()
    print(
        f"{len(real)} files of {files.session(1).stat().st_size / 1e9:.2f} GB"
        + ("" if len(real) >= OFFICIAL else f", read again and again to make {OFFICIAL} sessions")
    )


def forget(path: Path) -> None:
    """Drop a file's pages from memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


# -- the sides: each is timed in a process of its own ---------------------------------------------


def bare(folder: Path, cold: bool, total: int) -> None:
    import h5py

    files = layout(folder)
    with h5py.File(files.session(1), "r") as file:
        buffer = np.zeros(file["betas"].shape, file["betas"].dtype)
    for number in range(1, total + 1):
        if cold:
            forget(files.session(number))
        with h5py.File(files.session(number), "r") as file:
            file["betas"].read_direct(buffer)


def prepared(folder: Path, cold: bool, total: int, target: Path) -> None:
    from calcarine.datasets import nsd
    from calcarine.datasets.prepare.preparation import prepare

    recording = nsd.recording(folder, SUBJECT, sessions=total)
    files = layout(folder)

    def read(session: int) -> np.ndarray:
        if cold:
            forget(files.session(session))
        return recording.read(session)

    prepare(replace(recording, read=read), target, workers=2)


def command_of(side: str, folder: Path, cold: bool, total: int, target: Path) -> list[str]:
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    command += ["--target", str(target), "--total", str(total)]
    return command + (["--cold"] if cold else [])


def run_side(side: str, folder: Path, cold: bool, total: int, target: Path) -> dict[str, float]:
    command = command_of(side, folder, cold, total, target)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


# -- what must be true before a time counts ----------------------------------------------------


def same_numbers(folder: Path, total: int, target: Path) -> dict[str, float]:
    """Compare with plain h5py: what is read, and what the store gives when scaling is undone."""
    import h5py
    import nibabel as nib

    from calcarine.datasets import nsd
    from calcarine.datasets.prepare.prepared_subject import PreparedSubject

    files, recording = layout(folder), nsd.recording(folder, SUBJECT, sessions=total)
    mask = nib.load(files.roi("nsdgeneral")).get_fdata().T > 0
    store = PreparedSubject.open(next(target.iterdir()))
    scaling, columns = store.scaling(), np.arange(int(mask.sum()))
    responses, worst = store.responses(), 0.0
    for number in (1, total):
        with h5py.File(files.session(number), "r") as file:
            wanted = file["betas"][:][:, mask] / np.float32(300)
        np.testing.assert_array_equal(recording.read(number), wanted)
        rows = np.flatnonzero(responses.coords["session"].values == number)
        scaled = responses[{"trial": rows}].values
        raw = scaling.undo(scaled, np.full(len(rows), number), columns)
        worst = max(worst, float(np.abs(raw - wanted).max()))
    if worst > 1e-4:
        raise SystemExit(f"Prepared betas differ from those read by h5py by {worst} percent.")
    return {"read differs by": 0.0, "prepared and unscaled differs by percent signal": worst}


def survives_kill(folder: Path, total: int, whole: Path, target: Path) -> dict[str, int]:
    """Kill a preparation in the middle, run it again, compare every byte of the store."""
    child = subprocess.Popen(
        command_of("prepare", folder, True, total, target), stdout=subprocess.DEVNULL
    )
    done = 0
    while child.poll() is None and done < max(1, total // 3):
        time.sleep(0.05)
        done = len(list(target.glob("*/sessions/??.zarr")))
    child.send_signal(signal.SIGKILL)
    child.wait()
    if child.returncode != -signal.SIGKILL:
        raise SystemExit("The preparation ended before it could be killed.")
    done = len(list(target.glob("*/sessions/??.zarr")))
    left = len(list(target.glob("*/sessions/*.part")))
    run_side("prepare", folder, False, total, target)
    first, second = (next(place.iterdir()) for place in (whole, target))
    names = [
        sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())
        for root in (first, second)
    ]
    differ = [n for n in names[0] if (first / n).read_bytes() != (second / n).read_bytes()]
    if names[0] != names[1] or differ:
        raise SystemExit(f"After a kill the store is another one: {differ[:3]}.")
    return {
        "sessions done when killed": done,
        "half-written then": left,
        "files equal": len(names[0]),
    }


def median(values: list[float]) -> float:
    return float(np.median(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="of the simulated files; kept when given")
    parser.add_argument("--sessions", type=int, default=4, help="files to write (about 1 GB each)")
    parser.add_argument("--total", type=int, default=OFFICIAL, help="sessions to read in a run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/prepare.json"))
    parser.add_argument("--side", choices=("bare", "prepare"), help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cold", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        # Loading of libraries is no part of either side.
        import h5py  # noqa: F401

        from calcarine.datasets import registry  # noqa: F401

        start, work = time.perf_counter(), time.process_time()
        if options.side == "bare":
            bare(options.folder, options.cold, options.total)
        else:
            prepared(options.folder, options.cold, options.total, options.target)
        seconds, processor = time.perf_counter() - start, time.process_time() - work
        peak = peak_bytes() / 1e9
        print(json.dumps({"seconds": seconds, "processor": processor, "gigabytes": peak}))
        return
    with tempfile.TemporaryDirectory(dir=options.folder and options.folder.parent) as scratch:
        folder = options.folder or Path(scratch) / "fake"
        make(folder, options.sessions)
        results = compare(folder, Path(scratch), options.total, options.repeats)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {options.out}")


def compare(folder: Path, scratch: Path, total: int, repeats: int) -> dict[str, object]:
    runs: dict[str, dict[str, list[dict[str, float]]]] = {}
    checks: dict[str, object] = {}
    target = scratch / "prepared"
    for repeat in range(repeats):
        for state in ("cold", "warm"):
            sides = runs.setdefault(state, {"bare": [], "prepare": []})
            for side, done in sides.items():
                shutil.rmtree(target, ignore_errors=True)
                os.sync()
                done.append(run_side(side, folder, state == "cold", total, target))
            last = {side: done[-1] for side, done in sides.items()}
            line = ", ".join(
                f"{side} {one['seconds']:.1f} s (processor {one['processor']:.1f} s)"
                for side, one in last.items()
            )
            print(f"{repeat + 1}, {state}, {total} sessions: {line}", flush=True)
            if not checks:
                checks["numbers"] = same_numbers(folder, total, target)
                print(checks["numbers"], flush=True)
    checks["kill"] = survives_kill(folder, total, target, scratch / "killed")
    print(checks["kill"])
    summary: dict[str, object] = {}
    for state, sides in runs.items():
        ratio = {
            what: median([one[what] for one in sides["bare"]])
            / median([one[what] for one in sides["prepare"]])
            for what in ("seconds", "processor")
        }
        summary[state] = ratio
        print(f"{state}: prepare runs at {ratio['seconds']:.2f} of the speed of bare reads")
    peak = max(one["gigabytes"] for sides in runs.values() for one in sides["prepare"])
    print(f"peak memory of prepare {peak:.2f} GB")
    files = layout(folder)
    real = sum(not files.session(n).is_symlink() for n in files.sessions())
    return {
        "sessions": total,
        "files": real,
        "repeats": repeats,
        "runs": runs,
        "bare / prepare, of medians": summary,
        "target": {"speed": TARGET_SPEED, "gigabytes": TARGET_MEMORY},
        "peak gigabytes of prepare": peak,
        "checks": checks,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "load when it ended": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
