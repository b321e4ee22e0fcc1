"""Token buckets in a file: what is granted, what is kept, and what is refused as damage."""

import ctypes
import itertools
import threading
from ctypes import POINTER, c_bool, c_char, c_char_p, c_int64, c_size_t, c_void_p
from dataclasses import dataclass

import pytest

from deploy.gateway.envoy import bounds

DAY = 86400
NS = 10**9
NAME_SIZE, ERROR_SIZE, BOOT_SIZE = 128, 512, 40
#: Bytes of the file that change with every query: in its head, and at the end of each bucket.
HEAD_CHANGES, SLOT_CHANGES = range(64, 80), range(144, 152)
HEAD, SLOT = 80, 160


class Wanted(ctypes.Structure):
    _fields_ = [("name", c_char * NAME_SIZE), ("tokens", c_int64), ("period_s", c_int64)]


class Moment(ctypes.Structure):
    _fields_ = [("boot_ns", c_int64), ("epoch_ns", c_int64), ("boot", c_char * BOOT_SIZE)]


class Verdict(ctypes.Structure):
    _fields_ = [("granted", c_bool), ("remaining", c_int64), ("wait_s", c_int64)]


@pytest.fixture(scope="module")
def library():
    loaded = ctypes.CDLL(str(bounds.installed()))
    loaded.budgets_open.restype = c_void_p
    loaded.budgets_open.argtypes = [
        *(c_char_p, POINTER(Wanted), c_size_t, POINTER(Moment), c_bool, c_char_p),
    ]
    loaded.budgets_close.argtypes = [c_void_p]
    loaded.budgets_take.restype = Verdict
    loaded.budgets_take.argtypes = [c_void_p, c_size_t, c_int64, POINTER(Moment)]
    return loaded


@dataclass
class Clock:
    """A machine's two clocks; ``boot`` is another one after each boot."""

    boot_s: float = 1000
    epoch_s: float = 1_800_000_000
    boot: bytes = b"first"

    def passes(self, seconds):
        self.boot_s += seconds
        self.epoch_s += seconds

    def restarts(self, *, off_s):
        self.epoch_s += off_s
        self.boot_s, self.boot = 5, self.boot + b"+"

    @property
    def now(self):
        return Moment(int(self.boot_s * NS), int(self.epoch_s * NS), self.boot)


class RefusedError(Exception):
    """The file is not taken."""


class Budgets:
    """An open file of buckets, closed by ``with``."""

    def __init__(self, library, path, clock, *wanted, only_look=False):
        self._library, self._clock = library, clock
        rows = (Wanted * len(wanted))(*wanted)
        error = ctypes.create_string_buffer(ERROR_SIZE)
        name = None if path is None else str(path).encode()
        self._all = library.budgets_open(name, rows, len(rows), clock.now, only_look, error)
        if not self._all:
            raise RefusedError(error.value.decode())

    def take(self, tokens=1, bucket=0):
        return self._library.budgets_take(self._all, bucket, tokens, self._clock.now)

    def spend(self, tokens, bucket=0):
        assert all(self.take(bucket=bucket).granted for _ in range(tokens))

    def left(self, bucket=0):
        return sum(1 for _ in itertools.takewhile(bool, (self.take(bucket=bucket).granted
                                                         for _ in range(10**6))))  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._library.budgets_close(self._all)


@pytest.fixture
def file(library, tmp_path):
    """Open one and the same file again and again."""
    clock = Clock()

    def opened(*wanted, only_look=False):
        return Budgets(library, tmp_path / "spent", clock, *wanted, only_look=only_look)

    opened.path, opened.clock = tmp_path / "spent", clock
    return opened


def bucket(name="alice", tokens=100, period_s=DAY):
    return Wanted(name.encode(), tokens, period_s)


def test_a_bucket_grants_what_it_holds_and_refills_evenly(file):
    with file(bucket()) as budgets:
        assert budgets.take().remaining == 99
        assert budgets.left() == 99
        refused = budgets.take()
        assert (refused.granted, refused.remaining, refused.wait_s) == (False, 0, 864)
        file.clock.passes(863)
        assert budgets.take().wait_s == 1
        file.clock.passes(1)
        assert budgets.left() == 1
        file.clock.passes(10 * 864)
        assert budgets.left() == 10
        file.clock.passes(30 * DAY)
        assert budgets.left() == 100


@pytest.mark.parametrize("tokens", [1, 3, 7, 60, 9999, 31_000])
@pytest.mark.parametrize("period_s", [1, 60, DAY])
def test_a_full_bucket_grants_neither_one_more_nor_one_less(file, tokens, period_s):
    with file(bucket(tokens=tokens, period_s=period_s)) as budgets:
        assert budgets.left() == tokens


def test_a_request_of_many_tokens_takes_all_or_none(file):
    with file(bucket()) as budgets:
        assert budgets.take(60).granted
        refused = budgets.take(60)
        assert (refused.granted, refused.remaining, refused.wait_s) == (False, 40, 20 * 864)
        assert budgets.take(40).granted


def test_threads_together_get_no_token_twice(file):
    granted = []
    with file(bucket(tokens=20_000)) as budgets:
        threads = [threading.Thread(target=lambda: granted.append(budgets.left()))
                   for _ in range(8)]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(granted) == 20_000


def test_what_is_spent_stays_spent_and_refills_while_nobody_counts(file):
    with file(bucket(), bucket("bob")) as budgets:
        budgets.spend(100)
        budgets.spend(7, bucket=1)
    with file(bucket("bob"), bucket()) as budgets:
        assert budgets.left(bucket=1) == 0
        assert budgets.left() == 93
    file.clock.passes(5 * 864)
    with file(bucket()) as budgets:
        assert budgets.left() == 5


@pytest.mark.parametrize(
    ("edited", "left"),
    [
        ({"tokens": 150}, 90),  # more: what was spent is off
        ({"tokens": 61}, 1),
        ({"tokens": 40}, 0),  # less than was spent: empty, no debt
        ({"period_s": 3600}, 40),
        ({"tokens": 10**9, "period_s": 1}, 10**9 - 60),
    ],
)
def test_an_edited_budget_keeps_what_was_spent(file, edited, left):
    with file(bucket()) as budgets:
        budgets.spend(60)
    with file(bucket(**edited)) as budgets:
        assert budgets.take(max(left, 1)).granted == (left > 0)
        assert not budgets.take().granted


def test_a_client_that_comes_back_finds_its_budget_as_it_left_it(file):
    with file(bucket(), bucket("bob")) as budgets:
        budgets.spend(100)
    with file(bucket("bob")):
        pass
    with file(bucket("carol"), bucket(), bucket("bob")) as budgets:
        assert [budgets.left(one) for one in range(3)] == [100, 0, 100]


def test_a_clock_that_is_set_changes_nothing(file):
    for jump_s in (400 * DAY, -400 * DAY):
        with file(bucket(str(jump_s))) as budgets:
            budgets.spend(100)
            file.clock.epoch_s += jump_s
            assert budgets.left() == 0
        with file(bucket(str(jump_s))) as budgets:
            assert budgets.left() == 0
            file.clock.passes(864)
            assert budgets.left() == 1


@pytest.mark.parametrize(("off_s", "left"), [(0, 0), (10 * 864, 10), (-DAY, 0), (9 * DAY, 100)])
def test_after_another_boot_the_time_without_power_counts_and_never_backwards(file, off_s, left):
    file.clock.passes(40 * DAY)
    with file(bucket()) as budgets:
        budgets.spend(100)
    file.clock.restarts(off_s=off_s)
    with file(bucket()) as budgets:
        assert budgets.left() == left


def test_only_one_process_counts_in_a_file(file):
    with file(bucket()) as budgets:
        with pytest.raises(RefusedError, match="spent: another gateway counts in it"):
            file(bucket())
        budgets.spend(100)
    with file(bucket()) as budgets:
        assert budgets.left() == 0


def test_a_look_writes_nothing(file):
    with file(bucket(), only_look=True):
        assert not file.path.exists()
    with file(bucket()) as budgets:
        budgets.spend(60)
        before = file.path.read_bytes()
        with file(bucket(tokens=10), bucket("new"), only_look=True) as looked:
            assert looked.left(bucket=1) == 100
        assert file.path.read_bytes() == before
        assert budgets.left() == 40


def test_buckets_without_a_file_live_in_memory(library):
    for _ in range(2):
        with Budgets(library, None, Clock(), bucket()) as budgets:
            assert budgets.left() == 100


def test_a_truncated_file_is_refused_and_left_as_it_is(file):
    with file(bucket(), bucket("bob")) as budgets:
        budgets.spend(100)
    whole = file.path.read_bytes()
    assert len(whole) == HEAD + 2 * SLOT
    for length in (*range(len(whole)), len(whole) + 1):
        cut = (whole + b"\0")[:length]
        file.path.write_bytes(cut)
        with pytest.raises(RefusedError, match=r"spent: is damaged .* remove it to begin"):
            file(bucket())
        assert file.path.read_bytes() == cut


def test_any_other_byte_in_the_file_is_refused(file):
    with file(bucket(), bucket("bob")) as budgets:
        budgets.spend(100)
    whole = file.path.read_bytes()
    for place in range(len(whole)):
        in_slot = (place - HEAD) % SLOT
        changes = place in HEAD_CHANGES if place < HEAD else in_slot in SLOT_CHANGES
        if changes:
            continue
        file.path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(RefusedError, match="is damaged"):
            file(bucket())


@pytest.mark.parametrize("place", [HEAD_CHANGES[7], HEAD_CHANGES[15], HEAD + SLOT_CHANGES[7]])
def test_a_time_that_cannot_be_is_damage(file, place):
    with file(bucket()) as budgets:
        budgets.spend(1)
    whole = bytearray(file.path.read_bytes())
    whole[place] ^= 0x80
    file.path.write_bytes(whole)
    with pytest.raises(RefusedError, match="is damaged"):
        file(bucket())


def test_a_budget_that_has_spent_more_than_it_had_is_damage(file):
    with file(bucket()) as budgets:
        budgets.spend(1)
    whole = bytearray(file.path.read_bytes())
    whole[HEAD + SLOT_CHANGES[-1]] ^= 0x10
    file.path.write_bytes(whole)
    with pytest.raises(RefusedError, match="has spent more than it had"):
        file(bucket())


@pytest.mark.parametrize("only_look", [False, True])
def test_a_folder_that_is_not_there_is_named(library, tmp_path, only_look):
    with pytest.raises(RefusedError, match=r"no/spent.*: cannot be written: No such file"):
        Budgets(library, tmp_path / "no" / "spent", Clock(), bucket(), only_look=only_look)
