"""Labels of every format as text: what is written, what is refused, what does not matter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_ms.core.errors import ProbeSetError, UsageError
from recsys_ms.scores.label_text_parts import check_texts
from recsys_ms.scores.label_texts import (
    box_texts,
    caption_texts,
    class_texts,
    distinct,
    multilabel_texts,
    number_texts,
    question_texts,
    span_texts,
)


class TestClasses:
    def test_codes_with_names(self):
        texts = class_texts(np.array([1, 0, 1]), ["cat", "grand_piano"])
        assert texts == ("a photo of a grand piano.", "a photo of a cat.", texts[0])

    @pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.float32, bool])
    def test_every_dtype_of_codes(self, dtype):
        assert class_texts(np.array([0, 1], dtype=dtype), ["a", "b"], "{}") == ("a", "b")

    def test_names_as_labels(self):
        assert class_texts(["cat", "dog"], template="{}") == ("cat", "dog")

    def test_a_mapping_translates_labels_that_are_no_positions(self):
        assert class_texts([7, 3], {3: "cat", 7: "dog"}, "{}") == ("dog", "cat")
        assert class_texts(["n02", "n01"], {"n01": "cat", "n02": "dog"}, "{}") == ("dog", "cat")

    def test_names_may_hold_braces(self):
        assert class_texts(["{x}"], template="a {}") == ("a {x}",)

    def test_texts_do_not_depend_on_the_other_examples(self):
        names = ["cat", "dog", "eel"]
        alone = [class_texts([code], names)[0] for code in (2, 0, 1)]
        assert class_texts([2, 0, 1], names) == tuple(alone)

    @pytest.mark.parametrize(
        ("labels", "names", "says"),
        [
            ([0, 1], None, "pass names="),
            ([0, 2], ["cat", "dog"], "not a position"),
            ([-1, 0], ["cat", "dog"], "not a position"),
            (["cat"], ["cat"], "mapping"),
            ([0, 1], {0: "cat"}, "not among"),
            ([0.5, 1.0], ["cat", "dog"], "fractions"),
            ([float("nan")], ["cat"], "fractions"),
            ([0], [" "], "blank"),
            ([0], [None], "NoneType"),
            ([[0, 1]], ["cat", "dog"], "shape"),
            ([[0], [0, 1]], ["cat", "dog"], "one class an example"),
            ([], ["cat"], "no entry"),
            ("cat", None, "sequence"),
            (np.array(3), ["cat"], "single value"),
        ],
    )
    def test_what_names_no_class(self, labels, names, says):
        with pytest.raises(ProbeSetError, match=says):
            class_texts(labels, names)

    @pytest.mark.parametrize("template", ["a photo", "{name}", "{} {x}", "{:>9}", "{!r}", "{", "}"])
    def test_templates_that_lose_the_label(self, template):
        with pytest.raises(UsageError, match="template"):
            class_texts(["cat"], template=template)


class TestSets:
    matrix = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    names = ("dog", "potted_plant", "cat")
    texts = (
        "a photo of dog and cat.",
        "a photo of none of the classes.",
        "a photo of dog, potted plant and cat.",
        "a photo of potted plant.",
    )

    @pytest.mark.parametrize("dtype", [np.int64, np.float32, bool])
    def test_zeros_and_ones(self, dtype):
        assert multilabel_texts(self.matrix.astype(dtype), self.names) == self.texts

    def test_lists_of_names_in_any_order(self):
        rows = [["cat", "dog"], [], {"potted_plant", "cat", "dog"}, np.array(["potted plant"])]
        assert multilabel_texts(rows, self.names) == self.texts

    def test_without_names_lists_are_alphabetical(self):
        assert multilabel_texts([["b", "a", "b"]], template="{}") == ("a and b",)

    def test_what_stands_for_the_empty_set(self):
        assert multilabel_texts([[]], template="{}", empty="no finding") == ("no finding",)

    @pytest.mark.parametrize(
        ("labels", "names", "says"),
        [
            ([[0, 2]], ["a", "b"], "threshold"),
            ([[0.5, 1]], ["a", "b"], "threshold"),
            ([[0, 1]], None, "names: got none"),
            ([[0, 1]], ["a"], "names: got 1"),
            ([["c"]], ["a", "b"], "not among"),
            ([["a"], [0]], ["a", "b"], "labels"),
            ([[0], [0, 1]], ["a", "b"], "equal length"),
            (["a", "b"], ["a", "b"], "labels"),
            (np.zeros((2, 0)), [], "column"),
            ([[" "]], None, "blank"),
        ],
    )
    def test_what_is_no_set(self, labels, names, says):
        with pytest.raises(ProbeSetError, match=says):
            multilabel_texts(labels, names)


class TestCaptions:
    def test_one_or_several_an_example(self):
        texts = caption_texts(["a  dog\nruns ", ["a cat", "it sleeps"], np.array(["x", "y"])])
        assert texts == ("a dog runs", "a cat it sleeps", "x y")
        assert caption_texts([["a", "b"]], joiner=" | ") == ("a | b",)

    @pytest.mark.parametrize("captions", [[""], [[]], [None], ["a", 3], [["a", " "]], ["\ud800"]])
    def test_what_is_no_caption(self, captions):
        with pytest.raises(ProbeSetError, match="captions: row"):
            caption_texts(captions)


class TestQuestions:
    def test_question_and_answer(self):
        texts = question_texts(["What is it?"], ["a dog"])
        assert texts == ("question: What is it? answer: a dog",)
        assert question_texts(["q"], ["a"], "{answer}") == ("a",)

    def test_of_several_answers_the_most_frequent_then_the_first(self):
        answers = [["no", "yes", "yes"], ["b", "a"]]
        assert question_texts(["q", "q"], answers, "{answer}") == ("yes", "b")

    def test_braces_in_a_question_stay(self):
        assert question_texts(["{answer}"], ["x"]) == ("question: {answer} answer: x",)

    @pytest.mark.parametrize(
        ("questions", "answers"),
        [(["q"], ["a", "b"]), (["q"], [""]), ([" "], ["a"]), (["q"], [[]]), (["q"], [{"a"}])],
    )
    def test_what_is_no_question_with_answer(self, questions, answers):
        with pytest.raises(ProbeSetError):
            question_texts(questions, answers)

    def test_a_template_without_the_answer(self):
        with pytest.raises(UsageError, match=r"\{answer\}"):
            question_texts(["q"], ["a"], "{question}")


class TestSpans:
    context = "It was  founded in 1912,\nin Ghent."

    def test_the_piece_of_the_context_as_it_was_counted(self):
        start = self.context.index("1912")
        texts = span_texts([self.context] * 2, [(start, start + 4), None])
        assert texts == ("1912", "no answer")

    def test_question_and_context(self):
        texts = span_texts(
            ["in Ghent"], np.array([[3, 8]]), ["Where?"], "{answer}. {question} {context}"
        )
        assert texts == ("Ghent. Where? in Ghent",)

    @pytest.mark.parametrize(
        "span", [(0, 99), (-1, 2), (3, 3), (4, 2), (1,), (0.0, 2.0), "ab", (6, 8), 5]
    )
    def test_spans_that_hold_no_answer(self, span):
        with pytest.raises(ProbeSetError, match="spans: row 0"):
            span_texts([self.context], [span])

    def test_lengths(self):
        with pytest.raises(ProbeSetError, match="as contexts"):
            span_texts(["a", "b"], [(0, 1)])
        with pytest.raises(ProbeSetError, match="questions: got 1"):
            span_texts(["a", "b"], [(0, 1)] * 2, ["q"])

    def test_a_question_that_was_not_given(self):
        with pytest.raises(UsageError, match="template"):
            span_texts(["a"], [(0, 1)], template="{question} {answer}")


class TestBoxes:
    def test_fractions(self):
        texts = box_texts(["the left dog"], [[0.1, 0.25, 0.5, 1.0]])
        assert texts == ("the left dog [0.100, 0.250, 0.500, 1.000]",)

    def test_pixels_and_widths(self):
        texts = box_texts(["x"], [[20, 50, 80, 50]], [[200, 100]], form="xywh", decimals=2)
        assert texts == ("x [0.10, 0.50, 0.50, 1.00]",)

    def test_precision_of_the_boxes_does_not_show(self):
        edges = np.random.default_rng(0).integers(0, 500, (200, 4)) / 1000
        edges[:, 2:] += 0.5
        said = ["x"] * 200
        assert box_texts(said, edges.astype(np.float32)) == box_texts(said, edges)

    def test_no_negative_zero_and_no_overshoot(self):
        boxes = np.array([[-0.0, -1e-7, 1.0, 1.0000001]])
        assert box_texts(["x"], boxes) == ("x [0.000, 0.000, 1.000, 1.000]",)

    def test_inputs_are_not_written_to(self):
        boxes = np.array([[1.0, 2.0, 3.0, 4.0]])
        boxes.flags.writeable = False
        box_texts(["x"], boxes, [[10, 10]], form="xywh")

    @pytest.mark.parametrize(
        ("boxes", "says"),
        [
            ([[0.0, 0.0, 20.0, 30.0]], "image_sizes="),
            ([[0.5, 0.5, 0.2, 0.2]], "xywh"),
            ([[0.1, 0.1, 0.1, 0.2]], "left < right"),
            ([[0.1, np.nan, 0.2, 0.2]], "finite"),
            ([[0.1, 0.1, 0.2]], "expected 4"),
            ([[0.1, 0.1, 0.2, 0.2]] * 2, "boxes"),
            ([["a", "b", "c", "d"]], "boxes"),
            ([[0.1], [0.1, 0.2]], "equal length"),
        ],
    )
    def test_what_is_no_box(self, boxes, says):
        with pytest.raises(ProbeSetError, match=says):
            box_texts(["x"], boxes)

    @pytest.mark.parametrize("sizes", [[[0, 10]], [[10]], [[-1, 10]], [[10, 10]] * 2])
    def test_what_is_no_size(self, sizes):
        with pytest.raises(ProbeSetError, match="image_sizes"):
            box_texts(["x"], [[1, 1, 2, 2]], sizes)

    @pytest.mark.parametrize("options", [{"form": "cxcywh"}, {"decimals": 0}, {"template": "{}"}])
    def test_options(self, options):
        with pytest.raises(UsageError):
            box_texts(["x"], [[0, 0, 1, 1]], **options)


class TestNumbers:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (3.14159, "3.142"),
            (0.0, "0"),
            (-0.0, "0"),
            (-2.50, "-2.5"),
            (123456.0, "123500"),
            (0.000012345, "0.00001234"),
            (99999.5, "100000"),
            (2.5e20, "2.5e+20"),
            (1e-9, "1e-9"),
            (np.float32(0.1), "0.1"),
            (True, "1"),
        ],
    )
    def test_four_digits(self, value, text):
        assert number_texts(np.array([value])) == (f"value: {text}",)

    def test_columns_with_names_and_units(self):
        texts = number_texts([[1.75, 70.0], [1.8, 82.5]], ["height", "weight"], ["m", ""])
        assert texts == ("height: 1.75 m, weight: 70", "height: 1.8 m, weight: 82.5")

    def test_halves_go_to_the_even_digit(self):
        assert number_texts([0.5, 1.5, 2.5], digits=1) == ("value: 0.5", "value: 2", "value: 2")

    @given(st.floats(-1e300, 1e300), st.integers(1, 15))
    def test_the_text_is_the_number_within_half_a_digit(self, value, digits):
        read = float(number_texts([value], digits=digits)[0].removeprefix("value: "))
        # Half a unit of the last digit, and the rounding of reading it back; subnormals excepted.
        assert abs(read - value) <= abs(value) * (0.51 * 10 ** (1 - digits)) + 1e-300

    @pytest.mark.parametrize("targets", [[np.nan], [np.inf], ["a"], [], [[1.0], [1.0, 2.0]], 3.0])
    def test_what_is_no_number(self, targets):
        with pytest.raises(ProbeSetError):
            number_texts(targets)

    @pytest.mark.parametrize(
        "options", [{"digits": 0}, {"digits": 16}, {"names": ["a", "b"]}, {"units": [1]}]
    )
    def test_options(self, options):
        with pytest.raises(UsageError):
            number_texts([1.0], **options)


class TestDistinct:
    def test_first_appearance(self):
        unique, codes = distinct(["b", "a", "b"])
        assert unique == ("b", "a")
        assert codes.dtype == np.int64
        assert codes.tolist() == [0, 1, 0]

    @given(st.lists(st.sampled_from(["a", "b", "c d", "é"]), min_size=1))
    def test_texts_come_back(self, texts):
        unique, codes = distinct(texts)
        assert [unique[code] for code in codes] == texts
        assert len(set(unique)) == len(unique)

    @pytest.mark.parametrize("texts", ["abc", [], [""], [1], ["\udc00"], {"a": 1}, 5])
    def test_what_no_encoder_reads(self, texts):
        with pytest.raises(ProbeSetError):
            distinct(texts)
        with pytest.raises(ProbeSetError):
            check_texts(texts)
