"""A checkpoint folder and its calibration in, a new folder of both out; the weights stay byte for byte."""

import json
import shutil

from models.addresses import open_address
from models.calibration_file import CALIBRATION_NAME, Calibration
from models.checkpoint import Checkpoint, beside, file_names
from models.checkpoint_copy import BASE_FIELD
from models.config import CONFIG_NAME
from pipeline.store.storage import join, put, read_bytes

PICTURE_NAME = "reliability.svg"


def write_calibrated(*, source: str, destination: str, calibration: Calibration, picture: bytes | None) -> None:
    """Copy the folder's files, config.json last, so that a folder with it is whole. A head still names its encoder's folder."""
    Checkpoint.open(source)
    own = (CALIBRATION_NAME, PICTURE_NAME, CONFIG_NAME)
    target, folder = open_address(destination)
    target.makedirs(folder, exist_ok=True)
    put(join(destination, CALIBRATION_NAME), calibration.to_json())
    if picture is not None:
        put(join(destination, PICTURE_NAME), picture)
    system, from_folder = open_address(source)
    for name in sorted(file_names(source) - set(own)):
        if system.isfile(f"{from_folder}/{name}"):
            with system.open(f"{from_folder}/{name}", "rb") as reader, target.open(f"{folder}/{name}", "wb") as writer:
                shutil.copyfileobj(reader, writer)
    fields = json.loads(read_bytes(join(source, CONFIG_NAME)))
    if fields.get(BASE_FIELD) and destination.rpartition("/")[0] != source.rpartition("/")[0]:
        fields[BASE_FIELD] = beside(url=source, name=fields[BASE_FIELD])
    put(join(destination, CONFIG_NAME), json.dumps(fields, indent=2).encode())
