"""Generation of pictures that is conditioned on responses: the result of Vis-Dec's training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.devices import BatchSizes
from calcarine.errors import (
    CalcarineError,
    DamagedFileError,
    SettingError,
    ShapeError,
    out_of_memory,
)
from calcarine.files import read_json

if TYPE_CHECKING:
    import torch

    from calcarine.diffusion.conditional import ConditionalDiffusion
    from calcarine.visdec.conditioner import Conditioner

__all__ = ["BrainConditioning", "VoxelScale", "restored_unet"]


@dataclass(frozen=True)
class VoxelScale:
    """Mean and SD of each voxel, from training responses.

    Attributes
    ----------
    mean, scale : float32 array of shape (n_voxels,)

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.visdec import VoxelScale
    >>> train = 5 + 3 * np.random.default_rng(0).standard_normal((50, 4))
    >>> scale = VoxelScale.from_vectors(train)
    >>> bool(np.allclose(scale.apply(train).std(axis=0), 1, atol=1e-3))
    True
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def from_vectors(cls, vectors: NDArray[Any], together: bool = False) -> VoxelScale:
        """Compute mean and SD of vectors.

        Parameters
        ----------
        vectors : array of shape (n, n_voxels)
            Constant voxels are only centred.
        together : bool
            Use one mean and SD of all values, as MinD-Vis and Vis-Dec do.
        """
        axis = None if together else 0
        mean = np.broadcast_to(vectors.mean(axis, dtype=np.float64), vectors.shape[1:])
        spread = np.broadcast_to(vectors.std(axis, dtype=np.float64), vectors.shape[1:])
        flat = spread <= 1e-12 * np.maximum(np.abs(mean), 1e-30)
        scale = np.where(flat, 1.0, spread)
        return cls(mean.astype(np.float32), scale.astype(np.float32))

    def apply(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Return vectors as z scores."""
        if vectors.shape[-1] != len(self.mean):
            raise ShapeError(
                f"Responses have {vectors.shape[-1]} voxels, and the network was trained on "
                f"{len(self.mean)} voxels; give responses of the same region."
            )
        scaled: NDArray[np.float32] = ((vectors - self.mean) / self.scale).astype(np.float32)
        return scaled


class BrainConditioning:
    """Result of the third phase: a conditioner and trained weights of the U-Net.

    Parameters
    ----------
    conditioner : Conditioner
    unet_weights : dict of str to tensor
        Weights of the U-Net that were trained.
    scale : VoxelScale
        Scale of the training responses.

    Examples
    --------
    >>> from calcarine.diffusion import load_model
    >>> from calcarine.visdec import BrainConditioning
    >>> conditioning = BrainConditioning.load("finetuned")  # doctest: +SKIP
    >>> model = load_model("cin256-v2/model.ckpt")  # doctest: +SKIP
    >>> pictures = conditioning.generate(model, responses, [("img1", 0)])  # doctest: +SKIP
    """

    def __init__(
        self, conditioner: Conditioner, unet_weights: dict[str, torch.Tensor], scale: VoxelScale
    ) -> None:
        self.conditioner = conditioner
        self.unet_weights = unet_weights
        self.scale = scale
        self._batch_sizes = BatchSizes()

    def condition(
        self, responses: NDArray[Any], batch_size: int = 64
    ) -> dict[str, NDArray[np.float32]]:
        """Compute the conditions of responses.

        Parameters
        ----------
        responses : array of shape (n, n_voxels)
            Responses as measured. Each row gives what it would give alone.
        batch_size : int
            Number of responses per batch.

        Returns
        -------
        dict of str to float32 array
            ``context`` and, if the conditioner has them, ``time`` and ``latent``; see
            :class:`calcarine.visdec.conditioner.ConditionerOutput`.
        """
        import torch

        from calcarine.visdec.patches import patch_vectors

        device = self.conditioner.empty.device
        patch = self.conditioner.encoder.config.patch
        scaled = self.scale.apply(responses)

        def condition(rows: slice) -> dict[str, NDArray[np.float32]]:
            part = patch_vectors(scaled[rows], patch)
            with torch.inference_mode():
                output = self.conditioner(part.to(device))._asdict()
            return {k: v.float().cpu().numpy() for k, v in output.items() if v is not None}

        batches = [*self._batch_sizes.run(condition, len(responses), batch_size, "fMRI encoder")]
        return {name: np.concatenate([one[name] for one in batches]) for name in batches[0]}

    def generate(
        self,
        model: ConditionalDiffusion,
        responses: NDArray[Any],
        keys: Sequence[tuple[str, int]],
        *,
        strength: float = 1.0,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Generate pictures from responses.

        Parameters
        ----------
        model : ConditionalDiffusion
            The model that was fine-tuned; it is unchanged afterwards.
        responses : array of shape (n, n_voxels)
            Responses as measured.
        keys : sequence of n (stimulus id, sample index)
            Determine the noise of each picture.
        strength : float
            Below 1, sampling starts from the predicted latent, noised to this strength.
        **options
            See :meth:`calcarine.diffusion.ConditionalDiffusion.generate`.

        Returns
        -------
        float32 array of shape (n, height, width, 3)
            In [0, 1].

        Raises
        ------
        SettingError
            If ``strength`` is below 1 and no latent is predicted.
        """
        self.conditioner.to(model.device)
        conditions = self.condition(responses)
        time, start = conditions.get("time"), conditions.get("latent")
        if strength < 1 and start is None:
            raise SettingError(
                "Sampling below strength 1 starts from a predicted latent, and this conditioner "
                "predicts none; train it with finetune.loss.latent above 0, or set "
                "finetune.strength to 1."
            )
        batch_size = int(options.get("batch_size", 32))
        with restored_unet(model, tuple(self.unet_weights), time is not None):
            self._install(model)
            extra: dict[str, Any] = {}
            if time is not None and self.conditioner.empty_time is not None:
                extra["time_condition"] = time
                extra["empty_time_condition"] = self.conditioner.empty_time.cpu().numpy()
            latents = model.generate(
                conditions["context"],
                keys,
                start if strength < 1 else None,
                strength=strength,
                empty=self.conditioner.empty.cpu().numpy(),
                **extra,
                **options,
            )
        return model.decode(latents, batch_size, ids=[stimulus for stimulus, _ in keys])

    def _install(self, model: ConditionalDiffusion) -> None:
        parameters = dict(model.unet.named_parameters())
        for name, weight in self.unet_weights.items():
            if name not in parameters or parameters[name].shape != weight.shape:
                raise SettingError(
                    f"The trained weights do not fit the diffusion model {model.name} ({name}); "
                    "it is not the model they were trained with."
                )
            parameters[name].data.copy_(weight)

    def save(self, folder: str | Path) -> None:
        """Write weights and shape to a folder, as safetensors and JSON."""
        import json

        import torch
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        from calcarine.files import atomic_write, write_text

        folder = Path(folder)
        state = {f"conditioner.{k}": v for k, v in self.conditioner.state_dict().items()}
        state |= {f"unet.{k}": v for k, v in self.unet_weights.items()}
        state |= {f"voxels.{k}": torch.from_numpy(v) for k, v in vars(self.scale).items()}
        try:
            with atomic_write(folder / "conditioning.safetensors") as part:
                save_file({k: v.contiguous().cpu() for k, v in state.items()}, part)
        except SafetensorError as error:
            raise CalcarineError(
                f"{folder} cannot be written ({error}); free disk space and run the same command "
                "again."
            ) from error
        write_text(folder / "conditioning.json", json.dumps(self.conditioner.shape, indent=2))

    @classmethod
    def load(cls, folder: str | Path) -> BrainConditioning:
        """Read what :meth:`save` wrote.

        Raises
        ------
        DamagedFileError
            If a file is missing or damaged.
        """
        from safetensors.torch import load_file

        from calcarine.visdec.conditioner import Conditioner
        from calcarine.visdec.encoder_storage import keep_positions

        folder = Path(folder)
        try:
            shape = read_json(folder / "conditioning.json")
            state = load_file(folder / "conditioning.safetensors")
            conditioner = Conditioner.from_shape(shape)
            own = {
                k.removeprefix("conditioner."): v
                for k, v in state.items()
                if k.startswith("conditioner.")
            }
            if "encoder.positions" in own:  # other than the fixed sines
                keep_positions(conditioner.encoder, own["encoder.positions"])
            conditioner.load_state_dict(own)
            scale = VoxelScale(state["voxels.mean"].numpy(), state["voxels.scale"].numpy())
        except Exception as error:
            if out_of_memory(error):
                raise
            raise DamagedFileError(
                f"{folder} holds no trained conditioning, or a damaged one; train it again."
            ) from error
        unet = {k.removeprefix("unet."): v for k, v in state.items() if k.startswith("unet.")}
        return cls(conditioner.eval().requires_grad_(False), unet, scale)


@contextmanager
def restored_unet(model: ConditionalDiffusion, names: Sequence[str], timed: bool) -> Iterator[None]:
    """Restore the U-Net at the end of the context, whatever happens to the named parameters.

    Parameters
    ----------
    model : ConditionalDiffusion
    names : sequence of str
        Parameters of the U-Net that may change meanwhile.
    timed : bool
        Whether the U-Net accepts time conditions meanwhile.
    """
    from calcarine.diffusion.conditional import add_time_condition

    unet, device = model.unet, model.device
    parameters = dict(unet.named_parameters())
    kept = {name: parameters[name].detach().clone() for name in names if name in parameters}
    embedding = unet.class_embedding
    if timed:
        add_time_condition(unet)
    try:
        yield
    finally:
        unet.class_embedding = embedding
        unet.to(device)  # Lightning leaves what it trained on the CPU
        unet.eval().requires_grad_(False)
        for name, weight in kept.items():
            parameters[name].data.copy_(weight)
