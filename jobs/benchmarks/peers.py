"""The alternatives a user would run instead, each set up as its own documentation says.

Needs `pip install 'preln[bench]'`.
Legend: N texts, L labels, B a batch, S its longest text, H hidden size, V vocabulary, k answers a mask.
"""

import importlib.util
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jobs.benchmarks.ours import TOP_K, Answer, BenchTask, Fills, Scores, scored
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


def reference_model(folder: str, *, dtype: str, device: str, task: BenchTask = "text-classification") -> Any:
    """transformers' class with the checkpoint, for inference."""
    import torch
    import transformers

    classes = {
        "text-classification": transformers.AutoModelForSequenceClassification,
        "fill-mask": transformers.AutoModelForMaskedLM,
    }
    model = classes[task].from_pretrained(folder, dtype=getattr(torch, dtype))
    return model.to(device).eval()


def model_of_ids(folder: str, *, dtype: str, device: str, task: BenchTask) -> Any:
    """The same, returning a tuple of what is asked for: logits [B, L], or ids [B, k] and probabilities [B, k] of fills."""
    model = reference_model(folder, dtype=dtype, device=device, task=task)
    model.config.return_dict = False
    if task != "fill-mask":
        return model
    from jobs.benchmarks.masked_peers import at_mask

    return at_mask(model, folder)


class SortedVariant(ABC):
    """A model called on sorted, padded batches: what a careful user writes."""

    framework = "torch"
    pad = 1

    def __init__(self, name: str, *, dtype: str, device: str = "cpu") -> None:
        self.name, self.dtype, self.device = name, dtype, device

    @abstractmethod
    def answers(self, ids_BS: Any, mask_BS: Any) -> Sequence[Any]:
        """What is asked of one batch: logits or vectors, or ids and probabilities of fills."""

    def logits(self, ids: Sequence[Sequence[int]]) -> Answer:
        """Every text's logits, vector or fills, in order."""
        numbers, found = [], []
        for chosen, ids_BS, mask_BS in sorted_batches(ids, tokens=PEER_BATCH_TOKENS[self.device], pad=self.pad):
            numbers.append(chosen)
            found.append(self.answers(ids_BS, mask_BS))
        order = np.argsort(np.concatenate(numbers))
        arrays = [np.concatenate(parts)[order] for parts in zip(*found, strict=True)]
        return Fills(*arrays) if len(arrays) > 1 else arrays[0]


class EagerVariant(SortedVariant):
    """transformers' class in PyTorch."""

    def __init__(self, folder: str, *, dtype: str, device: str, task: BenchTask) -> None:
        super().__init__("transformers eager, sorted", dtype=dtype, device=device)
        self._model = model_of_ids(folder, dtype=dtype, device=device, task=task)

    def answers(self, ids_BS: Any, mask_BS: Any) -> Sequence[Any]:
        """Of one batch."""
        import torch

        with torch.inference_mode():
            inputs = (torch.from_numpy(array).to(self.device) for array in (ids_BS, mask_BS))
            found = self._model(*inputs)
            return [(one.float() if one.is_floating_point() else one).cpu().numpy() for one in found]


def encoder_options(dtype: str, device: str, task: BenchTask = "feature-extraction") -> dict[str, Any]:
    """How transformers loads an encoder: without a pooler, and with FlashAttention where that is installed and of use."""
    import torch

    flash = device == "cuda" and dtype != "float32" and importlib.util.find_spec("flash_attn") is not None
    options: dict[str, Any] = {"attn_implementation": "flash_attention_2"} if flash else {}
    # A masked LM has none to leave out.
    options |= {"add_pooling_layer": False} if task == "feature-extraction" else {}
    return {"dtype": getattr(torch, dtype), **options}


class EagerEncoder(SortedVariant):
    """transformers' encoder in PyTorch, and the mean over each text's own tokens."""

    def __init__(self, folder: str, *, dtype: str, device: str) -> None:
        from transformers import AutoModel

        super().__init__("transformers eager, sorted", dtype=dtype, device=device)
        model = AutoModel.from_pretrained(folder, **encoder_options(dtype, device))
        self._model: Any = model.to(device).eval()

    def answers(self, ids_BS: Any, mask_BS: Any) -> Sequence[Any]:
        """Of one batch."""
        import torch

        with torch.inference_mode():
            inputs, mask = (torch.from_numpy(array).to(self.device) for array in (ids_BS, mask_BS))
            hidden_BSH = self._model(input_ids=inputs, attention_mask=mask).last_hidden_state.float()
            sum_BH = (hidden_BSH * mask[..., None]).sum(1)
            return [(sum_BH / mask.sum(1)[:, None]).cpu().numpy()]


class SentenceTransformersVariant:
    """sentence-transformers, which sorts texts itself, with mean pooling, or as a masked LM. It packs texts without padding
    where it has FlashAttention, which is on GPUs in half precision, and pads them elsewhere: the name says which."""

    framework = "torch"

    def __init__(self, folder: str, *, batch: int, dtype: str, device: str, task: BenchTask) -> None:
        from sentence_transformers import SentenceTransformer

        self.dtype, self._batch, self._task = dtype, batch, task
        options = encoder_options(dtype, device, task)
        if task == "fill-mask":
            from jobs.benchmarks.masked_peers import sentence_modules

            self._model = SentenceTransformer(modules=sentence_modules(folder, options), device=device)
        else:
            self._model = SentenceTransformer(folder, device=device, local_files_only=True, model_kwargs=options)
        self._model.max_seq_length = 512
        layout = "packed" if getattr(self._model[0], "can_flatten_inputs", False) else "padded"
        self.name = f"sentence-transformers ({layout}), batch {batch}"

    def scores(self, texts: Sequence[str]) -> Answer:
        """Every text's vector or fills, in order."""
        found = self._model.encode(list(texts), batch_size=self._batch, show_progress_bar=False)
        vectors = np.asarray(found, np.float32)
        return vectors if self._task != "fill-mask" else Fills(*np.split(vectors, [TOP_K], axis=1))


class OnnxVariant(SortedVariant):
    """ONNX Runtime, its transformer fusions on where they find something."""

    def __init__(self, folder: str, *, threads: int, task: BenchTask, int8: bool = False) -> None:
        import onnxruntime

        super().__init__("ONNX Runtime, sorted", dtype="int8" if int8 else "float32")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        with tempfile.TemporaryDirectory() as place:
            file = exported(folder, Path(place), task)
            if int8:
                from onnxruntime.quantization import quantize_dynamic

                quantize_dynamic(file, file.with_name("int8.onnx"))
                file = file.with_name("int8.onnx")
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def answers(self, ids_BS: Any, mask_BS: Any) -> Sequence[Any]:
        """Of one batch."""
        return self._session.run(None, {"input_ids": ids_BS, "attention_mask": mask_BS})


def exported(folder: str, place: Path, task: BenchTask) -> Path:
    """The checkpoint as ONNX with free batch and length, fused by ONNX Runtime's own transformer optimizer."""
    import warnings

    import torch
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    model = model_of_ids(folder, dtype="float32", device="cpu", task=task)
    ids_BS = example_ids(folder)
    outputs = ["ids", "probs"] if task == "fill-mask" else ["logits"]
    free = {0: "batch", 1: "length"}
    file = place / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (ids_BS, torch.ones_like(ids_BS)),
            file,
            input_names=["input_ids", "attention_mask"],
            output_names=outputs,
            dynamic_axes={"input_ids": free, "attention_mask": free, **{name: {0: "batch"} for name in outputs}},
            opset_version=OPSET,
            dynamo=False,
        )
    heads, width = model.config.num_attention_heads, model.config.hidden_size
    fused = optimizer.optimize_model(
        str(file), model_type="bert", num_heads=heads, hidden_size=width, optimization_options=FusionOptions("bert")
    )
    fused.save_model_to_file(str(place / "fused.onnx"))
    return place / "fused.onnx"


def example_ids(folder: str) -> Any:
    """Two texts [2, 8] to trace a model with, a mask in each."""
    import torch

    from models.tokenizer import load_tokenizer

    ids_BS = torch.full((2, 8), 5)
    ids_BS[:, 3] = load_tokenizer(folder).mask_id
    return ids_BS


class OpenVinoVariant(SortedVariant):
    """OpenVINO, the model converted from PyTorch."""

    def __init__(self, folder: str, *, dtype: str, threads: int, task: BenchTask) -> None:
        import openvino
        import torch

        super().__init__("OpenVINO, sorted", dtype=dtype)
        model = model_of_ids(folder, dtype="float32", device="cpu", task=task)
        ids_BS = example_ids(folder)
        example = {"input_ids": ids_BS, "attention_mask": torch.ones_like(ids_BS)}
        converted = openvino.convert_model(model, example_input=example)
        precision = {"float32": "f32", "bfloat16": "bf16"}[dtype]
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        self._compiled = openvino.Core().compile_model(converted, "CPU", settings)

    def answers(self, ids_BS: Any, mask_BS: Any) -> Sequence[Any]:
        """Of one batch."""
        found = self._compiled({"input_ids": ids_BS, "attention_mask": mask_BS})
        return [found[index].copy() for index in range(len(found))]


class PipelineVariant:
    """transformers' pipeline for the task over a list of texts in arrival order."""

    framework = "torch"

    def __init__(self, folder: str, *, batch: int, dtype: str, device: str, task: BenchTask) -> None:
        from transformers import AutoTokenizer, pipeline

        self.name, self.dtype, self._batch = f"transformers pipeline, batch {batch}", dtype, batch
        model = reference_model(folder, dtype=dtype, device=device, task=task)
        self._labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
        self._fills, limit = task == "fill-mask", {"truncation": True, "max_length": 512}
        # The two pipelines take the tokenizer's arguments in different ways.
        self._limit: dict[str, Any] = {"tokenizer_kwargs": limit} if self._fills else limit
        tokenizer, top_k = AutoTokenizer.from_pretrained(folder), TOP_K if self._fills else None
        self._pipeline: Any = pipeline(task, model=model, tokenizer=tokenizer, top_k=top_k, device=device)

    def scores(self, texts: Sequence[str]) -> Answer:
        """Every label's probability for every text, or its fills, in order."""
        found = self._pipeline(list(texts), batch_size=self._batch, **self._limit)
        if self._fills:
            token_Nk, score_Nk = ([[one[name] for one in row] for row in found] for name in ("token", "score"))
            return Fills(np.array(token_Nk), np.array(score_Nk, np.float32))
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
    """A variant of ids behind a tokenizer: texts in, probabilities, vectors or fills out."""

    def __init__(self, variant: Any, folder: str, *, task: BenchTask) -> None:
        from models.tokenizer import load_tokenizer

        self.name, self.dtype, self.framework = variant.name, variant.dtype, variant.framework
        self._variant, self._task = variant, task
        self._tokenizer = load_tokenizer(folder).backend
        self._tokenizer.enable_truncation(512)

    def scores(self, texts: Sequence[str]) -> Answer:
        """Every label's probability for every text, its vector or its fills, in order."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        return scored(self._variant.logits(ids), self._task)
