"""Output folders of earlier commits are reported from their columns."""

import pytest

from jobs.report import page_of
from pipeline.analysis.dataset import Dataset
from tests.jobs.page import Page
from tests.upgrade.half_written import NAMES, HalfWritten, VersionedStore

pytestmark = [pytest.mark.storage]


ALWAYS = ("changed-file", "parquet-tasks-two")
"""Folders of the default run; the others take some seconds each."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.slow]) for name in NAMES]
)
def test_a_folder_of_an_earlier_commit_has_a_report(name: str, store: VersionedStore) -> None:
    folder = HalfWritten.load(name)
    for objects in (folder.before, folder.after):
        store.put(folder, objects)
        page = Page(page_of(folder.url))
        assert all(answer.column in page.text for answer in Dataset(folder.url).answers)
    store.empty(folder)
