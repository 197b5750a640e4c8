"""The alternatives a user would run instead, each set up as its own documentation says.

Needs `pip install 'preln[bench]'`.
Legend: N texts, L labels, B a batch, S its longest text, H hidden size.
"""

import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jobs.benchmarks.ours import BenchTask, Scores, scored
from pipeline.inference.batching import TokenBudget, packs

PEER_BATCH_TOKENS = {"cpu": 1_024, "cuda": 16_384}
"""Padded tokens of a batch of sorted texts; on a CPU more are slower for padded forms."""
OPSET = 17


def sorted_batches(ids: Sequence[Sequence[int]], *, tokens: int, pad: int) -> Iterator[tuple[Any, Any, Any]]:
    """(numbers of the texts, ids [B, S], mask [B, S]) of texts sorted by length, padded, under a budget of tokens."""
    for chosen in packs(lengths_W=np.array([len(one) for one in ids]), budget=TokenBudget(tokens=tokens)):
        yield chosen, *padded([ids[number] for number in chosen], pad=pad)


def padded(ids: Sequence[Sequence[int]], *, pad: int) -> tuple[Any, Any]:
    """(ids [B, S], mask [B, S]), int64."""
    longest = max(map(len, ids))
    ids_BS = np.full((len(ids), longest), pad, np.int64)
    mask_BS = np.zeros((len(ids), longest), np.int64)
    for row, one in enumerate(ids):
        ids_BS[row, : len(one)] = one
        mask_BS[row, : len(one)] = 1
    return ids_BS, mask_BS


def reference_model(folder: str, *, dtype: str, device: str) -> Any:
    """transformers' class with the checkpoint, for inference."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=getattr(torch, dtype))
    return model.to(device).eval()


class EagerVariant:
    """transformers' class called on sorted, padded batches: what a careful user writes."""

    framework = "torch"

    def __init__(self, folder: str, *, dtype: str, device: str) -> None:
        self.name, self.dtype, self._device = "transformers eager, sorted", dtype, device
        self._model = reference_model(folder, dtype=dtype, device=device)
        self._pad = self._model.config.pad_token_id

    def logits(self, ids: Sequence[Sequence[int]]) -> Scores:
        """Every text's logits, in order."""
        import torch

        found: dict[int, Scores] = {}
        with torch.inference_mode():
            for chosen, ids_BS, mask_BS in sorted_batches(ids, tokens=PEER_BATCH_TOKENS[self._device], pad=self._pad):
                inputs = {"input_ids": torch.from_numpy(ids_BS), "attention_mask": torch.from_numpy(mask_BS)}
                inputs = {name: value.to(self._device) for name, value in inputs.items()}
                found.update(zip(chosen.tolist(), self._model(**inputs).logits.float().cpu().numpy(), strict=True))
        return np.stack([found[number] for number in range(len(ids))])


def encoder_options(dtype: str, device: str) -> dict[str, Any]:
    """How transformers loads an encoder: without a pooler, and with FlashAttention where that is installed and of use."""
    import torch

    flash = device == "cuda" and dtype != "float32" and importlib.util.find_spec("flash_attn") is not None
    attention = {"attn_implementation": "flash_attention_2"} if flash else {}
    return {"dtype": getattr(torch, dtype), "add_pooling_layer": False, **attention}


class EagerEncoder:
    """transformers' encoder on sorted, padded batches, and the mean over each text's own tokens."""

    framework = "torch"

    def __init__(self, folder: str, *, dtype: str, device: str) -> None:
        from transformers import AutoModel

        self.name, self.dtype, self._device = "transformers eager, sorted", dtype, device
        model = AutoModel.from_pretrained(folder, **encoder_options(dtype, device))
        self._model: Any = model.to(device).eval()

    def logits(self, ids: Sequence[Sequence[int]]) -> Scores:
        """Every text's vector, in order."""
        import torch

        found: dict[int, Scores] = {}
        pad = self._model.config.pad_token_id
        with torch.inference_mode():
            for chosen, ids_BS, mask_BS in sorted_batches(ids, tokens=PEER_BATCH_TOKENS[self._device], pad=pad):
                inputs = torch.from_numpy(ids_BS).to(self._device)
                mask = torch.from_numpy(mask_BS).to(self._device)
                hidden_BSH = self._model(input_ids=inputs, attention_mask=mask).last_hidden_state.float()
                sum_BH = (hidden_BSH * mask[..., None]).sum(1)
                found.update(zip(chosen.tolist(), (sum_BH / mask.sum(1)[:, None]).cpu().numpy(), strict=True))
        return np.stack([found[number] for number in range(len(ids))])


class SentenceTransformersVariant:
    """sentence-transformers with mean pooling, which sorts texts itself. It packs texts without padding where it has
    FlashAttention, which is on GPUs in half precision, and pads them elsewhere: the name says which."""

    framework = "torch"

    def __init__(self, folder: str, *, batch: int, dtype: str, device: str) -> None:
        from sentence_transformers import SentenceTransformer

        self.dtype, self._batch = dtype, batch
        self._model = SentenceTransformer(
            folder, device=device, local_files_only=True, model_kwargs=encoder_options(dtype, device)
        )
        self._model.max_seq_length = 512
        layout = "packed" if getattr(self._model[0], "can_flatten_inputs", False) else "padded"
        self.name = f"sentence-transformers ({layout}), batch {batch}"

    def scores(self, texts: Sequence[str]) -> Scores:
        """Every text's vector, in order."""
        vectors = self._model.encode(list(texts), batch_size=self._batch, show_progress_bar=False)
        return np.asarray(vectors, np.float32)


class OnnxVariant:
    """ONNX Runtime on sorted, padded batches, its transformer fusions on where they find something."""

    framework = "torch"

    def __init__(self, folder: str, *, threads: int, int8: bool = False) -> None:
        import onnxruntime

        self.name, self.dtype = "ONNX Runtime, sorted", "int8" if int8 else "float32"
        self._pad = 1
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        with tempfile.TemporaryDirectory() as place:
            file = exported(folder, Path(place))
            if int8:
                from onnxruntime.quantization import quantize_dynamic

                quantize_dynamic(file, file.with_name("int8.onnx"))
                file = file.with_name("int8.onnx")
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def logits(self, ids: Sequence[Sequence[int]]) -> Scores:
        """Every text's logits, in order."""
        found: dict[int, Scores] = {}
        for chosen, ids_BS, mask_BS in sorted_batches(ids, tokens=PEER_BATCH_TOKENS["cpu"], pad=self._pad):
            (logits,) = self._session.run(["logits"], {"input_ids": ids_BS, "attention_mask": mask_BS})
            found.update(zip(chosen.tolist(), logits, strict=True))
        return np.stack([found[number] for number in range(len(ids))])


def exported(folder: str, place: Path) -> Path:
    """The checkpoint as ONNX with free batch and length, fused by ONNX Runtime's own transformer optimizer."""
    import warnings

    import torch
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    model = reference_model(folder, dtype="float32", device="cpu")
    model.config.return_dict = False
    ids_BS = torch.full((2, 8), 5)
    free = {0: "batch", 1: "length"}
    file = place / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (ids_BS, torch.ones_like(ids_BS)),
            file,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes={"input_ids": free, "attention_mask": free, "logits": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    heads, width = model.config.num_attention_heads, model.config.hidden_size
    fused = optimizer.optimize_model(
        str(file), model_type="bert", num_heads=heads, hidden_size=width, optimization_options=FusionOptions("bert")
    )
    fused.save_model_to_file(str(place / "fused.onnx"))
    return place / "fused.onnx"


class OpenVinoVariant:
    """OpenVINO on sorted, padded batches."""

    framework = "torch"

    def __init__(self, folder: str, *, dtype: str, threads: int) -> None:
        import openvino
        import torch

        self.name, self.dtype = "OpenVINO, sorted", dtype
        self._pad = 1
        model = reference_model(folder, dtype="float32", device="cpu")
        ids_BS = torch.full((2, 8), 5)
        example = {"input_ids": ids_BS, "attention_mask": torch.ones_like(ids_BS)}
        converted = openvino.convert_model(model, example_input=example)
        precision = {"float32": "f32", "bfloat16": "bf16"}[dtype]
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        self._compiled = openvino.Core().compile_model(converted, "CPU", settings)

    def logits(self, ids: Sequence[Sequence[int]]) -> Scores:
        """Every text's logits, in order."""
        found: dict[int, Scores] = {}
        for chosen, ids_BS, mask_BS in sorted_batches(ids, tokens=PEER_BATCH_TOKENS["cpu"], pad=self._pad):
            logits = self._compiled({"input_ids": ids_BS, "attention_mask": mask_BS})[0]
            found.update(zip(chosen.tolist(), logits.copy(), strict=True))
        return np.stack([found[number] for number in range(len(ids))])


class PipelineVariant:
    """transformers' pipeline("text-classification") over a list of texts in arrival order."""

    framework = "torch"

    def __init__(self, folder: str, *, batch: int, dtype: str, device: str) -> None:
        from transformers import AutoTokenizer, pipeline

        self.name, self.dtype, self._batch = f"transformers pipeline, batch {batch}", dtype, batch
        model = reference_model(folder, dtype=dtype, device=device)
        self._labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self._pipeline: Any = pipeline(
            "text-classification", model=model, tokenizer=tokenizer, top_k=None, device=device
        )

    def scores(self, texts: Sequence[str]) -> Scores:
        """Every label's probability for every text, in order."""
        found = self._pipeline(list(texts), batch_size=self._batch, truncation=True, max_length=512)
        return np.array(
            [[{one["label"]: one["score"] for one in row}[label] for label in self._labels] for row in found],
            np.float32,
        )


class FrameVariant:
    """A data frame's column tokenized to padded lists, sorted by length, batches of fixed size: as curation tools do."""

    framework = "torch"
    batch = 64

    def __init__(self, folder: str, *, dtype: str, device: str) -> None:
        from transformers import AutoTokenizer

        self.name, self.dtype, self._device = f"frame of padded lists, batch {self.batch}", dtype, device
        self._model = reference_model(folder, dtype=dtype, device=device)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def scores(self, texts: Sequence[str]) -> Scores:
        """Every label's probability for every text, in order."""
        import pandas as pd
        import torch

        encoded = self._tokenizer(list(texts), truncation=True, max_length=512, padding="max_length")
        frame = pd.DataFrame({"ids": encoded["input_ids"], "mask": encoded["attention_mask"]})
        frame["length"] = frame["mask"].map(sum)
        frame = frame.sort_values("length")
        found = []
        with torch.inference_mode():
            for first in range(0, len(frame), self.batch):
                part = frame.iloc[first : first + self.batch]
                longest = int(part["length"].max())
                ids_BS = torch.tensor(part["ids"].tolist())[:, :longest].to(self._device)
                mask_BS = torch.tensor(part["mask"].tolist())[:, :longest].to(self._device)
                logits = self._model(input_ids=ids_BS, attention_mask=mask_BS).logits
                found.append(logits.float().softmax(-1).cpu().numpy())
        scores: Scores = np.empty((len(texts), found[0].shape[1]), np.float32)
        scores[frame.index.to_numpy()] = np.concatenate(found)
        return scores


class FromTexts:
    """A variant of ids behind a tokenizer: texts in, probabilities or vectors out."""

    def __init__(self, variant: Any, folder: str, *, task: BenchTask) -> None:
        from models.tokenizer import load_tokenizer

        self.name, self.dtype, self.framework = variant.name, variant.dtype, variant.framework
        self._variant, self._task = variant, task
        self._tokenizer = load_tokenizer(folder).backend
        self._tokenizer.enable_truncation(512)

    def scores(self, texts: Sequence[str]) -> Scores:
        """Every label's probability for every text, or its vector, in order."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        return scored(self._variant.logits(ids), self._task)
