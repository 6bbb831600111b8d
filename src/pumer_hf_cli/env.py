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
        from pumer_hf.results import Environment

        facts = Environment.current().to_dict()
        for name, value in {**facts["versions"], **facts["machine"]}.items():
            print(f"- {name.replace('_', ' ')}: {value}")
