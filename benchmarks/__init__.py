"""Side-by-side measurements: contestants, runner, limits and report.

Question: how many training pairs a second does a machine make, at what cost in CPU time and
memory, beside the published way (zip in memory, OpenCV, float32 through worker processes) and
beside what the hardware allows? Method: `benchmarks.runner`. Command: ``python -m benchmarks
loaders``. Results: ``benchmarks/results``; ``python -m benchmarks report`` makes the README's table
from them.
"""

__all__: list[str] = []
