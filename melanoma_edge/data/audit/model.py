"""The layout of what `melanoma-edge audit` writes as JSON, from which its JSON Schema is made.

The same files give the same audit, on any machine and in whatever order they are listed: there is no date in it.
"""

from __future__ import annotations

from typing import Literal

from melanoma_edge.contract import Model, Share
from melanoma_edge.data.image import Fault

Severity = Literal["dishonest", "note"]
ShortcutVerdict = Literal["shortcut", "weak", "none", "constant", "not tried"]


class Policy(Model):
    """The keys of the recipe that the audit depends on."""

    conflicts: Literal["reference", "drop", "keep"]
    duplicates: Literal["one", "keep"]
    min_lesions: int
    image_size: int
    max_bad_share: Share


class Counts(Model):
    """How many of everything. A group is a set of pictures that are copies of each other."""

    files: int
    """Files that were taken for pictures and have a class."""
    readable: int
    unreadable: int
    mislabelled_by_extension: int
    """Readable pictures whose suffix names another format than their content has."""
    unusual_modes: int
    """Pictures that are not plain RGB: grey, CMYK, palette, transparency, 16 bits."""
    rotated_by_exif: int
    """Pictures that stand upright only when their EXIF orientation is heeded."""
    below_input_size: int
    """Pictures whose shorter side is below the recipe's image_size, so that they are enlarged."""
    tiny: int
    """Pictures whose shorter side is below 64 pixels."""
    other_files: int
    """Files that are no pictures by their names, tables apart; they are passed over."""
    without_class: int
    """Picture files in no class folder and in no table; they are passed over."""
    unmapped: int
    """Pictures whose diagnosis stands for none of the classes; they are left out."""
    ids_without_picture: int
    """Ids that a table names and that have no picture file."""
    filtered_by_licence: int
    """Pictures left out because only other licences were asked for."""

    exact_duplicate_groups: int
    """Groups of pictures with identical pixels."""
    exact_duplicate_pictures: int
    """Pictures in these groups."""
    conflicting_groups: int
    """Groups of identical pictures that stand under more than one class."""
    conflicting_pictures: int
    """Pictures in these groups."""
    near_copy_groups: int
    """Groups of copies that are not all identical: re-encoded, resized, flipped or turned."""
    near_copy_pictures: int
    """Pictures in these groups, identical ones among them."""
    near_conflicting_groups: int
    """Groups of near copies that stand under more than one class."""

    with_reference: int
    """Pictures that have a reference diagnosis."""
    references_not_understood: int
    """Of these, pictures whose reference diagnosis names none of the classes."""
    reference_contradictions: int
    """Pictures whose class is none that their reference diagnosis can mean."""

    with_lesion_id: int
    lesions: int
    """Different lesion ids."""
    lesions_with_several_pictures: int
    pictures_of_such_lesions: int
    """Pictures of lesions with several pictures."""
    lesions_under_two_classes: int
    lesions_under_two_classes_after_policy: int
    """Lesions, their copies included, whose usable pictures still have more than one class after the policy."""
    with_patient_id: int
    patients: int
    """Different patient ids."""
    patients_with_several_pictures: int

    groups_across_parts: int
    """Groups of copies, identical or near, in more than one of the parts in which the data set came."""
    conflicting_groups_across_parts: int
    """Of these, groups under more than one class."""
    lesions_across_parts: int
    patients_across_parts: int
    leaking_test_pictures: int
    """Pictures of the given test part whose copy, lesion or patient stands in the given train or validation part too."""

    classes: int
    classes_left_out: int
    """Classes with fewer lesions than the recipe's min_lesions after the policy."""
    usable: int
    """Pictures that are left after the policy."""
    usable_groups: int
    """Groups of these: same patient, same lesion or copies; what a split must keep together."""


class UnreadableFile(Model):
    path: str
    fault: Fault
    """Kind of defect."""
    reason: str
    """What is wrong with the file, in a line."""


class MislabelledFile(Model):
    path: str
    suffix: str
    format: str
    """By the file's first bytes."""


class UnusualMode(Model):
    path: str
    mode: str
    """Pillow's name of the pixels: `L`, `CMYK`, `P`, `RGBA` ..."""


class RotatedFile(Model):
    path: str
    orientation: int
    """EXIF orientation, 2..8."""


class SmallFile(Model):
    path: str
    width: int
    height: int


class Files(Model):
    """What is odd about the files; paths are relative to the data folder and sorted."""

    unreadable: tuple[UnreadableFile, ...]
    faults: dict[str, int]
    """{kind of defect: files}: no access, no picture (by its first bytes), empty, too large (decompression bombs
    among them), unsupported, truncated, damaged."""
    mislabelled: tuple[MislabelledFile, ...]
    unusual_modes: tuple[UnusualMode, ...]
    rotated: tuple[RotatedFile, ...]
    small: tuple[SmallFile, ...]
    """Shorter side below the recipe's image_size."""
    formats: dict[str, int]
    """{format: readable pictures}."""
    modes: dict[str, int]
    """{mode: readable pictures}."""
    other_files: dict[str, int]
    """{suffix: files} that were passed over."""
    without_class: tuple[str, ...]
    unmapped: dict[str, int]
    """{diagnosis: pictures}."""
    without_picture: tuple[str, ...]
    filtered: dict[str, int]
    """{licence: pictures}."""
    notes: tuple[str, ...]
    """What else was noticed while listing, a line each."""


class Member(Model):
    """One picture of a group; empty fields are not known."""

    path: str
    label: str
    """Its class."""
    reference: str
    """Reference diagnosis."""
    part: str
    """Part in which the data set came."""
    lesion: str
    patient: str
    width: int | None
    height: int | None
    """Null for rows that were made up."""
    difference: float | None
    """Root mean square difference to the copy that it was recognised by, in grey levels of a small view; 0 for identical ones."""


class Group(Model):
    """Pictures that are copies of each other."""

    members: tuple[Member, ...]
    classes: tuple[str, ...]
    """More than one: the labels contradict each other."""
    parts: tuple[str, ...]
    """More than one: the group leaks between the parts in which the data set came."""


class Contradiction(Model):
    """Pictures of one class whose reference diagnosis says otherwise."""

    label: str
    """Their class."""
    reference: str
    meant: tuple[str, ...]
    """Classes that the reference diagnosis can mean; several for a parent diagnosis such as "benign keratosis"."""
    pictures: int
    paths: tuple[str, ...]


class Subject(Model):
    """A lesion or a patient with several pictures."""

    id: str
    classes: tuple[str, ...]
    parts: tuple[str, ...]
    pictures: int
    paths: tuple[str, ...]


class LeakCounts(Model):
    """Pictures of one part that stand in an earlier part (train before validation before test) too, in some way."""

    pictures: int
    """All of the part."""
    copies: int
    """Those with a copy, identical or near, in an earlier part."""
    lesions: int
    """Those with a copy or their lesion there."""
    patients: int
    """Those with a copy, their lesion or their patient there."""


class Parts(Model):
    """The parts in which the data set came."""

    pictures: dict[str, int]
    """{part: readable pictures}; pictures in no part are counted under an empty name."""
    leak: dict[str, LeakCounts]
    """{validation, test: what they share with the parts before them}."""


class ClassFacts(Model):
    name: str
    pictures: int
    """Readable ones, under this class in the data."""
    lesions: int
    """Lesions: pictures that share a lesion id or are copies count once."""
    usable: int
    """Pictures after the policy."""
    usable_lesions: int
    left_out: bool
    """Whether it has fewer lesions than the recipe's min_lesions after the policy."""


class Shortcut(Model):
    """How well something that is no part of the picture's lesion tells the class by itself.

    A small random forest learns the class from these features alone, on the pictures after the policy, in 5 folds that are
    grouped by lesion, patient and copy and stratified by class. Chance is what the same predictions reach when
    the groups' classes are permuted within each fold, 1,000 times: its mean is 1/classes, whatever the class sizes are.
    """

    name: str
    title: str
    features: tuple[str, ...]
    verdict: ShortcutVerdict
    """`shortcut`: p at most 0.001 and at least a tenth of the way from chance to always right; `weak`: p at most 0.001, but less of
    the way; `none`; `constant`: all pictures are alike in it, so there is nothing to learn from; `not tried`: see `reason`."""
    reason: str
    balanced_accuracy: Share | None
    chance: Share | None
    """1 / classes."""
    chance_low: Share | None
    chance_high: Share | None
    """Interval that holds 99 % of the permutations."""
    p_value: Share | None
    """Share of the permutations that reach the balanced accuracy, itself counted as one."""
    recall: dict[str, float]
    """{class: share of its pictures that were told by these features}."""
    pictures: int
    """Pictures it was measured on: at most 20,000, drawn evenly from the classes with a fixed seed."""
    groups: int


class Leak(Model):
    """Shares of the test pictures that stand in the training part too, in some way."""

    copies: Share
    """A copy, identical or near."""
    lesions: Share
    """A copy or another photograph of the lesion."""
    patients: Share
    """A copy, the lesion, or another photograph of the patient."""


class Effect(Model):
    """What the findings do to a figure."""

    pictures: int
    """Readable ones."""
    usable: int
    """Those left after the policy."""
    relabelled_by_reference: int
    conflicts_dropped: int
    """Pictures left out because nothing decides between contradicting labels."""
    duplicates_dropped: int
    near_copies_dropped: int
    left_out_with_class: int
    """Pictures of classes with too few lesions."""
    accuracy_ceiling: Share
    """The best accuracy on all readable pictures, labelled as they are, of a classifier that goes by the picture: it gives one answer
    to identical pictures, and is right at most on the class that most of them have."""
    accuracy_ceiling_with_near_copies: Share
    """The same where near copies get one answer too."""
    balanced_accuracy_ceiling: Share
    """The best balanced accuracy in the same sense as `accuracy_ceiling`."""
    random_split_test_share: Share
    random_split_leak: Leak
    """Of a random split of all readable pictures: expected values, computed exactly (hypergeometric)."""
    given_split_leak: Leak | None
    """Of the test part in which the data set came; null where it came undivided."""
    training_refuses: str
    """Why melanoma-edge would not train on these data; empty where it would."""


class Problem(Model):
    key: str
    severity: Severity
    """`dishonest`: a figure measured on the data as they are would be wrong; `note`: worth knowing."""
    count: int
    title: str
    """What was found, in plain words."""
    meaning: str
    """What it does to a figure, or to training."""
    remedy: str
    """What melanoma-edge does about it, or what you can do."""
    handled: bool
    """Whether `melanoma-edge train` with this recipe does away with it."""


class Audit(Model):
    """What is in a data set, and what that does to figures measured on it."""

    schema_version: Literal[1] = 1
    notice: str
    melanoma_edge: str
    """Version that made it."""
    data: str
    source: str
    """Kind of data set."""
    tables: tuple[str, ...]
    """CSV files that were read for it."""
    policy: Policy
    counts: Counts
    problems: tuple[Problem, ...]
    """Those that make figures dishonest first."""
    effect: Effect
    classes: tuple[ClassFacts, ...]
    imbalance: float | None
    """Pictures of the largest class for each of the smallest, as the data are; null for a single class."""
    imbalance_usable: float | None
    """The same of the classes in use, after the policy."""
    files: Files
    exact_duplicates: tuple[Group, ...]
    """Those under several classes first."""
    near_copies: tuple[Group, ...]
    """Those under several classes first."""
    reference_contradictions: tuple[Contradiction, ...]
    references_not_understood: dict[str, int]
    """{reference diagnosis: pictures}."""
    lesions: tuple[Subject, ...]
    """Lesions with several pictures: those under several classes first, then those in several parts."""
    patients: tuple[Subject, ...]
    """Patients with several pictures, those in several parts first."""
    parts: Parts | None
    """Null where the data set came undivided."""
    shortcuts: tuple[Shortcut, ...]
    licences: dict[str, int]
    """{licence: readable pictures}; pictures of unknown terms are counted under `not stated`."""

    @property
    def dishonest(self) -> tuple[Problem, ...]:
        """The problems that make a figure dishonest."""
        return tuple(problem for problem in self.problems if problem.severity == "dishonest")
