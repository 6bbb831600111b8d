"""The environment of a measurement: versions, the machine, and the command with its arguments."""

import os
import platform
import re
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("pumer-hf", "torch", "transformers", "accelerate", "datasets", "deepspeed")
TOKEN_FLAG = re.compile(r"--((push[_-]to[_-])?hub[_-])?token")
"""Flags whose value is a token of the Hub."""
HIDDEN = "..."
ENVIRONMENT_FIELDS = ("versions", "machine", "command", "argv")
"""The fields of a file that hold an [`Environment`]."""


@dataclass(frozen=True)
class Command:
    """A command line as data. As text, it can be pasted into a shell."""

    program: str
    """The file of the program, without its folder."""
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return shlex.join([self.program, *self.arguments])

    @property
    def flags(self) -> list[str]:
        """The arguments from the first flag on."""
        return flags_of(self.arguments)

    def without(self, flags: Collection[str]) -> "Command":
        """Return the same command without some flags, such as `"--resume"`, and without their values."""
        kept: list[str] = []
        is_kept = True
        for word in self.arguments:
            if word.startswith("--"):
                is_kept = word.partition("=")[0] not in flags
            if is_kept:
                kept.append(word)
        return replace(self, arguments=tuple(kept))

    @classmethod
    def current(cls) -> "Command":
        """Return the command of this process, without tokens of the Hub."""
        program, *arguments = sys.argv
        is_module = Path(program).parts[-2:] == ("pumer_hf", "__main__.py")  # `python -m pumer_hf`
        return cls("pumer-hf" if is_module else Path(program).name, tuple(without_tokens(arguments)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Command | None":
        """Read the command from the values of a file; return None if there is none.

        Raises:
            ValueError: it is no text with a program, or its words are no list of them.
        """
        if "command" not in values:
            return None
        line, words = values["command"], values.get("argv")
        if "argv" in values:
            if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
                raise ValueError(f"argv={words!r}: must be a list of texts, the program first")
        elif not isinstance(line, str) or not line.strip():
            raise ValueError(f"command={line!r}: must be a command line")
        else:
            words = words_of_old_command(line)
        program, *arguments = words
        return cls(program, tuple(arguments))

    def to_dict(self) -> dict[str, Any]:
        """Return what a file holds: `command` is the line for people, `argv` has its words."""
        return {"command": str(self), "argv": [self.program, *self.arguments]}


def flags_of(arguments: Sequence[str]) -> list[str]:
    """Return the words of a command line, starting at the first that begins with `--`."""
    first = next((place for place, word in enumerate(arguments) if word.startswith("--")), len(arguments))
    return list(arguments[first:])


def without_tokens(words: Sequence[str]) -> list[str]:
    """Return the words of a command line with `...` in the place of each token of the Hub."""
    shown: list[str] = []
    for word in words:
        flag, equals, _ = word.partition("=")
        if shown and TOKEN_FLAG.fullmatch(shown[-1]):
            shown.append(HIDDEN)
        else:
            shown.append(f"{flag}={HIDDEN}" if equals and TOKEN_FLAG.fullmatch(flag) else word)
    return shown


def words_of_old_command(line: str) -> list[str]:
    """Return the words of a command line from a file that was written before files had `argv`.

    Such a line was joined by spaces, without quotes. So this is a guess: text after a flag that begins with `{` is one
    word. No other function splits a printed command.
    """
    first, *rest = re.split(r"\s(?=--[a-z])", line)
    words = first.split()
    for part in rest:
        name, _, value = part.partition(" ")
        words += [name, *([value] if value.startswith("{") else value.split())]
    return words


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The hardware of a measurement. A field is None if it is unknown, or if the machine has no such part."""

    processor: str
    cores: int | None = None
    torch_threads: int
    system: str | None = None
    gpu: str | None = None
    gpu_memory_gib: float | None = None
    cuda: str | None = None
    processes: int | None = None
    """The number of processes, if there were several."""

    @property
    def name(self) -> str:
        """The name of the GPU; without a GPU, the processor and its threads."""
        return self.gpu or f"{self.processor}, {self.torch_threads} threads"

    @classmethod
    def current(cls) -> "Machine":
        """Return the machine of this process."""
        processes = int(os.environ.get("WORLD_SIZE", "1"))  # launchers set it
        gpu: dict[str, Any] = {}
        if torch.cuda.is_available():
            memory = torch.cuda.get_device_properties(0).total_memory / 2**30
            gpu = {"gpu": torch.cuda.get_device_name(), "gpu_memory_gib": round(memory, 1), "cuda": torch.version.cuda}
        return cls(
            processor=_processor(),
            cores=os.cpu_count(),
            torch_threads=torch.get_num_threads(),
            system=f"{platform.system()} {platform.machine()}",
            processes=processes if processes > 1 else None,
            **gpu,
        )


@dataclass(frozen=True)
class Environment:
    """The environment of a measurement. Every part of it may be unknown."""

    versions: dict[str, str] = field(default_factory=dict)
    machine: Machine | None = None
    command: Command | None = None

    @property
    def machine_name(self) -> str:
        """The machine in a few words; empty if it is unknown."""
        return "" if self.machine is None else self.machine.name

    @classmethod
    def current(cls) -> "Environment":
        """Return the environment of this process. A notebook has no command, since its own is that of the kernel."""
        versions = {"python": platform.python_version(), **installed(PACKAGES)}
        return cls(versions, Machine.current(), None if in_notebook() else Command.current())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Environment":
        """Read the environment from the values of a file."""
        machine = values.get("machine")
        known = None if machine is None else Machine(**machine)
        return cls(dict(values.get("versions", {})), known, Command.from_dict(values))

    def to_dict(self) -> dict[str, Any]:
        """Return what a file holds: `versions`, `machine`, `command` and `argv`, if they are known."""
        values: dict[str, Any] = {"versions": self.versions} if self.versions else {}
        if self.machine is not None:
            values["machine"] = {name: value for name, value in asdict(self.machine).items() if value is not None}
        return values if self.command is None else {**values, **self.command.to_dict()}


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, such as `ipykernel_launcher.py`."""
    return Path(sys.argv[0]).name.endswith("kernel_launcher.py")


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
