"""How much memory this process may still take: the machine's, and that of its control group."""

from __future__ import annotations

from pathlib import Path

__all__ = ["available_bytes"]

# Of versions 2 and 1 of control groups: limit, use, and a key of memory.stat, the page cache in it.
_VERSIONS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_bytes(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can be taken without swapping, at the narrowest of all limits.

    Parameters
    ----------
    proc, groups : where the kernel tells
    """
    meminfo = dict(
        line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines() if ":" in line
    )
    free = int(meminfo["MemAvailable"].split()[0]) * 1024
    return min([free, *(_left(folder) for folder in _own_groups(proc, groups))])


def _own_groups(proc: Path, groups: Path) -> list[Path]:
    """Folders of the groups that this process is in, and of those above them."""
    found = [groups, groups / "memory"]
    path = proc / "self" / "cgroup"
    for line in path.read_text().splitlines() if path.is_file() else ():
        _, controllers, name = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            top = groups / "memory" if controllers else groups
            own = top / name.lstrip("/")
            found += [own, *(one for one in own.parents if one.is_relative_to(top))]
    return found


def _left(group: Path) -> int:
    """Bytes left in one group; without a limit very many."""
    left = 1 << 62
    for limit, use, cached in _VERSIONS:
        # A container may show the names of groups, but not their folders.
        if not ((group / limit).is_file() and (group / use).is_file()):
            continue
        text = (group / limit).read_text().strip()
        if text != "max":
            left = min(left, int(text) - int((group / use).read_text()) + _stat(group, cached))
    return left


def _stat(group: Path, key: str) -> int:
    path = group / "memory.stat"
    for line in path.read_text().splitlines() if path.is_file() else ():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0
