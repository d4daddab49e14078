"""The glossary: built files equal their source, every concept in every language, letters of the right script."""

import importlib.util
import json
import unicodedata
from pathlib import Path
from types import ModuleType

import pytest

REPO = Path(__file__).resolve().parents[1]
SCRIPTS = {"tel": "TELUGU", "rus": "CYRILLIC", "arb": "ARABIC", "hin": "DEVANAGARI"}


def _load_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_glossary", REPO / "tools" / "build_glossary.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


builder = _load_builder()
FIELDS = sorted((REPO / "data" / "glossary" / "source").glob("*.txt"))


def test_built_files_equal_source() -> None:
    for name, text in builder.build().items():
        assert (REPO / "data" / "glossary" / name).read_text(encoding="utf-8") == text, "run tools/build_glossary.py"


def test_keys_join_all_languages() -> None:
    texts = builder.build().values()
    keys = [[json.loads(line)["key"] for line in text.splitlines()] for text in texts]
    assert len(keys) == 13 and len(FIELDS) == 160 and len(keys[0]) > 4000
    assert all(len(set(found)) == len(found) and found == keys[0] for found in keys)


def _script(text: str) -> str:
    names = [unicodedata.name(letter, "").split()[0] for letter in text if letter.isalpha()]
    return max(set(names), key=names.count)


@pytest.mark.parametrize("path", FIELDS, ids=lambda path: path.stem)
def test_sentences_are_in_their_script_and_differ(path: Path) -> None:
    for concept, languages in builder.read_field(path).items():
        for code, (_, sentence) in languages.items():
            assert _script(sentence) == SCRIPTS.get(code, "LATIN"), (concept, code)
        assert len({sentence for _, sentence in languages.values()}) == len(languages), concept


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@a\neng|x\n", "line 2"),
        ("eng|x|y\n", "line 1"),
        ("@a\neng|x|y\n", "lacks"),
        ("@a\n@a\n", "occurs twice"),
    ],
)
def test_malformed_sources_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "field.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        builder.read_field(path)
