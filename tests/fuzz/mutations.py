"""A good file and a seeded random generator in, a damaged file out: by its structure where that is cheap, else by its bytes."""

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from random import Random
from typing import Any

import msgpack
import yaml
import zstandard

Mutate = Callable[[bytes, Random], bytes]

DEEP = "@DEEP@"
"""Stands in a tree for a value nested deeper than json.dumps follows."""
ODD_TEXTS = (
    "",
    "\x1b[31mred\x1b]0;title\x07",
    "a\nb\0c",
    "../../../../etc/passwd",
    "{0.__class__}%s%n",
    "(a+)+$",
    "\ud800",
    "<b>",
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -(10**30), 1e308, float("nan"), float("inf"), 0.5),
    *ODD_TEXTS,
    *([], {}, [None], [[[]]], {"a": {"a": {}}}, "x" * 5_000, DEEP),
)
NUMBERS = [
    struct.pack(form, number)
    for form, number in (("<I", 2**32 - 1), (">I", 2**31), ("<Q", 2**63), ("<Q", 2**40), ("<i", -1), ("<H", 65_535))
]
TOKENS = (
    b'"',
    b'""',
    b",",
    b"\t",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"{",
    b"[",
    b"]",
    b"\\",
)
VARINTS = (
    b"\x00",
    b"\x01",
    b"\x7f",
    b"\xff\xff\xff\xff\x0f",
    b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80" * 9 + b"\x01",
)


def by_bytes(content: bytes, random: Random) -> bytes:
    """A few flips, cuts, splices and numbers at the border of their type."""
    changed = bytearray(content)
    if changed and random.random() < 0.3:
        # One bit: what is caught by no syntax.
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
        return bytes(changed)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        place = random.randrange(len(changed) + 1)
        size = random.choice((1, 1, 2, 4, 16, 256))
        match random.randrange(8):
            case 0:
                del changed[place:]
            case 1:
                del changed[place : place + size]
            case 2:
                changed[place:place] = changed[place : place + size] * random.choice((1, 2, 50))
            case 3:
                other = random.randrange(len(changed) + 1)
                changed[place : place + size] = changed[other : other + size]
            case 4:
                number = random.choice(NUMBERS)
                changed[place : place + len(number)] = number
            case 5:
                changed[place:place] = random.choice(TOKENS)
            case _:
                for _ in range(size):
                    if changed:
                        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _some(value: Any, random: Random) -> Any:
    """A value in place of another."""
    odd = deepcopy(random.choice(ODD_VALUES))
    if isinstance(value, str) and random.random() < 0.3:
        return value + str(random.choice(ODD_TEXTS))
    if isinstance(value, int | float) and random.random() < 0.3:
        return random.choice((value + 1, -value, str(value), [value], value * 1_000_000_007))
    return odd


def _place(tree: Any, random: Random) -> tuple[Any, Any]:
    """A container and a key in it, found from the root by chance: a vocabulary does not hide the settings beside it."""
    node = tree
    while True:
        key = random.choice(list(node)) if isinstance(node, dict) else random.randrange(len(node))
        if not isinstance(node[key], dict | list) or not node[key] or random.random() < 0.3:
            return node, key
        node = node[key]


def change_tree(tree: Any, random: Random) -> Any:
    """The tree with one value changed, left out, put elsewhere or under another key."""
    if not tree or random.random() < 0.02:
        return deepcopy(random.choice(ODD_VALUES))
    node, key = _place(tree, random)
    match random.randrange(6):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[random.choice([*ODD_TEXTS, "-1", "999999999999"])] = node.pop(key)
        case 2:
            other, place = _place(tree, random)
            node[key] = deepcopy(other[place])
        case 3 if isinstance(node, list):
            node.insert(key, _some(node[key], random))
        case _:
            node[key] = _some(node[key], random)
    return tree


def dumped(tree: Any, random: Random) -> bytes:
    """The tree as JSON's text, with what json.dumps can't write put in afterwards."""
    depth = random.choice((100, 900, 5_000, 100_000))
    text = json.dumps(tree).replace(f'"{DEEP}"', "[" * depth + "]" * depth)
    if random.random() < 0.05 and text.startswith("{") and len(text) > 2:
        text = "{" + text[1:-1] + "," + text[1:]  # every key twice
    return text.encode("utf-8", "surrogatepass")


def by_json(content: bytes, random: Random) -> bytes:
    """A JSON document: its tree, or now and then its bytes."""
    if random.random() < 0.2:
        return by_bytes(content, random)
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):  # damaged before
        return by_bytes(content, random)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        tree = change_tree(tree, random) if isinstance(tree, dict | list) else tree
    return dumped(tree, random)


def by_yaml(content: bytes, random: Random) -> bytes:
    """A job file: its tree, as JSON, or its bytes."""
    if random.random() < 0.4:
        return by_bytes(content, random)
    tree = yaml.safe_load(content)
    for _ in range(random.choice((1, 1, 2, 5))):
        tree = change_tree(tree, random) if isinstance(tree, dict | list) else tree
    return dumped(tree, random)


def by_lines(content: bytes, random: Random) -> bytes:
    """JSON lines: the tree of one of them, or the bytes of all."""
    lines = content.split(b"\n")
    if random.random() < 0.4:
        return by_bytes(content, random)
    for _ in range(random.choice((1, 2, 5))):
        number = random.randrange(len(lines))
        lines[number] = by_json(lines[number], random)
    return b"\n".join(lines)


def by_safetensors(content: bytes, random: Random) -> bytes:
    """The header's tree under a length that fits it, the length alone, or the bytes."""
    length = int.from_bytes(content[:8], "little")
    match random.randrange(5):
        case 0:
            return by_bytes(content, random)
        case 1:
            return random.choice((0, 1, length - 1, length + 1, 2**31, 2**63)).to_bytes(8, "little") + content[8:]
    header = by_json(content[8 : 8 + length].rstrip(), random)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def by_parquet(content: bytes, random: Random) -> bytes:
    """The footer (Thrift's compact numbers at their borders), the pages, or all bytes."""
    length = int.from_bytes(content[-8:-4], "little")
    footer, pages = content[-8 - length : -8], content[: -8 - length]
    match random.randrange(4):
        case 0:
            return by_bytes(content, random)
        case 1:
            pages = by_bytes(pages, random)
        case 2:
            place = random.randrange(len(footer))
            footer = footer[:place] + random.choice(VARINTS) + footer[place + random.choice((0, 1, 2)) :]
        case _:
            footer = by_bytes(footer, random)
    length = random.choice((len(footer),) * 9 + (len(footer) + 7,))
    return pages + footer + length.to_bytes(4, "little") + b"PAR1"


def by_gzip(inner: Mutate) -> Mutate:
    """What is packed, the trailer (checksum and size), the header, or a second member behind it."""

    def mutate(content: bytes, random: Random) -> bytes:
        match random.randrange(5):
            case 0:
                return by_bytes(content, random)
            case 1:
                return content[:-8] + by_bytes(content[-8:], random)
            case 2:
                return by_bytes(content[:10], random) + content[10:]
            case 3:
                return content + random.choice((b"\0" * 100, content, by_bytes(content, random), b"tail"))
        return gzip.compress(inner(gzip.decompress(content), random), mtime=0)

    return mutate


def by_zstd(inner: Mutate) -> Mutate:
    """What is packed, or the packed bytes."""

    def mutate(content: bytes, random: Random) -> bytes:
        if random.random() < 0.5:
            return by_bytes(content, random)
        return bytes(zstandard.compress(inner(zstandard.decompress(content), random)))

    return mutate


def by_zip(content: bytes, random: Random) -> bytes:
    """A member of the archive (the pickle most of all) under a directory that fits it, or the bytes."""
    if random.random() < 0.4:
        return by_bytes(content, random)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(made, "w") as target:
        names = source.namelist()
        pickles = [name for name in names if name.endswith(".pkl")]
        chosen = random.choice(pickles if random.random() < 0.8 else names)
        for name in names:
            inside = source.read(name)
            target.writestr(name, by_bytes(inside, random) if name == chosen else inside)
    return made.getvalue()


def by_msgpack(content: bytes, random: Random) -> bytes:
    """The tree, an array's own (shape, type, bytes), or the bytes."""
    if random.random() < 0.3:
        return by_bytes(content, random)
    tree = msgpack.unpackb(content, strict_map_key=False)
    node: dict[str, Any] = tree
    while True:
        key = random.choice(sorted(node, key=repr))
        if isinstance(node[key], dict):
            node = node[key]
            continue
        match random.randrange(4):
            case 0:
                del node[key]
            case 1:
                node[key] = random.choice([odd for odd in ODD_VALUES if _packs(odd)])
            case 2 if isinstance(node[key], msgpack.ExtType):
                inside = msgpack.unpackb(node[key].data)
                inside[random.randrange(len(inside))] = random.choice(([2**40], [-1], [], "float99", b"", 3))
                node[key] = msgpack.ExtType(node[key].code, msgpack.packb(inside))
            case _ if isinstance(node[key], msgpack.ExtType):
                node[key] = msgpack.ExtType(random.randrange(128), by_bytes(node[key].data, random))
        break
    return bytes(msgpack.packb(tree))


def _packs(value: Any) -> bool:
    return not (isinstance(value, int) and abs(value) >= 2**63) and value != "\ud800"


def by_head(content: bytes, random: Random) -> bytes:
    """The first kilobytes, where HDF5 and SentencePiece say what follows, or all bytes."""
    if random.random() < 0.3:
        return by_bytes(content, random)
    return by_bytes(content[:4_096], random) + content[4_096:]


WAYS: Mapping[str, Mutate] = {
    "bytes": by_bytes,
    "head": by_head,
    "json": by_json,
    "lines": by_lines,
    "yaml": by_yaml,
    "safetensors": by_safetensors,
    "parquet": by_parquet,
    "gzip": by_gzip(by_bytes),
    "gzip-lines": by_gzip(by_lines),
    "zstd": by_zstd(by_bytes),
    "zstd-lines": by_zstd(by_lines),
    "zip": by_zip,
    "msgpack": by_msgpack,
}
"""Name -> how a file is damaged."""
