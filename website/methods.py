"""The pages about the methods, one for each in the table `METHODS`, made from its code, its recipes and the study."""

import inspect
import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import MISSING, Field, fields
from functools import partial
from typing import Any

import yaml

from laboratory.methods import METHODS as STUDIED
from laboratory.study_results import GroupResults
from laboratory.study_tables import METRICS, method_name, short_note, speed_table
from pumer_hf.models.families import DECODERS, FAMILIES
from pumer_hf.reducers import BEFORE_LAYERS, METHODS, ReductionConfig, TokenReducer, method_class, parse_reduction
from pumer_hf.reducers.base import PAPER_LAYOUT, SITES
from pumer_hf.results import markdown_table

from . import DOCS, ROOT
from .links import placed

PLACES = {
    "tower": "in the layers of the image tower, before the image meets the text",
    "inputs": "before the first layer in which image and text meet",
    "layers": "in the layers in which image and text meet",
}
RECIPES = sorted(ROOT.glob("recipes/*/*/*.yaml"))
STUDY = sorted(ROOT.glob("benchmarks/results/study/*.json"))
AS_IN = re.compile(r"(,? ?)that of \[`(\w+Config)`\]")
CODE_WIDTH = 76
"""The longest line of code that a page shows without scrolling."""
FEATURES = {
    "learns": "has weights, which learn with the model",
    "learns_apart": "has a scorer, which learns apart, behind the frozen model",
    "uses_prior": "needs a map from outside, `image_saliency`",
}


def sites_of(method: str) -> list[str]:
    """Return the sites at which a method can work, in the order in which tokens pass there."""
    kinds = [METHODS[method], BEFORE_LAYERS.get(method, METHODS[method])]
    return [site for site in SITES if any(site in kind.config_class.sites for kind in kinds)]


def classes_of(method: str) -> dict[type[TokenReducer], list[str]]:
    """Return the classes of a method, each with the sites at which it works."""
    found: dict[type[TokenReducer], list[str]] = {}
    for site in sites_of(method):
        found.setdefault(method_class(method, site), []).append(site)
    return found


def models_at(site: str) -> str:
    """Return the names of the families that can reduce at a site, in words."""
    encoders = [row.title for row in FAMILIES.values() if site in row.sites]
    found = [*encoders, *(row.title for row in DECODERS.values() if site in row.sites)]
    return "; ".join(dict.fromkeys(found))


def example(method: str, site: str) -> dict[str, Any]:
    """Return a schedule to begin with at a site: the usual one, in a model with twelve layers."""
    usual = method_class(method, site).config_class.usual(site, PAPER_LAYOUT)
    schedule = parse_reduction({"method": method, "site": site, **usual})
    assert schedule is not None
    plain = schedule.to_dict()
    assert isinstance(plain, dict)
    given = {"method": method, **({} if site == "layers" else {"site": site}), **usual}
    return {name: plain.get(name, given[name]) for name in given}


def meanings(config_class: type[ReductionConfig]) -> dict[str, str]:
    """Return what the fields of a config mean, from the `Args` of its docstring and of those of its base classes."""
    found: dict[str, str] = {}
    for kind in reversed(config_class.__mro__):
        if issubclass(kind, ReductionConfig):
            for name, text in arguments(inspect.getdoc(kind) or "").items():
                found[name] = placed(AS_IN.sub(partial(meaning_in, kind, name), text), kind.__module__)
    return found


def meaning_in(kind: type[ReductionConfig], name: str, match: re.Match[str]) -> str:
    """Return what a field means in the config that another one names: "that of [`ScoringConfig`]"."""
    meaning = meanings(getattr(sys.modules[kind.__module__], match[2]))[name].removesuffix(".")
    return f": {meaning}" if match[1].startswith(",") else match[1] + meaning


def arguments(docstring: str) -> dict[str, str]:
    """Return the entries of the section `Args` of a docstring, each on one line."""
    _, _, section = docstring.partition("Args:\n")
    section = re.split(r"\n(?=\S)", section)[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def fields_table(config_class: type[ReductionConfig], sites: Sequence[str]) -> str:
    """Return a table of the fields of a config at some sites: the name, the default, and what it means."""
    known = meanings(config_class)
    rows = [["field", "default", "what it means"]]
    rows += [[f"`{item.name}`", default_text(item, sites), known[item.name]] for item in fields(config_class)]
    return markdown_table(rows)


def default_text(item: "Field[Any]", sites: Sequence[str]) -> str:
    """Return the default of a field as JSON, or that it must be given."""
    if item.name == "layers":
        where = "" if len(sites) == 1 else " at `layers`"
        return f"must be given{where}" if "layers" in sites else "`[]`"
    if item.default is MISSING or (item.name == "site" and "layers" not in sites):
        return "must be given"
    return f"`{json.dumps(item.default)}`"


def recipes_of(method: str) -> Iterator[str]:
    """Yield the recipes of a method, relative to the repository."""
    for path in RECIPES:
        reduction = yaml.safe_load(path.read_text(encoding="utf-8")).get("reduction") or {}
        parts = reduction if isinstance(reduction, list) else [reduction]
        if any(part.get("method") == method for part in parts):
            yield path.relative_to(ROOT).as_posix()


def measured(method: str) -> Iterator[str]:
    """Yield the tables of each group of the study that have rows of a method, with a line about the group."""
    names = {method_name(name) for name, row in STUDIED.items() if method in row.reducers}
    for file in STUDY:
        results = GroupResults.load(file)
        tables = [rows_of(speed_table(results, is_trained), names) for is_trained in (False, True)]
        if any(tables):
            yield "\n\n".join(filter(None, [short_note(results), *tables]))


def rows_of(table: str, names: Collection[str]) -> str:
    """Return the rows of a table whose first cell is one of the names, with its head; empty if there is none."""
    head, rows = table.splitlines()[:2], table.splitlines()[2:]
    kept = [row for row in rows if row.split("|")[1].strip() in names]
    return "\n".join([*head, *kept]) if kept else ""


def sentence(text: str) -> str:
    """Return a text as a sentence: with a capital letter and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def code(schedule: dict[str, Any]) -> str:
    """Return the line of Python that names a schedule, or several lines if it is long."""
    line = f"reduction = {json.dumps(schedule)}"
    if len(line) <= CODE_WIDTH:
        return line
    lines = "\n".join(f"    {json.dumps(name)}: {json.dumps(value)}," for name, value in schedule.items())
    return f"reduction = {{\n{lines}\n}}"


def linked(file: str) -> str:
    """Return a link from a page about a method to a file of the repository."""
    return f"[`{file}`](../../{file})"


def source_of(kind: type) -> str:
    """Return the source file of a class, relative to the repository."""
    return f"src/{kind.__module__.replace('.', '/')}.py"


def page(method: str) -> str:
    """Return the page about a method."""
    classes = classes_of(method)
    first = next(iter(reversed(classes)))  # that of the layers, if it works there
    features = [words for name, words in FEATURES.items() if any(getattr(kind, name) for kind in classes)]
    parts = [f"# {method}", f"Layers with this method {first.summary}. Source: {first.paper}."]
    if features:
        parts.append(sentence(f"the method {' and '.join(features)}"))
    parts += ["## Where it works", markdown_table([["site", "what it is", "models"], *places(method)])]
    parts.append("A list of schedules reduces at several sites. Start from one of these schedules:")
    schedules = [example(method, site) for site in sites_of(method)]
    parts.append("```python\n" + "\n".join(map(code, schedules)) + "\n```")
    parts.append("Give it to `from_pretrained(..., reduction=reduction)`, to `model.set_reduction(reduction)`, or to")
    parts[-1] += " `--reduction` of a command. The numbers are a beginning, and no advice for your model."
    for kind, sites in classes.items():
        title = "Fields" if len(classes) == 1 else f"Fields at {' and '.join(f'`{site}`' for site in sites)}"
        parts += [f"## {title}", f"[`{kind.config_class.__name__}`] holds them ({linked(source_of(kind))})."]
        parts.append(fields_table(kind.config_class, sites))
    parts += ["## Recipes", "\n".join(f"- {linked(file)}" for file in recipes_of(method)) or "There is none yet."]
    parts += ["## What was measured", *measured_parts(method)]
    return "\n\n".join(parts) + "\n"


def places(method: str) -> Iterator[list[str]]:
    """Yield a row for each site of a method."""
    for site in sites_of(method):
        yield [f"`{site}`", PLACES[site], models_at(site)]


def measured_parts(method: str) -> Iterable[str]:
    """Return the section about measurements."""
    tables = list(measured(method))
    if not tables:
        return ["Not measured in the study."]
    metrics = " or ".join(METRICS.values())
    note = (
        "A row is the method, or a combination of it with others. A column is a speed. A cell has the change of "
        f"{metrics} against the unreduced model, and the speed that was measured. **Bold**: the best of all methods. "
        "[The comparison](../comparison.md) has all methods, and says how they were measured."
    )
    return [note, *tables]


def index() -> str:
    """Return the page with the table of all methods."""
    rows = [["method", "what its layers do", "source", "sites", "learns"]]
    for name, kind in METHODS.items():
        learns = "apart" if kind.learns_apart else "with the model" if kind.learns else "no"
        sites = ", ".join(f"`{site}`" for site in sites_of(name))
        rows.append([f"[`{name}`]({name}.md)", kind.summary, kind.paper, sites, learns])
    return f"""# The methods

A schedule names a method, a site, and how much goes: `reduction={{"method": "pumer", "layers": [2, 5, 8], ...}}`. All
methods have this interface, in encoders and in decoders. A ratio is one number, or one number for each layer.

{markdown_table(rows)}

There are three sites:

{chr(10).join(f"- `{site}`: {words}." for site, words in PLACES.items())}

[Which method should I take?](../comparison.md) compares them at the same measured speed. A baseline that is no method
makes the images smaller: the flag `--image_size` of a recipe.
"""


def pages() -> dict[str, str]:
    """Return all pages about the methods, by their paths in docs/."""
    assert set(PLACES) == set(SITES)
    assert DOCS.is_dir()
    return {"methods/index.md": index(), **{f"methods/{name}.md": page(name) for name in METHODS}}
