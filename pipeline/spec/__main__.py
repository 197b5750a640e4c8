"""`python -m pipeline.spec` prints the JSON Schema of a job file (`make schema`)."""

import json

from pipeline.spec.job_spec import json_schema

print(json.dumps(json_schema(), indent=2))
