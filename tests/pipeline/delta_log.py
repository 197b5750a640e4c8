"""A Delta table whose log is written by hand, with what `deltalake` itself does not write."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def log_table(root: Path, *, deleted: dict[str, object] | None = None, **protocol: object) -> None:
    """A Delta table of one file of two rows, whose log is written by hand."""
    (root / "_delta_log").mkdir(parents=True)
    pq.write_table(pa.table({"text": ["one", "two"]}), root / "part-0.parquet")
    schema = {"type": "struct", "fields": [{"name": "text", "type": "string", "nullable": True, "metadata": {}}]}
    facts: dict[str, object] = {
        "partitionValues": {},
        "modificationTime": 0,
        "dataChange": True,
        "stats": '{"numRecords": 2}',
    }
    add: dict[str, object] = {"path": "part-0.parquet", "size": (root / "part-0.parquet").stat().st_size, **facts}
    table: dict[str, object] = {
        "id": "5e0a8f0e-1111-4222-8333-444455556666",
        "format": {"provider": "parquet", "options": {}},
    }
    table |= {"schemaString": json.dumps(schema), "partitionColumns": [], "configuration": {}, "createdTime": 0}
    log = [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "writerFeatures": [], **protocol}},
        {"metaData": table},
        {"add": add | ({"deletionVector": deleted} if deleted else {})},
    ]
    (root / "_delta_log" / f"{0:020}.json").write_text("\n".join(map(json.dumps, log)))


INLINE_VECTOR = {
    "storageType": "i",
    "pathOrInlineDv": "^Bg9^0rr910000000000iXQKl0rr91000005c8Xg0rr91",
    "sizeInBytes": 34,
    "cardinality": 1,
}
"""Row 1 of a file is deleted, as the protocol writes it."""
