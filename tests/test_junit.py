"""JUnit XML of gates and checks: what CI reads of it is what was found, whatever names hold."""

from __future__ import annotations

import json
import shutil
import xml.dom.minidom
from pathlib import Path
from xml.dom.minidom import Element

import pytest
from conftest import Cli, snapshot
from hypothesis import given
from hypothesis import strategies as st
from test_verify_cli import reseal
from tiny_bundle import write_bundle

from melanoma_edge.contract import Interval
from melanoma_edge.errors import BadInput
from melanoma_edge.proof import junit
from melanoma_edge.proof.parity_model import Flip, Gate, Parity

# What each element may hold and must have, after the schema of Jenkins' xUnit plugin (junit-10.xsd).
CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase"},
    "properties": {"property"},
    "testcase": {"failure", "skipped", "system-out"},
}
NEEDED = {
    "testsuites": set(),
    "testsuite": {"name", "tests", "failures", "errors"},
    "property": {"name", "value"},
    "testcase": {"name"},
}
ALLOWED = {
    "testsuites": {"name", "tests", "failures", "errors"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
    "property": {"name", "value"},
    "testcase": {"name", "classname"},
    "failure": {"type", "message"},
    "skipped": {"type", "message"},
}


def elements(parent: Element) -> list[Element]:
    return [node for node in parent.childNodes if node.nodeType == node.ELEMENT_NODE]


def read(content: bytes) -> list[Element]:
    """Return the test cases of a report, read by another parser and held to the schema and its own counts."""
    root = xml.dom.minidom.parseString(content).documentElement
    assert content.startswith(b"<?xml") and root.tagName == "testsuites"
    open_ = [root]
    while open_:
        one = open_.pop()
        names = {name for name, _ in one.attributes.items()} if one.attributes else set()
        assert NEEDED.get(one.tagName, set()) <= names <= ALLOWED.get(one.tagName, set())
        assert {child.tagName for child in elements(one)} <= CHILDREN.get(one.tagName, set())
        open_ += elements(one)
    [suite] = elements(root)
    cases = [one for one in elements(suite) if one.tagName == "testcase"]
    count = {name: str(len(suite.getElementsByTagName(name))) for name in ("testcase", "failure", "skipped")}
    assert [suite.getAttribute(name) for name in ("tests", "failures", "skipped", "errors")] == [count["testcase"], count["failure"], count["skipped"], "0"]
    assert all(len([child for child in elements(case) if child.tagName != "system-out"]) <= 1 for case in cases)
    keys = [(case.getAttribute("classname"), case.getAttribute("name")) for case in cases]
    assert len(set(keys)) == len(keys), "GitLab drops the second of a name"
    return cases


def outcome(case: Element) -> tuple[str, str]:
    """Return (outcome, its message) as a reader of the XML sees them."""
    [found] = [child for child in elements(case) if child.tagName != "system-out"] or [None]
    if found is None:
        return "passed", ""
    message = found.getAttribute("message")
    assert found.firstChild.data == message, "GitLab shows the text, not the message"
    assert found.tagName == ("failure" if found.getAttribute("type") == "failed" else "skipped")
    return found.getAttribute("type"), message


def output(case: Element) -> str:
    return "".join(child.firstChild.data for child in elements(case) if child.tagName == "system-out")


anything = st.text(alphabet=st.characters(codec=None), max_size=30) | st.sampled_from(["]]>", "\x00\x1b[31m", "<a b='c'>&amp;\"", "\udcff.jpg", "a\r\nb", "\ufffe\uffff", "\x85\u2028"])
gates = st.builds(
    Gate,
    name=st.sampled_from(["int8", "golden", "task"]),
    artifact=anything,
    runtime=anything,
    reference=anything,
    requirement=anything,
    outcome=st.sampled_from(["passed", "failed", "inconclusive", "not run"]),
    reason=st.none() | anything,
    pictures=st.integers(0, 9),
    measured_on=anything,
    figures=st.dictionaries(anything, st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=2),
    losses=st.dictionaries(anything, st.builds(Interval, value=st.none() | st.floats(-1, 1), low=st.none(), high=st.none()), max_size=1),
    recall_change=st.dictionaries(anything, st.none() | st.floats(-1, 1), max_size=2),
    flips=st.lists(st.builds(Flip, picture=anything, reference=anything, candidate=anything, margin=st.floats(0, 9)), max_size=2).map(tuple),
    flip_count=st.integers(0, 3),
)


@given(st.lists(gates, max_size=4), anything)
def test_any_names_give_a_report_that_reads_back(found: list[Gate], name: str) -> None:
    parity = Parity.model_construct(
        bundle=name, manifest_sha256="0" * 64, command=name, date="2026-01-02T03:04:05+00:00", data=name, pictures=3, labelled={}, gates=tuple(found), seconds=1.5, conditions={}
    )  # fmt: skip
    cases = read(junit.of_parity(parity))
    assert [outcome(case)[0] for case in cases] == [gate.outcome for gate in found]
    for case, gate in zip(cases, found):
        if gate.outcome != "passed" and gate.reason and gate.reason.isprintable():
            assert outcome(case)[1] == f"{gate.outcome}: {gate.reason}"
        if gate.artifact.isprintable() and gate.reference.isprintable():
            assert case.getAttribute("name").startswith(f"{gate.name}: {gate.artifact}" + (f" against {gate.reference}" if gate.reference else ""))


def test_what_xml_cannot_hold_becomes_escapes() -> None:
    [case] = read(junit.document("verify", [junit.Case("a", "\x00\x1b[0m\udcff\ufffe\n<&>", "failed", "b]]>\x07")], {}))
    assert case.getAttribute("name") == "\\x00\\x1b[0m\\udcff\\ufffe <&>" and outcome(case) == ("failed", "failed: b]]>\\x07")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("junit") / "tiny.bundle")


def test_verify_writes_a_test_case_a_gate(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    copy, file = Path(shutil.copytree(bundle, tmp_path / "tiny.bundle")), tmp_path / "gates.xml"
    for expected in (0, 1):
        cli("verify", copy, "--junit", file, "-q", code=expected)
        found = json.loads((copy / "evidence" / "parity.json").read_text(encoding="utf-8"))
        cases = read(file.read_bytes())
        assert len(cases) == len(found["gates"]) and {outcome(case)[0] for case in cases} >= {"passed", "not run"}
        for case, gate in zip(cases, found["gates"]):
            kind, message = outcome(case)
            assert kind == gate["outcome"] and (kind == "passed" or gate["reason"] in message)
            assert gate["requirement"] in output(case) and case.getAttribute("classname").endswith(gate["runtime"])
            assert all(f"{name}: {value:g}" in output(case) for name, value in gate["figures"].items() if value is not None)
        properties = {one.getAttribute("name"): one.getAttribute("value") for one in xml.dom.minidom.parse(str(file)).getElementsByTagName("property")}
        assert properties["manifest_sha256"] == found["manifest_sha256"] and properties["notice"] == found["notice"]
        golden = json.loads((copy / "golden" / "golden.json").read_text(encoding="utf-8"))
        golden["logits"]["tiny-int8.tflite"][0][0] += 5.0
        (copy / "golden" / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
        reseal(copy)
    assert "failed" in {outcome(case)[0] for case in cases}


def test_diff_writes_a_test_case_a_check(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    found = cli("diff", bundle, bundle, "--junit", tmp_path / "diff.xml", "--json", "-q").json
    cases = read((tmp_path / "diff.xml").read_bytes())
    assert [outcome(case)[0] for case in cases] == [check["outcome"] for check in found["checks"]]
    assert "not compared: A: not measured" in outcome(cases[-1])[1]


def test_a_required_check_that_did_not_pass_is_a_failure_in_the_report_too(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    cli("diff", bundle, bundle, "--require", "latency", "--require", "size", "--junit", tmp_path / "diff.xml", "-q", code=1)
    cases = read((tmp_path / "diff.xml").read_bytes())
    assert [case.getAttribute("name") for case in cases if outcome(case)[0] == "failed"] == ["latency: all"]
    assert outcome(cases[-1])[1].startswith("failed: required, but not compared: A: not measured")
    other = Path(shutil.copytree(bundle, tmp_path / "other.bundle"))
    manifest = json.loads((other / "manifest.json").read_text(encoding="utf-8"))
    manifest["weights"] = {"float": "1" * 64, "qat": "1" * 64}
    (other / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    cli("diff", bundle, other, "--require", "flips", "--junit", tmp_path / "diff.xml", "-q", code=1)
    last = read((tmp_path / "diff.xml").read_bytes())[-1]
    assert (last.getAttribute("name"), outcome(last)) == ("flips: all", ("failed", "failed: required, but nothing was to be judged by it"))


def test_nothing_but_an_earlier_report_is_replaced_and_that_is_said_first(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.xml"
    mine.write_text("<testsuites name='mine'/>", encoding="utf-8")
    (tmp_path / "link.xml").symlink_to(mine)
    before = snapshot(tmp_path)
    for file in (mine, tmp_path / "link.xml", tmp_path):
        assert "exists already" in cli.refused("verify", bundle, "--junit", file)
    assert "does not exist: make it, or give another --junit" in cli.refused("verify", bundle, "--junit", tmp_path / "no" / "gates.xml")
    assert snapshot(tmp_path) == before
    with pytest.raises(BadInput):
        junit.write(mine, junit.document("verify", [], {}))
    junit.write(tmp_path / "ours.xml", junit.document("verify", [], {}))
    junit.write(tmp_path / "ours.xml", junit.document("diff", [], {}))
    assert read((tmp_path / "ours.xml").read_bytes()) == []
