"""Folders and files whole or absent, tensors, content keys."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isogloss.errors import IsoglossError
from isogloss.storage import (
    content_key,
    file_digest,
    load_tensors,
    new_folder,
    read_json,
    save_tensors,
    write_json,
    write_text,
)


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_folder_leaves_nothing(tmp_path: Path, problem: type[BaseException]) -> None:
    with pytest.raises(problem), new_folder(tmp_path / "out") as folder:
        (folder / "half").write_text("x")
        assert folder.parent == tmp_path
        raise problem
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_overwrite_keeps_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_folder(out) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), new_folder(out, overwrite=True) as folder:
        (folder / "b").write_text("new")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "a").read_text() == "old" and not (out / "b").exists()


def test_a_failed_last_rename_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with new_folder(out) as folder:
        (folder / "a").write_text("old")
    rename = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if Path(target) == out and self.suffix == ".tmp":
            raise OSError("no space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="no space"), new_folder(out, overwrite=True) as folder:
        (folder / "b").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["a"]


def test_what_may_be_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with new_folder(out) as folder:
        (folder / "a").write_text("1")
    assert (out / "a").read_text() == "1"
    with pytest.raises(IsoglossError, match="already holds something"), new_folder(out):
        pytest.fail("the block must not run")
    with new_folder(out, overwrite=True) as folder:
        (folder / "b").write_text("2")
    assert sorted(path.name for path in out.iterdir()) == ["b"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with new_folder(empty) as folder:
        (folder / "c").write_text("3")
    assert (empty / "c").read_text() == "3"
    (tmp_path / "file").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(IsoglossError, match="is a file"), new_folder(tmp_path / "file", overwrite=overwrite):
            pytest.fail("the block must not run")
    assert (tmp_path / "file").read_text() == "x"


def test_files_are_whole_or_old(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"názov": "slovenčina"})
    assert "slovenčina" in path.read_text(encoding="utf-8")
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert read_json(path) == {"názov": "slovenčina"}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_unreadable_json_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"a": 1,\n "b": }')
    with pytest.raises(IsoglossError, match=r"bad\.json', line 2, is not JSON"):
        read_json(tmp_path / "bad.json")
    (tmp_path / "latin.json").write_bytes(b'"\xe9"')
    with pytest.raises(IsoglossError, match="not UTF-8"):
        read_json(tmp_path / "latin.json")
    with pytest.raises(IsoglossError, match="does not exist"):
        read_json(tmp_path / "none.json")


def test_tensors_come_back_the_same(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"whole": base, "turned": base.T, "part": base[1:], "half": base.bfloat16(), "ids": torch.tensor([1, 2])}
    save_tensors(tmp_path / "w.safetensors", tensors, {"note": "x"})
    found = load_tensors(tmp_path / "w.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor) and found[name].dtype is tensor.dtype
    assert [item.name for item in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("damage", ["truncated", "header", "empty", "pickle", "missing"])
def test_damaged_tensors_name_the_file(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"a": torch.randn(8, 8)})
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "pickle":
        torch.save({"a": torch.ones(2)}, path)
    else:
        path.write_bytes({"truncated": content[:-9], "header": b"\xff" * 8 + content[8:], "empty": b""}[damage])
    with pytest.raises(IsoglossError, match=r"w\.safetensors") as problem:
        load_tensors(path)
    assert "\n" not in str(problem.value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(_JSON, _JSON)
def test_keys_are_equal_exactly_for_equal_content(one: object, other: object) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (content_key(one) == content_key(other)) == same
    if isinstance(one, dict):
        assert content_key(dict(reversed(one.items()))) == content_key(one)


@dataclass(frozen=True)
class _Spec:
    name: str
    seeds: tuple[int, ...]


def test_keys_do_not_depend_on_the_process() -> None:
    assert content_key(_Spec("a", (1, 2))) == content_key({"name": "a", "seeds": [1, 2]})
    content = {"languages": {"slk", "ces", "deu"}, "path": "x/y"}
    assert content_key(content) == content_key({"path": Path("x/y"), "languages": ["ces", "deu", "slk"]})
    code = "from isogloss.storage import content_key; print(content_key({'l': {'slk', 'ces', 'deu', 'pol'}}))"
    keys = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(keys) == 1 and len(keys.pop().strip()) == 64
    with pytest.raises(TypeError):
        content_key(object())


def test_file_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
