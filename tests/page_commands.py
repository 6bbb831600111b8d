"""Checks the commands that pages show, without running them: their programs, files and flags exist."""

import re
import shlex
import subprocess

from builds import ROOT

from laboratory.command import build_parser as study_parser
from laboratory.paper_command import build_parser as paper_parser
from laboratory.site_command import build_parser as sites_parser
from laboratory.vlm_command import build_parser as vlm_parser
from pumer_hf.cli import build_parser
from pumer_hf.data.tasks import TASKS
from pumer_hf.recipes.evaluation import build_parser as evaluation_parser
from pumer_hf.recipes.finetuning import default_recipe
from pumer_hf.recipes.parser import parse_flags, read_blocks, split_command
from pumer_hf_cli.train import RecipeCommand

SCRIPTS = {
    "benchmarks/vlm.py": vlm_parser,
    "benchmarks/study.py": study_parser,
    "benchmarks/paper.py": paper_parser,
    "benchmarks/decoder_sites.py": sites_parser,
}
"""Programs of the repository, each with what makes its parser. Of the others, only the file is checked."""
LAUNCHED = re.compile(r"recipes/(?:train_(?P<task>\w+)|evaluate)\.py$")


def commands(block):
    """The command lines of a block, each in words. A line that ends with a backslash goes on in the next one."""
    lines = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]
    return [words for words in lines if words]


def check_command(words):
    """Raise an error, or end the program, if a command cannot be right."""
    words = list(words)
    while re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    if words[0] == "pumer-hf":
        check_ours(words[1:])
    elif words[0] == "make":
        subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[0] == "pip":
        check_install(words[1:])
    elif words[:2] == ["accelerate", "launch"]:
        check_program(words[2:])
    else:
        assert words[0] in ("python", "sbatch"), words
        check_program(words[1:])


def check_ours(words):
    """Check the arguments of `pumer-hf`; a recipe's flags too, which only the recipe reads."""
    args = build_parser().parse_args(words)
    if isinstance(args.chosen, RecipeCommand):
        check_recipe(args.task, args.arguments, evaluates=args.chosen.name == "evaluate")


def check_recipe(name, words, evaluates=False):
    task = TASKS[name]
    if evaluates:
        args, rest = evaluation_parser("").parse_known_args([name, *words])
        words = [*([args.recipe] if args.recipe else []), *rest]
    if words == ["--help"]:
        return
    if words and words[0].startswith("my"):  # a recipe that the reader has written
        words = words[1:]
    named, flags = split_command(words)
    default = default_recipe(task)
    parse_flags(read_blocks(named or default, task), task, flags, default)


def check_install(words):
    """Check the extras of an installation of this package, and the file of constraints."""
    assert words[0] == "install"
    for word in words:
        extras = re.search(r"(?:^\.|pumer[-_]hf[^\[]*)\[([\w,]+)\]", word)
        for extra in extras[1].split(",") if extras else ():
            # an sdist's copy of the file, which setuptools writes, has blanks at the ends of lines
            assert re.search(rf"^{extra} = ?$", (ROOT / "setup.cfg").read_text(encoding="utf-8"), re.MULTILINE), extra
    if "-c" in words:
        assert (ROOT / words[words.index("-c") + 1]).is_file()


def check_program(words):
    """Check a program that Python or a launcher runs: `[flags] FILE.py arguments` or `-m pumer_hf arguments`."""
    if "-m" in words:
        module = words.index("-m") + 1
        if words[module] == "pumer_hf":
            check_ours(words[module + 1 :])
        return
    place = next(place for place, word in enumerate(words) if word.endswith((".py", ".sh")))
    script, arguments = words[place], words[place + 1 :]
    if script.startswith("my"):  # a script that the reader has written
        return
    files = [word for word in words[: place + 1] if "/" in word]
    assert files and all((ROOT / file).is_file() for file in files), files
    launched = LAUNCHED.search(script)
    if script in SCRIPTS:
        SCRIPTS[script]("").parse_args(arguments)
    elif launched and launched["task"]:
        check_recipe(launched["task"], arguments)
    elif launched:
        check_recipe(arguments[0], arguments[1:], evaluates=True)
