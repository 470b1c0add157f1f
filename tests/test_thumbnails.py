"""Small pictures of flips: made only when asked, only in evidence/, and shown only with the gates that they belong to."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
from conftest import Cli, snapshot, validate
from PIL import Image
from test_report import check_self_contained
from test_verify_cli import reseal

from melanoma_edge.data.image import load
from melanoma_edge.proof import thumbnails
from melanoma_edge.proof.parity_model import Flip, Gate, Parity
from melanoma_edge.proof.report import report
from melanoma_edge.proof.verify import verify

INT8 = "tiny-int8.tflite"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled pictures with names that a page could stumble over."""
    folder, random = tmp_path_factory.mktemp("people") / "pictures", np.random.default_rng(4)
    for name in tiny_bundle.CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(12):
            image = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8).repeat(50, 0).repeat(50, 1))
            image.save(folder / name / f"<b>{number}&'.png")
    return folder


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose int8 network answers otherwise than its float32 one."""
    folder = tiny_bundle.write_bundle(tmp_path / "tiny.bundle")
    monkeypatch.setattr(tiny_bundle, "BIAS", tiny_bundle.BIAS + np.array([-0.8, 0.8, 0.0], np.float32))
    (folder / INT8).write_bytes(tiny_bundle.tflite("uint8"))
    golden = json.loads((folder / "golden" / "golden.json").read_text(encoding="utf-8"))
    inputs = np.stack([load(folder / picture["file"], tiny_bundle.SIZE) for picture in golden["pictures"]])
    golden["logits"][INT8] = tiny_bundle.numpy_logits(inputs).tolist()
    (folder / "golden" / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
    reseal(folder)
    return folder


class Shown(HTMLParser):
    """The pictures of a page that are called flipped."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.pictures: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        if tag == "img" and (held.get("alt") or "").startswith("Flipped picture"):
            self.pictures.append(held["src"])


def flipped(bundle: Path) -> list[str]:
    """Return the names of the flips that the gates list, golden pictures apart."""
    gates = json.loads((bundle / "evidence" / "parity.json").read_text(encoding="utf-8"))["gates"]
    return [flip["picture"] for gate in gates for flip in gate["flips"] if gate["name"] != "golden"]


def test_thumbnails_are_made_when_asked_shown_in_the_report_and_removed_by_the_next(bundle: Path, pictures: Path) -> None:
    before = snapshot(bundle)
    parity = verify(bundle, data=pictures, thumbnails=True)
    validate(parity.model_dump(mode="json"), "parity")
    added = {name: digest for name, digest in snapshot(bundle).items() if name not in before}
    assert set(added) == {"evidence/parity.json", "evidence/thumbnails.json"} and added["evidence/thumbnails.json"] == parity.thumbnails_sha256
    assert before.items() <= snapshot(bundle).items(), "nothing outside of evidence/ changes"
    held = json.loads((bundle / "evidence" / "thumbnails.json").read_text(encoding="utf-8"))
    validate(held, "thumbnails")
    names = flipped(bundle)
    assert len(names) > 1 and set(held["pictures"]) == set(names) and "before passing this on" in held["note"]
    for name, text in held["pictures"].items():
        with Image.open(io.BytesIO(base64.b64decode(text))) as image:
            assert image.format == "JPEG" and image.size == (tiny_bundle.SIZE,) * 2
            assert np.abs(np.asarray(image).astype(int) - load(pictures / name, tiny_bundle.SIZE)).mean() < 12
    page = report(bundle)
    check_self_contained(page)
    assert Shown(page).pictures == [f"data:image/jpeg;base64,{held['pictures'][name]}" for name in names]
    text = page.read_text(encoding="utf-8")
    assert "They are photographs of people: mind their terms" in text and "<b>" not in text.split('class="flips"')[1].split("</table>")[0]

    assert verify(bundle, data=pictures).thumbnails_sha256 is None
    assert not (bundle / "evidence" / "thumbnails.json").exists()
    again = report(bundle)
    assert Shown(again).pictures == [] and "Flips are listed without pictures: verify was not asked for --thumbnails" in again.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "is not here or cannot be read"),
        (b"{}", "does not belong to these gates"),
    ],
)
def test_thumbnails_of_other_gates_are_not_shown(bundle: Path, pictures: Path, content: bytes | None, found: str) -> None:
    verify(bundle, data=pictures, thumbnails=True)
    file = bundle / "evidence" / "thumbnails.json"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    page = report(bundle)
    assert Shown(page).pictures == [] and found in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"not JSON", None),
        (json.dumps({"pictures": {"a": "no base64!"}}).encode(), None),
        (json.dumps({"pictures": {"a": base64.b64encode(b"<svg onload=alert(1)>").decode(), "b": base64.b64encode(b"\xff\xd8\xff").decode()}}).encode(), {"b"}),
    ],
)
def test_what_is_no_jpeg_is_not_put_into_a_page(tmp_path: Path, content: bytes, shown: set[str] | None) -> None:
    (tmp_path / "thumbnails.json").write_bytes(content)
    found = thumbnails.read(tmp_path, Parity.model_construct(thumbnails_sha256=hashlib.sha256(content).hexdigest()))
    assert ("cannot be read" in found) if shown is None else (set(found) == shown)


def test_a_large_input_is_made_small(tmp_path: Path) -> None:
    flip = Flip(picture="a", reference="x", candidate="y", margin=0.1)
    gate = Gate(name="task", artifact="i", runtime="r", reference="f", requirement="", outcome="passed", flips=(flip, flip.model_copy(update={"picture": "golden/0.png"})), flip_count=2)
    thumbnails.write(tmp_path, [gate, gate], {"a": np.full((300, 300, 3), 90, np.uint8), "never flipped": np.zeros((8, 8, 3), np.uint8)})
    [(name, text)] = json.loads((tmp_path / "thumbnails.json").read_text(encoding="utf-8"))["pictures"].items()
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        assert name == "a" and image.size == (128, 128) and image.getpixel((5, 5)) == (90, 90, 90)


def test_without_pictures_there_is_nothing_to_make_thumbnails_of(cli: Cli, bundle: Path) -> None:
    assert "--thumbnails makes small pictures of --data, and none was given" in cli.refused("verify", bundle, "--thumbnails", "-q")
    assert not (bundle / "evidence").exists()
