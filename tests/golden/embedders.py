"""Tiny folders of sentence-transformers in, what that library makes of texts out: embedders.json beside this file.

`python -m tests.golden.embedders` needs `pip install sentence-transformers==6.2.0` and writes it again. The weights and
tokenizers are those of families/; the small files of each folder are in embedders.json, as the library wrote them.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RECORD = HERE / "embedders.json"

TEXTS = [
    "John Smith works at Microsoft Corporation in New York City, isn't it?",
    "naïve café — 東京 ﬁne ½ ①",
    "Привет, мир! 🙂",
    "l'été à Noël, aujourd'hui",
    "吾輩は猫である。名前はまだ無い。",
    "  Two  spaces ",
    "wolf",
]

NEW = ("cls", "mean")
"""Folders that the library saves today; the files of the others are as its releases before 6 wrote them."""
MODULES = "sentence_transformers.models."
FOLDERS: dict[str, dict[str, Any]] = {
    "cls": {"of": "xlm-roberta/token-classification", "length": 12, "prompts": {"query": "query: ", "empty": ""}},
    "mean": {"of": "roberta/token-classification", "length": None, "prompts": {}},
    "old-mean": {
        "of": "roberta/token-classification",
        "modules": ["Transformer", "Pooling", "Normalize"],
        "files": {
            "1_Pooling/config.json": {
                "word_embedding_dimension": 32,
                "pooling_mode_cls_token": False,
                "pooling_mode_mean_tokens": True,
                "pooling_mode_max_tokens": False,
                "pooling_mode_mean_sqrt_len_tokens": False,
            },
            "sentence_bert_config.json": {"max_seq_length": 14, "do_lower_case": False},
            "config_sentence_transformers.json": {
                "prompts": {"query": "query: ", "passage": "passage: "},
                "default_prompt_name": "passage",
            },
        },
    },
    "old-cls": {
        "of": "xlm-roberta-xl/text-classification",
        "modules": ["Transformer", "Pooling"],
        "files": {
            "1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode_cls_token": True},
            "sentence_bert_config.json": {"max_seq_length": 20, "do_lower_case": False},
        },
    },
}


def checkpoint_files(of: str) -> list[Path]:
    """Weights and config of a head of families/, and the tokenizer: XLM-RoBERTa's where the family has none there."""
    family = HERE / "families" / of.partition("/")[0]
    tokenizer = family if (family / "tokenizer.json").is_file() else HERE / "families" / "xlm-roberta"
    head = HERE / "families" / of
    return [head / "config.json", head / "model.safetensors", *sorted(tokenizer.glob("*token*.json"))]


def write_folder(folder: Path, of: str, files: dict[str, Any]) -> None:
    """A folder of sentence-transformers from its small files and the weights and tokenizer of families/."""
    folder.mkdir(parents=True)
    for path in checkpoint_files(of):
        shutil.copyfile(path, folder / path.name)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def save_new(folder: Path, name: str) -> None:
    """A folder as the library saves it today."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    told = FOLDERS[name]
    plain = folder.with_name(folder.name + "-plain")
    write_folder(plain, told["of"], {})
    transformer = Transformer(str(plain), max_seq_length=told["length"])
    modules = [transformer, Pooling(32, name), *([Normalize()] if name == "cls" else [])]
    SentenceTransformer(modules=modules, prompts=told["prompts"], device="cpu").save(str(folder))


def made(folder: Path, name: str) -> dict[str, Any]:
    """One folder's record: its small files, and vectors by prompt. The folder is left where it was made."""
    from sentence_transformers import SentenceTransformer

    told = FOLDERS[name]
    if name in NEW:
        save_new(folder, name)
        small = [path for path in folder.rglob("*.json") if path.name != "tokenizer.json" and path.stat().st_size]
        files = {str(path.relative_to(folder)): json.loads(path.read_text(encoding="utf-8")) for path in sorted(small)}
    else:
        modules = [
            {"idx": place, "name": str(place), "path": f"{place}_{kind}" if place else "", "type": MODULES + kind}
            for place, kind in enumerate(told["modules"])
        ]
        files = {"modules.json": modules, **told["files"]}
        write_folder(folder, told["of"], files)
        for module in modules[2:]:
            (folder / str(module["path"])).mkdir()
    model = SentenceTransformer(str(folder), device="cpu")
    prompts: list[str | None] = [None, *(prompt for prompt, words in model.prompts.items() if words)]
    vectors = {prompt or "": model.encode(TEXTS, prompt_name=prompt).tolist() for prompt in prompts}
    return {"of": told["of"], "files": files, "vectors": vectors}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        record = {name: made(Path(scratch) / name, name) for name in FOLDERS}
    short = json.loads(json.dumps(record), parse_float=lambda written: round(float(written), 7))
    RECORD.write_text(json.dumps(short, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
