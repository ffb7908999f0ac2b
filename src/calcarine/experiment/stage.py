"""What a stage of an experiment is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calcarine.experiment.config import Experiment
    from calcarine.experiment.digests import Digests
    from calcarine.experiment.workspace import Workspace

__all__ = ["PHASES", "Stage"]

PHASES = ("pretrain", "guide", "finetune")
"""The stages that train Vis-Dec, in their order."""


def _nothing(work: Workspace) -> None:
    """Check nothing."""


@dataclass(frozen=True)
class Stage:
    """One stage of an experiment; each reads what the ones before wrote.

    Attributes
    ----------
    name : str
        As in ``calcarine NAME RUN``.
    title : str
        One sentence for the help of that command.
    run : callable
        Does the work, or what is left of it, in a workspace.
    key : callable
        Returns the stage's key from the configuration, the digests and the keys of the stages
        before; see :mod:`calcarine.experiment.keys`.
    enabled : callable
        Whether an experiment has this stage.
    switches : tuple of str
        Settings that enable the stage, as ``--set`` takes them; none for stages that every run
        has.
    needs : tuple of str
        Stages that must be finished before, where they are enabled.
    outputs : tuple of str
        Files and folders of the run that are removed when the key changes. Features and trained
        networks are not listed: they lie in folders named by their content, and a changed setting
        removes none.
    also_stale : tuple of Stage
        Stages that are removed together with this one, also in a run that no longer has them.
    check : callable
        Raises a `CalcarineError` for settings that the stage cannot carry out; called before the
        first stage runs.
    memory : str
        Section of the settings with ``batch_size``, which decides how much memory the stage needs.
    batches : bool
        Whether the stage works in batches of ``batch_size``.
    networks : bool
        Whether networks compute in the stage.
    generates : bool
        Whether the diffusion model computes in the stage; otherwise its memory is freed.
    on_demand : bool
        Whether the command of this stage works in runs that leave the stage out.
    share : callable, optional
        Does pieces of the stage's work while another process runs it, until none is left;
        see :mod:`calcarine.experiment.joined_run`. What it writes, `run` would write too.
    """

    name: str
    title: str
    run: Callable[[Workspace], None]
    key: Callable[[Experiment, Digests, Mapping[str, str]], str]
    enabled: Callable[[Experiment], bool] = lambda config: True
    switches: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    also_stale: tuple[Stage, ...] = ()
    check: Callable[[Workspace], None] = _nothing
    memory: str = "generation"
    batches: bool = True
    networks: bool = True
    generates: bool = True
    on_demand: bool = False
    share: Callable[[Workspace], None] | None = None

    @property
    def stale(self) -> dict[str, tuple[str, ...]]:
        """Outputs of this stage and of those removed with it, by name of the stage."""
        return {stage.name: stage.outputs for stage in (self, *self.also_stale)}
