"""Notes on weights of a published file that are not used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["DECODER", "beginnings", "unused_notes"]

# What MinD-Vis and Vis-Dec store besides, by the start of the names. First what an autoencoder has,
# whose names may follow a prefix; then what a fine-tuned model has.
_BESIDE_ENCODER = {
    r"cross_(blocks|map_in|map_out)\.": "the cross-attention with pictures",
    r"nature_img_": "the decoder of picture features",
    r"(conv_up|linear_up|fmri_up)\.": "the distillation",
}
DECODER = r"(mask_token|decoder_pos_embed)$|decoder_(embed|blocks|norm|pred)\."
_IN_FINETUNED = {
    r"cond_stage_model\.(channel_mapper|dim_mapper)\.": "the conditioner",
    r"model\.diffusion_model\.|model_ema\.": "the diffusion model",
    r"first_stage_model\.": "the image autoencoder",
    r"(betas|(sqrt_|log_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?|posterior_\w+|logvar|"
    r"lvlb_weights)$": "the noise schedule",
}

_MOST_GROUPS = 8
"""Groups of names in one sentence."""


def unused_notes(
    names: Iterable[str], total: int, path: Path, prefix: str, left_out: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """Describe weights of a file that are not used.

    Parameters
    ----------
    names : iterable of str
        Names of the unused weights.
    total : int
        Number of weights of the file.
    path : Path
        The file.
    prefix : str
        Start of the encoder's names.
    left_out : mapping of str to str
        Further parts that are left out intentionally, by a pattern of their names.

    Returns
    -------
    known, unknown : str or None
        A sentence about parts that published files have and that are left out intentionally, and
        one about weights that belong to none of these parts; None if there are no such weights.
    """
    beside = {re.escape(prefix) + own: part for own, part in _BESIDE_ENCODER.items()}
    patterns = {**left_out, **beside, **_IN_FINETUNED}
    parts = {
        name: next((part for each, part in patterns.items() if re.match(each, name)), None)
        for name in sorted(names)
    }
    known = [part for part in parts.values() if part is not None]
    strange = {name for name, part in parts.items() if part is None}
    first = second = None
    if known:
        first = (
            f"Of the {total} weights of {path}, {len(known)} are not needed: those of "
            f"{_listed(list(dict.fromkeys(known)))}."
        )
    if strange:
        groups = [f"{start} ({n})" for start, n in beginnings(strange).items()]
        if len(groups) > _MOST_GROUPS:
            groups[_MOST_GROUPS - 1 :] = [f"{len(groups) - _MOST_GROUPS + 1} other groups"]
        second = (
            f"Of the {total} weights of {path}, {len(strange)} have unknown names and are not "
            f"used: {', '.join(groups)}."
        )
    return first, second


def beginnings(names: Iterable[str]) -> dict[str, int]:
    """Count names by their start: the first two words, or the words before a number."""
    counts: Counter[str] = Counter()
    for name in names:
        words = name.split(".")
        number = next((place for place, word in enumerate(words) if word.isdigit()), len(words))
        counts[".".join(words[: max(1, min(2, number, len(words) - 1))])] += 1
    return dict(sorted(counts.items()))


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
