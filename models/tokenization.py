"""Text to token ids, with and without markup, the same way for every kind of tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from models.embedded import PresetError, read_json_object

if TYPE_CHECKING:
    import tokenizers

# The first entry whose tokens are all in the vocabulary names the model's chat format.
_FORMAT_BY_TOKEN = (
    ("chatml", ("<|im_start|>", "<|im_end|>")),
    ("gemma", ("<start_of_turn>", "<end_of_turn>")),
    ("llama3", ("<|start_header_id|>", "<|eot_id|>")),
    ("phi3", ("<|user|>", "<|end|>")),
    ("mistral", ("[INST]", "[/INST]")),
)

# Bytes of a byte-fallback vocabulary (<0x0A>) are text.
_MARKER_TOKEN = re.compile(r"<(?!0x)[^<>\s]+>|\[[A-Z/_]+\]")


class TextTokenizer(Protocol):
    """What the labeler needs of a tokenizer.

    Attributes:
        bos: Ids that open every sequence of this family; often empty.
        special_tokens: Texts that the model reads as markup.
        special_ids: Their ids.
        chat_format: A name in `models.prompting.CHAT_FORMATS`.
    """

    bos: tuple[int, ...]
    special_tokens: tuple[str, ...]
    special_ids: frozenset[int]
    chat_format: str

    def encode(self, text: str) -> list[int]:
        """Encodes data: no special token is ever recognised in `text`."""
        ...

    def encode_markup(self, text: str) -> list[int]:
        """Encodes a prompt: special tokens in `text` become their own ids."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encodes many texts as data."""
        ...


class FastTokenizer:
    """A `tokenizers.Tokenizer`, from a transformers-format `tokenizer.json` or from KerasHub.

    Attributes:
        markup: the tokenizer as it came, without truncation and padding.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        *,
        bos: Sequence[int] | None = None,
        chat_template: str = "",
    ) -> None:
        """Wraps a tokenizer; it is copied, never changed.

        Args:
            tokenizer: The tokenizer with its added tokens.
            bos: Ids that open a sequence; None reads them off the post-processor.
            chat_template: The family's Jinja template, used only to tell chat formats apart.
        """
        import tokenizers

        source = json.loads(tokenizer.to_str())
        source["truncation"] = source["padding"] = None
        added = source.get("added_tokens") or []
        # An unknown character may well be in an ad; every other special id is structure.
        unknown = (source.get("model") or {}).get("unk_token")
        special = [t for t in added if t["special"] or _MARKER_TOKEN.fullmatch(t["content"])]
        self.special_tokens = tuple(token["content"] for token in special)
        self.special_ids = frozenset(t["id"] for t in special if t["content"] != unknown)
        self.markup = tokenizers.Tokenizer.from_str(json.dumps(source))
        self.markup.encode_special_tokens = False
        # Other added tokens are text, such as the runs of spaces of GPT-NeoX.
        source["added_tokens"] = [token for token in added if token not in special]
        source["post_processor"] = None
        self._plain = tokenizers.Tokenizer.from_str(json.dumps(source))
        self.bos = tuple(bos) if bos is not None else self._opening_ids()
        names = {token["content"] for token in added}
        self.chat_format = _chat_format(names, chat_template)
        self._lead = _dummy_lead(self._encode_plain)

    def _opening_ids(self) -> tuple[int, ...]:
        """Reads what the post-processor puts before a text."""
        bare = self.markup.encode("a", add_special_tokens=False).ids
        full = self.markup.encode("a", add_special_tokens=True).ids
        return tuple(full[: full.index(bare[0])]) if bare and bare[0] in full else ()

    def _encode_plain(self, text: str) -> list[int]:
        return self._plain.encode(text, add_special_tokens=False).ids

    def _clean(self, ids: list[int]) -> list[int]:
        ids = ids[len(self._lead) :] if self._lead else ids
        if self.special_ids.isdisjoint(ids):
            return ids
        return [token for token in ids if token not in self.special_ids]

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        lead = _LEAD_TEXT if self._lead else ""
        items = [lead + text for text in texts]
        encoded = self._plain.encode_batch_fast(items, add_special_tokens=False)
        return [self._clean(encoding.ids) for encoding in encoded]

    def encode_markup(self, text: str) -> list[int]:
        return self.markup.encode(text, add_special_tokens=False).ids


class SentencePieceText:
    """KerasHub's SentencePiece tokenizers, through the SentencePiece processor itself."""

    def __init__(self, processor: Any, *, bos: Sequence[int] = (), special: Iterable[str] = ()):
        """Wraps a processor.

        Args:
            processor: `sentencepiece.SentencePieceProcessor`.
            bos: Ids that open a sequence.
            special: More texts to take for special tokens than the vocabulary shows.
        """
        self._processor = processor
        size = int(processor.vocab_size())
        pieces = [processor.IdToPiece(i) for i in range(size)]
        extra = set(special)
        table = {p: i for i, p in enumerate(pieces) if p in extra or _MARKER_TOKEN.fullmatch(p)}
        unknown = int(processor.unk_id())
        self.special_tokens = tuple(table)
        self.special_ids = frozenset(i for i in table.values() if i != unknown)
        self.bos = tuple(bos)
        self.chat_format = _chat_format(set(table), "")
        self._table = table
        alternatives = "|".join(re.escape(p) for p in sorted(table, key=len, reverse=True))
        self._split = re.compile(f"({alternatives})") if table else None
        self._lead = _dummy_lead(self._encode_plain)

    def _encode_plain(self, text: str) -> list[int]:
        return [int(i) for i in self._processor.Encode(text)]

    def encode(self, text: str) -> list[int]:
        # Symbols that a user defined are matched in any text: take their texts out first.
        while self._split and self._split.search(text):
            text = self._split.sub(" ", text)
        if self._lead:
            ids = self._encode_plain(_LEAD_TEXT + text)[len(self._lead) :]
        else:
            ids = self._encode_plain(text)
        return [token for token in ids if token not in self.special_ids]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def encode_markup(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in self._split.split(text) if self._split else [text]:
            if part in self._table:
                ids.append(self._table[part])
            elif part:
                ids.extend(self.encode(part) if ids else self._encode_plain(part))
        return ids


_LEAD_TEXT = "\n"


def _dummy_lead(encode: Any) -> list[int]:
    """Tells whether a tokenizer puts a space of its own before a text.

    Then a text in the middle of a prompt is encoded after a line break whose ids are cut off.

    Returns:
        The ids of that line break; empty when the tokenizer adds nothing.
    """
    lead = encode(_LEAD_TEXT)
    alone, led = encode("a"), encode(_LEAD_TEXT + "a")
    if alone and lead and led[: len(lead)] == lead and led[len(lead) :] != alone:
        return lead
    return []


def _chat_format(names: set[str], chat_template: str) -> str:
    for name, tokens in _FORMAT_BY_TOKEN:
        if all(token in names for token in tokens):
            return name
    for name, tokens in _FORMAT_BY_TOKEN:
        if all(token in chat_template for token in tokens):
            return name
    return "plain"


def read_fast_tokenizer(folder: Path) -> FastTokenizer:
    """Reads `tokenizer.json` and, when there, `tokenizer_config.json` of a folder.

    Raises:
        FileNotFoundError: If the folder has no `tokenizer.json`.
    """
    import tokenizers

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer.json in {folder}")
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    template = ""
    config_path = folder / "tokenizer_config.json"
    if config_path.is_file():
        template = read_json_object(config_path).get("chat_template") or ""
    if isinstance(template, list):
        # Several by name, the default one first.
        [first, *_] = template
        template = first.get("template") if isinstance(first, dict) else ""
    if not isinstance(template, str):
        raise PresetError(f"{config_path}: chat_template must be text: fetch the model again")
    return FastTokenizer(tokenizer, chat_template=template)
