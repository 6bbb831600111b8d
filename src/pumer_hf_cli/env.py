"""`pumer-hf env`."""

import argparse

from .command import Command


class Env(Command):
    """`pumer-hf env`."""

    name = "env"
    summary = "print the versions and the hardware, for the report of a bug"
    example = "pumer-hf env > environment.md"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        pass

    def run(self, args: argparse.Namespace) -> None:
        import pumer_hf
        from pumer_hf.results.bug_report import facts

        for name, value in facts(pumer_hf.__version__):
            print(f"- {name}: {value}")
