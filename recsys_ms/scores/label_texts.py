"""Labels of any format as one text an example, for foundation models to embed.

The first step of EMMS (Meng et al. 2023, "Foundation Model is Efficient Multimodal Multitask Model
Selector"): one regression then serves every task. Line breaks and doubled spaces are removed, and
equal labels give equal texts in every probe set. Every function raises a ``ProbeSetError`` that
names the argument and the row for bad data (blank or missing texts, arguments of different length),
and a ``UsageError`` for a bad option, such as a template with other or missing fields.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from recsys_ms.core.errors import ProbeSetError, UsageError
from recsys_ms.core.types import IntArray
from recsys_ms.scores.checks import check_classes, check_targets
from recsys_ms.scores.label_text_parts import (
    as_rows,
    box_edges,
    check_template,
    check_texts,
    clean_rows,
    clean_several,
    clean_text,
    per_column,
    plain_number,
    tidy_name,
)

#: Names of classes: by position, or by label.
Names: TypeAlias = Sequence[str] | Mapping[Any, str]

CLASS_TEMPLATE: Final = "a photo of a {}."
SET_TEMPLATE: Final = "a photo of {}."
QUESTION_TEMPLATE: Final = "question: {question} answer: {answer}"
SPAN_TEMPLATE: Final = "{answer}"
BOX_TEMPLATE: Final = "{expression} {box}"


def class_texts(
    labels: ArrayLike, names: Names | None = None, template: str = CLASS_TEMPLATE
) -> tuple[str, ...]:
    """One prompt an example from its class.

    Parameters
    ----------
    labels : array-like of shape (n_probe,)
        Codes or names of classes.
    names : sequence or mapping of str, optional
        Name of class ``i`` at position ``i``, or of label ``l`` under key ``l``. Needed for codes.
        Underscores become spaces: they come from the names of folders.
    template : str
        Prompt with one ``{}`` for the name. ``"{}"`` is the bare name, as in the published code.
    """
    check_template(template, allowed={""}, required={""})
    classes = check_classes(labels, len(as_rows(labels, "labels")), min_classes=1)
    prompts = [template.format(_class_name(label, names)) for label in classes.names]
    return tuple(prompts[code] for code in classes.codes)


def multilabel_texts(
    labels: ArrayLike | Iterable[Collection[str]],
    names: Sequence[str] | None = None,
    template: str = SET_TEMPLATE,
    *,
    empty: str = "none of the classes",
) -> tuple[str, ...]:
    """One text an example from its set of classes, such as "a photo of a dog and a person".

    Parameters
    ----------
    labels : array-like of shape (n_probe, n_classes), or one collection of names an example
        Zeros and ones (or truth values; ``ProbeSetError`` for others), or the names themselves.
    names : sequence of str of length n_classes, optional
        Names of the columns; needed for a matrix. Given with collections, they are the names that
        are allowed, and the order in which they are listed (otherwise alphabetical).
    template : str
        Text with one ``{}`` for the list.
    empty : str
        Text for an example without a class.
    """
    check_template(template, allowed={""}, required={""})
    known = None if names is None else [tidy_name(name, "names") for name in names]
    given = as_rows(labels, "labels")
    if all(_is_names(row) for row in given):
        sets = _listed_sets(given, known)
    else:
        sets = _matrix_sets(labels, len(given), known)
    nothing = clean_text(empty, "empty")
    return tuple(template.format(_enumeration(chosen) or nothing) for chosen in sets)


def caption_texts(captions: Iterable[str | Sequence[str]], *, joiner: str = " ") -> tuple[str, ...]:
    """One text an example from its caption or captions, which are joined in their order.

    A text encoder reads as many tokens as it has positions (77 in CLIP) and cuts the rest.
    """
    return tuple(
        joiner.join(clean_several(given, f"captions: row {row}"))
        for row, given in enumerate(as_rows(captions, "captions"))
    )


def question_texts(
    questions: Iterable[str],
    answers: Iterable[str | Sequence[str]],
    template: str = QUESTION_TEMPLATE,
) -> tuple[str, ...]:
    """One text an example from a question and its answer.

    Parameters
    ----------
    questions : iterable of str, n_probe of them
    answers : iterable of str or of sequences of str, n_probe of them
        The answer; of several (ten people answer each question of VQA) the most frequent one, of
        equally frequent ones the first.
    template : str
        Text with ``{answer}`` and, if wanted, ``{question}``.
    """
    check_template(template, allowed={"question", "answer"}, required={"answer"})
    asked = clean_rows(questions, "questions")
    texts = []
    for row, answer in enumerate(as_rows(answers, "answers", as_many_as=("questions", len(asked)))):
        said = clean_several(answer, f"answers: row {row}")
        # max keeps the first of equals.
        chosen = max(said, key=said.count)
        texts.append(template.format(question=asked[row], answer=chosen))
    return tuple(texts)


def span_texts(
    contexts: Iterable[str],
    spans: Iterable[Sequence[int] | None],
    questions: Iterable[str] | None = None,
    template: str = SPAN_TEMPLATE,
    *,
    no_answer: str = "no answer",
) -> tuple[str, ...]:
    """One text an example from an answer that is a piece of its context.

    Parameters
    ----------
    contexts : iterable of str, n_probe of them
        Texts that the answers stand in, unchanged: the spans count their characters.
    spans : iterable of (start, end) or None, n_probe of them
        First character of the answer and the one after its last, within its context; None where
        there is no answer.
    questions : iterable of str, optional
        Questions, for a template with ``{question}``.
    template : str
        Text with ``{answer}`` and, if wanted, ``{question}`` and ``{context}``. Put the answer
        first: encoders cut long texts at the end.
    no_answer : str
        The answer of an example whose span is None.
    """
    fields = {"answer", "context"} | (set() if questions is None else {"question"})
    check_template(template, allowed=fields, required={"answer"})
    rows = as_rows(contexts, "contexts")
    same = ("contexts", len(rows))
    given = as_rows(spans, "spans", as_many_as=same)
    asked = [""] * len(rows)
    if questions is not None:
        asked = clean_rows(questions, "questions", as_many_as=same)
    nothing = clean_text(no_answer, "no_answer")
    texts = []
    for row, (context, span) in enumerate(zip(rows, given, strict=True)):
        cleaned = clean_text(context, f"contexts: row {row}")
        answer = nothing if span is None else _extract(context, span, row)
        texts.append(template.format(answer=answer, context=cleaned, question=asked[row]))
    return tuple(texts)


def box_texts(
    expressions: Iterable[str],
    boxes: ArrayLike,
    image_sizes: ArrayLike | None = None,
    *,
    form: Literal["xyxy", "xywh"] = "xyxy",
    decimals: int = 3,
    template: str = BOX_TEMPLATE,
) -> tuple[str, ...]:
    """One text an example from a referring expression and the box it refers to.

    The box is written as its left, upper, right and lower edge in fractions of the image, such as
    "[0.100, 0.250, 0.500, 0.750]".

    Parameters
    ----------
    expressions : iterable of str, n_probe of them
    boxes : array-like of shape (n_probe, 4)
        In fractions of the image, or in pixels where ``image_sizes`` is given; inside the image,
        and with an area.
    image_sizes : array-like of shape (n_probe, 2), optional
        Width and height of each image in pixels.
    form : {"xyxy", "xywh"}
        Whether a box ends with its right lower corner or with its width and height.
    decimals : int
        Digits after the point, 1 to 6; three distinguish a thousand positions.
    template : str
        Text with ``{box}`` and, if wanted, ``{expression}``.
    """
    check_template(template, allowed={"expression", "box"}, required={"box"})
    if form not in ("xyxy", "xywh") or not 1 <= decimals <= 6:
        raise UsageError(
            f"form={form!r}, decimals={decimals}: expected 'xyxy' or 'xywh', and 1 to 6 decimals"
        )
    said = clean_rows(expressions, "expressions")
    edges = box_edges(boxes, image_sizes, len(said), form)
    texts = []
    for expression, box in zip(said, edges.tolist(), strict=True):
        written = "[" + ", ".join(f"{edge:.{decimals}f}" for edge in box) + "]"
        texts.append(template.format(expression=expression, box=written))
    return tuple(texts)


def number_texts(
    targets: ArrayLike,
    names: str | Sequence[str] = "value",
    units: str | Sequence[str] = "",
    *,
    digits: int = 4,
) -> tuple[str, ...]:
    """One text an example from the targets of a regression, such as "height: 1.75 m".

    Parameters
    ----------
    targets : array-like of shape (n_probe,) or (n_probe, n_targets)
        Finite numbers.
    names, units : str or sequence of str
        Name and unit of each column; one text serves a single column.
    digits : int
        Significant digits, 1 to 15. Halves go to the even digit, zeros at the end are left out;
        neither depends on the other targets.
    """
    if not 1 <= digits <= 15:
        raise UsageError(f"digits={digits}: expected 1 to 15, the digits of float64")
    matrix = check_targets(targets, len(as_rows(targets, "targets")), name="targets")
    called = per_column(names, matrix.shape[1], "names")
    counted = per_column(units, matrix.shape[1], "units")
    heads = [clean_text(name, f"names: {i}") for i, name in enumerate(called)]
    tails = [" " + clean_text(unit, "units") if unit.strip() else "" for unit in counted]
    return tuple(
        ", ".join(
            f"{head}: {plain_number(value, digits)}{tail}"
            for head, value, tail in zip(heads, row, tails, strict=True)
        )
        for row in matrix.tolist()
    )


def distinct(texts: Iterable[str]) -> tuple[tuple[str, ...], IntArray]:
    """Distinct texts in order of first appearance, and the codes of shape (n_probe,) into them."""
    position: dict[str, int] = {}
    codes = [position.setdefault(text, len(position)) for text in check_texts(texts)]
    return tuple(position), np.asarray(codes, dtype=np.int64)


def _class_name(label: Any, names: Names | None) -> str:
    if names is None:
        if not isinstance(label, str):
            raise ProbeSetError(
                f"labels: class {label!r} is a number, expected a name; pass names="
            )
        return tidy_name(label, "labels")
    if isinstance(names, Mapping):
        if label not in names:
            raise ProbeSetError(f"labels: class {label!r} is not among the {len(names)} names")
        return tidy_name(names[label], f"names: {label!r}")
    if isinstance(label, str) or not 0 <= label < len(names):
        raise ProbeSetError(
            f"labels: class {label!r} is not a position in the {len(names)} names; pass a mapping "
            "from label to name"
        )
    return tidy_name(names[int(label)], f"names: {label!r}")


def _is_names(row: Any) -> bool:
    return (
        isinstance(row, Collection)
        and not isinstance(row, str)
        # A matrix without columns has rows without a number in them.
        and getattr(getattr(row, "dtype", None), "kind", "O") in "OU"
        and all(isinstance(name, str) for name in row)
    )


def _listed_sets(rows: list[Any], known: list[str] | None) -> list[list[str]]:
    sets = []
    for row, given in enumerate(rows):
        chosen = {tidy_name(name, f"labels: row {row}") for name in given}
        unknown = [] if known is None else sorted(chosen.difference(known))
        if unknown:
            raise ProbeSetError(f"labels: row {row} has {unknown}, which are not among the names")
        sets.append(sorted(chosen, key=None if known is None else known.index))
    return sets


def _matrix_sets(labels: Any, n_probe: int, known: list[str] | None) -> list[list[str]]:
    matrix = check_targets(labels, n_probe)
    if not np.isin(matrix, (0.0, 1.0)).all():
        raise ProbeSetError("labels: got other numbers than 0 and 1; threshold probabilities first")
    if known is None or len(known) != matrix.shape[1]:
        raise ProbeSetError(
            f"names: got {'none' if known is None else len(known)}, expected one for each of the "
            f"{matrix.shape[1]} columns of the labels"
        )
    return [[known[i] for i in np.flatnonzero(row)] for row in matrix]


def _enumeration(names: list[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _extract(context: str, span: Any, row: int) -> str:
    bounds = list(span) if isinstance(span, Sequence | np.ndarray) else []
    if len(bounds) != 2 or not all(isinstance(at, int | np.integer) for at in bounds):
        raise ProbeSetError(f"spans: row {row} is {span!r}, expected (start, end) or None")
    start, end = bounds
    if not 0 <= start < end <= len(context):
        raise ProbeSetError(
            f"spans: row {row} is ({start}, {end}) in a context of {len(context)} characters, "
            "expected 0 <= start < end <= length; pass None where there is no answer"
        )
    return clean_text(context[start:end], f"spans: row {row}")
