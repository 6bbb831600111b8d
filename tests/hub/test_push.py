"""`pumer-hf push` against a Hub on the loopback interface, in this process: what is pushed, and each fault."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
from huggingface_hub import constants
from tiny import CHECKPOINT_FILES

from pumer_hf import push_folder, release
from pumer_hf.cli import main
from pumer_hf.hub.card import PuMerCard
from pumer_hf.hub.files import published_files
from pumer_hf.hub.push import PushError
from pumer_hf.models.encoders.meter import PuMerMeterProcessor
from pumer_hf.models.encoders.meter.processing import build_roberta_tokenizer
from pumer_hf.release import PACKAGE, install_commands
from pumer_hf.wheel import make_wheel

# huggingface_hub's own way of calling its HTTP client
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME = "user/tiny"
FILES = {*CHECKPOINT_FILES, ".gitattributes", "README.md", "results.json", make_wheel()[0]}


@pytest.fixture(scope="module")
def model():
    return tiny_models.FAMILIES["meter"].model(reduction=tiny_models.schedule("pumer", "small"))


@pytest.fixture
def folder(model, tmp_path):
    """A student's folder, with all that training leaves in it."""
    path = tmp_path / "student"
    model.save_pretrained(path)
    tokenizer = build_roberta_tokenizer(["how many threes?"], 9)
    PuMerMeterProcessor.from_tokenizer(tokenizer, 16).save_pretrained(path)
    (path / "training_args.bin").write_bytes(b"pickle")
    (path / "trainer_state.json").write_text("{}")
    (path / "checkpoint-8").mkdir()
    (path / "checkpoint-8" / "optimizer.pt").write_bytes(b"pickle")
    return path


def test_one_commit_with_what_a_stranger_needs(hub, folder, capsys):
    assert main(["push", str(folder), NAME, "--private", "--message", "Mine"]) == 0
    assert f"Pushed to {hub.url}/{NAME}/commit/" in capsys.readouterr().out
    repo = hub.repos[NAME]
    assert set(hub.files(NAME)) == FILES
    assert repo.titles == ["initial commit", "Mine"]
    assert repo.private
    assert f'model="{NAME}"' in hub.files(NAME)["README.md"].decode()
    assert not (folder / "README.md").exists()  # the folder stays as it is


def test_dry_run_lists_the_files_and_asks_nobody(hub, folder, capsys):
    assert main(["push", str(folder), NAME, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in FILES - {".gitattributes"})
    assert "left out: checkpoint-8, trainer_state.json, training_args.bin" in printed
    assert hub.requests == []


def test_a_branch_and_a_pull_request(hub, folder, capsys):
    push_folder(folder, NAME, revision="better")
    assert set(hub.files(NAME, "better")) == FILES
    assert set(hub.files(NAME)) == {".gitattributes"}
    assert main(["push", str(folder), NAME, "--create-pr"]) == 0
    assert f"Pushed to {hub.url}/{NAME}/discussions/1" in capsys.readouterr().out
    assert set(hub.files(NAME)) == {".gitattributes"}
    assert set(hub.files(NAME, "refs/pr/1")) == FILES


def test_a_repository_that_exists_is_used_and_no_old_weights_stay(hub, folder, model):
    push_folder(folder, NAME)
    repo = hub.repos[NAME]
    repo.commit("main", {**hub.files(NAME), "pytorch_model.bin": b"old", "notes.md": b"mine"}, "by hand")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    push_folder(folder, NAME)
    pushed = set(hub.files(NAME))
    assert {"notes.md", "model.safetensors.index.json"} < pushed
    assert not {"model.safetensors", "pytorch_model.bin"} & pushed


def test_an_edited_card_is_pushed_as_it_is(hub, folder):
    PuMerCard.from_checkpoint(folder).save(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\nMine.\n")
    push_folder(folder, NAME)
    assert hub.files(NAME)["README.md"] == (folder / "README.md").read_bytes()


@pytest.mark.parametrize(
    "old",
    [
        f"It needs `pip install {PACKAGE}`.",
        "```sh\n" + "\n".join(install_commands("user/other")) + "\n```",
        "```sh\npip install -e .\n```",
        f'Then `pip install "{PACKAGE} @ git+https://example.org/it"`.',
    ],
)
@pytest.mark.parametrize("has_facts", [True, False])
def test_an_edited_card_that_would_not_install_the_package_is_not_pushed(folder, old, has_facts):
    """As one that an earlier version has written."""
    PuMerCard.from_checkpoint(folder).save(folder)
    (folder / "README.md").write_text(f"Mine.\n\n{old}\n")
    if not has_facts:
        (folder / "results.json").unlink()
    line = re.search("(hf|pip) .*?(?=[`\n]|$)", old)[0]
    message = f"(?s){re.escape(line)}.*{re.escape(install_commands(NAME)[0])}.*pumer-hf card {folder}"
    with pytest.raises(ValueError, match=message):
        published_files(folder, NAME)
    (folder / "README.md").write_text("Mine.\n\n" + "\n".join(install_commands(NAME)) + "\n")
    assert published_files(folder, NAME).published["README.md"] == folder / "README.md"


def test_a_card_that_was_rendered_before_the_package_was_published_is_not_pushed(folder, monkeypatch):
    card = PuMerCard.from_checkpoint(folder)
    card.repo_id = NAME
    card.save(folder)
    (folder / "README.md").write_text((folder / "README.md").read_text() + "Mine.\n")
    published_files(folder, NAME)
    monkeypatch.setattr(release, "PUBLISHED", True)
    with pytest.raises(ValueError, match="hf download"):
        published_files(folder, NAME)


def test_a_folder_saved_before_there_was_remote_code_gets_it(hub, folder):
    (folder / "modeling_pumer.py").unlink()
    for name in ("config.json", "processor_config.json"):
        content = json.loads((folder / name).read_text())
        del content["auto_map"]
        (folder / name).write_text(json.dumps(content))
    push_folder(folder, NAME)
    files = hub.files(NAME)
    assert set(files) == FILES
    assert json.loads(files["config.json"])["auto_map"] == {
        "AutoConfig": "modeling_pumer.PuMerMeterConfig",
        "AutoModel": "modeling_pumer.PuMerMeterModel",
        "AutoModelForVisualQuestionAnswering": "modeling_pumer.PuMerMeterForQuestionAnswering",
    }
    assert json.loads(files["processor_config.json"])["auto_map"] == {
        "AutoProcessor": "modeling_pumer.PuMerMeterProcessor"
    }


def test_what_the_card_says_installs_the_package(hub, folder, tmp_path, monkeypatch):
    """The reader of a card has no clone, and no index has the package: the model brings it along."""
    push_folder(folder, NAME)
    (block,) = re.findall(r"^```sh\n(.*?)^```$", hub.files(NAME)["README.md"].decode(), re.DOTALL | re.MULTILINE)
    download, install = block.splitlines()
    assert [download, install] == install_commands(NAME)
    remote = hub.files(NAME)["modeling_pumer.py"].decode()
    assert download in remote and install in remote
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, **hub.environment(tmp_path / "cache")}
    hf = str(Path(sys.executable).with_name("hf"))
    subprocess.run([hf, *shlex.split(download)[1:]], env=environment, check=True, capture_output=True)
    (pattern,) = shlex.split(install)[2:]
    (wheel,) = tmp_path.glob(pattern)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--quiet", "--target", "target", str(wheel)], check=True)
    assert (tmp_path / "target" / "pumer_hf" / "hub" / "card.md.jinja").is_file()


def test_wheels_of_other_versions_and_old_remote_code_are_replaced(hub, folder):
    push_folder(folder, NAME)
    older = "pumer_hf-0.0.1-py3-none-any.whl"
    hub.repos[NAME].commit("main", {**hub.files(NAME), older: b"old"}, "by hand")
    (folder / older).write_bytes(b"downloaded with the model")
    (folder / "modeling_pumer.py").write_text("# pip install something")
    push_folder(folder, NAME)
    assert set(hub.files(NAME)) == FILES
    assert b"something" not in hub.files(NAME)["modeling_pumer.py"]
    assert (folder / "modeling_pumer.py").read_text() == "# pip install something"  # the folder stays as it is


def test_a_published_package_is_not_carried(hub, folder, monkeypatch):
    monkeypatch.setattr(release, "PUBLISHED", True)
    push_folder(folder, NAME)
    assert set(hub.files(NAME)) == FILES - {make_wheel()[0]}
    (command,) = install_commands(NAME)
    assert f"```sh\n{command}\n```" in hub.files(NAME)["README.md"].decode()


@pytest.mark.parametrize(("method", "path"), [("PUT", "/lfs/"), ("POST", "/info/lfs/objects/batch")])
def test_one_error_in_the_middle_is_retried(hub, folder, monkeypatch, method, path):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.fail(method, path, 503)
    push_folder(folder, NAME)
    assert set(hub.files(NAME)) == FILES
    assert hub.repos[NAME].titles == ["initial commit", "Upload model"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/lfs/"), ("POST", "/commit/main"), ("POST", "/preupload/"), ("POST", "/info/lfs/objects/batch")],
)
def test_a_hub_that_fails_in_the_middle_gets_nothing(hub, folder, monkeypatch, capsys, method, path):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.fail(method, path, 500, times=100)
    assert main(["push", str(folder), NAME]) == 2
    error = capsys.readouterr().err
    assert "no commit" in error
    assert "500" in error and "Traceback" not in error
    assert set(hub.files(NAME)) == {".gitattributes"}
    hub.faults.clear()
    assert main(["push", str(folder), NAME]) == 0
    assert set(hub.files(NAME)) == FILES


def test_no_connection(hub, folder, monkeypatch, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    assert main(["push", str(folder), NAME]) == 2
    assert "user/tiny: no connection" in capsys.readouterr().err


def test_an_expired_token(hub, folder, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert main(["push", str(folder), NAME]) == 2
    assert "`hf auth login`" in capsys.readouterr().err
    assert hub.repos == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("user/not allowed", "repo='user/not allowed'"),
        ("user/-x-", "repo='user/-x-'"),
        ("someone/else", "token may not write"),
    ],
)
def test_a_name_that_is_not_allowed(hub, folder, capsys, name, message):
    assert main(["push", str(folder), name]) == 2
    assert message in capsys.readouterr().err
    assert hub.repos == {}


@pytest.mark.parametrize("name", ["bad name", "user/not allowed", "user/-x-", "a/b/c", "user/..", ""])
def test_a_dry_run_refuses_a_name_that_a_push_refuses(hub, folder, capsys, name):
    for flags in (["--dry-run"], []):
        assert main(["push", str(folder), name, *flags]) == 2
        captured = capsys.readouterr()
        assert f"repo={name!r}" in captured.err
        assert captured.out == ""
    assert hub.requests == []


def test_private_is_not_made_public(hub, folder):
    push_folder(folder, NAME)
    with pytest.raises(PushError, match="user/tiny .*public"):
        push_folder(folder, NAME, private=True)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "config.json is missing"),
        ("model.safetensors", "safetensors only"),
        ("processor_config.json", "without a processor"),
    ],
)
def test_an_incomplete_folder_is_refused_before_anything_is_made(hub, folder, capsys, missing, message):
    os.rename(folder / missing, folder / "pytorch_model.bin")
    assert main(["push", str(folder), NAME]) == 2
    assert message in capsys.readouterr().err
    assert hub.requests == []


def test_other_models_and_missing_shards_are_refused(folder, model):
    model.save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    next(folder.glob("model-00002*")).unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-.*missing"):
        push_folder(folder, NAME)
    (folder / "config.json").write_text('{"model_type": "vilt"}')
    with pytest.raises(ValueError, match="model_type='vilt' .*`pumer-hf convert`"):
        push_folder(Path(folder), NAME)


def test_a_card_of_an_older_version_that_names_a_path_is_not_pushed(folder):
    PuMerCard.from_checkpoint(folder).save(folder)
    facts = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**facts, "teacher": "/home/me/secret/teacher"}))
    (folder / "README.md").write_text("Teacher: `/home/me/secret/teacher`\n")
    with pytest.raises(ValueError, match=r"README.md names /home/me/secret/teacher.*pumer-hf card"):
        published_files(folder, NAME)
    (folder / "README.md").write_text("Mine.\n")
    published = published_files(folder, NAME).published
    assert json.loads(published["results.json"])["teacher"] == "teacher"
