"""Entry of ``python -m shards``."""

from shards.cli import main

if __name__ == "__main__":
    main(prog_name="python -m shards")
