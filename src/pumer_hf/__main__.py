"""`python -m pumer_hf` is the command `pumer-hf`."""

import sys

from pumer_hf_cli import main

if __name__ == "__main__":
    sys.argv[0] = "pumer-hf"  # messages and results then name the installed command
    sys.exit(main())
