"""Files for crontab, systemd or Airflow that run a job on a schedule, as name -> content.

Each runs the same command again and again: nothing new, nothing touched. None lets a run begin while the last one goes on,
and where two meet all the same they do no harm.
"""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from jobs.scheduling.cron import Cron


@dataclass(frozen=True)
class Command:
    """What a schedule runs: `preln annotate JOB` in the folder of this repository, or, with an address, `preln submit JOB`.

    name: of the schedule. python: the interpreter that has preln. job: the job file, absolute.
    """

    name: str
    python: Path
    folder: Path
    job: Path
    address: str | None = None
    image_has_it: bool = False

    @property
    def words(self) -> list[str]:
        """The command as words."""
        start = [str(self.python), "-m", "jobs"]
        if self.address is None:
            return [*start, "annotate", str(self.job)]
        installed = ["--image-has-it"] if self.image_has_it else []
        return [*start, "submit", str(self.job), "--address", self.address, "--wait", *installed]


CRONTAB = """\
# preln: {job} at '{cron}'. Put these lines into a crontab (`crontab -e`); credentials come from the environment given there.
# flock: no run starts while the previous one is running.{zone}
{times} cd {folder} && flock --nonblock {lock} {command} >> {log} 2>&1
"""

SERVICE = """\
[Unit]
Description=preln: {job}

[Service]
# A oneshot service that is still running is not started a second time.
Type=oneshot
WorkingDirectory={folder}
ExecStart={command}
# Credentials and AWS_REGION, RAY_ADDRESS, RAY_AUTH_TOKEN and the like, one NAME=VALUE a line; the file may be absent.
EnvironmentFile=-%h/.config/preln/{name}.env
# Ends as by Ctrl-C: within 10 seconds, with everything committed kept.
KillSignal=SIGTERM
TimeoutStopSec=60
NoNewPrivileges=yes
"""

TIMER = """\
# systemctl --user enable --now {name}.timer, after both files are in ~/.config/systemd/user
[Unit]
Description=preln: {job} at '{cron}'

[Timer]
{times}
# A time that was missed while the machine was off is made up for.
Persistent=true

[Install]
WantedBy=timers.target
"""

DAG = '''\
"""preln: {job} at '{cron}'. For Airflow 3; put this file into the DAGs folder of workers that have preln."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    dag_id={name},
    schedule={schedule},
    start_date=datetime(2025, 1, 1, tzinfo=ZoneInfo({zone})),
    catchup=False,  # one run brings everything up to date
    max_active_runs=1,
    tags=["preln"],
) as dag:
    BashOperator(
        task_id="annotate",
        bash_command={command},
        cwd={folder},
        append_env=True,
        retries=2,  # the same command resumes
        retry_delay=timedelta(minutes=5),
    )
'''


def crontab(command: Command, cron: Cron, *, zone: str | None = None) -> dict[str, str]:
    """A crontab's lines. In them a bare % would end the command."""
    state = command.job.parent
    text = CRONTAB.format(
        job=command.job.name,
        cron=cron.text,
        times=cron.in_numbers(),
        zone=f"\nCRON_TZ={zone}" if zone else "",
        folder=_for_cron(str(command.folder)),
        lock=_for_cron(str(state / f".{command.name}.lock")),
        command=" ".join(_for_cron(word) for word in command.words),
        log=_for_cron(str(state / f"{command.name}.log")),
    )
    return {f"{command.name}.crontab": text}


def _for_cron(word: str) -> str:
    return shlex.quote(word).replace("%", r"\%")


def systemd(command: Command, cron: Cron, *, zone: str | None = None) -> dict[str, str]:
    """A service and its timer."""
    times = [f"OnCalendar={line}{f' {zone}' if zone else ''}" for line in cron.on_calendar()]
    service = SERVICE.format(
        job=command.job.name,
        name=command.name,
        folder=str(command.folder).replace("%", "%%"),
        command=" ".join(_for_systemd(word) for word in command.words),
    )
    timer = TIMER.format(job=command.job.name, name=command.name, cron=cron.text, times="\n".join(times))
    return {f"{command.name}.service": service, f"{command.name}.timer": timer}


def _for_systemd(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or " " in word else word


def airflow(command: Command, cron: Cron, *, zone: str | None = None) -> dict[str, str]:
    """A DAG of one task."""
    content = DAG.format(
        job=command.job.name,
        cron=cron.text,
        name=json.dumps(command.name),
        schedule=json.dumps(cron.in_numbers()),
        zone=json.dumps(zone or "UTC"),
        # The space behind keeps Airflow from taking a command that ends in .sh for a template's file.
        command=json.dumps(shlex.join(command.words) + " "),
        folder=json.dumps(str(command.folder)),
    )
    return {f"{command.name.replace('-', '_')}_dag.py": content}
