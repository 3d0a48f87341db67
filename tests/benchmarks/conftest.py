"""The programs of benchmarks/ are no package: their directory is where they look for each other."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
