"""The commands of docs/after-a-run.md run, one after the other, on its job."""

import re
from pathlib import Path

import pytest

from tests.command import in_this_process

FENCE = re.compile(r"^```(yaml|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.ray
@pytest.mark.torch
@pytest.mark.timeout(400)  # a dozen commands, also on a busy machine
@pytest.mark.usefixtures("local_ray")
def test_the_commands_of_the_page_run(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (repository / "docs/after-a-run.md").read_text(encoding="utf-8")
    blocks = FENCE.findall(page)
    (tmp_path / "jobs").symlink_to(repository / "jobs")
    (tmp_path / "intents.yaml").write_text(next(content for kind, content in blocks if kind == "yaml"))
    monkeypatch.chdir(tmp_path)
    preln = in_this_process(monkeypatch, capsys)
    commands = [line for kind, content in blocks if kind == "sh" for line in content.splitlines()]
    assert len(commands) >= 5
    for command in commands:
        first, *words = command.split()
        assert first == "preln"
        ended = preln(*words)
        if command.endswith("bfloat16") and ended.code == 3:  # nearly equal labels, as the page says
            continue
        assert ended.code == 0, f"{command}: {ended.out}{ended.err}"
    assert (tmp_path / "pages/annotated.html").read_text(encoding="utf-8") == (tmp_path / "report.html").read_text(
        encoding="utf-8"
    )
