"""Batches made beforehand are those that would be made in turn."""

from __future__ import annotations

import threading

import pytest

from stage3.train.ahead import ahead


@pytest.mark.parametrize("beforehand", [False, True])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_items_and_what_is_made_of_them_stay_together_and_in_order(n, beforehand):
    assert list(ahead(range(n), lambda i: i * i, beforehand=beforehand)) == [(i, i * i) for i in range(n)]


def test_the_next_one_alone_is_made_while_the_caller_works():
    made, read = [], []
    started = threading.Semaphore(0)

    def items():
        for i in range(5):
            read.append(i)
            yield i

    def make(i):
        made.append((i, threading.current_thread() is threading.main_thread()))
        started.release()
        return i

    for item, _ in ahead(items(), make, beforehand=True):
        if item == 0:
            assert all(started.acquire(timeout=10) for _ in range(2))  # the one that came next is made now
            assert read == [0, 1]
            assert made == [(0, False), (1, False)]
            break
    assert read == [0, 1]


def test_nothing_is_made_before_it_is_asked_for_otherwise():
    made = []
    steps = ahead(range(3), made.append, beforehand=False)
    next(steps)
    assert made == [0]


def test_what_could_not_be_made_is_raised_when_its_turn_comes():
    def make(i):
        if i == 2:
            raise OSError("gone")
        return i

    got = []

    def work():
        for item, _ in ahead(range(5), make, beforehand=True):
            got.append(item)

    with pytest.raises(OSError, match="gone"):
        work()
    assert got == [0, 1]
