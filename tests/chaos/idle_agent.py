"""Stands in for the agents of a Ray node, which a storm has no use for: reports no ports, and ends with its raylet.

Each of the two would import for seconds, at every start of a node, and on a busy machine a raylet does not wait for them.
"""

import os
import sys
import time

PORTS = {
    "dashboard_agent": {"metrics_agent_port": -1, "metrics_export_port": -1, "dashboard_agent_listen_port": -1},
    "runtime_env_agent": {"runtime_env_agent_port": 1},
}
"""The files in which a raylet looks for its agents' ports; -1 is Ray's own word for none."""


def main() -> None:
    """Write the files of the agent that the first argument names."""
    options = dict(
        word.removeprefix("--").split("=", 1) for word in sys.argv[2:] if word.startswith("--") and "=" in word
    )
    raylet = os.getppid()
    for name, port in PORTS[sys.argv[1]].items():
        path = os.path.join(options["session-dir"], f"{name}_{options['node-id']}")
        with open(f"{path}.{os.getpid()}", "w") as file:
            file.write(str(port))
        os.replace(file.name, path)
    while os.getppid() == raylet:
        time.sleep(1)


if __name__ == "__main__":
    main()
