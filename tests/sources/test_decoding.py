"""Bytes to text: packings, marks, and encodings that nothing marks."""

from __future__ import annotations

import bz2
import gzip
import io
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.decoding import (
    Encoding,
    GivenTwice,
    as_utf_8,
    check_encoding,
    decoded,
    encoding_of,
    foreign,
    packing_of,
    parse_json,
    read_head,
    unpacked,
)

# Ads as people write them, in an encoding of their country's Windows, Mac or old system.
SAMPLES = {
    "cp1252": "Günstige Schuhe für die ganze Familie\nGröße 42 müssen Sie haben\n",
    "cp1250": "Tanie bilety do Łodzi\nŚwieże oferty każdego dnia\nZażółć gęślą jaźń\n",
    "cp1251": "Дешёвые билеты в Москву\nСкидки на обувь до конца недели\n",
    "koi8_r": "Дешёвые билеты в Москву\nСкидки на обувь до конца недели\n",
    "cp1253": "Φθηνά εισιτήρια για Αθήνα\nΕκπτώσεις στα παπούτσια\n",
    "cp1254": "Ucuz uçak biletleri İstanbul için şimdi satışta\nBüyük indirim, kaçırmayın\n"
    "Yeni sezon elbiseler geldi, hemen alın\nEvinize özel mobilya fırsatları\n",
    "cp1255": "כרטיסים זולים לתל אביב\nמבצע נעליים לכל המשפחה\nמשלוח חינם עד הבית\n",
    "cp1256": "تذاكر رخيصة إلى القاهرة\nخصومات على الأحذية\n",
    "cp874": "ตั๋วรถไฟราคาถูกไปกรุงเทพ\nลดราคารองเท้า\n",
    "cp932": "今すぐ購入して送料無料\n東京行きの格安チケット、予約受付中\n",
    "gb18030": "现在购买免运费\n便宜的火车票，提前预订\n",
    "big5": "現在購買免運費\n便宜的火車票，提前預訂\n",
    "cp949": "지금 구매하면 무료 배송\n서울행 저렴한 기차표\n",
    "mac_roman": "Économisez sur les vêtements d’été, livraison gratuite à Genève\n",
}


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_what_the_encodings_of_the_world_say_is_read(name: str) -> None:
    data = ("id,text\n" + SAMPLES[name]).encode(name)
    found = encoding_of(data)
    assert found is not None and found.guessed
    assert data.decode(found.name) == data.decode(name)
    # As much of it as a large file's beginning is.
    data = data * (1 + (1 << 18) // len(data))
    found = encoding_of(data[: 1 << 18])
    assert found is not None and data.decode(found.name) == data.decode(name)


@pytest.mark.parametrize(
    "text",
    [
        "id,text\n1,Cheap train tickets to Leeds from £9\n",
        "id,text\n1,Only 5 € today\n2,“Best” offer – don’t miss it…\n",
        "text\ncafé\n",
    ],
)
def test_a_sign_or_two_are_those_of_cp1252(text: str) -> None:
    assert encoding_of(text.encode("cp1252")) == ("cp1252", True)


@pytest.mark.parametrize(
    "text", ["id,text\r\n1,a\r\n", "х\tДешёвые билеты\n", "现在购买，免运费\n便宜的\n"]
)
@pytest.mark.parametrize("name", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_encodings_need_no_mark(text: str, name: str) -> None:
    assert encoding_of((text * 3).encode(name)) == (name, True)
    marked = name[:6]
    assert encoding_of(("\ufeff" + text).encode(name)) == (marked, False)


def test_utf_8_stays_utf_8() -> None:
    plain = Encoding("utf-8", guessed=False)
    assert encoding_of(b"id,text\n1,plain\n") == plain
    assert encoding_of("Füße 👟 und 鞋\n".encode()) == plain
    assert encoding_of("\ufeffa\n".encode()) == plain
    # Damaged lines among good ones are damaged lines, and a stray NUL is no wide encoding.
    assert encoding_of("Füße\nKöln\n".encode() + b"caf\xe9\n") == plain
    assert encoding_of(b"a\0b " + b"and so on, a long text in ASCII " * 4) == plain
    # A beginning that ends within a character.
    long = ("x" + "鞋" * 100 + "\n") * 2000
    assert encoding_of(long.encode()[: 1 << 18]) == plain
    assert encoding_of(b"", "") == plain


def test_what_a_person_says_counts() -> None:
    data = "Łódź\n".encode("cp1250")
    assert encoding_of(data, "cp1250") == ("cp1250", False)
    assert encoding_of("\ufeffa".encode("utf-16-le"), "utf-16-le") == ("utf-16", False)
    assert check_encoding("latin1") == "iso8859-1"
    for wrong in ("klingon", "base64", "", "rot13", "zlib"):
        with pytest.raises(ValueError, match=f"no encoding is called '{wrong}'"):
            check_encoding(wrong)


def test_binary_is_no_text() -> None:
    assert encoding_of(bytes(range(256)) * 4 + bytes(300)) is None
    assert foreign(b"ORC costumes for sale\n") is None
    assert foreign(b"ORC\x00\x01\x02") == (
        "an ORC file",
        "write it as Parquet (`pandas.read_orc('FILE').to_parquet('ads.parquet')`)",
    )


PACKED = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
}


@pytest.mark.parametrize("name", sorted(PACKED))
def test_packings_go_by_first_bytes(name: str) -> None:
    data = b"".join(b"ad number %d\n" % n for n in range(5000))
    packed = PACKED[name](data)
    assert packing_of(packed) == name
    assert unpacked(io.BytesIO(packed), name).read() == data
    # Files are put one after the other as they are.
    assert unpacked(io.BytesIO(packed * 2), name).read() == data * 2
    with pytest.raises((EOFError, OSError)):
        unpacked(io.BytesIO(packed[:-9]), name).read()


def test_no_packing() -> None:
    assert [packing_of(data) for data in (b"", b"{}", b"BZh is a name", b"\x1f\x8b")] == [""] * 4
    assert packing_of(bz2.compress(b"")) == "bzip2"


def test_little_is_looked_at() -> None:
    bomb = gzip.compress(bytes(b"x" * (64 << 20)))
    tracemalloc.start()
    head = read_head(unpacked(io.BytesIO(bomb), "gzip"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(head) == 4 << 20 and peak < 32 << 20
    assert len(read_head(io.BytesIO("é".encode() * (1 << 20)))) == 1 << 18


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["utf-16", "utf-32-be"]))
def test_wide_text_comes_out_as_utf_8(text: str, name: str) -> None:
    text = text.lstrip("\ufeff")
    assert as_utf_8(io.BytesIO(text.encode(name)), name).read() == text.encode()


def test_a_wide_text_that_is_cut_short_or_broken() -> None:
    data = "ab\n".encode("utf-16-le")
    with pytest.raises(UnicodeDecodeError):
        as_utf_8(io.BytesIO(data[:-1]), "utf-16-le").read()
    half = as_utf_8(io.BytesIO(b"\x00\xd8\n\x00a\x00\n\x00"), "utf-16-le")
    assert half.readlines() == [b"\xed\xa0\x80\n", b"a\n"]


def test_a_field_that_is_given_twice() -> None:
    assert parse_json('{"a": {"b": 1}, "c": [{"b": 1}, {"b": 2}]}')["a"] == {"b": 1}
    for text in ('{"a": 1, "a": 2}', '{"x": [{"a": 1, "a": 1}]}'):
        with pytest.raises(GivenTwice, match="a field is given twice: 'a'"):
            parse_json(text)


def test_a_whole_small_file() -> None:
    text, encoding = decoded(gzip.compress("größer".encode("utf-16")), 1 << 20)
    assert (text, encoding.name) == ("größer", "utf-16")
    with pytest.raises(ValueError, match="unpacks to more than 1,000 bytes; import it in parts"):
        decoded(gzip.compress(bytes(1 << 20)), 1000)
