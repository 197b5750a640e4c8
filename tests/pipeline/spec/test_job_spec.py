"""Job files and flags mean what they say; what can't work is reported in one line."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SpecError
from pipeline.spec.job_spec import JobSpec, arrow_type, json_schema
from pipeline.spec.settings import override, read_yaml
from pipeline.tasks import TextClassification
from tests.pipeline.small import spec

LEAST: dict[str, Any] = {"input": "in", "model": "m", "task": "text-classification", "output": "out"}
SEVERAL: dict[str, Any] = {
    **{key: value for key, value in LEAST.items() if key != "task"},
    "tasks": {"intents": "text-classification", "questions": {"name": "question-answering", "top_k": 2}},
}
FULL = """
input:
  urls: [s3://b/in/*.parquet, more.jsonl]
  format: auto
  columns: {text: body}
  keep: [id]
  schema: {id: int64, body: string}
model: {checkpoint: s3://b/model, framework: flax, dtype: bfloat16, max_length: 128}
task: {name: feature-extraction, pooling: cls, on_long: error}
output: {url: s3://b/out, prefix: preln_}
resources:
  replicas: {min: 1, max: 4}
  gpus: 0.5
  wait: 15m
shards: {rows: 100, bytes: 5000}
limits: {error_rows: 5, error_share: 0.5, stall: 90s}
"""


def refusal(values: object) -> str:
    with pytest.raises(SpecError) as caught:
        JobSpec.parse({**LEAST, **values})  # type: ignore[dict-item]
    assert "\n" not in str(caught.value)
    return str(caught.value)


SECRET = "S3CRET"


@pytest.mark.parametrize(
    "url",
    [
        f"https://{SECRET}@h/x",
        f"s3://{SECRET}@bucket/x",
        f"https://h/x#token={SECRET}",
        *(
            f"https://h/x?a=1&{name}={SECRET}"
            for name in (
                "api_key",
                "apikey",
                "password",
                "passwd",
                "pwd",
                "auth",
                "jwt",
                "client_secret",
                "access_token",
                "Key",
            )
        ),
    ],
)
def test_a_url_with_a_secret_in_any_spelling_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(SpecError, match="credentials") as caught:
        spec(source=url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["abfs://box@account.dfs.core.windows.net/x", "s3://b/a@b?versionId=5", "hf://datasets/a/b@main/x", "/x/keys=1"],
)
def test_a_url_without_a_secret_is_none(url: str) -> None:
    assert spec(source=url).input.urls == [url]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("output: a\ninput: b\noutput: c\n", "the key 'output' twice in one place, the second in line 3"),
        ("limits: {stall: 5, stall: 6}", "the key 'stall' twice"),
        ("a: " + "[" * 3_000 + "]" * 3_000, "nested too deep"),
    ],
)
def test_a_job_file_that_could_be_taken_in_two_ways_is_refused(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        read_yaml(text)


def test_a_job_file_may_use_anchors_and_a_name_in_two_places() -> None:
    assert read_yaml("a: &x {name: 1}\nb: {<<: *x, name: 2}\n") == {"a": {"name": 1}, "b": {"name": 2}}


def test_a_bare_url_checkpoint_task_and_folder_are_short_for_their_sections() -> None:
    short = JobSpec.parse(LEAST)
    long = JobSpec.parse(
        {
            "input": {"urls": ["in"]},
            "model": {"checkpoint": "m"},
            "task": {"name": "text-classification"},
            "output": {"url": "out"},
        }
    )
    assert short == long
    assert JobSpec.parse({**LEAST, "input": ["a", "b"]}).input.urls == ["a", "b"]
    assert JobSpec.parse({**LEAST, "input": {"urls": "a"}}).input.urls == ["a"]


def test_a_spec_reads_back_from_its_own_yaml() -> None:
    spec = JobSpec.from_yaml(FULL)
    assert JobSpec.from_yaml(spec.to_yaml()) == spec
    assert JobSpec.from_yaml(JobSpec.parse(LEAST).to_yaml()) == JobSpec.parse(LEAST)


def test_the_printed_yaml_names_every_default() -> None:
    values = read_yaml(JobSpec.parse(LEAST).to_yaml())
    assert values["resources"]["wait"] == 900.0
    assert values["input"]["schema"] is None
    assert set(values) == set(JobSpec.model_fields) - {"tasks"}


@given(url=st.text(min_size=1), prefix=st.text(), keep=st.lists(st.text(), max_size=3))
def test_any_text_in_a_spec_survives_yaml(url: str, prefix: str, keep: list[str]) -> None:
    spec = JobSpec.parse({**LEAST, "input": {"urls": url, "keep": keep}, "output": {"url": url, "prefix": prefix}})
    assert JobSpec.from_yaml(spec.to_yaml()) == spec


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86_400), ("1.5 m", 90), (30, 30), (0.5, 0.5)]
)
def test_a_duration_is_seconds_or_a_number_with_its_unit(text: object, seconds: float) -> None:
    assert JobSpec.parse({**LEAST, "limits": {"stall": text}}).limits.stall == seconds


@pytest.mark.parametrize("text", ["0s", -1, "15x", "m", float("inf"), float("nan"), ""])
def test_a_duration_that_is_none_is_refused_with_its_key(text: object) -> None:
    assert refusal({"limits": {"stall": text}}).startswith("limits.stall: ")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inptu": 1}, "unknown key 'inptu'"),
        ({"input": {"urls": "a", "colums": {}}}, "unknown key 'input.colums'"),
        ({"task": {"name": "text-classification", "pooling": "cls"}}, "unknown key 'task.pooling'"),
        ({"output": {"prefix": "x"}}, "missing key 'output.url'"),
        ({"output": ""}, "output.url: string should have at least 1 character, not ''"),
        ({"input": ""}, "input.urls.0: string should have at least 1 character, not ''"),
        ({"model": 5}, "model: expected a mapping of keys, not 5"),
        ({"model": {"checkpoint": "m", "framework": "tf"}}, "model.framework: input should be 'torch'"),
        ({"resources": {"replicas": 0}}, "resources.replicas: input should be greater than or equal to 1, not 0"),
        ({"resources": {"replicas": "many"}}, "resources.replicas: input should be a valid integer"),
    ],
)
def test_what_a_spec_gets_wrong_is_named_by_its_key(values: dict[str, object], message: str) -> None:
    assert message in refusal(values)


def test_a_missing_section_is_named() -> None:
    with pytest.raises(SpecError, match=r"^missing key 'output'; valid keys: input, model, task, tasks, output, "):
        JobSpec.parse({key: value for key, value in LEAST.items() if key != "output"})


def test_a_range_of_replicas_rises() -> None:
    assert "min (3) is above max (2)" in refusal({"resources": {"replicas": {"min": 3, "max": 2}}})
    four = JobSpec.parse({**LEAST, "resources": {"replicas": 4}}).resources.replica_range
    assert four is not None
    assert (four.min, four.max) == (4, 4)
    assert JobSpec.parse(LEAST).resources.replica_range is None


def test_several_mistakes_are_told_at_once() -> None:
    message = refusal({"inptu": 1, "shards": {"rows": 0}})
    assert "unknown key 'inptu'" in message
    assert "shards.rows: input should be greater than or equal to 1, not 0" in message


@pytest.mark.parametrize("task", ["no-such-task", {"name": "no-such-task"}, {"on_long": "error"}])
def test_a_task_that_is_none_is_answered_with_those_there_are(task: object) -> None:
    message = refusal({"task": task})
    assert "feature-extraction" in message
    assert "text-classification" in message


def test_a_setting_goes_to_its_key_through_a_shorthand_too() -> None:
    values = override(values=LEAST, settings=["input.columns.text=body", "shards.rows=10", "task.on_long=error"])
    assert values["input"] == {"urls": "in", "columns": {"text": "body"}}
    assert values["task"] == {"name": "text-classification", "on_long": "error"}
    assert JobSpec.parse(values).shards.rows == 10
    assert LEAST["input"] == "in", "the values given are not changed"


def test_a_setting_is_read_as_yaml_and_overrules_flags() -> None:
    values = override(
        values=LEAST,
        flags=[("model.dtype", "float16")],
        settings=["model.dtype=float32", "input.keep=[id, '007']", "output.prefix="],
    )
    spec = JobSpec.parse(values)
    assert spec.model.dtype == "float32"
    assert spec.input.keep == ["id", "007"]
    assert spec.output.prefix == ""


@pytest.mark.parametrize("setting", ["shards.rows", "=5", "a..b=5", "shards.=5", "x=[1"])
def test_a_setting_that_can_not_be_read_is_quoted(setting: str) -> None:
    with pytest.raises(SpecError, match=r"^--set ") as caught:
        override(values=LEAST, settings=[setting])
    assert setting in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text", "a: [1", "a: b: c"])
def test_a_job_file_that_is_no_mapping_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_yaml(text)
    assert "\n" not in str(caught.value)


def test_a_job_file_runs_no_code() -> None:
    with pytest.raises(SpecError, match="not YAML"):
        read_yaml("input: !!python/object/apply:os.getcwd []")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("string", pa.string()),
        ("int64", pa.int64()),
        ("double", pa.float64()),
        ("list<list<string>>", pa.list_(pa.list_(pa.string()))),
        ("timestamp[ms]", pa.timestamp("ms")),
    ],
)
def test_arrow_types_are_named_as_arrow_names_them(name: str, kind: pa.DataType) -> None:
    assert arrow_type(name) == kind


def test_an_unknown_arrow_type_is_quoted() -> None:
    with pytest.raises(SpecError, match=r"input\.schema: no Arrow type 'text'"):
        arrow_type("text")


def test_the_json_schema_in_docs_is_fresh(repository: Path) -> None:
    stored = (repository / "docs" / "jobspec.schema.json").read_text(encoding="utf-8")
    assert json.loads(stored) == json.loads(json.dumps(json_schema())), "run `make schema`"


def test_the_module_prints_the_json_schema(repository: Path) -> None:
    run = subprocess.run([sys.executable, "-m", "pipeline.spec"], cwd=repository, capture_output=True, check=True)
    assert json.loads(run.stdout) == json.loads(json.dumps(json_schema()))


def test_the_json_schema_takes_what_the_spec_takes_and_refuses_what_it_refuses() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: the schema is not tried")
    validator = jsonschema.Draft202012Validator(json_schema())
    several = read_yaml(JobSpec.parse(SEVERAL).to_yaml())
    plain = read_yaml(JobSpec.parse(LEAST).to_yaml())
    for good in (read_yaml(FULL), LEAST, {**LEAST, "input": ["a", "b"]}, plain, SEVERAL, several):
        assert not list(validator.iter_errors(good))
    for bad in (
        {**LEAST, "inptu": 1},
        {**LEAST, "shards": {"rows": 0}},
        {"input": "a"},
        {**LEAST, "task": {"name": "x"}},
        {**LEAST, "task": "x"},
        {**LEAST, **SEVERAL},
        {**SEVERAL, "tasks": {}},
        {**SEVERAL, "tasks": {"9 lives": "fill-mask"}},
        {**SEVERAL, "tasks": {"a": {"name": "fill-mask", "threshold": 1}}},
    ):
        assert list(validator.iter_errors(bad))
        with pytest.raises(SpecError):
            JobSpec.parse(bad)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({**LEAST, **SEVERAL}, "job: task and tasks are both given; name one task, or several under tasks"),
        ({**SEVERAL, "tasks": {}}, "missing key 'task'; valid tasks: feature-extraction, "),
        ({**SEVERAL, "tasks": {"9 lives": "fill-mask"}}, "tasks: '9 lives' can't start a column name; use letters"),
        (
            {**SEVERAL, "tasks": {"a": "translation"}},
            "tasks.a: unknown task 'translation'; valid tasks: feature-extraction, ",
        ),
        (
            {**SEVERAL, "tasks": {"fill-mask": {"name": "fill-mask", "topk": 1}}},
            "unknown key 'tasks.fill-mask.topk'; did you mean 'top_k'?",
        ),
    ],
)
def test_what_is_wrong_with_several_tasks_is_said_by_their_names(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=f"^{re.escape(said)}"):
        JobSpec.parse(values)


def test_a_setting_reaches_into_a_task_and_a_column_of_several() -> None:
    settings = ["tasks.intents.top_k=3", "input.columns.intents.text=body"]
    spec = JobSpec.parse(override(values=SEVERAL, settings=settings))
    assert spec.tasks["intents"] == TextClassification(top_k=3)
    assert spec.named_tasks["intents"].columns == {"text": "body"}


def test_each_of_several_tasks_has_its_columns_and_a_prefix_of_its_own() -> None:
    columns = {"text": "body", "questions.context": "page", "question": "asked"}
    spec = JobSpec.parse(
        {**SEVERAL, "input": {"urls": "in", "columns": columns}, "output": {"url": "o", "prefix": "x_"}}
    )
    tasks = spec.named_tasks
    assert {name: named.task.name for name, named in tasks.items()} == {
        "intents": "text-classification",
        "questions": "question-answering",
    }
    assert tasks["intents"].columns == {"text": "body"}
    assert tasks["questions"].columns == {"context": "page", "question": "asked"}
    assert [named.prefix for named in tasks.values()] == ["x_intents_", "x_questions_"]
    assert JobSpec.from_yaml(spec.to_yaml()) == spec
    assert spec.task_name == "intents+questions"


def test_one_task_goes_by_its_own_name_and_one_of_tasks_by_the_users() -> None:
    task = {"name": "text-classification"}
    without_task = {key: value for key, value in LEAST.items() if key != "task"}
    (alone,) = JobSpec.parse({**without_task, "task": task}).named_tasks.values()
    (named,) = JobSpec.parse({**without_task, "tasks": {"topics": task}}).named_tasks.values()
    assert alone.task == named.task
    assert (alone.name, alone.key, alone.part_key("text"), alone.prefix, alone.head_folder) == (
        "text-classification",
        "task",
        "text",
        "",
        None,
    )
    assert (named.name, named.key, named.part_key("text"), named.prefix, named.head_folder) == (
        "topics",
        "tasks.topics",
        "topics.text",
        "topics_",
        "topics",
    )
