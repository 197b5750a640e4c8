"""Addresses as a job names them, without credentials in them."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

SECRETS = re.compile(
    r"://[^/@]*:[^/@]*@|^(?:https?|s3a?|gs|gcs)://[^/?#@]+@|"
    r"[?&#;](?:x-amz-(?:signature|security-token|credential)|x-goog-(?:signature|credential)|sig|signature|(?:[a-z]+[_-])?token|"
    r"(?:api|access|secret|account)?[_-]?key|(?:client[_-]?)?secret|password|passwd|pwd|auth|authorization|jwt|bearer)=",
    re.IGNORECASE,
)
"""A password, or a signature, in a URL: it would be written into the output, the logs and every message."""


def _without_secret(value: str) -> str:
    if SECRETS.search(value):
        raise PydanticCustomError(
            "secret",
            "the URL contains credentials, which don't belong in a job: fsspec and the cloud SDKs read them from the environment",
        )
    return value


Url = Annotated[str, Field(min_length=1), AfterValidator(_without_secret)]
