"""`python -m pumer_hf` is the command `pumer-hf`."""

import sys

from pumer_hf_cli import main

if __name__ == "__main__":
    sys.argv[0] = "pumer-hf"  # which messages and results say, as for the installed command
    sys.exit(main())
