"""Limits on threads hold inside the block, and are gone after the last of several."""

import os
import threading

import pytest

from zoo.execution.threads import VARIABLES, limited


@pytest.fixture(params=[None, "3"])
def before(request, monkeypatch):
    for name in VARIABLES:
        if request.param is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, request.param)
    return request.param


def variables():
    (value,) = {os.environ.get(name) for name in VARIABLES}
    return value


def pools():
    """Return how many threads there are to be in torch and in each pool of the others."""
    torch = pytest.importorskip("torch")
    found = pytest.importorskip("threadpoolctl").threadpool_info()
    return [
        torch.get_num_threads(),
        *(pool["num_threads"] for pool in sorted(found, key=lambda p: p["filepath"])),
    ]


def test_nested(before):
    at_first = pools()
    with limited(2):
        assert variables() == "2"
        with limited(1):
            assert variables() == "1"
            assert set(pools()) == {1}
        assert variables() == "2"
        assert set(pools()) == {2}
    assert variables() == before
    assert pools() == at_first


@pytest.mark.parametrize("first_out", [0, 1])
def test_overlapping_threads(before, first_out):
    """The one left last puts back what there was before the first."""
    at_first = pools()
    enter, leave, inside = ([threading.Event() for _ in range(2)] for _ in range(3))
    seen = []

    def work(i):
        enter[i].wait(10)
        with limited(1):
            inside[i].set()
            leave[i].wait(10)
            seen.append((variables(), set(pools())))

    threads = [threading.Thread(target=work, args=[i]) for i in range(2)]
    for thread in threads:
        thread.start()
    for i in range(2):
        enter[i].set()
        assert inside[i].wait(10)
    for i in (first_out, 1 - first_out):
        leave[i].set()
        threads[i].join(10)
    assert seen == [("1", {1})] * 2
    assert variables() == before
    assert pools() == at_first


def test_left_by_the_main_thread_first(before):
    at_first = pools()
    entered, leave = threading.Event(), threading.Event()

    def work():
        with limited(1):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=work)
    with limited(1):
        thread.start()
        assert entered.wait(10)
    assert variables() == "1"
    leave.set()
    thread.join(10)
    assert variables() == before
    assert pools() == at_first


def test_after_an_exception(before):
    with pytest.raises(ZeroDivisionError), limited(1):
        raise ZeroDivisionError
    assert variables() == before
