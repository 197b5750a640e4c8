"""Copies a committed folder to the tests' S3 server and counts every version of every object.

A folder is `job.yaml`, `input/` and `output.tar.xz`, which holds `before/` (the output folder as a killed driver of commit
e717816 left it) and `after/` (what e717816 itself added when it finished it). `make_folders.py` wrote them.
"""

import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

HERE = Path(__file__).parent
BUCKET = "preln-upgrade"
NAMES = sorted(path.parent.name for path in HERE.glob("*/job.yaml"))
Objects = Mapping[str, bytes]


@dataclass(frozen=True)
class HalfWritten:
    """A folder as committed. before, after: objects by their name below the output folder."""

    name: str
    before: Objects
    after: Objects

    @classmethod
    def load(cls, name: str) -> "HalfWritten":
        """From its archive."""
        objects: dict[str, dict[str, bytes]] = {"before": {}, "after": {}}
        with tarfile.open(HERE / name / "output.tar.xz") as archive:
            for member in archive:
                content = archive.extractfile(member)
                assert content is not None
                folder, _, key = member.name.partition("/")
                objects[folder][key] = content.read()
        return cls(name=name, **objects)

    @property
    def job_file(self) -> Path:
        """The job, as the old command was given it."""
        return HERE / self.name / "job.yaml"

    @property
    def url(self) -> str:
        """The output folder."""
        return f"s3://{BUCKET}/{self.name}/out"

    @property
    def input_url(self) -> str:
        """The folder of input files."""
        return f"s3://{BUCKET}/{self.name}/in"


@dataclass(frozen=True)
class VersionedStore:
    """The bucket that the old folders' addresses name; it keeps what is replaced or deleted."""

    client: Any

    def put(self, folder: HalfWritten, objects: Objects) -> dict[str, str]:
        """A folder's input and these objects of its output; the version of each object."""
        inputs = HERE / folder.name / "input"
        for path in (path for path in inputs.rglob("*") if path.is_file()):
            self._put(f"{folder.name}/in/{path.relative_to(inputs).as_posix()}", path.read_bytes())
        return {name: self._put(f"{folder.name}/out/{name}", content) for name, content in objects.items()}

    def _put(self, key: str, content: bytes) -> str:
        return str(self.client.put_object(Bucket=BUCKET, Key=key, Body=content)["VersionId"])

    def put_checkpoint(self) -> None:
        """The checkpoint of all folders."""
        for path in (path for path in (HERE / "checkpoint").rglob("*") if path.is_file()):
            self._put(path.relative_to(HERE).as_posix(), path.read_bytes())

    def versions(self, folder: HalfWritten) -> dict[str, list[str]]:
        """All versions of each object of an output folder, those before a replacement or a deletion too."""
        prefix = f"{folder.name}/out/"
        listed = self.client.list_object_versions(Bucket=BUCKET, Prefix=prefix)
        assert not listed["IsTruncated"]
        found: dict[str, list[str]] = {}
        for version in listed.get("Versions", ()):
            found.setdefault(version["Key"].removeprefix(prefix), []).append(version["VersionId"])
        return found

    def objects(self, folder: HalfWritten) -> Objects:
        """What is in an output folder now."""
        prefix = f"{folder.name}/out/"
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        assert not listed["IsTruncated"]
        keys = [entry["Key"] for entry in listed.get("Contents", ())]
        return {key.removeprefix(prefix): self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def empty(self, folder: HalfWritten) -> None:
        """Remove an output folder with all its versions, so that another test can have its address."""
        listed = self.client.list_object_versions(Bucket=BUCKET, Prefix=f"{folder.name}/")
        for version in (*listed.get("Versions", ()), *listed.get("DeleteMarkers", ())):
            self.client.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])


@contextmanager
def versioned_store(endpoint: str) -> Iterator[VersionedStore]:
    """The bucket with the checkpoint in it, and nothing else."""
    client = boto3.client("s3", endpoint_url=endpoint)
    try:
        client.create_bucket(Bucket=BUCKET)
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        store = VersionedStore(client)
        store.put_checkpoint()
        yield store
    finally:
        client.close()
