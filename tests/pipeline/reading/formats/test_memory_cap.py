"""The memory limit of decoding is the process's own, so threads that decode at once share it, and the last one takes it away."""

import resource
import sys
import threading

import pytest

from pipeline.reading.formats.memory_cap import capped, memory_cap

ROOM = 1 << 40

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a limit")


def limit() -> int:
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


def test_the_limit_is_as_before_whichever_thread_leaves_first() -> None:
    before, entered, leave = limit(), threading.Event(), threading.Event()

    def other() -> None:
        with memory_cap(ROOM):
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with memory_cap(2 * ROOM):
        alone = limit()
        thread.start()
        assert entered.wait(60)
        assert limit() == alone, "the larger of the two"
    assert ROOM <= limit() < alone, "the one that is left"
    leave.set()
    thread.join()
    assert limit() == before


def test_a_step_within_another_s_cap_keeps_to_the_smaller() -> None:
    before = limit()
    with memory_cap(ROOM):
        outer = limit()
        with memory_cap(2 * ROOM):
            assert limit() == outer
        with memory_cap(ROOM // 2):
            assert limit() < outer
        assert limit() == outer
    assert limit() == before


def test_steps_of_many_threads_leave_no_limit() -> None:
    before = limit()
    threads = [threading.Thread(target=lambda: list(capped(iter(range(300))))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limit() == before


def test_a_step_beyond_the_cap_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        list(capped((bytearray(size) for size in (10, 3 << 30)), bytes_each=1 << 28))
