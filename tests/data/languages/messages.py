"""Messages of Django in French, Russian and Japanese in, texts.json beside this file out: copied, never changed.

`python -m tests.data.languages.messages FOLDER` reads the catalogues below FOLDER, where Django 5.2.19 was unpacked.
Messages with placeholders, markup or line breaks are left out, and those too short to be a sentence.
"""

import gettext
import json
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
LEAST_CHARACTERS = {"fr": 28, "ru": 28, "ja": 14}
A_LANGUAGE = 110


def messages(folder: Path, language: str) -> Iterator[str]:
    """A language's whole sentences, in the order of its catalogues."""
    for file in sorted(folder.glob(f"**/locale/{language}/LC_MESSAGES/django.mo")):
        with file.open("rb") as opened:
            catalogue: dict[object, object] = vars(gettext.GNUTranslations(opened))["_catalog"]
        for source, text in catalogue.items():
            if isinstance(text, str) and source not in ("", text) and not set(text) & set("%{<\n"):
                yield text


def texts(folder: Path) -> dict[str, list[str]]:
    """language -> texts."""
    found = {}
    for language, least in LEAST_CHARACTERS.items():
        differ = dict.fromkeys(text for text in messages(folder, language) if len(text) >= least)
        found[language] = list(differ)[:A_LANGUAGE]
    return found


if __name__ == "__main__":
    made = json.dumps(texts(Path(sys.argv[1])), ensure_ascii=False, indent=0)
    (HERE / "texts.json").write_text(made + "\n", encoding="utf-8")
