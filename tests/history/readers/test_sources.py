import gzip
import json
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.history.readers.lines import MAX_LINE_BYTES
from recsys_ms.history.readers.sources import open_source


def read(tmp_path, data, name="t.csv", batch_rows=50_000, **options):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    source = open_source(path, **options)
    batches = list(source.batches(batch_rows))
    rows = [
        dict(zip(batch.columns, cells, strict=True))
        for batch in batches
        for cells in zip(*batch.columns.values(), strict=True)
    ]
    lines = [line for batch in batches for line in batch.lines]
    bad = [row for batch in batches for row in batch.bad]
    return source, rows, lines, bad


def test_line_ends_byte_order_mark_and_empty_cells(tmp_path):
    source, rows, lines, bad = read(tmp_path, b"\xef\xbb\xbfa,b\r\n1,\r\n\r\n,2\r\n")
    assert source.columns == ("a", "b")
    assert rows == [{"a": "1", "b": None}, {"a": None, "b": "2"}]
    assert lines == [2, 4]
    assert not bad


def test_spaces_around_a_cell_are_no_part_of_it(tmp_path):
    source, rows, *_ = read(tmp_path, "a , b\n x y , \n")
    assert source.columns == ("a", "b")
    assert rows == [{"a": "x y", "b": None}]


def test_quoted_line_breaks_count_as_lines(tmp_path):
    _, rows, lines, _ = read(tmp_path, 'a,b\n"x\ny\nz",1\nq,2\n')
    assert rows == [{"a": "x\ny\nz", "b": "1"}, {"a": "q", "b": "2"}]
    assert lines == [2, 5]


def test_rows_with_other_numbers_of_fields_are_bad(tmp_path):
    _, rows, _, bad = read(tmp_path, "a,b\n1\n1,2,3\n1,2\n")
    assert len(rows) == 1
    assert [(row.line, row.raw) for row in bad] == [(2, "1"), (3, "1,2,3")]
    assert bad[1].reason == "3 fields where the header has 2"


@pytest.mark.parametrize("broken", ['"never closed,1', '"a"b,1'])
def test_a_broken_quote_costs_its_own_line_only(tmp_path, broken):
    good = "".join(f"m{i},{i}\n" for i in range(100))
    _, rows, lines, bad = read(tmp_path, f"a,b\n{broken}\n{good}")
    assert len(rows) == 100
    assert lines == list(range(3, 103))
    assert [(row.line, row.raw) for row in bad] == [(2, broken)]


def test_a_quote_inside_a_field_is_text(tmp_path):
    assert read(tmp_path, 'a,b\n5" disk,1\n')[1] == [{"a": '5" disk', "b": "1"}]


def test_bytes_that_are_not_text_cost_their_own_line_only(tmp_path):
    _, rows, lines, bad = read(tmp_path, b"a,b\n1,2\ncaf\xe9,3\n4,5\n")
    assert (len(rows), lines) == (2, [2, 4])
    assert (bad[0].line, bad[0].raw) == (3, r"caf\xe9,3")
    assert len(read(tmp_path, b"a,b\ncaf\xe9,3\n", encoding="latin-1")[1]) == 1


def test_a_hundred_megabyte_line_costs_its_own_line_only(tmp_path):
    path = tmp_path / "t.csv"
    with path.open("wb") as handle:
        handle.write(b"a,b\n1,2\n")
        for _ in range(100):
            handle.write(b"x" * 2**20)
        handle.write(b"\n3,4\n")
    batches = list(open_source(path).batches())
    assert batches[0].columns == {"a": ["1", "3"], "b": ["2", "4"]}
    assert batches[0].lines == [2, 4]
    (bad,) = batches[0].bad
    assert bad.line == 3
    assert str(100 * 2**20 + 1) in bad.reason
    assert len(bad.raw) < 10_000


def test_a_bad_line_inside_quotes_ends_the_quote(tmp_path):
    _, rows, lines, bad = read(tmp_path, b'a,b\n"open\n\xff\n1,2\n')
    assert (rows, lines) == ([{"a": "1", "b": "2"}], [4])
    assert [row.line for row in bad] == [2, 3]


def test_a_file_of_bad_rows_comes_in_batches(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1\n" * 25)
    assert [len(batch.bad) for batch in open_source(path).batches(10)] == [10, 10, 5]


def test_an_over_long_field_is_bad(tmp_path):
    field = "x" * (MAX_LINE_BYTES // 2)
    _, rows, _, bad = read(tmp_path, f"a,b\n{field},1\n1,2\n")
    assert len(rows) == 1
    assert "field limit" in bad[0].reason


@pytest.mark.parametrize(
    ("data", "name", "match"),
    [
        (b"", "t.csv", "empty"),
        (b"\n\n", "t.csv", "empty"),
        (b"", "t.jsonl", "empty"),
        (b"a;b;c\n1;2;3\n", "t.csv", "delimiter=';'"),
        (b"a,b\n1,2\n", "t.tsv", "delimiter=','"),
        (b"\xff\xfea\x00", "t.csv", "UTF-16"),
        ("a,b\n1,2\n".encode("utf-16-le"), "t.csv", "zero bytes"),
        (b"caf\xe9,b\n", "t.csv", "header cannot be read"),
        (b'"a,b\n1,2\n', "t.csv", "header cannot be read"),
        (b"x" * (MAX_LINE_BYTES + 1), "t.csv", "header cannot be read"),
        (b"a,b\n1,2\n", "t.jsonl", "no row is a JSON object"),
        (b"a,b\n1,2\n", "t.parquet", "not a Parquet file"),
    ],
)
def test_files_that_are_not_tables(tmp_path, data, name, match):
    with pytest.raises(DataError, match=match):
        read(tmp_path, data, name)


def test_absent_files_and_unknown_suffixes(tmp_path):
    for name in ("absent.csv", "absent.parquet", "absent.jsonl"):
        with pytest.raises(DataError, match="no such file"):
            open_source(tmp_path / name)
    with pytest.raises(UsageError, match=r"suffix '\.xlsx'"):
        open_source(tmp_path / "a.xlsx")
    with pytest.raises(UsageError, match="format 'excel'"):
        open_source(tmp_path / "a.csv", table_format="excel")
    with pytest.raises(UsageError, match="delimiter"):
        open_source(tmp_path / "a.csv", delimiter="::")


def test_a_header_alone_is_a_table_without_rows(tmp_path):
    assert read(tmp_path, "a,b\n")[1:] == ([], [], [])


def test_unnamed_and_repeated_columns_get_names(tmp_path):
    source, *_ = read(tmp_path, ",a,a,a#2,b,a_1\n1,2,3,4,5,6\n")
    assert source.columns == ("column_1", "a_0", "a_2", "a#2", "b", "a_1")
    assert source.repeated == {"a": ("a_0", "a_2")}


def test_parquet_columns_of_one_name_are_told_apart(tmp_path):
    path = tmp_path / "t.parquet"
    columns = [pa.array([1]), pa.array([2])]
    pq.write_table(pa.Table.from_arrays(columns, names=["a", "a"]), path)
    source = open_source(path)
    assert next(source.batches()).columns == {"a_0": [1], "a_1": [2]}


def test_json_keys_of_one_name_are_refused(tmp_path):
    _, rows, _, (bad,) = read(tmp_path, '{"a": 1}\n{"a": 1, "a": 2}\n', "t.jsonl")
    assert rows == [{"a": 1}]
    assert "'a' stands twice" in bad.reason


@pytest.mark.parametrize("header", ["a," * 4_000 + "a", ",".join(map(str, range(100_000)))])
def test_thousands_of_columns_are_named_in_a_second(tmp_path, header):
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\n{header}\n")
    begin = time.process_time()
    source = open_source(path)
    (batch,) = source.batches()
    assert time.process_time() - begin < 1.0
    assert len(batch.columns) == len(source.columns) == header.count(",") + 1


def test_other_delimiters_and_formats(tmp_path):
    assert read(tmp_path, "a;b\n1;2\n", delimiter=";")[1] == [{"a": "1", "b": "2"}]
    assert read(tmp_path, "a\tb\n1\t2\n", "t.tsv")[1] == [{"a": "1", "b": "2"}]
    assert read(tmp_path, "a,b\n1,2\n", "t.log", table_format="csv")[1] == [{"a": "1", "b": "2"}]
    packed = gzip.compress(b"a,b\n1,2\n")
    assert read(tmp_path, packed, "t.csv.gz")[1] == [{"a": "1", "b": "2"}]


def test_jsonl_keeps_types_and_finds_keys_of_every_row(tmp_path):
    text = (
        '{"a": 1, "c": {"lr": 0.1}}\n\nnot json\n[1]\n{"a": "", "late": true}\n{"x": "\\ud800"}\n'
    )
    source, rows, lines, bad = read(tmp_path, text, "t.jsonl")
    assert source.columns == ("a", "c", "late")
    assert rows == [
        {"a": 1, "c": {"lr": 0.1}, "late": None},
        {"a": None, "c": None, "late": True},
    ]
    assert lines == [1, 5]
    assert [row.line for row in bad] == [3, 4, 6]
    assert bad[1].reason == "not JSON: got a JSON list, expected an object"
    assert bad[0].raw == "not json"


def test_jsonl_nested_beyond_measure_is_one_bad_row(tmp_path):
    _, rows, _, bad = read(tmp_path, '{"a": 1}\n' + "[" * 200_000 + '\n{"a": 2}\n', "t.jsonl")
    assert (len(rows), len(bad)) == (2, 1)


def test_jsonl_with_a_key_for_every_row_is_refused(tmp_path):
    text = "".join(json.dumps({f"k{i}": 1}) + "\n" for i in range(10_001))
    with pytest.raises(DataError, match="different keys"):
        read(tmp_path, text, "t.jsonl")


def test_parquet(tmp_path):
    path = tmp_path / "t.parquet"
    when = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        {"a": "x", "n": 1, "d": Decimal("1.50"), "s": {"lr": 0.1}, "t": when},
        {"a": "", "n": None, "d": None, "s": None, "t": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    source = open_source(path)
    batches = list(source.batches(1))
    assert [batch.lines for batch in batches] == [[1], [2]]
    assert [cells[0] for cells in batches[0].columns.values()] == ["x", 1, 1.5, {"lr": 0.1}, when]
    assert [cells[0] for cells in batches[1].columns.values()] == [None] * 5
    assert json.loads(batches[0].raw(0))["s"] == {"lr": 0.1}


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (pa.array([2**31 - 1], pa.int32()).cast(pa.date32()), None),
        (pa.array([2**62], pa.int64()).cast(pa.timestamp("us")), None),
        (pa.array([2**62], pa.int64()).cast(pa.timestamp("us", "UTC")), None),
        (pa.array([2**50], pa.int64()).cast(pa.timestamp("ms")), None),
        (
            pa.array([2**63 - 2], pa.int64()).cast(pa.duration("us")),
            timedelta(microseconds=2**63 - 2),
        ),
        (pa.array([[2**31 - 1]], pa.list_(pa.int32())).cast(pa.list_(pa.date32())), None),
        (pa.array([5], pa.int64()).cast(pa.timestamp("ns")), pd.Timestamp(5)),
        (pa.array([Decimal("1" * 38)]), int("1" * 38)),
        (pa.array([Decimal("0.913")]), 0.913),
        (pa.array(["x"]).dictionary_encode(), "x"),
        (pa.array([b"caf\xe9"]), "caf\\xe9"),
        (pa.array([b"ab"], pa.binary(2)), "ab"),
        (pa.array([1.5], pa.float16()), 1.5),
        (pa.nulls(1), None),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), [("k", 1)]),
    ],
    ids=lambda each: str(each.type) if isinstance(each, pa.Array) else "",
)
def test_cells_of_parquet_that_python_may_not_have(tmp_path, array, found):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"model": ["m"], "odd": array}), path)
    (batch,) = open_source(path).batches()
    if found is None and array.null_count == 0:
        assert batch.columns == {"model": [], "odd": []}
        (bad,) = batch.bad
        assert bad.reason.startswith("column 'odd': ")
        assert json.loads(bad.raw)["model"] == "m"
        return
    assert batch.columns == {"model": ["m"], "odd": [found]}
    assert json.loads(batch.raw(0))["model"] == "m"


@pytest.mark.parametrize("name", ["t.jsonl.gz", "t.csv.gz", "t.parquet"])
def test_a_small_file_of_large_rows_comes_in_small_batches(tmp_path, name):
    path = tmp_path / name
    if name == "t.parquet":
        table = pa.table({"a": ["A" * 500_000] * 150, "b": range(150)})
        pq.write_table(table, path, compression="zstd")
    else:
        head, row = ("", '{"a": "%s"}\n') if "json" in name else ("a,b\n", "%s,1\n")
        path.write_bytes(gzip.compress((head + row % ("A" * 100_000) * 400).encode(), 1))
    assert path.stat().st_size < 1_000_000
    batches = [(len(batch.lines), batch.columns["a"][0]) for batch in open_source(path).batches()]
    assert sum(n_rows for n_rows, _ in batches) in (150, 400)
    assert max(n_rows * len(cell) for n_rows, cell in batches) < 40 << 20


def test_a_row_of_many_long_quoted_fields_is_bad(tmp_path):
    field = '"' + ("x" * 50_000 + "\n") * 2 + '"'
    many = ",".join(f"c{i}" for i in range(200))
    good = ",".join("1" * 200)
    text = f"{many}\n{','.join([field] * 200)}\n{good}\n"
    _, rows, _, bad = read(tmp_path, text)
    assert len(rows) == 1
    assert any("more than the limit" in row.reason for row in bad)


def test_a_damaged_parquet_file(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": list(range(50_000))}), path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[4:2000] = b"\xff" * 1996
    path.write_bytes(data)
    with pytest.raises(DataError, match="reading stopped here"):
        list(open_source(path).batches())


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.text(max_size=8), st.text(max_size=8)).filter(any), min_size=1, max_size=8
    )
)
def test_rows_round_trip_and_every_row_reads_again_from_its_raw_text(tmp_path_factory, cells):
    import csv
    import io

    def plain(text):
        # What the csv module itself writes and reads back, without NUL and half surrogates.
        return "".join(
            char for char in text if char not in "\x00\r" and not "\ud800" <= char <= "\udfff"
        )

    wanted = [(plain(a) or "x", plain(b)) for a, b in cells]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([("a", "b"), *wanted])
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    source = open_source(path)
    (batch,) = source.batches()
    found = list(zip(batch.columns["a"], batch.columns["b"], strict=True))
    assert found == [(a.strip() or None, b.strip() or None) for a, b in wanted]
    for row, cell in enumerate(batch.columns["a"]):
        assert source.read_row(batch.raw(row), 1).columns["a"] == [cell]


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(UsageError, match="a folder, expected a table"):
        open_source(tmp_path)
