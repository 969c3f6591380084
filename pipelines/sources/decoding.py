"""Bytes to text: what a file is packed in, and how its letters are written.

A file's first bytes decide, whatever it is called. Marks come first (compression, byte order), then
what can be told for certain (UTF-8, UTF-16 by its zeros), and only then a guess among the 8-bit and
East Asian encodings, which whoever reads the file tells its reader.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

if TYPE_CHECKING:
    from charset_normalizer import CharsetMatches

# What is looked at, bytes; while all of it is ASCII, which every encoding begins like, up to the second.
HEAD_BYTES, ASCII_HEAD_BYTES = 1 << 18, 1 << 22
UTF_8 = "utf-8"
GZIP, BZIP2, ZSTD = "gzip", "bzip2", "zstd"
_PACKINGS = (
    (re.compile(rb"\x1f\x8b\x08"), GZIP),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), BZIP2),
    (re.compile(rb"\x28\xb5\x2f\xfd"), ZSTD),
)
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x80-\xff]")
# Formats that nothing here reads: their first bytes, what they are, and what to do.
_FOREIGN = (
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", "save it as .xlsx or as CSV"),
    (b"\xfd7zXZ\x00", "compressed by xz", "unpack it first (`unxz FILE`)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first (`7z x FILE`)"),
    (b"Rar!", "a RAR archive", "unpack it first (`unrar x FILE`)"),
    (
        b"ARROW1",
        "an Arrow (Feather) file",
        "write it as Parquet (`pandas.read_feather('FILE').to_parquet('ads.parquet')`)",
    ),
    (
        b"ORC",
        "an ORC file",
        "write it as Parquet (`pandas.read_orc('FILE').to_parquet('ads.parquet')`)",
    ),
    (b"Obj\x01", "an Avro file", "write it as JSON lines (`fastavro FILE > ads.jsonl`)"),
    (b"SQLite format 3\x00", "an SQLite database", "write the table as CSV"),
    (b"%PDF-", "a PDF", "write the ads as CSV"),
)
_MARKS = (
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
# More NULs than that are the zeros of a wide encoding.
_NUL_SHARE = 0.05
# What is guessed among, likeliest first, and the languages it is at home with.
_GUESSED: Mapping[str, str] = {
    "cp1252": "English French German Spanish Portuguese Italian Dutch Swedish Norwegian Danish "
    "Finnish Indonesian",
    "cp1250": "Polish Czech Hungarian Slovak Slovene Slovenian Croatian Romanian",
    "cp1251": "Russian Ukrainian Bulgarian Serbian Kazakh",
    "cp1253": "Greek",
    "cp1254": "Turkish",
    "cp1255": "Hebrew",
    "cp1256": "Arabic Farsi",
    "cp1257": "Lithuanian Latvian Estonian",
    "cp874": "Thai",
    "koi8_r": "Russian",
    "cp932": "Japanese",
    "gb18030": "Chinese",
    "big5": "Chinese",
    "cp949": "Korean",
    "euc_jp": "Japanese",
    "mac_roman": "",
    "cp850": "",
}
_SAMPLE_BYTES = 1 << 15
# Guesses whose text looks this much stranger than the best one's are none; where none of those is at home
# with the language that it finds, more are asked: a sign such as the pound's looks strange, too.
_SLACKS, _COHERENT = (0.03, 0.15), 0.3
# By how much more a text must look like a language for another encoding than the western one.
_CLEARLY = 0.075


class Encoding(NamedTuple):
    """How a text is written.

    Attributes:
        name: of a codec of Python's.
        guessed: whether it was neither marked nor certain.
    """

    name: str = UTF_8
    guessed: bool = False


def is_wide(encoding: str) -> bool:
    """Tell whether a line end is more than one byte, so that bytes cannot be cut into lines."""
    return encoding.startswith(("utf-16", "utf-32"))


def packing_of(head: bytes) -> str:
    """Return what a file's first bytes say it is packed in: ``gzip``, ``bzip2``, ``zstd`` or ""."""
    return next((name for magic, name in _PACKINGS if magic.match(head)), "")


def foreign(head: bytes) -> tuple[str, str] | None:
    """Return what a file is that nothing here reads, and what to do with it; None for any other."""
    for magic, what, remedy in _FOREIGN:
        # An ad may begin like one: "ORC costumes".
        if head.startswith(magic) and _BINARY.search(head[: 1 << 12]):
            return what, remedy
    return None


def unpacked(raw: BinaryIO, packing: str) -> BinaryIO:
    """Return what a packed file holds; one that was cut short raises EOFError or OSError at its end.

    Python's own readers: Beam's take a gzip file that was cut short for a whole one, and lose what is
    missing without a word.
    """
    if packing == GZIP:
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if packing == BZIP2:
        return cast(BinaryIO, bz2.BZ2File(raw))
    if packing == ZSTD:
        import pyarrow as pa

        return cast(
            BinaryIO,
            io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), ZSTD)),
        )
    return raw


def read_head(source: BinaryIO) -> bytes:
    """Read what tells how a file is written: more where the beginning is ASCII and says nothing."""
    head = source.read(HEAD_BYTES)
    whole = len(head) < HEAD_BYTES
    while not whole and len(head) < ASCII_HEAD_BYTES and head.isascii():
        more = source.read(HEAD_BYTES)
        whole = len(more) < HEAD_BYTES
        head += more
    return head


def check_encoding(name: str) -> str:
    """Return the name of a codec as Python spells it.

    Raises:
        ValueError: it is none that makes text of bytes.
    """
    try:
        codecs.lookup(name)
        "".encode(name)
        b"".decode(name)
    except (LookupError, UnicodeError) as error:
        raise ValueError(
            f"no encoding is called {name!r}; such are utf-8, utf-16, cp1252, cp1251, shift_jis, gb18030"
        ) from error
    return codecs.lookup(name).name


def encoding_of(head: bytes, named: str = "") -> Encoding | None:
    """Return how a text is written, by its first bytes, or None where it is no text.

    Args:
        head: the text's beginning, or all of it.
        named: what a person says, which counts; a byte order mark says which way round it is.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return Encoding(named if named and not named.startswith(name) else name)
    if named:
        return Encoding(named)
    if head.count(0) > _NUL_SHARE * len(head):
        wide = _wide(head)
        return Encoding(wide, guessed=True) if wide else None
    whole = _cut(head)
    try:
        whole.decode(UTF_8)
        return Encoding()
    except UnicodeDecodeError:
        text = whole.decode(UTF_8, "surrogateescape")
    # Both counts by codecs: a file may be large.
    bad = len(text) - len(text.encode(UTF_8, "ignore").decode(UTF_8))
    good = len(text) - bad - len(text.encode("ascii", "ignore"))
    # A few damaged lines of UTF-8 are damaged lines; another encoding hardly ever looks like it.
    guess = "" if good >= bad else _guess(head)
    return Encoding(guess, guessed=True) if guess else Encoding()


def _wide(head: bytes) -> str:
    """Return in which wide encoding bytes with many zeros are a text, "" for none."""
    best, found = 0, ""
    for name in _WIDE:
        text = head[: len(head) // 4 * 4].decode(name, "replace")
        odd = sum((char < " " and char not in "\t\r\n") or char == "\ufffd" for char in text)
        plain = sum(" " <= char <= "~" or char in "\t\r\n" for char in text)
        if odd <= 1 + len(text) // 100 and plain > best:
            best, found = plain, name
    return found


def _guess(head: bytes) -> str:
    """Return the likeliest of the encodings that are guessed among, or "" where none fits."""
    from charset_normalizer import from_bytes

    sample: list[bytes] = []
    size = 0
    # Whole lines: a character of several bytes must not be cut.
    for line in _cut(head).split(b"\n"):
        if not line.isascii() and (not sample or size + len(line) < _SAMPLE_BYTES):
            sample.append(line)
            size += len(line)
    # What an ad says of its own encoding is hostile input.
    found = from_bytes(b"\n".join(sample), cp_isolation=list(_GUESSED), preemptive_behaviour=False)
    return _likeliest(found)


def _likeliest(found: CharsetMatches) -> str:
    order = list(_GUESSED)
    least = min((match.chaos for match in found), default=0.0)
    for slack in _SLACKS:
        near = [
            (name, match)
            for match in found
            if match.chaos <= least + slack
            for name in {match.encoding, *match.could_be_from_charset}
            if name in _GUESSED
        ]
        at_home = [
            (-match.coherence, order.index(name), name)
            for name, match in near
            if match.language in _GUESSED[name].split() and match.coherence >= _COHERENT
        ]
        if at_home:
            first, western = min(at_home), [item for item in at_home if item[2] == order[0]]
            # Ads of several western languages are a little like any: a tie is no reason to leave it.
            return order[0] if western and western[0][0] <= first[0] + _CLEARLY else first[2]
        if order[0] in (name for name, _ in near):
            return order[0]
    best = found.best()
    return best.encoding if best else ""


def _cut(head: bytes) -> bytes:
    """Return whole lines: the last character of a beginning may be cut in two."""
    end = head.rfind(b"\n") + 1
    return head[:end] if end and len(head) >= HEAD_BYTES else head


def as_utf_8(source: BinaryIO, encoding: str) -> BinaryIO:
    """Return a text as UTF-8 without its mark, whatever it was written in.

    Half a surrogate pair, which UTF-16 can hold, comes out as bytes that are not UTF-8.

    Raises:
        UnicodeDecodeError: while it is read, for what cannot be told in this encoding.
    """
    return cast(BinaryIO, io.BufferedReader(_Recoded(source, encoding), HEAD_BYTES))


class _Recoded(io.RawIOBase):
    def __init__(self, source: BinaryIO, encoding: str) -> None:
        wide = encoding.startswith(("utf-16", "utf-32"))
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)(
            "surrogatepass" if wide else "strict"
        )
        self._left = b""
        self._begun = self._over = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._left and not self._over:
            piece = self._source.read(HEAD_BYTES)
            self._over = not piece
            text = self._decoder.decode(piece, final=self._over)
            if text and not self._begun:
                self._begun, text = True, text.removeprefix("\ufeff")
            self._left = text.encode(UTF_8, "surrogatepass")
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


def parse_json(text: str, constant: Callable[[str], Any] | None = None) -> Any:
    """Return what a JSON text says.

    Args:
        text: the JSON text.
        constant: takes ``NaN``, ``Infinity`` or ``-Infinity``, which JSON does not know; by default
            they are numbers.

    Raises:
        ValueError: it is no JSON, or an object gives a field twice (:class:`GivenTwice`).
    """
    try:
        if constant is None:
            return _PLAIN.decode(text)
        return json.loads(text, object_pairs_hook=_object, parse_constant=constant)
    except GivenTwice:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def each_line(text: str) -> Iterator[str]:
    """Yield a text's lines, without the line feeds that end them and nothing else; none are held."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


class GivenTwice(ValueError):
    """An object of JSON gives a field twice: nothing tells which is right."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        again = next(name for name in names if names.count(name) > 1)
        raise GivenTwice(f"a field is given twice: {again[:60]!r}")
    return found


# A decoder takes longer to make than to read a line.
_PLAIN = json.JSONDecoder(object_pairs_hook=_object)


def decoded(data: bytes, limit: int) -> tuple[str, Encoding]:
    """Return a whole small file's text, unpacked where it is packed, and how it was written.

    Args:
        data: the file.
        limit: bytes that it may unpack to.

    Raises:
        ValueError: it is no text, or no text that can be read; says what it is, and what to do.
    """
    if packing := packing_of(data):
        try:
            data = unpacked(io.BytesIO(data), packing).read(limit + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"not a whole {packing} file ({error})") from error
        if len(data) > limit:
            raise ValueError(f"unpacks to more than {limit:,} bytes; import it in parts")
    if data.startswith(b"PK\x03\x04"):
        raise ValueError("is a zip archive or a workbook, not text; unpack it, or save it as CSV")
    if found := foreign(data):
        raise ValueError(f"is {found[0]}, not text; {found[1]}")
    encoding = encoding_of(data)
    if encoding is None:
        raise ValueError(
            f"holds NUL bytes, the first at {data.index(0):,}: a binary file; save it as CSV in UTF-8"
        )
    try:
        text = data.decode("utf-8-sig" if encoding.name == UTF_8 else encoding.name)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"byte {error.start:,} (0x{data[error.start]:02x}) is not {encoding.name.upper()}; save the "
            "file as UTF-8 (in Excel: 'CSV UTF-8')"
        ) from error
    if "\0" in text:
        raise ValueError(
            f"character {text.index(chr(0)):,} is a NUL: a binary file; save it as CSV in UTF-8"
        )
    return text, encoding
