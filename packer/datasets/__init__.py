"""One module a data set: raw files to sequences. The file name is the name on the command line."""

__all__ = ["lasot"]
