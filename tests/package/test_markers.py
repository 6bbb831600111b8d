"""Which tests `make test-unit` runs."""

from conftest import TESTS, UNIT


def marks_of(item):
    return {mark.name for mark in item.iter_markers()} & {"unit", "integration", "slow"}


def test_every_test_is_either_a_unit_or_an_integration_test(request):
    wrong = [item.nodeid for item in request.session.items if len(marks_of(item) - {"slow"}) != 1]
    assert not wrong


def test_unit_tests_are_quick_and_of_the_folders_that_are_named(request):
    unit = [item for item in request.session.items if "unit" in marks_of(item)]
    assert {item.path.relative_to(TESTS).parts[0] for item in unit} <= set(UNIT)
    assert not any("slow" in marks_of(item) for item in unit)
    assert all((TESTS / name).exists() for name in UNIT)
