"""What GitHub and pre-commit read: workflows, forms and hooks."""

import ast
import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from pumer_hf.release import DOCS, REPOSITORY
from pumer_hf_cli import COMMANDS

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
if not GITHUB.is_dir():
    pytest.skip("an sdist has no .github", allow_module_level=True)

WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
FORMS = sorted(path for path in GITHUB.glob("ISSUE_TEMPLATE/*.yml") if path.stem != "config")
MAY_WRITE = {
    ("docs", "publish"): {"pages": "write", "id-token": "write"},
    ("release", "pypi"): {"id-token": "write", "attestations": "write"},
    ("release", "github"): {"contents": "write"},
}
"""The permissions of the jobs that may do more than read, by workflow and job."""
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
    assert [path.stem for path in WORKFLOWS] == ["dependencies", "docs", "quality", "release", "tests"]
    assert [path.stem for path in FORMS] == ["bug", "family", "method"]
    (updates,) = read(GITHUB / "dependabot.yml")["updates"]
    assert updates["package-ecosystem"] == "github-actions"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_action_is_pinned_to_a_commit_with_its_version(path):
    uses = re.findall(r"uses: *(.*)", path.read_text(encoding="utf-8"))
    assert uses
    for action in uses:
        assert re.fullmatch(r"(actions|pypa)/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action), action


def test_an_action_has_the_same_pin_everywhere():
    uses = {action for path in WORKFLOWS for action in re.findall(r"uses: *(.*)", path.read_text(encoding="utf-8"))}
    assert len(uses) == len({action.partition("@")[0] for action in uses})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_ends(path):
    """But for the jobs that publish: they run no code of the repository."""
    assert read(path)["permissions"] == {"contents": "read"}
    for name, job in read(path)["jobs"].items():
        checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert [step["with"] for step in checkouts] == [{"persist-credentials": False}] * ("permissions" not in job)
        assert job.get("permissions") == MAY_WRITE.get((path.stem, name))
        assert job["timeout-minutes"] <= 60
    assert "secrets." not in path.read_text(encoding="utf-8")
    assert "pull_request_target" not in path.read_text(encoding="utf-8")


def test_the_workflows_run_what_a_person_runs():
    run = {path.stem: commands(path) for path in WORKFLOWS}
    assert run["tests"] == ["make test"]
    assert run["docs"] == ["make docs"]
    assert run["dependencies"] == ["make test-lowest", "make test-newest"]
    assert run["quality"][0] == "make quality"
    for name in ("quality", "release"):
        built = run[name].index("python -m build")
        assert run[name][built + 1] == "python -m twine check --strict dist/*"
    assert {"make quality", "make test-unit"} < set(run["release"])
    for command in (line for lines in run.values() for line in lines if line.startswith("make ")):
        assert recipe(command.split()[1])


def test_a_release_is_made_of_a_tag_alone_after_all_checks():
    path = GITHUB / "workflows" / "release.yml"
    workflow = read(path)
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as True
    assert workflow["jobs"]["pypi"]["needs"] == ["test", "build"]
    assert workflow["jobs"]["github"]["needs"] == "pypi"
    assert workflow["jobs"]["pypi"]["environment"]["name"] == "pypi"
    publish = workflow["jobs"]["pypi"]["steps"][-1]
    assert publish["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert publish["with"] == {"attestations": True}  # no password: PyPI trusts this workflow
    notes = [line for line in commands(path) if line.startswith("python .github/release_notes.py")]
    assert len(notes) == 2


def test_a_release_runs_the_first_lines_of_the_readme(tmp_path):
    (line,) = [line for line in commands(GITHUB / "workflows" / "release.yml") if line.startswith("awk ")]
    subprocess.run(["bash", "-c", line], cwd=ROOT, env={"RUNNER_TEMP": str(tmp_path), "PATH": os.defpath}, check=True)
    first = re.search(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert (tmp_path / "first.py").read_text() == first[1]


@pytest.fixture
def ready(tmp_path):
    """The files that a release reads, ready for `v1.2.3`."""
    (tmp_path / "src" / "pumer_hf").mkdir(parents=True)
    (tmp_path / "src" / "pumer_hf" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "src" / "pumer_hf" / "release.py").write_text('PACKAGE = "it"\nPUBLISHED = True\n')
    entries = (
        "## [Unreleased]\n\n## [1.2.3] - 2030-01-02\n\n### Added\n\n- This.\n\n## [1.2.2] - 2030-01-01\n\n- That.\n"
    )
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{entries}")
    return tmp_path


@pytest.fixture(scope="module")
def release_notes():
    spec = importlib.util.spec_from_file_location("release_notes", GITHUB / "release_notes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.release_notes


def test_the_text_of_a_release_is_the_entry_of_its_version(ready, release_notes):
    assert release_notes("v1.2.3", ready) == "### Added\n\n- This.\n"


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("src/pumer_hf/__init__.py", "1.2.3", "1.2.4", "the version is 1.2.4"),
        ("src/pumer_hf/release.py", "True", "False", "PUBLISHED must be True"),
        ("CHANGELOG.md", " - 2030-01-02", "", "CHANGELOG.md has no entry"),
        ("CHANGELOG.md", "### Added\n\n- This.\n", "", "CHANGELOG.md has no entry"),
    ],
)
def test_a_repository_that_is_not_ready_is_not_released(ready, release_notes, name, old, new, message):
    (ready / name).write_text((ready / name).read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        release_notes("v1.2.3", ready)


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


def test_other_ways_to_ask_lead_somewhere():
    config = read(GITHUB / "ISSUE_TEMPLATE" / "config.yml")
    assert config["blank_issues_enabled"] is True
    assert [link["url"] for link in config["contact_links"]] == [
        f"{REPOSITORY}/discussions",
        f"{REPOSITORY}/security/advisories/new",
        DOCS,
    ]


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
    assert set(names) == {"convert", "demo", "env", "push"}
    assert set(names) <= {command.name for command in COMMANDS}


@pytest.mark.parametrize("name", ["SECURITY.md", "CODE_OF_CONDUCT.md"])
def test_a_report_in_private_is_sent_to_the_repository(name):
    assert f"({REPOSITORY}/security/advisories/new)" in (ROOT / name).read_text(encoding="utf-8")


def test_commands_load_no_code_of_a_model():
    """SECURITY.md says so."""
    for path in (ROOT / "src").rglob("*.py"):
        calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
        given = [word.value for call in calls for word in call.keywords if word.arg == "trust_remote_code"]
        assert all(isinstance(value, ast.Constant) and value.value is False for value in given), path
