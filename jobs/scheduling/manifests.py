"""Kubernetes manifests for a scheduled job: RayJob, RayCronJob, and a CronJob that creates RayJobs.

The cluster in all of them is that of `jobs/kubernetes/raycluster.yaml`. The examples beside that file are written by
`python -m jobs.scheduling.manifests`.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "kubernetes"
KUBECTL_IMAGE = "alpine/k8s:1.34.1"
"""kubectl with a shell."""
NOBODY = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
DAY = 86_400

WAIT_FOR_RAYJOB = """\
set -eu
name=$(kubectl create -f /manifest/rayjob.yaml -o name)
echo "started $name"
while true; do
  state=$(kubectl get "$name" -o jsonpath='{.status.jobDeploymentStatus}/{.status.jobStatus}')
  case "$state" in
    Complete/SUCCEEDED) echo "$name: $state"; exit 0 ;;
    Complete/*|Failed/*) echo "$name: $state"; exit 1 ;;
  esac
  sleep 15
done
"""

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Running:
    """What a manifest runs. job: the job file's content. cuda, cpu: images of workers with a GPU and of everything else."""

    name: str
    job: str
    cpu: str = "preln:cpu"
    cuda: str = "preln:cuda"
    flags: tuple[str, ...] = ()

    @property
    def job_map(self) -> Manifest:
        """The job file as a ConfigMap."""
        return config_map(f"{self.name}-job", {"job.yaml": self.job})


@dataclass(frozen=True)
class Times:
    """When: a cron expression, and the time zone it speaks of."""

    schedule: str
    zone: str = "Etc/UTC"


def ray_job(running: Running) -> Manifest:
    """One run on a cluster of its own."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": running.name},
        "spec": ray_job_spec(running),
    }


def ray_job_spec(running: Running) -> Manifest:
    """A RayJob's spec. It is tried once: a run that ended early is gone on with by the next one."""
    submitter = {
        "name": "ray-job-submitter",
        "image": running.cpu,
        "securityContext": CONFINED,
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "200m", "memory": "512Mi"}},
    }
    return {
        "entrypoint": " ".join(["python -m jobs annotate /etc/preln/job.yaml", *running.flags]),
        "submissionMode": "K8sJobMode",
        # KubeRay would repeat every failure on a new cluster: exit codes 2 (something must be changed) and 3 (files that can't be
        # read) too, where that helps nothing. The next run, by schedule or by hand, resumes.
        "backoffLimit": 0,
        "activeDeadlineSeconds": DAY,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 600,
        "submitterPodTemplate": {
            "spec": {"restartPolicy": "Never", "securityContext": NOBODY, "containers": [submitter]}
        },
        "rayClusterSpec": cluster_spec(running),
    }


@cache
def _cluster() -> Manifest:
    manifest: Manifest = yaml.safe_load((FOLDER / "raycluster.yaml").read_text(encoding="utf-8"))
    return manifest


def cluster_spec(running: Running) -> Manifest:
    """The cluster of raycluster.yaml with these images, and the job file where the driver finds it."""
    spec: Manifest = copy.deepcopy(_cluster()["spec"])
    head = spec["headGroupSpec"]["template"]["spec"]
    head["containers"][0]["image"] = running.cpu
    head["containers"][0]["volumeMounts"].append({"name": "job", "mountPath": "/etc/preln", "readOnly": True})
    head["volumes"].append({"name": "job", "configMap": {"name": running.job_map["metadata"]["name"]}})
    for group in spec["workerGroupSpecs"]:
        group["template"]["spec"]["containers"][0]["image"] = running.cuda
    return spec


def ray_cron_job(running: Running, times: Times) -> list[Manifest]:
    """The schedule by KubeRay itself."""
    spec = {"schedule": times.schedule, "timeZone": times.zone, "suspend": False, "jobTemplate": ray_job_spec(running)}
    manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCronJob",
        "metadata": {"name": running.name},
        "spec": spec,
    }
    return [running.job_map, manifest]


def cron_job(running: Running, times: Times) -> list[Manifest]:
    """The schedule by a CronJob that creates a RayJob and waits for its end."""
    account = f"{running.name}-schedule"
    created = {**ray_job(running), "metadata": {"generateName": f"{running.name}-"}}
    return [
        running.job_map,
        *_right_to_create_ray_jobs(account),
        config_map(f"{running.name}-rayjob", {"rayjob.yaml": to_yaml(created)}),
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": running.name},
            "spec": {
                "schedule": times.schedule,
                "timeZone": times.zone,
                "concurrencyPolicy": "Forbid",
                "startingDeadlineSeconds": 3_600,
                "successfulJobsHistoryLimit": 3,
                "failedJobsHistoryLimit": 3,
                "jobTemplate": {
                    "spec": {
                        "backoffLimit": 0,
                        "activeDeadlineSeconds": DAY + 3_600,
                        "ttlSecondsAfterFinished": DAY,
                        "template": {"spec": _starter(account, manifest=f"{running.name}-rayjob")},
                    }
                },
            },
        },
    ]


def _starter(account: str, *, manifest: str) -> Manifest:
    """The pod that creates the RayJob of a manifest and waits for its end, with as few rights as that needs."""
    return {
        "serviceAccountName": account,
        "restartPolicy": "Never",
        "securityContext": NOBODY,
        "containers": [
            {
                "name": "start-rayjob",
                "image": KUBECTL_IMAGE,
                "command": ["/bin/sh", "-c", WAIT_FOR_RAYJOB],
                "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - kubectl's cache, in the pod
                "securityContext": CONFINED,
                "resources": {
                    "limits": {"cpu": "200m", "memory": "128Mi"},
                    "requests": {"cpu": "50m", "memory": "64Mi"},
                },
                "volumeMounts": [{"name": "manifest", "mountPath": "/manifest", "readOnly": True}],
            }
        ],
        "volumes": [{"name": "manifest", "configMap": {"name": manifest}}],
    }


def _right_to_create_ray_jobs(name: str) -> list[Manifest]:
    group = "rbac.authorization.k8s.io"
    rule = {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get", "list", "watch"]}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": name}, "rules": [rule]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name}],
        },
    ]


def config_map(name: str, data: Mapping[str, str]) -> Manifest:
    """Files as a ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(data)}


class _Plain(yaml.SafeDumper):
    """YAML without anchors, and with texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)


def to_yaml(*manifests: Manifest) -> str:
    """Manifests as one YAML text."""
    return "---\n".join(yaml.dump(manifest, Dumper=_Plain, sort_keys=False, width=118) for manifest in manifests)


EXAMPLE = Running(
    name="preln",
    job=(
        "input: s3://corpus/reviews/*.parquet\n"
        "model: s3://models/review-topics\n"
        "task: text-classification\n"
        "output: s3://corpus/reviews-annotated\n"
        "# One replica per GPU. It must be set here: before the first GPU node is up, the driver can't know of any.\n"
        "resources:\n"
        "  gpus: 1\n"
    ),
)
NIGHTLY = Times("0 2 * * *")

RAY_JOB_SAYS = """\
# One run of a job on a cluster of its own, which comes for it and goes with it. Written by `python -m jobs.scheduling.manifests`.
#   kubectl create secret generic preln-token --from-literal=auth_token=$(openssl rand -hex 32)
#   kubectl apply -f jobs/kubernetes/rayjob.yaml
# It is not repeated after a failure (backoffLimit: 0): a corrupt file or a mistake in the job, exit codes 3 and 2, would bring
# up new GPU nodes in vain. The next run resumes with the missing shards: delete the RayJob first
# (kubectl replace --force), or schedule it (raycronjob.yaml, cronjob.yaml, `preln schedule`).
"""
RAY_CRON_JOB_SAYS = """\
# A job every night on a cluster of its own, by KubeRay itself (1.6 or newer, feature gate RayCronJob, alpha). It has no rule
# against overlap: two runs of the same job do no harm, they only do some shards twice. Without the feature gate: cronjob.yaml.
# Written by `python -m jobs.scheduling.manifests`; your own by `preln schedule JOB --cron … --to kubernetes`.
"""
CRON_JOB_SAYS = """\
# A job every night, portably: a CronJob whose pod creates a RayJob and waits for its end, so that Forbid keeps a second one from
# starting beside it. Needs KubeRay's operator, and no feature gate.
# Written by `python -m jobs.scheduling.manifests`; your own by `preln schedule JOB --cron … --to kubernetes`.
"""


def examples() -> dict[str, str]:
    """File name -> content of the examples beside raycluster.yaml."""
    return {
        "rayjob.yaml": RAY_JOB_SAYS + to_yaml(EXAMPLE.job_map, ray_job(EXAMPLE)),
        "raycronjob.yaml": RAY_CRON_JOB_SAYS + to_yaml(*ray_cron_job(EXAMPLE, NIGHTLY)),
        "cronjob.yaml": CRON_JOB_SAYS + to_yaml(*cron_job(EXAMPLE, NIGHTLY)),
    }


if __name__ == "__main__":
    for file_name, content in examples().items():
        (FOLDER / file_name).write_text(content, encoding="utf-8")
