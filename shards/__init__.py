"""Crops in WebDataset tar shards: format, geometry, storage, index and verification."""

__all__: list[str] = []
