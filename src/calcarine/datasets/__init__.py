"""Readers of data sets: one module or package for each, and a registry that you can add to."""

from calcarine.datasets.registry import (
    check_dataset,
    dataset_info,
    find_reader,
    list_assets,
    list_datasets,
    load_dataset,
    prepare_dataset,
    recognise_datasets,
    register_dataset,
    write_fake_dataset,
)

__all__ = [
    "check_dataset",
    "dataset_info",
    "find_reader",
    "list_assets",
    "list_datasets",
    "load_dataset",
    "prepare_dataset",
    "recognise_datasets",
    "register_dataset",
    "write_fake_dataset",
]
