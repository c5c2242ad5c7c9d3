"""`import train` must find the program, not this folder of its tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.append(str(Path(__file__).parents[1] / "tracker"))  # small data sets to evaluate on
