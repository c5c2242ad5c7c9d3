"""Entry of ``python -m benchmarks``."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["gpu"]:  # on a bare machine the import below would fail, a name at a time
        from benchmarks.gpu_preflight import refuse_incomplete

        refuse_incomplete()
    from benchmarks.cli import main

    main(prog_name="python -m benchmarks")
