"""The search for a speed, with speeds that are given and not measured."""

import random
from types import SimpleNamespace

import pytest

from pumer_hf.tuning.curves import is_close
from pumer_hf.tuning.finder import MAX_RUNS, TOLERANCE, Finder


class FakeSearch:
    """Options that spend evenly spread parts of the FLOPs, `options[i]` being `i`."""

    def __init__(self, number=60, least=0.25, start=1000):
        self.options = list(range(number))
        self.tokens = [round(start * (1 - (index + 1) / number)) for index in self.options]
        self.start, self.least, self.known = start, least, {}
        self.counter, self.used = SimpleNamespace(announced=lambda option: ((0, self.tokens[option]),)), int

    def part(self, index):
        self.known[index] = None
        return self.least + (1 - self.least) * self.tokens[index] / self.start


def finder_of(speed, noise=0.0, seed=0, **changes):
    """A finder whose option `i` has `speed(gain)`, and the numbers of options in each of its runs."""
    search, draw, runs = FakeSearch(**changes), random.Random(seed), []

    def measure(wanted):
        runs.append(len(wanted))
        return [speed(1 / search.part(index)) * (1 + noise * draw.gauss(0, 1)) for index in wanted]

    return Finder(search, measure), runs


def of_efficiency(efficiency):
    return lambda gain: 1 + efficiency * (gain - 1)


@pytest.mark.parametrize("target", [1.2, 1.8, 2.6])
@pytest.mark.parametrize("efficiency", [0.6, 0.9, 1.2])
def test_a_speed_is_hit_in_few_runs(target, efficiency):
    finder, runs = finder_of(of_efficiency(efficiency))
    (found,) = finder.find([target])
    assert found.is_close
    assert is_close(of_efficiency(efficiency)(1 / found.flops), target, TOLERANCE)
    assert len(runs) <= 4
    assert max(runs) <= 3
    assert found.measured >= 2


def test_several_speeds_share_their_measurements():
    finder, runs = finder_of(of_efficiency(0.8))
    found = finder.find([1.2, 1.5, 2.0])
    assert [round(one.target, 1) for one in found] == [1.2, 1.5, 2.0]
    assert all(one.is_close for one in found)
    before = len(runs)
    (again,) = finder.find([1.7])
    assert again.is_close
    assert len(runs) - before <= 3


def test_noise_does_not_lead_astray():
    """Speeds are off by 2 % each time. The mean of the found one is close, and the true speed is not far."""
    far = []
    for seed in range(40):
        finder, runs = finder_of(of_efficiency(0.8), noise=0.02, seed=seed)
        (found,) = finder.find([1.8])
        assert found.is_close
        assert len(runs) <= MAX_RUNS
        far.append(not is_close(of_efficiency(0.8)(1 / found.flops), 1.8, TOLERANCE))
    assert sum(far) <= 4


def test_a_step_in_the_speed_is_no_obstacle():
    """Half of the options are slower than less reduced ones, as where a kernel does not suit a length."""
    finder, _ = finder_of(lambda gain: gain * (0.8 if gain > 1.9 else 1.0))
    (found,) = finder.find([1.8])
    assert found.is_close


def test_a_measurement_that_was_off_does_not_decide():
    """The first measurement says twice the speed, as on a machine that was busy with something else."""
    finder, runs = finder_of(of_efficiency(0.8))
    measure, seen = finder.measure, []

    def disturbed(wanted):
        speeds = measure(wanted)
        seen.extend(wanted)
        return [2 * speed for speed in speeds[:1]] + speeds[1:] if len(runs) == 1 else speeds

    finder.measure = disturbed
    (found,) = finder.find([1.8])
    assert found.is_close
    assert is_close(of_efficiency(0.8)(1 / found.flops), 1.8, TOLERANCE)


@pytest.mark.parametrize("target", [1.3, 1.5, 1.8, 2.1])
@pytest.mark.parametrize("slow", [0.85, 0.9, 0.95])
def test_kernels_that_do_not_suit_some_lengths(slow, target):
    """Every third option is slower than the others, so no line goes through the speeds."""
    search = FakeSearch()

    def measure(wanted):
        return [(slow if index % 3 == 0 else 1.0) * (1 + 0.8 * (1 / search.part(index) - 1)) for index in wanted]

    (found,) = Finder(search, measure).find([target])
    assert is_close(found.speed, target, 0.07)
    assert found.is_close or slow < 0.95


def test_a_speed_out_of_reach():
    finder, runs = finder_of(of_efficiency(0.5))
    (found,) = finder.find([3.0])
    assert not found.is_reached
    assert found.highest == found.speed == pytest.approx(2.5, abs=0.05)
    assert found.schedule == finder.search.options[-1]
    assert len(runs) <= 3
    (found,) = finder.find([2.5])
    assert found.is_reached


def test_the_nearest_of_few_schedules():
    """With four options, none is within 3 %. The nearest is returned, and says that it is not close."""
    finder, runs = finder_of(of_efficiency(1.0), number=4)
    (found,) = finder.find([1.45])
    assert (found.is_close, found.is_reached) == (False, True)
    assert found.speed == pytest.approx(1.6)
    assert len(runs) <= MAX_RUNS


def test_the_search_says_what_it_measures():
    said = []
    finder, _ = finder_of(of_efficiency(1.0))
    Finder(finder.search, finder.measure, on_run=said.append).find([1.5])
    assert said[0] == "3 schedules"
    assert said[-1] == "1 schedule"
