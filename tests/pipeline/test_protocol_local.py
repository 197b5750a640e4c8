"""Every row is there once on a local disk too, where links come and go and people change objects by hand."""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.output.folder import OutputFolder
from pipeline.output.verify import verify
from pipeline.run_options import RunOptions
from tests.pipeline.drill_promise import assert_verify_agrees, faults_of
from tests.pipeline.drill_run import Drill

NAMES = st.sampled_from(["b.txt", "c.jsonl", "m.txt.gz"])
LINKS = st.sampled_from(["0.txt", "link.txt", "z.jsonl", "y.txt.gz"])
TEXTS = st.lists(st.sampled_from(["one", "two words", "x" * 30]), min_size=1, max_size=5)


class LocalProtocol(RuleBasedStateMachine):
    """One output folder on a local disk."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="preln-protocol-"))
        self.drill = Drill(str(self.root))

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @initialize()
    def an_input_that_is_never_empty(self) -> None:
        self.drill.put_file("always.txt", ["here", "there"])

    @rule(name=NAMES, texts=TEXTS)
    def a_file_comes_or_changes(self, name: str, texts: list[str]) -> None:
        self.drill.put_file(name, texts)

    @rule(link=LINKS, name=NAMES)
    def a_link_comes(self, link: str, name: str) -> None:
        """To a file of the same format, which may be there or not; a link to nothing fails by itself."""
        target, path = self.root / "in" / name, self.root / "in" / link
        if link.partition(".")[2] == name.partition(".")[2] and target.exists() and not path.is_symlink():
            path.symlink_to(target)

    @rule(link=LINKS)
    def a_link_goes(self, link: str) -> None:
        (self.root / "in" / link).unlink(missing_ok=True)

    @rule()
    def a_run_goes_through(self) -> None:
        """Whatever links there are, each file's rows are there once."""
        report = self.drill.annotate(RunOptions(retry_errors=True))
        assert (report.state, list(report.failures)) == ("done", [])
        assert self._doubles() == []
        assert verify(self.drill.output).findings == ()

    @rule(number=st.integers(0, 20), repair=st.booleans())
    def an_object_is_deleted_by_hand(self, number: int, repair: bool) -> None:
        if objects := self._objects():
            objects[number % len(objects)].unlink()
            assert faults_of(self.drill)
            if repair:
                self.a_run_goes_through()

    @rule(number=st.integers(0, 20))
    def an_object_is_cut_and_keeps_its_time(self, number: int) -> None:
        """As a copy that was interrupted leaves it."""
        if objects := self._objects():
            path = objects[number % len(objects)]
            found = path.stat()
            path.write_bytes(path.read_bytes()[: found.st_size // 2])
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
            assert_verify_agrees(self.drill)
            self.a_run_goes_through()

    def _objects(self) -> list[Path]:
        """Of files that are still there, so that they can be made again."""
        _, entries = OutputFolder(self.drill.output).read_manifest()
        here = {file.uri for file in self.drill.files()}
        paths = [self.root / "out/data" / key for key, entry in sorted(entries.items()) if entry.uri in here]
        return [path for path in paths if path.exists()]

    def _doubles(self) -> list[str]:
        """Texts of one file that are there under two names of it."""
        sources = {source for source, _, _ in self.drill.rows()}
        real = [os.path.realpath(source.removeprefix("file://")) for source in sources if Path(source[7:]).exists()]
        return sorted(name for name in set(real) if real.count(name) > 1)

    @invariant()
    def verify_finds_what_is_wrong(self) -> None:
        """Always."""
        assert_verify_agrees(self.drill)


LocalProtocol.TestCase.settings = settings(
    max_examples=10,
    stateful_step_count=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
TestLocalProtocol = LocalProtocol.TestCase
