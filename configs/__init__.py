"""The shipped configurations, and the one loader that reads any of them strictly."""

__all__: list[str] = []
