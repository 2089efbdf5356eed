"""``python -m tests.benchmarks [NAME ...]``: run the benchmarks, all of them by default.

``python -m tests.benchmarks gpu [OPTION ...]`` is the one for a machine with a GPU, and is run alone.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

# Its trainings start processes that import this file.
if __name__ == "__main__":
    if sys.argv[1:2] == ["gpu"]:
        from tests.benchmarks.gpu.command import main

        sys.exit(main(sys.argv[2:]))
    for name in sys.argv[1:] or sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py")):
        print(f"== {name}", flush=True)
        importlib.import_module(f"tests.benchmarks.{name}").main()
