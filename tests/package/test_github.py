"""What GitHub and pre-commit read: workflows, forms and hooks."""

import re
from pathlib import Path

import pytest
import yaml

from pumer_hf_cli import COMMANDS

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
if not GITHUB.is_dir():
    pytest.skip("an sdist has no .github", allow_module_level=True)

WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
FORMS = sorted(path for path in GITHUB.glob("ISSUE_TEMPLATE/*.yml") if path.stem != "config")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs(path):
    return read(path)["jobs"].values()


def commands(path):
    """The lines that the steps of a workflow run."""
    runs = [step["run"] for job in jobs(path) for step in job["steps"] if "run" in step]
    return [line.strip() for run in runs for line in run.replace("\\\n", " ").splitlines()]


def recipe(target):
    """The commands of a target of the Makefile."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found, f"the Makefile has no target {target}"
    return [line.strip() for line in found[1].splitlines()]


def test_the_files_are_those_that_are_known():
    assert [path.stem for path in WORKFLOWS] == ["dependencies", "quality", "tests"]
    assert [path.stem for path in FORMS] == ["bug", "family", "method"]
    assert read(GITHUB / "ISSUE_TEMPLATE" / "config.yml") == {"blank_issues_enabled": True}
    (updates,) = read(GITHUB / "dependabot.yml")["updates"]
    assert updates["package-ecosystem"] == "github-actions"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_action_is_pinned_to_a_commit_with_its_version(path):
    uses = re.findall(r"uses: *(.*)", path.read_text(encoding="utf-8"))
    assert uses
    for action in uses:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action), action


def test_an_action_has_the_same_pin_everywhere():
    uses = {action for path in WORKFLOWS for action in re.findall(r"uses: *(.*)", path.read_text(encoding="utf-8"))}
    assert len(uses) == len({action.partition("@")[0] for action in uses})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_ends(path):
    assert read(path)["permissions"] == {"contents": "read"}
    for job in jobs(path):
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 60
        checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert [step["with"] for step in checkouts] == [{"persist-credentials": False}]
    assert "secrets." not in path.read_text(encoding="utf-8")
    assert "pull_request_target" not in path.read_text(encoding="utf-8")


def test_the_workflows_run_what_a_person_runs():
    run = {path.stem: commands(path) for path in WORKFLOWS}
    assert run["tests"] == ["make test"]
    assert run["dependencies"] == ["make test-lowest", "make test-newest"]
    assert run["quality"][0] == "make quality"
    assert "python -m build" in " ".join(run["quality"])
    for command in (line for lines in run.values() for line in lines if line.startswith("make ")):
        assert recipe(command.split()[1])


def test_the_tests_run_on_each_python():
    (job,) = jobs(GITHUB / "workflows" / "tests.yml")
    assert job["strategy"]["matrix"] == {"python": ["3.10", "3.11", "3.12", "3.13"]}
    assert job["strategy"]["fail-fast"] is False


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_has_what_github_asks_for(path):
    form = read(path)
    assert {"name", "description", "body"} <= set(form)
    kinds = {"input", "textarea", "checkboxes"}
    assert all(field["type"] in kinds and field["attributes"]["label"] for field in form["body"])
    names = [field["id"] for field in form["body"]]
    assert len(names) == len(set(names))
    assert any(field.get("validations", {}).get("required") for field in form["body"])


@pytest.mark.parametrize("name", ["bug", "family"])
def test_a_form_asks_for_the_environment(name):
    body = read(GITHUB / "ISSUE_TEMPLATE" / f"{name}.yml")["body"]
    labels = {field["id"]: field["attributes"]["label"] for field in body}
    assert "`pumer-hf env`" in labels["environment"]


def test_the_pull_request_template_names_targets_and_files_that_exist():
    text = (GITHUB / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8")
    named = re.findall(r"`([^`]+)`", text)
    assert "make test" in named
    for name in named:
        assert recipe(name.split()[1]) if name.startswith("make ") else (ROOT / name).exists()


def test_pre_commit_runs_what_make_quality_runs():
    (source,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert source["repo"] == "local"
    hooks = [hook["entry"] for hook in source["hooks"]]
    quality = [line.removeprefix("$(BIN)/").removesuffix(" .") for line in recipe("quality")]
    assert hooks == quality


def test_the_commands_of_security_exist():
    names = re.findall(r"`pumer-hf ([a-z]+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert set(names) <= {command.name for command in COMMANDS}
    assert names == ["convert"]
