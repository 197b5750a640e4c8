"""The repository's own files in; proof that the house stands as its documents say out."""

import pytest


@pytest.mark.ray
def test_local_ray_runs_a_task(local_ray: None) -> None:
    import ray

    assert ray.get(ray.remote(lambda: 41 + 1).remote()) == 42


@pytest.mark.storage
def test_bucket_keeps_an_object(s3_bucket: str) -> None:
    import fsspec

    with fsspec.open(f"{s3_bucket}/a.txt", "w") as file:
        file.write("x")
    with fsspec.open(f"{s3_bucket}/a.txt") as file:
        assert file.read() == b"x"
