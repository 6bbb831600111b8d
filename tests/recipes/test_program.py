"""A program that a launcher started several times leaves the group of its processes at the end."""

import pytest
import torch

from pumer_hf.recipes.runner import run_recipe


@pytest.fixture
def group(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_a_recipe_leaves_its_group_after_its_work(group, monkeypatch):
    during = []
    monkeypatch.setattr(
        "pumer_hf.recipes.runner.run_stages", lambda *_: during.append(torch.distributed.is_initialized())
    )
    run_recipe("vqa", [])
    assert during == [True]
    assert not torch.distributed.is_initialized()
