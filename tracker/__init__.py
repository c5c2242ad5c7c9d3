"""Siamese trackers: SPM, its parts, and its training step."""

__all__: list[str] = []
