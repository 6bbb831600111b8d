"""The command `pumer-hf` for Python code: `main(["bench", "my-model"])`. Its code is in the package `pumer_hf_cli`."""

import sys

from pumer_hf_cli import COMMANDS, build_parser, main

__all__ = ["COMMANDS", "build_parser", "main"]

if __name__ == "__main__":
    sys.argv[0] = "pumer-hf"  # as in __main__.py
    sys.exit(main())
