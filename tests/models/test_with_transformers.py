"""Our PyTorch classes in the hands of transformers 4.57: its configs, its Trainer, its pipelines. Skipped where it is not
installed (extra `bench` brings a later release, which the Trainer's part of this takes too)."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("USE_TF", "0")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
torch = pytest.importorskip("torch")

import models  # noqa: E402 - only where transformers is there
from models.errors import CheckpointError  # noqa: E402
from tests.models import golden  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]
LABELS = {0: "no", 1: "yes", 2: "perhaps"}
SIZES = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}


def test_its_trainer_trains_our_classes_and_what_it_saves_wants_a_config(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed, which the Trainer needs")
    kind = models.RobertaPreLayerNormForSequenceClassification
    config = transformers.RobertaPreLayerNormConfig(**SIZES, id2label=LABELS)
    model = kind(config)
    rows = [{"input_ids": [0, 5 + i, 7, 2], "attention_mask": [1] * 4, "labels": i % 3} for i in range(16)]
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=2, report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows)
    assert np.isfinite(trainer.train().training_loss)
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    trainer.save_model(str(tmp_path / "saved"))
    with pytest.raises(CheckpointError, match=r"no config\.json; .*call model\.save_pretrained\(\)"):
        kind.from_pretrained(tmp_path / "saved")
    assert kind.from_pretrained(tmp_path / "saved", config=config).config.id2label == LABELS
    model.save_pretrained(tmp_path / "saved")
    theirs = transformers.RobertaPreLayerNormForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    ids = torch.tensor([[0, 5, 7, 2]])
    torch.testing.assert_close(theirs(ids).logits, model.eval()(ids).logits)


@pytest.mark.parametrize(
    ("task", "kind", "given"),
    [
        ("text-classification", "ForSequenceClassification", "a table for two"),
        ("token-classification", "ForTokenClassification", "a table for two"),
        ("fill-mask", "ForMaskedLM", "a <mask> for two"),
        ("question-answering", "ForQuestionAnswering", {"question": "for whom", "context": "a table for two"}),
    ],
)
def test_its_pipelines_answer_alike_with_our_classes(task: str, kind: str, given: Any) -> None:
    folder = str(golden.annotation_checkpoint(task))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    answers = []
    for library in (models, transformers):
        model = getattr(library, f"RobertaPreLayerNorm{kind}").from_pretrained(folder)
        found = transformers.pipeline(task, model=model, tokenizer=tokenizer)(given)
        answers.append(found if isinstance(found, list) else [found])
    for ours, theirs in zip(*answers, strict=True):
        assert {name: ours[name] for name in ours if name != "score"} == {n: theirs[n] for n in theirs if n != "score"}
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)


def test_its_generation_config_is_taken_or_refused_by_name() -> None:
    config = transformers.RobertaPreLayerNormConfig(**SIZES, is_decoder=True)
    model = models.RobertaPreLayerNormForCausalLM(config).eval()
    prompt = torch.tensor([[0, 5, 7, 9]])
    found = model.generate(prompt, generation_config=transformers.GenerationConfig(max_new_tokens=3, eos_token_id=60))
    assert found.shape == (1, 7)
    with pytest.raises(ValueError, match=r"generate\(num_beams=3\) is not supported"):
        model.generate(prompt, generation_config=transformers.GenerationConfig(num_beams=3))
