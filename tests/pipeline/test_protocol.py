"""Every row is there once, after runs that crash at any step, lose replies, write late and overlap, and after what people do to
a folder by hand.

Hypothesis makes up the stories. What is promised at all times is checked after every event, what is promised of a run
that went through after every such run; and whatever state a story has come to, `preln verify` finds what is wrong with it.
"""

import io
from collections import Counter
from typing import Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pipeline.errors import OutputError
from pipeline.output.sink import read_footer
from pipeline.run_options import RunOptions
from pipeline.shards import CutRule
from pipeline.store.storage import find
from tests.pipeline.drill_promise import (
    assert_done,
    assert_manifest_is_exact,
    assert_objects_are_whole,
    assert_verify_agrees,
    faults_of,
)
from tests.pipeline.drill_run import BAD, CUT, Drill, content_of
from tests.pipeline.drill_store import SCHEME, STORE, Crash, Trouble, Versions, When, crash_at, meanwhile_at, stumble_at

Damage = Literal["cut", "emptied", "swapped", "doubled"]

NAMES = st.sampled_from(["a.parquet", "b.jsonl", "c.txt.gz", "d.txt", "e/f.parquet", "e//f.parquet"])
"""The last two are different objects."""
SLASHES = {"e/f.parquet", "e//f.parquet"}
TEXTS = st.lists(st.sampled_from(["one", "two words", BAD, "x" * 30, "four"]), min_size=0, max_size=9)
STEPS = st.integers(0, 90)
WHEN: st.SearchStrategy[When] = st.sampled_from(["before", "after"])
VERSIONS: st.SearchStrategy[Versions] = st.sampled_from(["etag", "time", "size"])
ADDRESSES = st.sampled_from([("in",), ("in/",), ("in/*",), ("in", "in/always.txt"), ("in/*.txt", "in")])
DAMAGES: st.SearchStrategy[Damage] = st.sampled_from(["cut", "emptied", "swapped", "doubled"])
CUTS = st.sampled_from([CUT, CutRule(rows=3, bytes=1_000)])
"""By bytes, a row of Parquet is a shard; by rows, shards have rows that can be cut again."""
DECODED = st.sampled_from([1 << 20, 60, 20])
WISHES = st.builds(RunOptions, retry_errors=st.booleans(), prune=st.booleans())


SEEN: Counter[str] = Counter()
"""What has happened in all stories."""


class Protocol(RuleBasedStateMachine):
    """One output folder through everything that can befall it."""

    def __init__(self) -> None:
        super().__init__()
        STORE.reset()
        self.drill = Drill(f"{SCHEME}://bucket/job")
        self.died_racing = False
        self.by_hand = False

    @initialize(versions=VERSIONS, cut=CUTS, decoded_bytes=DECODED)
    def an_input_that_is_never_empty(self, versions: Versions, cut: CutRule, decoded_bytes: int) -> None:
        """A run over nothing is refused, which is another test's matter. A store may tell versions apart by size alone."""
        STORE.versions, STORE.flat = versions, True
        self.drill.rule, self.drill.decoded_bytes = cut, decoded_bytes
        self.drill.put_file("always.txt", ["here", "there", "everywhere", "and nowhere else"])

    @rule(name=NAMES, texts=TEXTS)
    def a_file_comes_or_changes(self, name: str, texts: list[str]) -> None:
        """Also back to what it was before."""
        self._put(name, texts)

    def _put(self, name: str, texts: list[str]) -> None:
        """A change that no listing shows is no change: nobody promises to notice it."""
        url = f"{self.drill.root}/in/{name}"
        held = STORE.objects.get(url.removeprefix(f"{SCHEME}://"))
        if STORE.versions != "size" or held is None or len(held) != len(content_of(name, texts)):
            self.drill.put_file(name, texts)

    @rule(texts=TEXTS, others=TEXTS)
    def files_come_whose_names_differ_by_a_slash_alone(self, texts: list[str], others: list[str]) -> None:
        """Two objects of a bucket, with different texts or the same."""
        for name, lines in zip(sorted(SLASHES), (texts, others), strict=True):
            self._put(name, lines)

    @rule(name=NAMES)
    def a_file_goes(self, name: str) -> None:
        """Deleted by whoever owns the input."""
        self.drill.delete_file(name)

    @rule(step=STEPS, when=WHEN, options=WISHES)
    def a_run_crashes(self, step: int, when: When, options: RunOptions) -> None:
        """Killed at some step, or at none if it has fewer."""
        self._troubled(crash_at(step, when), options)

    @rule(steps=st.sets(STEPS, max_size=8), when=WHEN, options=WISHES)
    def a_run_meets_a_store_that_stumbles(self, steps: set[int], when: When, options: RunOptions) -> None:
        """Connections cut before a step is done, or replies lost when it was."""
        self._troubled(stumble_at(steps, when), options)

    @rule(step=STEPS, options=WISHES, others=WISHES)
    def two_drivers_run_at_once(self, step: int, options: RunOptions, others: RunOptions) -> None:
        """The second runs wholly while the first is at some step."""
        self._troubled(meanwhile_at(step, lambda: self._quietly(others)), options)

    @rule(step=STEPS, inner=STEPS, when=WHEN)
    def two_drivers_run_at_once_and_one_is_killed(self, step: int, inner: int, when: When) -> None:
        """The second dies while the first is at some step."""

        def killed() -> None:
            with STORE.troubled(crash_at(inner, when)):
                self._quietly(RunOptions())

        self._troubled(meanwhile_at(step, killed), RunOptions())
        self.died_racing = True

    @rule(step=STEPS, name=NAMES, texts=TEXTS)
    def a_file_changes_while_a_run_goes(self, step: int, name: str, texts: list[str]) -> None:
        """Whatever is read of it then must not pass for the version that was planned."""
        self._troubled(meanwhile_at(step, lambda: self._put(name, texts)), RunOptions())

    @rule(number=st.integers(0, 200))
    def a_zombie_writes_late(self, number: int) -> None:
        """A task of some earlier run puts its object after everybody has forgotten it, or over that of a later run."""
        late = [
            (key, content)
            for key, contents in sorted(STORE.attempted.items())
            for content in contents
            if STORE.objects.get(key) != content
        ]
        if late:
            key, content = late[number % len(late)]
            self.by_hand |= key in STORE.objects
            STORE.put(key, content)

    @rule(number=st.integers(0, 20), and_its_input=st.booleans())
    def an_object_is_deleted_by_hand(self, number: int, and_its_input: bool) -> None:
        """By whoever thinks that it is not needed."""
        if keys := self._current_objects():
            key = keys[number % len(keys)]
            uri = read_footer(io.BytesIO(STORE.objects.pop(key)))["source"]
            self.by_hand = True
            if and_its_input and not uri.endswith("always.txt"):
                self.drill.delete_file(uri.removeprefix(f"{self.drill.root}/in/"))

    @rule(number=st.integers(0, 20), damage=DAMAGES)
    def an_object_is_damaged_by_hand(self, number: int, damage: Damage) -> None:
        """And the same command, run again, writes it again."""
        keys = self._current_objects()
        if len(keys) < 2:
            return
        key, other = keys[number % len(keys)], keys[(number + 1) % len(keys)]
        content = STORE.objects[key]
        if damage == "cut":
            STORE.put(key, content[: len(content) // 2])
        elif damage == "emptied":
            STORE.put(key, b"")
        elif damage == "swapped":
            STORE.put(key, STORE.objects[other])
            STORE.put(other, content)
        else:
            STORE.put(f"{key.removesuffix('.parquet')}-copy.parquet", content)
        assert faults_of(self.drill)
        assert_verify_agrees(self.drill)
        STORE.objects.pop(f"{key.removesuffix('.parquet')}-copy.parquet", None)
        self.a_run_goes_through(prune=False)

    def _current_objects(self) -> list[str]:
        """Objects of files that are still as they were when these were written."""
        here = {(file.uri, file.version) for file in find(f"{self.drill.root}/in")}
        inside = f"{self.drill.output.removeprefix(f'{SCHEME}://')}/data/"
        footers = {
            key: read_footer(io.BytesIO(content)) for key, content in STORE.objects.items() if key.startswith(inside)
        }
        return sorted(key for key, one in footers.items() if (one["source"], one["source_version"]) in here)

    @rule(sources=ADDRESSES)
    def the_input_is_addressed_otherwise(self, sources: tuple[str, ...]) -> None:
        """From now on: the same files by a folder, a glob, or twice."""
        self.drill.sources = sources

    @rule(format_=st.sampled_from(["text", "jsonl"]))
    def a_run_reads_in_another_format(self, format_: str) -> None:
        """It is refused, and nothing changes; unless that is how every file is read anyway."""
        output = self.drill.output.removeprefix(f"{SCHEME}://")
        before = {key: content for key, content in STORE.objects.items() if key.startswith(output)}
        if f"{output}/_job.json" not in before:
            return
        self.drill.format = format_
        try:
            self.drill.annotate()
        except OutputError:
            assert {key: content for key, content in STORE.objects.items() if key.startswith(output)} == before
        finally:
            self.drill.format = "auto"

    @rule(decoded_bytes=DECODED)
    def rows_may_take_other_memory(self, decoded_bytes: int) -> None:
        """From now on: with little, shards of Parquet are cut into parts, also of files that were planned whole."""
        self.drill.decoded_bytes = decoded_bytes

    @rule()
    def the_model_is_mended(self) -> None:
        """And every shard with error rows is run again."""
        self.drill.repaired = True
        self._quietly(RunOptions(retry_errors=True))

    @rule(prune=st.booleans())
    def a_run_goes_through(self, prune: bool) -> None:
        """The same command again, undisturbed: everything is as promised."""
        assert_done(self.drill, self.drill.annotate(RunOptions(prune=prune, retry_errors=True)))
        self.died_racing = self.by_hand = False
        here = {file.uri.removeprefix(f"{self.drill.root}/in/") for file in self.drill.files()}
        SEEN["runs with names that differ by a slash"] += here >= SLASHES

    def teardown(self) -> None:
        SEEN["shards cut in parts"] += self.drill.cut_again

    def _troubled(self, trouble: Trouble, options: RunOptions) -> None:
        with STORE.troubled(trouble):
            self._quietly(options)

    def _quietly(self, options: RunOptions) -> None:
        try:
            self.drill.annotate(options)
        except Crash:
            return

    @invariant()
    def objects_are_whole(self) -> None:
        """Always."""
        assert_objects_are_whole(self.drill)

    @invariant()
    def verify_finds_what_is_wrong(self) -> None:
        """Always."""
        assert_verify_agrees(self.drill)

    @invariant()
    def the_manifest_is_exact(self) -> None:
        """Always, but where a driver died in a race with another, since there is no lock, or where somebody else changed the
        objects: the next run repairs it."""
        if not self.died_racing and not self.by_hand:
            assert_manifest_is_exact(self.drill)


def test_no_story_loses_or_doubles_a_row() -> None:
    SEEN.clear()
    run_state_machine_as_test(
        Protocol,
        settings=settings(
            max_examples=25,
            stateful_step_count=14,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    print(dict(SEEN))


def test_a_story_can_cut_shards_in_parts_and_keeps_names_apart_that_differ_by_a_slash() -> None:
    """What the machine varies does happen: hypothesis only chooses when."""
    SEEN.clear()
    story = Protocol()
    story.an_input_that_is_never_empty(versions="etag", cut=CutRule(rows=3, bytes=1_000), decoded_bytes=20)
    story.files_come_whose_names_differ_by_a_slash_alone(["one", "two words", "four", "one"], ["x" * 30, "one", "four"])
    story.a_run_crashes(step=40, when="after", options=RunOptions())
    story.a_run_goes_through(prune=False)
    story.an_object_is_deleted_by_hand(number=3, and_its_input=False)
    story.verify_finds_what_is_wrong()
    story.a_run_goes_through(prune=False)
    story.teardown()
    assert SEEN == {"shards cut in parts": 2, "runs with names that differ by a slash": 2}
    assert {source for source, _, _ in story.drill.rows()} > {f"{story.drill.root}/in/{name}" for name in SLASHES}
