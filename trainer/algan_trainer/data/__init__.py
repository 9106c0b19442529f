"""Folders of images → samples with a split, and samples → the networks' input. No torch here.

`read_dataset` lists and splits, `examine` decodes everything once, `load_inputs` makes the networks' input.
There is one file for each layout: `folder`, `mvtec`, `visa`, `mtd`, `coil`, `manifest`.
"""

from algan_trainer.data.dataset import GOOD, SPLITS, Dataset, Sample
from algan_trainer.data.layouts import LAYOUTS, Layout, SplitBy, layout_of
from algan_trainer.data.loading import data_hash, examine, file_hashes, load_inputs
from algan_trainer.data.manifest import is_manifest
from algan_trainer.data.masks import read_mask
from algan_trainer.data.reading import data_root, list_labelled, read_dataset

__all__ = [
    "GOOD",
    "LAYOUTS",
    "SPLITS",
    "Dataset",
    "Layout",
    "Sample",
    "SplitBy",
    "data_hash",
    "data_root",
    "examine",
    "file_hashes",
    "is_manifest",
    "layout_of",
    "list_labelled",
    "load_inputs",
    "read_dataset",
    "read_mask",
]
