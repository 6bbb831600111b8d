import pytest
import torch

from pumer_hf.recipes.threads import use_available_cores


@pytest.fixture
def threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr("pumer_hf.recipes.threads.available_cores", lambda: 6)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("given", "at_start", "expected"),
    [("1", 1, 3), (None, 1, 3), ("5", 5, 5), (None, 5, 3)],  # two processes share the six cores
)
def test_the_cores_are_used_unless_a_number_was_chosen(given, at_start, expected, threads, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    threads(at_start)
    use_available_cores(2)
    assert torch.get_num_threads() == expected
