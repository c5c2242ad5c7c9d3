"""Every error that siamstream raises on purpose.

::

    configs.strict.ConfigError a config file, an override or an option has a wrong value
    SiamstreamError            any other known failure
    ├── DataError              raw data are missing or malformed
    ├── FormatError            a shard, index or manifest is not what FORMAT.md says
    │   └── VersionError       it is of another format version
    ├── MismatchError          an output folder belongs to another data set or other options
    ├── StorageError           bytes could not be read or written
    │   └── MissingBytes       a file is absent or too short: asking again will not help
    ├── BadSample              one encoded picture is damaged: names shard, key, offset and reason
    └── TooManyBadSamples      more pairs had to be replaced than ``data.max_bad_fraction`` allows

`KNOWN_ERRORS` holds both roots: a command prints them in one or two lines and exits 1; any other
exception is a bug and keeps its traceback. A message says what failed, where, what was expected and
found, and what to try.
"""

from __future__ import annotations

from configs.strict import ConfigError

__all__ = [
    "KNOWN_ERRORS",
    "BadSample",
    "ConfigError",
    "DataError",
    "FormatError",
    "MismatchError",
    "MissingBytes",
    "SiamstreamError",
    "StorageError",
    "TooManyBadSamples",
    "VersionError",
    "one_line",
]


class SiamstreamError(Exception):
    """Base of all known failures."""


class DataError(SiamstreamError):
    """Raw data are missing or malformed."""


class FormatError(SiamstreamError):
    """A shard, an index or a manifest is not what the format says."""


class VersionError(FormatError):
    """A file is of a format version that this release does not read."""


class MismatchError(SiamstreamError):
    """An output folder holds another data set, or the same with other options."""


class StorageError(SiamstreamError):
    """Bytes could not be read or written."""


class MissingBytes(StorageError):
    """A file is absent, or shorter than was asked of it: asking again will not help.

    Parameters
    ----------
    message : with the file's name
    reason : the same without it, for those who name the file already
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class TooManyBadSamples(SiamstreamError):
    """More pairs had to be replaced than the budget allows."""


KNOWN_ERRORS = (SiamstreamError, ConfigError)


class BadSample(SiamstreamError):
    """One encoded picture is damaged.

    Parameters
    ----------
    shard : file that holds the picture
    key : sample key, ``<sequence>/<track>_<frame:08d>``
    offset : byte offset of the picture in the shard
    reason : what is wrong with it

    Attributes
    ----------
    pair : position in the batch of the pair that needed it, -1 if no batch did
    stored : the bytes themselves are wrong, whoever decodes them
    """

    def __init__(self, shard: str, key: str, offset: int, reason: str) -> None:
        super().__init__(
            f"{shard}: {key} at byte {offset}: {reason}; "
            f"run 'python -m shards verify' on its folder to find every damaged sample"
        )
        self.shard, self.key, self.offset, self.reason = shard, key, offset, reason
        self.pair, self.stored = -1, False

    def __reduce__(self) -> tuple[type[BadSample], tuple[str, str, int, str]]:
        """Make the error survive the way from a worker process."""
        return BadSample, (self.shard, self.key, self.offset, self.reason)


def one_line(error: BaseException) -> str:
    """Text of an error for a terminal: its message on one line, its type where it has none."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
