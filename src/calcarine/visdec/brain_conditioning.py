"""Pictures under the condition of responses: what the third phase of Vis-Dec gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import CalcarineError, out_of_memory
from calcarine.files import read_json

if TYPE_CHECKING:
    import torch

    from calcarine.diffusion.conditional import ConditionalDiffusion
    from calcarine.visdec.conditioner import Conditioner

__all__ = ["BrainConditioning", "VoxelScale", "restored_unet"]


@dataclass(frozen=True)
class VoxelScale:
    """Mean and SD of each voxel, learned from training responses.

    Attributes
    ----------
    mean, scale : float32 array of shape (voxel,)
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def from_vectors(cls, vectors: NDArray[Any], together: bool = False) -> VoxelScale:
        """From vectors (n, voxel); voxels that do not vary are only centred.

        ``together``: one mean and SD of all values, as MinD-Vis and Vis-Dec scale.
        """
        axis = None if together else 0
        mean = np.broadcast_to(vectors.mean(axis, dtype=np.float64), vectors.shape[1:])
        spread = np.broadcast_to(vectors.std(axis, dtype=np.float64), vectors.shape[1:])
        flat = spread <= 1e-12 * np.maximum(np.abs(mean), 1e-30)
        scale = np.where(flat, 1.0, spread)
        return cls(mean.astype(np.float32), scale.astype(np.float32))

    def apply(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Vectors in SDs from the mean."""
        if vectors.shape[-1] != len(self.mean):
            raise CalcarineError(
                f"Responses have {vectors.shape[-1]} voxels, and the network was trained on "
                f"{len(self.mean)}; give those of the same region."
            )
        scaled: NDArray[np.float32] = ((vectors - self.mean) / self.scale).astype(np.float32)
        return scaled


class BrainConditioning:
    """What the third phase gives: pictures under the condition of responses.

    Parameters
    ----------
    conditioner : Conditioner
    listening : dict of str to tensor
        The U-Net's weights that were trained.
    scale : VoxelScale
        Of the responses it was trained on.
    """

    def __init__(
        self, conditioner: Conditioner, unet_weights: dict[str, torch.Tensor], scale: VoxelScale
    ) -> None:
        self.conditioner = conditioner
        self.unet_weights = unet_weights
        self.scale = scale

    def condition(
        self, responses: NDArray[Any], batch_size: int = 64
    ) -> dict[str, NDArray[np.float32]]:
        """What responses (n, voxel), as they are measured, tell the model.

        ``context`` and, where the conditioner has them, ``time`` and ``latent``; see
        :class:`calcarine.visdec.conditioner.Condition`. Each row gives what it would give alone.
        """
        import torch

        from calcarine.visdec.patches import patch_vectors

        device = self.conditioner.empty.device
        patch = self.conditioner.encoder.config.patch
        scaled, found = self.scale.apply(responses), []
        with torch.inference_mode():
            for begin in range(0, len(responses), batch_size):
                part = patch_vectors(scaled[begin : begin + batch_size], patch)
                told = self.conditioner(part.to(device))._asdict()
                found.append({k: v.float().cpu().numpy() for k, v in told.items() if v is not None})
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def generate(
        self,
        model: ConditionalDiffusion,
        responses: NDArray[Any],
        keys: Sequence[tuple[str, int]],
        *,
        strength: float = 1.0,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Pictures (n, height, width, 3) in [0, 1], one for each response and key.

        Parameters
        ----------
        strength
            Below 1: sampling begins from the told latent, noised to this strength.
        options
            Of :meth:`calcarine.diffusion.ConditionalDiffusion.generate`.
        """
        told = self.condition(responses)
        time, start = told.get("time"), told.get("latent")
        if strength < 1 and start is None:
            raise CalcarineError(
                "Sampling below strength 1 begins from a latent, and this conditioning tells none; "
                "train it with finetune.loss.latent above 0, or set finetune.strength to 1."
            )
        batch_size = int(options.get("batch_size", 32))
        with restored_unet(model, tuple(self.unet_weights), time is not None):
            self._install(model)
            extra: dict[str, Any] = {}
            if time is not None and self.conditioner.empty_time is not None:
                extra["time_condition"] = time
                extra["empty_time_condition"] = self.conditioner.empty_time.cpu().numpy()
            latents = model.generate(
                told["context"],
                keys,
                start if strength < 1 else None,
                strength=strength,
                empty=self.conditioner.empty.cpu().numpy(),
                **extra,
                **options,
            )
        return model.decode(latents, batch_size)

    def _install(self, model: ConditionalDiffusion) -> None:
        parameters = dict(model.unet.named_parameters())
        for name, weight in self.unet_weights.items():
            if name not in parameters or parameters[name].shape != weight.shape:
                raise CalcarineError(
                    f"The trained weights do not fit the diffusion model {model.name} ({name}); "
                    "it is not the model they were trained with."
                )
            parameters[name].data.copy_(weight)

    def save(self, folder: Path) -> None:
        """Write weights and shape as safetensors and JSON."""
        import json

        import torch
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        from calcarine.files import atomic_write, write_text

        state = {f"conditioner.{k}": v for k, v in self.conditioner.state_dict().items()}
        state |= {f"unet.{k}": v for k, v in self.unet_weights.items()}
        state |= {f"voxels.{k}": torch.from_numpy(v) for k, v in vars(self.scale).items()}
        try:
            with atomic_write(folder / "conditioning.safetensors") as aside:
                save_file({k: v.contiguous().cpu() for k, v in state.items()}, aside)
        except SafetensorError as error:
            raise CalcarineError(
                f"{folder} cannot be written ({error}); make room, and the same command continues."
            ) from error
        write_text(folder / "conditioning.json", json.dumps(self.conditioner.shape, indent=2))

    @classmethod
    def load(cls, folder: Path) -> BrainConditioning:
        """Read what :meth:`save` wrote."""
        from safetensors.torch import load_file

        from calcarine.visdec.conditioner import Conditioner
        from calcarine.visdec.encoder_storage import keep_positions

        try:
            shape = read_json(folder / "conditioning.json")
            state = load_file(folder / "conditioning.safetensors")
            conditioner = Conditioner.from_shape(shape)
            own = {
                k.removeprefix("conditioner."): v
                for k, v in state.items()
                if k.startswith("conditioner.")
            }
            if "encoder.positions" in own:  # that are not the fixed sines
                keep_positions(conditioner.encoder, own["encoder.positions"])
            conditioner.load_state_dict(own)
            scale = VoxelScale(state["voxels.mean"].numpy(), state["voxels.scale"].numpy())
        except Exception as error:
            if out_of_memory(error):
                raise
            raise CalcarineError(
                f"{folder} holds no trained conditioning, or a broken one; train it again."
            ) from error
        unet = {k.removeprefix("unet."): v for k, v in state.items() if k.startswith("unet.")}
        return cls(conditioner.eval().requires_grad_(False), unet, scale)


@contextmanager
def restored_unet(model: ConditionalDiffusion, names: Sequence[str], timed: bool) -> Iterator[None]:
    """Give the U-Net back as it was, whatever is done to the named parameters meanwhile."""
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
