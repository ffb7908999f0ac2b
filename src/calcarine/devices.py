"""Where networks compute and how precisely, and batches that fit into a GPU's memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from calcarine.errors import SettingError, out_of_memory

if TYPE_CHECKING:
    import torch

__all__ = [
    "BatchSizes",
    "Compute",
    "OnCPUWarning",
    "SmallerBatchWarning",
    "on_cpu_if_full",
    "resolve_device",
    "resolve_precision",
    "tf32_products",
]

_PRECISIONS = ("float32", "float16", "bfloat16")
# Compute capability from which CUDA GPUs are fast in a half precision.
_FAST_FLOAT16, _FAST_BFLOAT16 = 7, 8

_T = TypeVar("_T")


@dataclass(frozen=True)
class Compute:
    """Where networks compute, and how precisely.

    Parameters
    ----------
    device : torch.device
        Device of all networks.
    dtype : torch.dtype
        Precision of the diffusion model.
    tf32 : bool
        Whether products in float32 may be rounded to TF32 on a CUDA GPU.

    Examples
    --------
    >>> print(Compute.resolve("cpu"))
    float32 on cpu
    """

    device: torch.device
    dtype: torch.dtype
    tf32: bool = False

    @classmethod
    def resolve(
        cls,
        device: str | torch.device | None = "auto",
        precision: str | torch.dtype | None = "auto",
        tf32: bool = False,
    ) -> Compute:
        """Decide what is left open; see `resolve_device` and `resolve_precision`."""
        chosen = resolve_device(device)
        return cls(chosen, resolve_precision(precision, chosen), tf32)

    @property
    def precision(self) -> str:
        """Name of the precision: float32, float16 or bfloat16."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def device_name(self) -> str:
        """The device and, of a CUDA GPU, its model."""
        if self.device.type != "cuda":
            return str(self.device)
        import torch

        return f"{self.device} ({torch.cuda.get_device_name(self.device)})"

    def __str__(self) -> str:
        products = " (products in TF32)" if self.tf32 and self.device.type == "cuda" else ""
        return f"{self.precision}{products} on {self.device_name}"


def resolve_device(device: str | torch.device | None = "auto") -> torch.device:
    """Return a device that exists on this machine.

    Parameters
    ----------
    device : str, torch.device or None
        ``"auto"`` or None: CUDA if available, else MPS (the GPU of an Apple computer), else the
        CPU. Otherwise ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or another device of PyTorch.

    Returns
    -------
    torch.device

    Raises
    ------
    SettingError
        If this machine does not have the device.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    import torch

    if device is None or str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise SettingError(
            f"There is no device '{device}'; choose auto, cpu, cuda, cuda:N or mps."
        ) from error
    if chosen.type == "cuda":
        _check_cuda(chosen)
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise SettingError(
            "The device is mps, the GPU of an Apple computer, and PyTorch finds none here; choose "
            "auto, cpu or cuda."
        )
    return chosen


def _check_cuda(device: torch.device) -> None:
    import torch

    if not torch.cuda.is_available():
        raise SettingError(
            f"The device is {device}, and PyTorch finds no CUDA GPU on this machine; choose auto "
            "or cpu, or check the driver and that PyTorch was built for CUDA."
        )
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        known = " or ".join(f"cuda:{index}" for index in range(count))
        raise SettingError(
            f"The device is {device}, and PyTorch finds {count} CUDA GPU{'s' * (count > 1)} on "
            f"this machine; choose {known}."
        )


def resolve_precision(precision: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """Return the precision in which a diffusion model computes on a device.

    Parameters
    ----------
    precision : {"auto", "float32", "float16", "bfloat16"}, torch.dtype or None
        ``"auto"`` or None: on a CUDA GPU bfloat16 if it computes in it (compute capability 8 or
        higher), else float16 if it is fast in it (7 or higher); float16 on MPS; float32 on others.
    device : torch.device
        A device that exists; see `resolve_device`.

    Returns
    -------
    torch.dtype

    Raises
    ------
    SettingError
        If there is no such precision, or the device does not have it.

    Examples
    --------
    >>> import torch
    >>> resolve_precision("auto", torch.device("cpu"))
    torch.float32
    """
    import torch

    if precision is None or precision == "auto":
        return _fast_precision(device)
    name = str(precision).removeprefix("torch.")
    if name not in _PRECISIONS:
        raise SettingError(
            f"There is no precision '{name}'; choose auto, {', '.join(_PRECISIONS[:-1])} or "
            f"{_PRECISIONS[-1]}."
        )
    dtype: torch.dtype = getattr(torch, name)
    if dtype == torch.float16 and device.type == "cpu":
        raise SettingError(
            "The precision float16 needs a GPU, and the device is cpu; choose float32 or bfloat16, "
            "or another device."
        )
    if dtype == torch.bfloat16 and device.type == "mps":
        try:
            torch.empty(1, dtype=dtype, device=device)
        except (TypeError, RuntimeError) as error:
            raise SettingError(
                "The precision bfloat16 needs macOS 14 or newer on this GPU; choose float16 or "
                "float32."
            ) from error
    return dtype


def _fast_precision(device: torch.device) -> torch.dtype:
    import torch

    if device.type == "mps":
        return torch.float16
    if device.type != "cuda":
        return torch.float32
    major, _ = torch.cuda.get_device_capability(device)
    if major >= _FAST_BFLOAT16 or torch.version.hip is not None:
        return torch.bfloat16
    return torch.float16 if major >= _FAST_FLOAT16 else torch.float32


@contextmanager
def tf32_products(allowed: bool) -> Iterator[None]:
    """Allow TF32 in products and convolutions of float32 on CUDA, or forbid it, for a while.

    TF32 has the range of float32 and the 10 bits of float16, and is several times as fast. PyTorch
    itself forbids it in products and allows it in convolutions.

    Parameters
    ----------
    allowed : bool
        For both; the state from before is restored at the end.
    """
    import torch

    products: Any = torch.backends.cuda.matmul
    convolutions: Any = torch.backends.cudnn
    before = _allows(products), _allows(convolutions, "conv")
    try:
        products.allow_tf32 = convolutions.allow_tf32 = allowed
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def _allows(place: Any, part: str | None = None) -> bool:
    try:
        return bool(place.allow_tf32)
    except RuntimeError:  # set by fp32_precision, PyTorch's newer name for it
        newer = getattr(place, part) if part else place
        return bool(newer.fp32_precision == "tf32")


class OnCPUWarning(UserWarning):
    """The memory of a GPU was too small for a regression, so the CPU fits it."""


def on_cpu_if_full(fit: Callable[[str], _T], device: str) -> _T:
    """Fit on a device, or on the CPU where the memory of the GPU is too small.

    Parameters
    ----------
    fit : callable
        Receives the name of a device, and can be called again.
    device : str

    Returns
    -------
    object
        What ``fit`` returns.
    """
    try:
        return fit(device)
    except Exception as error:
        if device == "cpu" or out_of_memory(error) != "GPU":
            raise
    # After the handler, because the error keeps the tensors of the fit in memory.
    _release_memory()
    warnings.warn(
        "The memory of the GPU is too small for a ridge regression, which is fitted on the CPU.",
        OnCPUWarning,
        stacklevel=3,
    )
    return fit("cpu")


class SmallerBatchWarning(UserWarning):
    """The memory of a GPU was too small for a batch, so batches are smaller."""


class BatchSizes:
    """Batch sizes that fit into the memory of a GPU.

    Each network, or group of networks that are used together, has one such object. Work of one
    kind whose batch did not fit is continued with batches of half the size, and later work of that
    kind begins with the size that fitted.
    """

    def __init__(self) -> None:
        self._largest: dict[tuple[str, Hashable], int] = {}
        self._said: set[str] = set()

    def run(
        self,
        work: Callable[[slice], _T],
        count: int,
        size: int,
        what: str,
        shape: Hashable = (),
    ) -> Iterator[_T]:
        """Do work in batches of rows, smaller ones where the memory of the GPU is too small.

        Parameters
        ----------
        work : callable
            Receives the rows of a batch as a slice, and returns its result. It is called again
            with fewer rows if memory runs out, so it must not have changed anything by then.
        count : int
            Number of rows.
        size : int
            Largest number of rows in a batch.
        what : str
            Kind of work in one or two words, for the warning.
        shape : hashable
            What the memory of one row depends on, for example the size of pictures.

        Yields
        ------
        object
            What ``work`` returned for each batch, in the order of the rows.

        Raises
        ------
        SettingError
            If ``size`` is below 1.
        RuntimeError
            That of PyTorch, if memory runs out for a single row, or other memory than that of a
            GPU.
        """
        if size < 1:
            raise SettingError(f"batch_size is {size}; it must be 1 or more.")
        start = 0
        while start < count:
            size = min(size, self._largest.get((what, shape), size))
            rows = slice(start, min(start + size, count))
            done = _attempt(work, rows)
            if done is None:
                self._halve(what, shape, rows.stop - rows.start)
                _release_memory()
                continue
            yield done[0]
            start = rows.stop

    def _halve(self, what: str, shape: Hashable, failed: int) -> None:
        self._largest[what, shape] = failed // 2
        if what not in self._said:
            self._said.add(what)
            warnings.warn(
                f"The memory of the GPU is too small for {failed} items at once ({what}); smaller "
                "batches are used, which changes no result.",
                SmallerBatchWarning,
                stacklevel=3,
            )


def _attempt(work: Callable[[slice], _T], rows: slice) -> tuple[_T] | None:
    """Return the result for some rows, or None where they are too many for the GPU's memory."""
    try:
        return (work(rows),)
    except Exception as error:
        if rows.stop - rows.start == 1 or out_of_memory(error) != "GPU":
            raise
    # After the handler, because the error keeps the tensors of the failed batch in memory.
    return None


def _release_memory() -> None:
    """Give memory that PyTorch holds for later use back to the GPU."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
