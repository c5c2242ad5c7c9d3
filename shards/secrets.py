"""What users give may hold passwords; what is recorded of it must not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["hidden", "without_user"]

_USER = re.compile(r"(?<=://)[^/?#\s]*@")
_PIPE = re.compile(r"\bpipe:.+", re.DOTALL)


def without_user(text: str) -> str:
    """Text whose URLs name no user and no password."""
    return _USER.sub("", text)


def hidden(value: Any) -> Any:
    """Copy of a value for records.

    Parameters
    ----------
    value : a text, or mappings and lists of such; others are left as they are

    Returns
    -------
    The same with URLs without users and passwords, and ``pipe:(hidden)`` for a shell command, whose
    headers may well hold a key
    """
    if isinstance(value, str):
        return _PIPE.sub("pipe:(hidden)", without_user(value))
    if isinstance(value, Mapping):
        return {key: hidden(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [hidden(one) for one in value]
    return value
