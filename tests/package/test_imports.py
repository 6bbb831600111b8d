import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pumer_hf

ROOT = Path(pumer_hf.__file__).parent
# A part of the package imports itself and the parts before its own row, so not its neighbours in the row.
ROWS = [
    ("release", "editable", "recipe_files", "example"),
    ("ops", "flops", "remote_code", "images", "folders", "reading", "wheel", "figures"),
    ("tokens", "grounding", "encoding", "results"),
    ("reducers",),
    ("configuration",),
    ("models",),
    ("metrics", "inputs"),
    ("data", "convert", "unread"),
    ("bench", "answering"),
    ("explain", "export"),
    ("measures", "hub"),
    ("training", "demo", "pipeline"),
    ("recipes",),
    ("tuning",),
    ("cli", "__main__"),
]
LEVELS = {part: level for level, parts in enumerate(ROWS) for part in parts}
MODEL_ROWS = [
    *(("offload", "profiling", "budget"), ("scorers",), ("reduction",), ("reducible",), ("observing",)),
    *(("encoders", "decoders"), ("families",), ("loading", "reduced")),
    *(("decoder_loading", "bases"),),
]
"""The same within `models`."""
MODEL_LEVELS = {part: level for level, parts in enumerate(MODEL_ROWS) for part in parts}
OUTSIDE = {"recipes", "tests", "examples", "benchmarks", "laboratory", "model_cards"}
COMMAND_LINE = "pumer_hf_cli"
"""The package of the command. It imports `pumer_hf` when it runs; only the last row imports it."""


def part_of(module):
    """`pumer_hf.training.trainer` -> `training`; the package itself -> ''."""
    return [*module.split("."), ""][1]


def module_name(path):
    parts = [ROOT.name, *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source, module, is_package=False):
    """Absolute names of what a module imports, wherever in the file; `from a import b` is `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                above = module.split(".")
                above = above[: len(above) - node.level + is_package]
                base = above + base
            yield from (".".join([*base, alias.name]) for alias in node.names)


def wrong_imports(source, module, is_package=False):
    """What a module imports against the rules."""
    wrong = []
    for name in imported(source, module, is_package):
        if name.split(".")[0] in OUTSIDE or (name.split(".")[0] == COMMAND_LINE and part_of(module) not in ROWS[-1]):
            wrong.append(name)
        elif name.split(".")[0] == ROOT.name and module != ROOT.name:
            own, other = part_of(module), part_of(name)
            if other not in LEVELS or (other != own and LEVELS[other] >= LEVELS[own]):
                wrong.append(name)
            elif own == other == "models":
                own, other = ([*path.split("."), ""][2] for path in (module, name))
                if other not in MODEL_LEVELS or (other != own and MODEL_LEVELS[other] >= MODEL_LEVELS[own]):
                    wrong.append(name)
    return wrong


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def test_all_modules_are_found():
    assert {"pumer_hf", "pumer_hf.ops", "pumer_hf.reducers", "pumer_hf.training.trainer"} <= set(SOURCES)


@pytest.mark.parametrize("module", SOURCES)
def test_imports_run_one_way(module):
    path = SOURCES[module]
    assert module == ROOT.name or part_of(module) in LEVELS, f"{path} has no place in ROWS"
    if part_of(module) == "models":
        assert module == "pumer_hf.models" or module.split(".")[2] in MODEL_LEVELS, (
            f"{path} has no place in MODEL_ROWS"
        )
    assert wrong_imports(path.read_text(encoding="utf-8"), module, path.name == "__init__.py") == []


def test_ops_imports_torch_only():
    names = list(imported(SOURCES["pumer_hf.ops"].read_text(encoding="utf-8"), "pumer_hf.ops"))
    assert names
    assert {name.split(".")[0] for name in names} == {"torch"}


@pytest.mark.parametrize(
    ("module", "line", "wrong"),
    [
        ("pumer_hf.reducers.pumer", "from .. import ops", []),
        ("pumer_hf.reducers.pumer", "from ..models.encoders import vilt", ["pumer_hf.models.encoders.vilt"]),
        ("pumer_hf.reducers.pumer", "from .base import Ratios", []),
        ("pumer_hf.reducers.pumer", "from .. import __version__", ["pumer_hf.__version__"]),
        ("pumer_hf.tokens", "from .reducers.base import Ratios", ["pumer_hf.reducers.base.Ratios"]),
        (
            "pumer_hf.models.encoders.vilt",
            "def f():\n    import pumer_hf.training.losses",
            ["pumer_hf.training.losses"],
        ),
        ("pumer_hf.data.vqa", "from ..bench.cost import cost_report", ["pumer_hf.bench.cost.cost_report"]),
        ("pumer_hf.metrics.vqa", "from pumer_hf.data import vqa", ["pumer_hf.data.vqa"]),
        ("pumer_hf.metrics.vqa", "from pumer_hf import PuMerConfig", ["pumer_hf.PuMerConfig"]),
        ("pumer_hf.data.vqa", "from ..metrics.vqa import row_scores", []),
        ("pumer_hf.models.reduction", "from .offload import loaded_state_dict", []),
        ("pumer_hf.models.offload", "from . import reduction", ["pumer_hf.models.reduction"]),
        ("pumer_hf.models.encoders.base", "from ..reduction import Reduction", []),
        ("pumer_hf.models.encoders.vilt.modeling", "from ..base import a", []),
        ("pumer_hf.models.encoders.base", "from ..families import FAMILIES", ["pumer_hf.models.families.FAMILIES"]),
        ("pumer_hf.models.encoders.base", "from ..decoders import llava", ["pumer_hf.models.decoders.llava"]),
        ("pumer_hf.models.decoders.llava", "from ..encoders import base", ["pumer_hf.models.encoders.base"]),
        ("pumer_hf.models.families", "from .loading import a", ["pumer_hf.models.loading.a"]),
        ("pumer_hf.models.loading", "from .families import FAMILIES", []),
        ("pumer_hf.recipes.stages", "from recipes.train_vqa import main", ["recipes.train_vqa.main"]),
        ("pumer_hf.recipes.runner", "from pumer_hf_cli import main", ["pumer_hf_cli.main"]),
        ("pumer_hf.cli", "from pumer_hf_cli import main", []),
        ("pumer_hf", "from .training import losses", []),
        ("pumer_hf", "import tests.tiny_models", ["tests.tiny_models"]),
    ],
)
def test_a_wrong_import_would_be_found(module, line, wrong):
    assert wrong_imports(line, module, is_package=module == "pumer_hf") == wrong


def test_relative_imports_of_a_package_start_at_itself():
    assert list(imported("from .base import a", "pumer_hf.reducers", is_package=True)) == ["pumer_hf.reducers.base.a"]
    assert list(imported("from ..ops import a", "pumer_hf.reducers", is_package=True)) == ["pumer_hf.ops.a"]


def test_importing_the_package_loads_no_training_code():
    tree = ast.parse(SOURCES["pumer_hf"].read_text(encoding="utf-8"))
    run = [node for node in tree.body if not isinstance(node, ast.If)]  # not: if TYPE_CHECKING
    names = list(imported(ast.unparse(ast.Module(run, [])), "pumer_hf", is_package=True))
    assert {part_of(name) for name in names if name.startswith("pumer_hf.")} == {"models", "pipeline"}


def test_importing_the_package_is_as_quick_as_transformers_is():
    """What loads data, measures and pushes is loaded when it is used."""
    code = "import sys, pumer_hf; print(*(name for name in sys.modules if name.startswith(('pumer_hf.', 'datasets'))))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    parts = {part_of(name) for name in result.stdout.split()}
    assert {"models", "pipeline"} < parts
    assert parts.isdisjoint({"", "data", "bench", "hub", "training", "recipes"})


@pytest.mark.parametrize("path", sorted((ROOT.parent / COMMAND_LINE).glob("*.py")), ids=lambda path: path.stem)
def test_the_command_line_imports_at_once_only_what_is_quick(path):
    def parts(nodes):
        names = imported(ast.unparse(ast.Module(nodes, [])), f"{COMMAND_LINE}.{path.stem}")
        return {name.split(".")[0] for name in names}

    tree = ast.parse(path.read_text(encoding="utf-8"))
    later = (ast.ClassDef, ast.FunctionDef, ast.If)  # the last one: if TYPE_CHECKING
    at_once = [node for node in tree.body if not isinstance(node, later)]
    assert parts(at_once) <= {COMMAND_LINE, *sys.stdlib_module_names}
    assert parts(tree.body) <= {COMMAND_LINE, ROOT.name, "torch", *sys.stdlib_module_names}


@pytest.mark.parametrize("name", pumer_hf.__all__)
def test_every_public_name_loads(name):
    assert getattr(pumer_hf, name).__name__ == name
    assert name in dir(pumer_hf)


def test_the_type_checker_sees_the_public_names():
    tree = ast.parse(SOURCES["pumer_hf"].read_text(encoding="utf-8"))
    names = {name.split(".")[-1] for name in imported(ast.unparse(tree), "pumer_hf", is_package=True)}
    assert set(pumer_hf.__all__) <= names


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pumer_hf' has no attribute 'PuMerBertModel'"):
        pumer_hf.PuMerBertModel  # noqa: B018
