"""Writes files whose column claims to be of an extension type; imports no Ray.

python -m tests.pipeline.crafted FILE.parquet NAME HEX
"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write(path: str, name: str, payload: bytes) -> None:
    """A Parquet or Arrow file, by its suffix, whose column `vector` has the payload as its type's metadata."""
    kind: pa.DataType = pa.list_(pa.int64())
    value: object = [1, 2]
    if name.endswith("variable_shaped_tensor"):
        kind = pa.struct([("data", pa.list_(pa.int64())), ("shape", pa.list_(pa.int64()))])
        value = {"data": [1, 2], "shape": [2]}
    claims = {"ARROW:extension:name": name, "ARROW:extension:metadata": payload}
    schema = pa.schema([pa.field("text", pa.string()), pa.field("vector", kind, metadata=claims)])
    table = pa.Table.from_arrays([pa.array(["A text."]), pa.array([value], kind)], schema=schema)
    if Path(path).suffix == ".parquet":
        pq.write_table(table, path)
        return
    with pa.ipc.new_file(path, schema) as writer:
        writer.write_table(table)


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3]))
