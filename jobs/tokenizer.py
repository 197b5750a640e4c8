"""`preln tokenizer train`: trains a byte-level BPE tokenizer on texts."""

from typing import Annotated

import typer

tokenizer = typer.Typer(help="Tokenizers of your own.", no_args_is_help=True)


@tokenizer.callback()
def about() -> None:
    """Tokenizers of your own."""


@tokenizer.command()
def train(
    input_urls: Annotated[
        list[str],
        typer.Option("--input", help="Texts: Parquet, JSON Lines, CSV or text at any URL; may be repeated."),
    ],
    output: Annotated[str, typer.Option("--output", help="Folder for the tokenizer's files, at any URL.")],
    pieces: Annotated[int, typer.Option("--pieces", help="Size of the vocabulary.")] = 50_265,
    column: Annotated[str, typer.Option("--column", help="Column that holds the text.")] = "text",
    max_length: Annotated[int, typer.Option("--max-length", help="Tokens a text may have, specials included.")] = 512,
    prefix_space: Annotated[
        bool, typer.Option("--prefix-space", help="Begin a text as if after a space; lists of words need it.")
    ] = False,
) -> None:
    """Learn a byte-level BPE with RoBERTa's special tokens: tokenizer.json, vocab.json, merges.txt, tokenizer_config.json."""
    from jobs.training.bpe import train_tokenizer
    from jobs.training.records import read_records, texts_of
    from models.addresses import open_address

    texts = texts_of(read_records(input_urls), column=column)
    files = train_tokenizer(texts, pieces=pieces, text_limit=max_length, prefix_space=prefix_space)
    system, folder = open_address(output)
    system.makedirs(folder, exist_ok=True)
    for name, content in files.items():
        system.pipe_file(f"{folder}/{name}", content)
    print(f"{pieces} pieces learnt from {len(texts):,} texts: {output}")
