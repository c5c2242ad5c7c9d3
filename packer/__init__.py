"""Raw tracking data sets to verified shards: ``python -m packer lasot``."""

__all__: list[str] = []
