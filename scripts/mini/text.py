"""Tokenizer and text encoder."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from calcarine.stimuli import scenes
from mini import pool
from mini.networks import LENGTH, WIDTH, new_text_encoder
from mini.options import draw, piece, scene_table
from mini.training import train


def new_tokenizer(options: argparse.Namespace) -> Any:
    """A CLIP tokenizer whose merges build every caption word into one token."""
    from transformers import CLIPTokenizer

    folder = options.work / "tokenizer"
    if not (folder / "vocab.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        words: set[str] = set()
        for row in scene_table(options):
            for caption in row["captions"]:
                words.update(caption.split())
        for number in range(10):
            for caption in pool.digit_captions(number):
                words.update(caption.split())
        tokens = ["<|startoftext|>", "<|endoftext|>"]
        letters = "abcdefghijklmnopqrstuvwxyz"
        tokens += list(letters) + [letter + "</w>" for letter in letters]
        merges: list[tuple[str, str]] = []
        for word in sorted(words):
            parts = [*word[:-1], word[-1] + "</w>"]
            while len(parts) > 1:  # built from the end: no word's merges disturb another's start
                pair = (parts[-2], parts[-1])
                if pair not in merges:
                    merges.append(pair)
                parts[-2:] = ["".join(pair)]
                if parts[-1] not in tokens:
                    tokens.append(parts[-1])
        (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        model_max_length=LENGTH,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )


def tokenize(tokenizer: Any, texts: list[str]) -> torch.Tensor:
    return tokenizer(
        texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids


def text_targets(table: list) -> tuple[np.ndarray, list[str]]:
    names = list(scenes.KINDS) + list(scenes.BACKGROUNDS) + [f"digit {n}" for n in pool.NUMBERS]
    pairs = sorted({f"{k} {c}" for row in table[:5000] for k, c in row["colors"]})
    index = {name: i for i, name in enumerate(names + pairs)}
    targets = np.zeros((len(table), len(index)), np.float32)
    for target, row in zip(targets, table, strict=True):
        for name in [*row["kinds"], row["background"], *(f"{k} {c}" for k, c in row["colors"])]:
            if name in index:
                target[index[name]] = 1
    return targets, names + pairs


def train_text(options: argparse.Namespace) -> None:
    """The text encoder learns what its captions say before the denoiser listens to it."""
    table, tokenizer = scene_table(options), new_tokenizer(options)
    scene_targets, names = text_targets(table)
    digit_targets = np.zeros((10, len(names)), np.float32)
    for number in range(10):
        digit_targets[number, names.index(f"digit {pool.NUMBERS[number]}")] = 1
    targets = torch.from_numpy(np.concatenate([scene_targets, digit_targets])).to(options.device)
    ids = torch.cat([caption_ids(options, tokenizer, table), digit_ids(tokenizer)])
    ids = ids.to(options.device)
    module = nn.ModuleDict(
        {"encoder": new_text_encoder(len(tokenizer)), "head": nn.Linear(WIDTH, len(names))}
    )

    def loss_of(step: int, generator: torch.Generator) -> torch.Tensor:
        rows = draw(generator, len(table), 112), len(table) + draw(generator, 10, 16)
        rows, which = torch.cat(rows), draw(generator, 5, 128)
        states = module["encoder"](ids[rows, which].long()).last_hidden_state
        # States after the end of the caption have seen all of it; several of them are asked, so
        # that the mean over captions of different length still carries the content.
        logits = module["head"](states[:, -6:])
        y = targets[rows][:, None].expand_as(logits)
        return F.binary_cross_entropy_with_logits(logits, y) * 20

    train("text", options.work, module, loss_of, piece(options, "text"), 0.01)


def digit_ids(tokenizer: Any) -> torch.Tensor:
    """Captions of the digits as token ids, shape (10, 5, tokens)."""
    texts = [caption for number in range(10) for caption in pool.digit_captions(number)]
    return tokenize(tokenizer, texts).reshape(10, 5, LENGTH).to(torch.int16)


def caption_ids(options: argparse.Namespace, tokenizer: Any, table: list) -> torch.Tensor:
    """Captions of the scenes as token ids, shape (n, 5, tokens)."""
    file = options.work / f"captions-{len(table)}.npy"
    if not file.exists():
        texts = [caption for row in table for caption in row["captions"]]
        ids = torch.cat(
            [tokenize(tokenizer, texts[i : i + 10000]) for i in range(0, len(texts), 10000)]
        )
        np.save(file, ids.reshape(len(table), 5, LENGTH).to(torch.int16).numpy())
    return torch.from_numpy(np.load(file))
