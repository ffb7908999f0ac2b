"""The tokenizer of CLIP, from a folder or from the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calcarine.errors import DamagedFileError, MissingFileError

__all__ = ["HUB_NAME", "check_tokenizer", "check_words", "find_tokenizer"]

HUB_NAME = "openai/clip-vit-large-patch14"
_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def find_tokenizer(folder: str | Path | None = None) -> list[Path]:
    """Return the files of a CLIP tokenizer.

    Parameters
    ----------
    folder : str or Path, optional
        Folder of the tokenizer; by default the hub's cache, then the hub.

    Raises
    ------
    MissingFileError
        If files are missing, or there is neither cache nor network.
    """
    if folder is not None:
        if not _is_whole(Path(folder)):
            raise MissingFileError(
                f"The tokenizer folder {folder} has no vocab.json and merges.txt; give the folder "
                "'tokenizer' of a Stable Diffusion v1 model."
            )
        return _present(Path(folder))
    try:
        return _present(_from_hub())
    except Exception as error:
        raise MissingFileError(
            f"The tokenizer {HUB_NAME} is neither in the hub's cache nor could it be downloaded "
            f"({type(error).__name__}); give a folder with its vocab.json and merges.txt as "
            "tokenizer (generation.tokenizer)."
        ) from error


def check_tokenizer(folder: Path) -> None:
    """Raise unless the folder ``tokenizer`` of a model holds a vocabulary.

    transformers reads a folder without one, and then gives every word the same token.
    """
    if not _is_whole(folder):
        raise DamagedFileError(
            f"{folder} holds no vocabulary (vocab.json with merges.txt, or tokenizer.json), so all "
            "texts would be the same; copy the complete model again."
        )


def check_words(tokenizer: Any, text_encoder: Any, place: Path) -> None:
    """Raise unless a tokenizer knows words, and no more than its text encoder."""
    known = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    if len(known) < 2:
        raise DamagedFileError(
            f"The vocabulary of {place / 'tokenizer'} is empty, so all texts would be the same; "
            "copy the complete model again."
        )
    most = int(text_encoder.config.vocab_size)
    if len(tokenizer) > most:
        raise DamagedFileError(
            f"The tokenizer in {place} has {len(tokenizer)} words, its text encoder {most}: these "
            "parts are not of one model."
        )
    if not _numbers_words(tokenizer, most):
        raise DamagedFileError(
            f"The tokenizer in {place / 'tokenizer'} cannot give texts of different lengths the "
            f"numbers 0 to {most - 1} of its text encoder; copy the complete model again."
        )


def _numbers_words(tokenizer: Any, most: int) -> bool:
    """Return whether texts become numbers below ``most``, padded to one length."""
    try:
        longest = min(8, int(tokenizer.model_max_length))
        ids = tokenizer(
            ["a", "a b c d"],
            padding="max_length",
            max_length=longest,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        numbers = [*tokenizer.get_vocab().values(), *ids.flatten().tolist()]
        return (
            longest > 2 and ids.shape == (2, longest) and 0 <= min(numbers) <= max(numbers) < most
        )
    except MemoryError:
        raise  # says nothing about the tokenizer
    except Exception:  # transformers raises many kinds of errors for wrong settings
        return False


def _is_whole(folder: Path) -> bool:
    pair = all((folder / name).is_file() for name in _FILES[:2])
    return pair or (folder / "tokenizer.json").is_file()


def _present(folder: Path) -> list[Path]:
    return [folder / name for name in _FILES if (folder / name).is_file()]


def _from_hub() -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        cached = Path(
            snapshot_download(HUB_NAME, allow_patterns=list(_FILES), local_files_only=True)
        )
    except LocalEntryNotFoundError:
        cached = None
    if cached is not None and _is_whole(cached):
        return cached
    return Path(snapshot_download(HUB_NAME, allow_patterns=list(_FILES)))
