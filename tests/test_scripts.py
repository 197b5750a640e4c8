"""Scripts as people publish them for the reference run on preln; what changes beside the import is in each script's first line.

Others are elsewhere: the Trainer in tests/models/test_with_transformers.py; Keras' fit, optax and a torch loop in
docs/training.md. Those whose packages no extra installs are skipped without them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import preln
from jobs.embedded import CHECKPOINT, DEMO

TEXTS = ["book a table for two", "what is the weather in Paris"]

pytestmark = pytest.mark.torch


def test_lora_for_classification_trains_its_adapters_and_the_head_only() -> None:
    """Changed: nothing; the layers have the reference's names."""
    import torch
    from torch import nn

    from models import RobertaPreLayerNormForSequenceClassification

    class LoRA(nn.Module):
        def __init__(self, base: nn.Linear, rank: int = 4) -> None:
            super().__init__()
            self.base = base.requires_grad_(False)
            self.down = nn.Linear(base.in_features, rank, bias=False)
            self.up = nn.Linear(rank, base.out_features, bias=False)
            nn.init.zeros_(self.up.weight)

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return self.base(hidden) + self.up(self.down(hidden))

    torch.manual_seed(0)
    model = RobertaPreLayerNormForSequenceClassification.from_pretrained(str(CHECKPOINT))
    ids = torch.randint(3, 200, (8, 12))
    labels = torch.arange(8) % 2
    before = model.eval()(ids).logits
    for parameter in model.roberta_prelayernorm.parameters():
        parameter.requires_grad_(False)
    for layer in model.roberta_prelayernorm.encoder.layer:
        attention = layer.attention.self
        attention.query, attention.value = LoRA(attention.query), LoRA(attention.value)
    torch.testing.assert_close(model(ids).logits, before)  # an adapter starts as nothing
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    losses = []
    for _ in range(20):
        loss = model(ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own exporter that needs no further package
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_model_is_exported_to_onnx_and_answers_alike(tmp_path: Path) -> None:
    """Changed: logits are taken by their place, since a traced model answers with a tuple."""
    runtime: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra bench)")
    import torch

    from models import RobertaPreLayerNormForSequenceClassification

    model = RobertaPreLayerNormForSequenceClassification.from_pretrained(str(CHECKPOINT)).eval()
    ids = torch.tensor([[0, 5, 6, 7, 2], [0, 9, 2, 1, 1]])
    mask = (ids != 1).long()
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    torch.onnx.export(
        model,
        (ids, mask),
        str(tmp_path / "model.onnx"),
        dynamo=False,
        input_names=list(axes),
        output_names=["logits"],
        dynamic_axes=axes,
    )
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    (logits,) = session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[:1]
    np.testing.assert_allclose(logits, model(ids, attention_mask=mask).logits.detach().numpy(), atol=1e-4)


def test_a_fastapi_handler_answers_a_request() -> None:
    """Changed: `preln.load` for `pipeline(...)`, and `.to_pylist()`."""
    fastapi: Any = pytest.importorskip("fastapi", reason="FastAPI is not installed")
    testing: Any = pytest.importorskip("fastapi.testclient", reason="FastAPI's test client needs httpx")
    app = fastapi.FastAPI()
    with preln.load(DEMO / "intents", task="text-classification", device="cpu") as model:

        @app.post("/classify")
        def classify(texts: list[str]) -> list[dict[str, Any]]:
            answers: pa.Table = model(texts)
            return answers.to_pylist()

        reply = testing.TestClient(app).post("/classify", json=TEXTS)
    assert reply.status_code == 200
    assert [row["label"] for row in reply.json()] == ["restaurant_reservation", "weather"]


def test_a_notebook_runs(tmp_path: Path, repository: Path) -> None:
    """Changed: `preln.annotate` for `pipeline(...)`."""
    nbformat: Any = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient: Any = pytest.importorskip("nbclient", reason="nbclient is not installed")
    cells = [
        "import pandas as pd, preln",
        f"frame = pd.DataFrame({{'text': {TEXTS!r}}})",
        f"preln.annotate(frame, model={str(DEMO / 'intents')!r}, task='text-classification', device='cpu')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(repository))
        nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (shown,) = notebook.cells[-1].outputs
    assert "restaurant_reservation" in shown["data"]["text/html"]


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_map_batches_of_ray_data_takes_the_class_as_its_actor() -> None:
    """Changed: `preln.Model` for a class of one's own around `pipeline(...)`."""
    import ray

    dataset = ray.data.from_items([{"text": text} for text in TEXTS])
    options = {"model": str(DEMO / "intents"), "task": "text-classification", "device": "cpu"}
    answered = dataset.map_batches(
        preln.Model, fn_constructor_kwargs=options, batch_format="pyarrow", concurrency=1, num_cpus=0.5
    )
    rows = {row["text"]: row["label"] for row in answered.take_all()}
    assert rows == dict(zip(TEXTS, ["restaurant_reservation", "weather"], strict=True))
