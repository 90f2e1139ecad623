"""Results that are kept: everything comes back, and nothing else is taken for one."""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
import pickle
import zipfile

import numpy as np
import pytest

from hirelab._shared.errors import HirelabError
from hirelab.results import Result, versions
from hirelab.viz.figures import Figure


@dataclasses.dataclass(frozen=True, eq=False)
class Measured(Result):
    """A result as a measurement might return it."""

    name: str
    setting: int
    share: float
    yes: bool
    nothing: None
    words: list[str]
    pair: tuple[int, int] | None
    pairs: dict[str, list[tuple[int, ...]]]
    curve: np.ndarray
    mask: np.ndarray
    one: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Other(Result):
    setting: int


def measured(**changes) -> Measured:
    values = {
        "name": "größe → 3", "setting": 7, "share": 0.1, "yes": True, "nothing": None,
        "words": ["a", "b"], "pair": (3, 4), "pairs": {"a": [(1, 2, 3), ()]},
        "curve": np.array([[1.5, np.nan], [np.inf, -0.0]], np.float32),
        "mask": np.array([True, False]), "one": np.array(3),
    }  # fmt: skip
    return Measured(**{**values, **changes})


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "result.npz"
    measured().save(path)
    return path


def test_everything_comes_back(saved):
    before, after = measured(), Measured.load(saved)
    for field in dataclasses.fields(before):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if isinstance(old, np.ndarray):
            assert new.dtype == old.dtype
            assert new.shape == old.shape
            assert new.tobytes() == old.tobytes()
        else:
            assert new == old
            assert type(new) is type(old)
    assert after.versions == versions()


def test_the_versions_are_those_of_the_measurement(tmp_path):
    old = measured(versions={"torch": "1.0"})
    old.save(tmp_path / "old.npz")
    assert Measured.load(tmp_path / "old.npz").versions == {"torch": "1.0"}
    assert set(versions()) >= {"hirelab", "torch", "numpy", "timm"}
    assert "versions" not in repr(old)


def test_its_repr_is_a_line_without_the_numbers_of_arrays():
    long = measured(words=["word"] * 40, name="x" * 90)
    assert repr(long) == (
        f"Measured(name='{'x' * 56}...', setting=7, share=0.1, yes=True, nothing=None, "
        "words=<list of 40>, pair=(3, 4), pairs={'a': [(1, 2, 3), ()]}, curve=<2 x 2 float32>, "
        "mask=<2 bool>, one=3)"
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn(Measured):
    """A result that can be drawn."""

    def plot(self) -> Figure:
        return Figure(b"\x89PNG", "what it shows")


@dataclasses.dataclass(frozen=True, eq=False)
class Tabular(Drawn):
    """A result that can be drawn, and prints as a table."""

    def __repr__(self) -> str:
        return "a table\nof two lines"


@dataclasses.dataclass(frozen=True, eq=False)
class Narrower(Tabular):
    """Has nothing of its own, so that it prints as what it is one of."""


def test_it_shows_its_plot_unless_it_is_a_table():
    values = {f.name: getattr(measured(), f.name) for f in dataclasses.fields(Measured)}
    shown = {kind: kind(**values)._repr_mimebundle_() for kind in (Measured, Drawn, Tabular)}
    assert shown[Measured] == {"text/plain": str(measured())}
    assert shown[Drawn] == {"image/png": "iVBORw==", "text/plain": "what it shows"}
    assert shown[Tabular] == {"text/plain": "a table\nof two lines"}
    assert repr(Narrower(**values)) == "a table\nof two lines"


def test_every_result_of_the_library_shows_itself_so():
    kinds, todo = [], [Result]
    for module in ("analysis", "ablation", "synthetic", "training"):
        room = importlib.import_module(f"hirelab.{module}")
        for name in dir(room):
            getattr(room, name)  # a module is imported when it is first asked for
    while todo:
        below = [kind for kind in todo.pop().__subclasses__() if "hirelab" in kind.__module__]
        kinds += below
        todo += below
    assert len(kinds) > 15
    assert not [k for k in kinds if "__repr__" in vars(k) and _by_dataclass(vars(k)["__repr__"])]


def _by_dataclass(function) -> bool:
    return hasattr(function, "__wrapped__")  # it guards its repr against circles


def test_a_result_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        measured().setting = 8


def test_the_name_of_the_file_is_the_one_given(tmp_path):
    measured().save(str(tmp_path / "new folder" / "without suffix"))
    assert [p.name for p in (tmp_path / "new folder").iterdir()] == ["without suffix"]
    assert Measured.load(str(tmp_path / "new folder" / "without suffix")).setting == 7


def test_another_class_is_named(saved):
    with pytest.raises(ValueError, match="holds a Measured; load it with that class"):
        Other.load(saved)
    with pytest.raises(ValueError, match="holds a Measured"):
        Result.load(saved)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Measured.load(tmp_path / "nothing.npz")


def assert_refused(path) -> None:
    with pytest.raises(ValueError, match="is not a result that hirelab saved") as caught:
        Measured.load(path)
    assert str(path) in str(caught.value)


def test_files_of_others_are_refused(tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, a=np.ones(3))
    assert_refused(path)
    np.savez(path, __head__=np.array("no JSON"))
    assert_refused(path)
    for head in ("[]", "3", "{}", '{"result": "Measured"}'):
        np.savez(path, __head__=np.array(head))
        assert_refused(path)
    for data in (b"", b"text\n", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", bytes(100)):
        path.write_bytes(data)
        assert_refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert_refused(path)
    with open(path, "wb") as file:
        np.save(file, np.ones(3))  # .npy and not .npz
    assert_refused(path)
    assert_refused(tmp_path)  # a folder


def test_damaged_files_are_refused(saved):
    data = saved.read_bytes()
    for cut in (1, 30, len(data) // 2, len(data) - 1):
        saved.write_bytes(data[:cut])
        assert_refused(saved)
    refused = 0
    for at in range(20, len(data), 29):
        saved.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        try:
            Measured.load(saved)  # some bytes carry nothing, such as dates
        except ValueError:
            refused += 1
    assert refused > 10


class Bomb:
    """Something that leaves a trace when it is unpickled."""

    exploded = False

    def __reduce__(self):
        return (_explode, ())


def _explode():
    Bomb.exploded = True


def test_nothing_in_a_file_is_executed(saved, tmp_path):
    path = tmp_path / "bomb.npz"
    with np.load(saved) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "curve": np.array([Bomb()], dtype=object)})
    assert_refused(path)
    path.write_bytes(pickle.dumps(Bomb()))
    assert_refused(path)
    assert not Bomb.exploded
    pickle.loads(pickle.dumps(Bomb()))
    assert Bomb.exploded  # it would have


def test_fields_of_another_version_are_said(saved, tmp_path):
    with np.load(saved) as file:
        arrays = dict(file)
    head = json.loads(str(arrays.pop("__head__")))
    for change in ("more", "less"):
        values = dict(head["values"])
        if change == "more":
            values["invented"] = 1
        else:
            del values["setting"]
        path = tmp_path / f"{change}.npz"
        text = json.dumps({**head, "values": values})
        np.savez(path, __head__=np.array(text), **arrays)
        with pytest.raises(ValueError, match="of another version of hirelab"):
            Measured.load(path)


def test_a_write_that_fails_leaves_the_old_result(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        measured(setting=8).save(saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_what_cannot_be_kept_is_said_before_anything_is_written(saved):
    before = saved.read_bytes()
    with pytest.raises(TypeError, match="JSON"):
        measured(words=object()).save(saved)
    assert saved.read_bytes() == before


# ------------------------------------------------------------------ what the fuzzing found


def put(path, head=None, **members):
    """A saved result, its head changed by a function, and members of the archive by name."""
    measured().save(path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    if head is not None:
        content = json.loads(str(np.load(path)["__head__"]))
        content = head(content) or content
        text = content if isinstance(content, str) else json.dumps(content)
        buffer = io.BytesIO()
        np.save(buffer, np.array(text))
        files["__head__.npy"] = buffer.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**files, **{f"{k}.npy": v for k, v in members.items()}}.items():
            archive.writestr(name, data)
    return path


def claiming(shape) -> bytes:
    """A .npy file whose head says more than it has."""
    text = repr({"descr": "<f8", "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(8)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (lambda c: c["values"].update(name=3), "its name is 3 and no str"),
        (lambda c: c["values"].update(setting=True), "its setting is True and no int"),
        (lambda c: c["values"].update(words=[1]), "its words is"),
        (lambda c: c["values"].update(pair="ab"), "its pair is 'ab'"),
        (lambda c: c["values"].update(pairs=[]), "its pairs is"),
        (lambda c: c["values"].update(curve=[1]), "multiple values|another version"),
        (lambda c: c.update(values="abc"), "not a result"),
        (lambda c: c.update(values=None), "not a result"),
        (lambda c: c.update(result=["x" * 9000]), "holds a"),
        (lambda c: c["values"].update(versions={"torch": 3}), "its versions is"),
        (lambda c: "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_head_with_odd_values_is_refused(tmp_path, head, said):
    with pytest.raises(HirelabError, match=said) as caught:
        Measured.load(put(tmp_path / "one.npz", head))
    assert "one.npz" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("shape", [(10**12,), (10**6, 10**6), (2**62, 4), (4,)])
def test_an_array_that_claims_more_than_it_has_is_refused(tmp_path, shape):
    with pytest.raises(HirelabError, match="claims shape"):
        Measured.load(put(tmp_path / "one.npz", curve=claiming(shape)))


def test_a_file_that_unpacks_to_gigabytes_is_refused_before(tmp_path, monkeypatch):
    monkeypatch.setattr("hirelab.results.MOST_BYTES", 10**6)
    path = put(tmp_path / "one.npz", more=claiming((10**6,)) + bytes(10**6))
    assert path.stat().st_size < 10_000
    with pytest.raises(HirelabError, match="it unpacks to 1,00"):
        Measured.load(path)


@dataclasses.dataclass(frozen=True, eq=False)
class Shown(Result):
    """A result whose numbers belong together."""

    names: list[str]
    values: np.ndarray

    def __str__(self) -> str:
        return ", ".join(f"{n} {v:.1f}" for n, v in zip(self.names, self.values, strict=True))


def test_values_that_do_not_go_together_are_refused(tmp_path):
    Shown(["a", "b"], np.zeros(2)).save(tmp_path / "one.npz")
    assert str(Shown.load(tmp_path / "one.npz")) == "a 0.0, b 0.0"
    Shown(["a", "b"], np.zeros(3)).save(tmp_path / "one.npz")
    with pytest.raises(HirelabError, match=r"one\.npz is damaged: its values do not go together"):
        Shown.load(tmp_path / "one.npz")
