"""The audit as a command does it: from a data set to the findings and the files that show them.

In: a data set of any kind and a recipe. Out: an :class:`~melanoma_edge.data.audit.model.Audit`; where asked
for, JSON and a page. No TensorFlow, OpenCV or runtime is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from melanoma_edge.contract import Recipe
from melanoma_edge.data.audit import Audit, audit as audit_index
from melanoma_edge.data.index import read_index
from melanoma_edge.errors import BadInput, ProofFailed
from melanoma_edge.files import cache_folder, refuse_existing, write_json, write_text


def audit(
    data: Path,
    recipe: Recipe,
    *,
    metadata: Path | None = None,
    licences: Sequence[str] = (),
    cache: Path | None = None,
    json_file: Path | None = None,
    html_file: Path | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Audit the data set at `data` under the policy of `recipe`; write `json_file` and `html_file` where given.

    `metadata`, `licences` and `cache` are those of :func:`melanoma_edge.data.index.read_index`, the cache by default
    where :func:`melanoma_edge.files.cache_folder` says. Raises BadInput for data that cannot be read at all, for files
    in no folder and, unless `force`, for files that exist: all before a picture is opened.
    """
    targets = [Path(file) for file in (json_file, html_file) if file is not None]
    for file in targets:
        if not file.parent.is_dir():
            raise BadInput(f"the folder {file.parent} does not exist: make it, or give another path for {file.name}")
        if file.is_dir():
            raise BadInput(f"{file} is a folder: expected the path of a file to write")
        refuse_existing(file, force=force)
    if len({file.resolve() for file in targets}) < len(targets):
        raise BadInput(f"{json_file} was given for both JSON and HTML: choose two paths")
    index = read_index(Path(data), metadata=metadata, licences=licences, cache=cache or cache_folder(), progress=progress)
    found = audit_index(index, recipe)
    if json_file is not None:
        write_json(json_file, found.model_dump(mode="json"))
    if html_file is not None:
        from melanoma_edge.proof.audit_html import page

        write_text(html_file, page(found, index.root))
    return found


def refuse_dishonest(found: Audit) -> None:
    """Raise ProofFailed, naming them, when there are problems that make a figure dishonest."""
    if found.dishonest:
        names = ", ".join(f"{problem.key} ({problem.count})" for problem in found.dishonest)
        raise ProofFailed(
            f"{len(found.dishonest)} {'problem makes' if len(found.dishonest) == 1 else 'problems make'} figures on {found.data} dishonest: {names}; see the list"
        )
