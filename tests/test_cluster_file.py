"""cluster.yaml and its variants are accepted by `ray up`, checked without any cloud."""

import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config

FILES = ("cluster.yaml", "jobs/clusters/gcp.yaml", "jobs/clusters/azure.yaml")
PROVIDERS = {"cluster.yaml": "aws", "jobs/clusters/gcp.yaml": "gcp", "jobs/clusters/azure.yaml": "azure"}
STORES = {"aws": "s3", "gcp": "gcs", "azure": "azure"}


@pytest.fixture(params=FILES)
def cluster(repository: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each of the files."""
    content: dict[str, Any] = yaml.safe_load((repository / request.param).read_text(encoding="utf-8"))
    assert content["provider"]["type"] == PROVIDERS[request.param]
    return content


def pins(repository: Path) -> dict[str, str]:
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def test_ray_accepts_the_cluster_file(cluster: dict[str, Any]) -> None:
    prepared = prepare_config(cluster)
    validate_config(prepared)
    assert prepared["available_node_types"]["gpu"]["max_workers"] == 4


def test_the_check_refuses_a_key_that_ray_does_not_know(cluster: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="max_worker"):
        validate_config(prepare_config({**cluster, "max_worker": 3}))


def test_images_have_the_pinned_ray(cluster: dict[str, Any], repository: Path) -> None:
    for image in ("head_image", "worker_image"):
        assert f":{pins(repository)['ray']}-py311-" in cluster["docker"][image]


def test_workers_come_and_go_and_the_dashboard_stays_on_loopback(cluster: dict[str, Any]) -> None:
    kinds = cluster["available_node_types"]
    assert all(kind["min_workers"] == 0 for name, kind in kinds.items() if name != "head")
    assert cluster["idle_timeout_minutes"] > 0
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][-1]


def test_the_head_has_neither_a_gpu_nor_cpus_for_work(cluster: dict[str, Any]) -> None:
    assert cluster["available_node_types"][cluster["head_node_type"]]["resources"] == {"CPU": 0}


def test_spot_machines_are_asked_for_and_on_demand_ones_stand_behind_them(cluster: dict[str, Any]) -> None:
    kinds = cluster["available_node_types"]
    spot, fallback = (str(kinds[name]["node_config"]).lower() for name in ("gpu", "gpu_on_demand"))
    assert "spot" in spot
    assert "spot" not in fallback
    assert kinds["gpu"]["resources"] == kinds["gpu_on_demand"]["resources"]


def test_every_node_starts_with_the_token_on(cluster: dict[str, Any]) -> None:
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        assert all("RAY_AUTH_MODE=token" in command for command in commands if "ray start" in command)
    assert "~/.ray/auth_token" in cluster["file_mounts"]


def test_mounted_files_and_installed_extras_exist(cluster: dict[str, Any], repository: Path) -> None:
    mounted = [source for source in cluster["file_mounts"].values() if not source.startswith("~")]
    assert {"jobs", "pipeline", "models", "constraints.txt"} <= set(mounted)
    assert all((repository / source).exists() for source in mounted)
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = cluster["setup_commands"][0].split(".[")[1].split("]")[0].split(",")
    assert set(installed) <= set(project["optional-dependencies"])
    assert STORES[cluster["provider"]["type"]] in installed


def test_gpu_machines_start_from_an_image_that_is_named_and_whose_driver_fits(cluster: dict[str, Any]) -> None:
    """PyTorch's wheels since 2.11 are built with CUDA 13, which needs a driver of 580 or newer."""
    for name in ("gpu", "gpu_on_demand"):
        printed = str(cluster["available_node_types"][name]["node_config"])
        match cluster["provider"]["type"]:
            case "aws":
                assert (
                    "'ImageId': 'resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu" in printed
                )
            case "gcp":
                (driver,) = re.findall(r"-nvidia-(\d+)", printed)
                assert int(driver) >= 580
            case "azure":
                assert "imagePublisher" in printed


def test_each_framework_has_an_extra_that_brings_cuda(repository: Path) -> None:
    extras = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    wanted = {name: [Requirement(line) for line in lines] for name, lines in extras.items()}
    plain = {one.name for one in wanted["torch"]}
    assert plain == {"torch"}, "its own wheels have CUDA in them"
    (jax,) = [one for one in wanted["flax-cuda"] if one.name == "jax"]
    assert jax.extras == {"cuda13"}
    assert not jax.specifier.contains("0.7.1"), "which only warns that it knows no such extra"
    assert jax.specifier.contains(pins(repository)["jax"])
    (tensorflow,) = [one for one in wanted["tensorflow-cuda"] if one.name == "tensorflow"]
    assert tensorflow.extras == {"and-cuda"}


def test_installed_packages_know_the_extras_that_bring_cuda() -> None:
    """By the metadata of what is installed here: no network."""
    for package, extra, brings in (("jax", "cuda13", "jax-cuda13-plugin"), ("tensorflow", "and-cuda", "nvidia-")):
        try:
            requires = metadata.requires(package) or []
        except metadata.PackageNotFoundError:
            continue
        named = [line for line in requires if f'extra == "{extra}"' in line or f"extra == '{extra}'" in line]
        assert any(line.startswith(brings) for line in named), (package, named)
