"""Every row is there once, after runs that crash at any step, lose replies, write late and overlap.

Hypothesis makes up the stories. What is promised at all times is checked after every event, what is promised of a run
that went through after every such run.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.run_options import RunOptions
from tests.pipeline.drill_promise import assert_done, assert_manifest_is_exact, assert_objects_are_whole
from tests.pipeline.drill_run import BAD, Drill
from tests.pipeline.drill_store import SCHEME, STORE, Crash, Trouble, When, crash_at, meanwhile_at, stumble_at

NAMES = st.sampled_from(["a.parquet", "b.jsonl", "c.txt.gz", "d.txt"])
TEXTS = st.lists(st.sampled_from(["one", "two words", BAD, "x" * 30, "four"]), min_size=0, max_size=9)
STEPS = st.integers(0, 90)
WHEN: st.SearchStrategy[When] = st.sampled_from(["before", "after"])
WISHES = st.builds(RunOptions, retry_errors=st.booleans(), prune=st.booleans())


class Protocol(RuleBasedStateMachine):
    """One output folder through everything that can befall it."""

    def __init__(self) -> None:
        super().__init__()
        STORE.reset()
        self.drill = Drill(f"{SCHEME}://bucket/job")
        self.died_racing = False

    @initialize()
    def an_input_that_is_never_empty(self) -> None:
        """A run over nothing is refused, which is another test's matter."""
        self.drill.put_file("always.txt", ["here", "there", "everywhere", "and nowhere else"])

    @rule(name=NAMES, texts=TEXTS)
    def a_file_comes_or_changes(self, name: str, texts: list[str]) -> None:
        """Also back to what it was before."""
        self.drill.put_file(name, texts)

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
        self._troubled(meanwhile_at(step, lambda: self.drill.put_file(name, texts)), RunOptions())

    @rule(number=st.integers(0, 200))
    def a_zombie_writes_late(self, number: int) -> None:
        """A task of some earlier run puts its object after everybody has forgotten it."""
        late = [key for key in sorted(STORE.attempted) if key not in STORE.objects]
        if late:
            key = late[number % len(late)]
            STORE.objects[key] = STORE.attempted[key]

    @rule()
    def the_model_is_mended(self) -> None:
        """And every shard with error rows is run again."""
        self.drill.mended = True
        self._quietly(RunOptions(retry_errors=True))

    @rule(prune=st.booleans())
    def a_run_goes_through(self, prune: bool) -> None:
        """The same command again, undisturbed: everything is as promised."""
        assert_done(self.drill, self.drill.annotate(RunOptions(prune=prune, retry_errors=True)))
        self.died_racing = False

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
    def the_manifest_is_exact(self) -> None:
        """Always, but where a driver died in a race with another: there is no lock, and the next run mends it."""
        if not self.died_racing:
            assert_manifest_is_exact(self.drill)


Protocol.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=14,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestProtocol = Protocol.TestCase
