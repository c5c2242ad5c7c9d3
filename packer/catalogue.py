"""Which data sets there are: one module of `packer.datasets` each, named like its command."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import cast

import packer.datasets
from packer.sequence import DataSet

__all__ = ["default", "names", "plain"]


def names() -> tuple[str, ...]:
    """Names of all data sets, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(packer.datasets.__path__)))


def plain(name: str) -> DataSet | None:
    """Return a module that is a data set by itself, without options of its own; else None."""
    module = importlib.import_module(f"packer.datasets.{name}")
    return cast(DataSet, module) if hasattr(module, "survey") else None


def default(name: str, root: Path) -> tuple[DataSet, Path]:
    """Return a data set with its default options, and the tree to pack.

    Parameters
    ----------
    name : one of `names`
    root : folder of the data set

    Raises
    ------
    DataError : if the parts of a data set are not there
    """
    match name:
        case "coco":
            from packer.datasets import coco

            found = coco.locate(root)
            return found, found.images
        case "got10k":
            from packer.datasets.got10k import Got10k

            return Got10k(), root
        case "trackingnet":
            from packer.datasets.trackingnet import TrackingNet

            return TrackingNet(), root
    alone = plain(name)
    if alone is None:
        raise LookupError(f"packer.datasets.{name} has no survey and is not known here")
    return alone, root
