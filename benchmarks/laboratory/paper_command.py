"""The command line of `benchmarks/paper.py`."""

import argparse
from collections.abc import Sequence

from pumer_hf.results import check_results_file
from pumer_hf_cli.bench import add_measuring_arguments, check_measuring, measuring_options

from .paper import TABLES
from .paper_tables import run_table


def paper_command(description: str, arguments: Sequence[str] | None = None) -> None:
    """Run the script `benchmarks/paper.py`.

    Args:
        description: the text of `--help`.
        arguments: the command line; default: `sys.argv[1:]`.
    """
    parser = build_parser(description)
    args = parser.parse_args(arguments)
    try:
        check_measuring(args)
        check_results_file(args.output)
        lines, report = run_table(args.table, measuring_options(args))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(*lines, report.finish(args.output), sep="\n")


def build_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser, which takes the number of a table and the flags that say how to measure."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=int, choices=TABLES, metavar="N", help="a table of the paper: 1, 2, 4 or 7")
    add_measuring_arguments(parser)
    return parser
