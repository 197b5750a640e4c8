"""The guarantees hold on Azure's and Google's stores (by their emulators) as on S3 and a local disk."""

import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from pipeline.run_options import RunOptions
from pipeline.store.storage import delete, exists, find, info, names, opened, put, put_if_absent, read_bytes, read_range
from tests.chaos.servers import azurite, fake_gcs
from tests.conftest import S3Server
from tests.pipeline.drill_promise import assert_done, assert_manifest_is_exact, assert_objects_are_whole
from tests.pipeline.drill_run import BAD, Drill

pytestmark = [pytest.mark.storage, pytest.mark.timeout(700)]  # the first run installs Azurite

AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key of every Azurite, as its documentation gives it."""
ACCOUNT = "devstoreaccount1"
TEXTS = ["one", BAD, "three", "four"]


@pytest.fixture(scope="module")
def abfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A container in Azurite, as `abfs://name`."""
    adlfs = pytest.importorskip("adlfs", reason="adlfs is not installed: pip install -e '.[azure]' -c constraints.txt")
    with azurite(tmp_path_factory.mktemp("azurite")) as address, pytest.MonkeyPatch.context() as patch:
        parts = {
            "DefaultEndpointsProtocol": "http",
            "AccountName": ACCOUNT,
            "AccountKey": AZURE_KEY,
            "BlobEndpoint": f"{address}/{ACCOUNT}",
        }
        connection = ";".join(f"{name}={value}" for name, value in parts.items())
        patch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
        adlfs.AzureBlobFileSystem.clear_instance_cache()
        adlfs.AzureBlobFileSystem(connection_string=connection).mkdir("promise")
        yield "abfs://promise"
        adlfs.AzureBlobFileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def gs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket in fake-gcs-server, as `gs://name`."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        # Read when gcsfs is imported: otherwise it asks Google's own servers about every bucket first.
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        gcsfs = pytest.importorskip("gcsfs", reason="no gcsfs: pip install -e '.[gcs]' -c constraints.txt")
        address = stack.enter_context(fake_gcs(tmp_path_factory.mktemp("gcs")))
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        gcsfs.GCSFileSystem.clear_instance_cache()
        gcsfs.GCSFileSystem(token="anon", project="p").mkdir("promise")
        yield "gs://promise"
        gcsfs.GCSFileSystem.clear_instance_cache()


@pytest.fixture(params=["s3", "abfs", "gs"])
def bucket(request: pytest.FixtureRequest) -> str:
    """A folder of its own in each store."""
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        return server.make_bucket()
    return f"{request.getfixturevalue(request.param)}/{request.node.name.partition('[')[0][-30:]}"


def test_objects_are_put_listed_read_and_deleted(bucket: str) -> None:
    assert names(f"{bucket}/x") == []
    assert find(f"{bucket}/x") == []
    assert not exists(f"{bucket}/x/a")
    put(f"{bucket}/x/a.txt", b"0123456789")
    put(f"{bucket}/x/deep/b.txt", b"b")
    assert read_bytes(f"{bucket}/x/a.txt") == b"0123456789"
    assert read_range(f"{bucket}/x/a.txt", 3, 5) == b"34"
    with opened(f"{bucket}/x/a.txt") as file:
        assert (file.read(2), file.seek(8), file.read()) == (b"01", 8, b"89")
    assert [found.uri.removeprefix(bucket) for found in find(f"{bucket}/x")] == ["/x/a.txt", "/x/deep/b.txt"]
    assert [found.uri.removeprefix(bucket) for found in find(f"{bucket}/x/*.txt")] == ["/x/a.txt"]
    before = info(f"{bucket}/x/a.txt")
    put(f"{bucket}/x/a.txt", b"9876543210")
    assert info(f"{bucket}/x/a.txt").version != before.version, "another content is another version"
    with pytest.raises(FileNotFoundError):
        read_bytes(f"{bucket}/x/absent")
    delete([f"{bucket}/x/a.txt", f"{bucket}/x/absent"])
    assert not exists(f"{bucket}/x/a.txt")


def test_what_is_put_if_absent_stays_what_it_was(bucket: str) -> None:
    url = f"{bucket}/absent/_job.json"
    assert put_if_absent(url, b"first") == b"first"
    assert put_if_absent(url, b"second") == b"first"
    assert read_bytes(url) == b"first"


def test_a_dataset_lives_through_changes_and_a_death_in_the_middle(bucket: str) -> None:
    drill = Drill(f"{bucket}/job")
    drill.put_file("a.parquet", TEXTS)
    drill.put_file("b.txt.gz", TEXTS)
    drill.put_file("c.jsonl", TEXTS)
    with pytest.raises(Killed):
        dying_after(drill, commits=2)
    assert_objects_are_whole(drill)
    assert len(names(f"{drill.output}/data")) == 2
    assert_done(drill, drill.annotate())
    assert_done(drill, drill.annotate())
    drill.put_file("a.parquet", ["uno", "due"])
    drill.put_file("d.txt", ["new"])
    drill.delete_file("c.jsonl")
    drill.repaired = True
    assert_done(drill, drill.annotate(RunOptions(prune=True, retry_errors=True)))
    assert_manifest_is_exact(drill)
    assert gzip.decompress(read_bytes(f"{bucket}/job/in/b.txt.gz")).count(b"\n") == len(TEXTS)


class Killed(BaseException):
    """The end of a process."""


def dying_after(drill: Drill, *, commits: int) -> None:
    """A run that ends in the middle."""
    finish: Callable[..., object] = drill._finish
    left = [commits]

    def counted(*arguments: object, **options: object) -> object:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return finish(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drill, "_finish", counted)
        drill.annotate()
