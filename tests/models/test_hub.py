"""Names of the Hub's: the classes, configs and tokenizers take them, from a server of its API on loopback."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.config import RobertaPreLayerNormConfig
from models.errors import CheckpointError
from models.tokenizer import load_tokenizer
from tests.hub_server import TOKEN, Hub, serving
from tests.models import golden
from tests.models.frameworks import CLASSES, INSTALLED, Classes, each
from tests.models.test_pretrained import same_weights
from tests.models.tiny import tiny_config

hub_client = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
Load = Any

KIND = "ForTokenClassification"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> checkpoint: one with a tokenizer, the same of another vocabulary, one with two formats, one below a folder."""
    root = tmp_path_factory.mktemp("models")
    framework = CLASSES[INSTALLED[0]]
    for name, size in (("main", 61), ("older", 67), ("two", 61)):
        framework.build(KIND, vocab_size=size).save_pretrained(str(root / name))
    framework.build(KIND, num_labels=3).save_pretrained(str(root / "two"), weights_format="msgpack")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(golden.annotation_checkpoint("fill-mask") / name, root / "main")
    (root / "main" / "README.md").write_text("not needed")
    shutil.copytree(root / "older", root / "nested" / "heads" / "ner")
    return {path.name: path for path in root.iterdir()}


@pytest.fixture
def hub(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    models = {
        "somebody/ner": {"main": folders["main"], "v1": folders["older"]},
        "somebody/secret": {"main": folders["main"]},
        "somebody/nested": {"main": folders["nested"]},
    }
    monkeypatch.chdir(tmp_path)
    with serving(models, private=frozenset({"somebody/secret"})) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield hub


@each()
def test_a_name_of_the_hub_is_loaded_with_its_revision_and_again_without_the_hub(
    framework: Classes, hub: Hub, folders: dict[str, Path], tmp_path: Path
) -> None:
    same_weights(framework, framework.load(KIND, "somebody/ner"), framework.load(KIND, folders["main"]))
    fetched = [path.rpartition("/")[2] for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    assert "README.md" not in fetched
    where = {"cache_dir": str(tmp_path / "mine"), "revision": "v1"}
    older = framework.load(KIND, "somebody/ner", **where, trust_remote_code=True, low_cpu_mem_usage=True)
    same_weights(framework, older, framework.load(KIND, folders["older"]))
    asked = len(hub.requests)
    same_weights(framework, framework.load(KIND, "somebody/ner", **where, local_files_only=True), older)
    assert len(hub.requests) == asked
    with pytest.raises(CheckpointError, match="somebody/ner: no copy is in the cache of the Hub"):
        framework.load(KIND, "somebody/ner", cache_dir=str(tmp_path / "empty"), local_files_only=True)


@each(INSTALLED[0])
def test_every_way_to_name_a_folder_of_the_hub_is_one_checkpoint(
    framework: Classes, hub: Hub, folders: dict[str, Path]
) -> None:
    older = framework.load(KIND, folders["older"])
    for name, options in (
        ("somebody/nested", {"subfolder": "heads/ner"}),
        ("hf://somebody/nested/heads/ner", {}),
        ("hf://somebody/nested/heads", {"subfolder": "ner"}),
        ("hf://somebody/ner@v1", {}),
        ("hf://models/somebody/ner", {"revision": "v1"}),
        (str(folders["nested"]), {"subfolder": "heads/ner"}),
    ):
        same_weights(framework, framework.load(KIND, name, **options), older)
        assert RobertaPreLayerNormConfig.from_pretrained(name, **options).vocab_size == 67


@each(INSTALLED[0])
def test_a_private_model_wants_its_token(framework: Classes, hub: Hub, folders: dict[str, Path]) -> None:
    with pytest.raises(
        CheckpointError, match=r"somebody/secret: .*no such model, or a private one; .*HF_TOKEN or token="
    ):
        framework.load(KIND, "somebody/secret", token=False)
    private = framework.load(KIND, "somebody/secret", token=TOKEN)
    same_weights(framework, private, framework.load(KIND, folders["main"]))


def test_what_the_hub_lacks_is_one_line(hub: Hub) -> None:
    read = RobertaPreLayerNormConfig.from_pretrained
    with pytest.raises(CheckpointError, match="nobody/ner: no such folder here, and the Hub has no such model"):
        read("nobody/ner")
    with pytest.raises(CheckpointError, match="somebody/ner: the Hub has no revision 'v9' of it"):
        read("somebody/ner", revision="v9")
    with pytest.raises(CheckpointError, match="names a revision, and revision='v2' another"):
        read("hf://somebody/ner@v1", revision="v2")
    with pytest.raises(CheckpointError, match="a model of the Hub is hf://org/name"):
        read("hf://datasets/somebody/ner")
    with pytest.raises(CheckpointError, match=r"the Hub's folder has no checkpoint; it has README.md"):
        read("somebody/ner", subfolder="nowhere")


def test_a_folder_of_that_name_wins_over_the_hub(hub: Hub, tmp_path: Path) -> None:
    tiny_config(vocab_size=71).save_pretrained(str(tmp_path / "somebody" / "ner"))
    assert RobertaPreLayerNormConfig.from_pretrained("somebody/ner").vocab_size == 71
    assert hub.requests == []


def test_the_tokenizer_of_a_name_is_read(hub: Hub, folders: dict[str, Path]) -> None:
    found, here = load_tokenizer("somebody/ner"), load_tokenizer(str(folders["main"]))
    assert found.backend.encode("a table for two").ids == here.backend.encode("a table for two").ids
    assert not [path for _, path in hub.requests if path.endswith(".safetensors")]
    with pytest.raises(TypeError, match="knows no argument 'use_slow'"):
        load_tokenizer("somebody/ner", use_slow=True)


def test_without_a_connection_the_cached_copy_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    read = RobertaPreLayerNormConfig.from_pretrained
    assert read("somebody/ner").vocab_size == 61
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert read("somebody/ner").vocab_size == 61
    with pytest.raises(CheckpointError, match=r"somebody/nested: no copy is in the cache of the Hub \(ConnectError"):
        read("somebody/nested")


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"no such folder here, and a model of the Hub needs .*preln\[hub\]"):
        RobertaPreLayerNormConfig.from_pretrained("somebody/ner")
