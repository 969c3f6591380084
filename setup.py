"""Packaging of ad-scout: small core, an extra for each heavy backend."""

from pathlib import Path

from setuptools import find_packages, setup

LLM = [
    "tensorflow>=2.20,<2.21",  # scann 1.4.2 does not load beside 2.21
    "tensorflow-text>=2.20,<2.21",
    "keras>=3.15",
    "keras-hub>=0.32",
    "tokenizers>=0.20",
    "safetensors>=0.5",
    "gguf>=0.10",
]
# For `review.consensus: dawid-skene`; crowd-kit uses keywords that pandas 4 drops.
CONSENSUS = ["crowd-kit>=1.4.2", "pandas>=2.2,<4"]
SCANN = ["scann[tf]>=1.4.2"]
ARGILLA = ["argilla>=2.8,<3"]
XLSX = ["openpyxl>=3.1"]
# The model that answers for another's money; Beam's gcp extra brings it, too.
GEMINI = ["google-genai>=1.60"]
VLLM = ["vllm>=0.10.2"]  # needs a GPU, and brings torch
OPENVINO = ["openvino>=2026.4", "ml-dtypes>=0.5"]
GCP = ["apache-beam[gcp]>=2.77,<3", "google-cloud-storage>=2.18"]

setup(
    name="ad-scout",
    version="0.1.0",
    description="Find the ads that a small LLM confuses, for experts to label.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["pipelines*", "models*", "templates*"]),
    package_data={
        "templates": [
            "**/*.yaml",
            "**/*.jsonl",
            "**/*.md",
            "**/*.xml",
            "**/*.html",
            "**/*.txt",
            "**/*.css",
            "**/*.js",
        ]
    },
    install_requires=[
        "apache-beam>=2.77,<3",
        "charset-normalizer>=3.3",
        "filelock>=3.12",
        "ijson>=3.3",
        "jinja2>=3.1",
        "markupsafe>=2.1",
        "matplotlib>=3.9",
        "numpy>=2.0",
        "pillow>=10",
        "py3langid>=0.4",
        "pyarrow>=18",
        "pydantic>=2.9",
        "pyyaml>=6.0",
        "regex>=2024.4",
        "requests>=2.32",
        "rich>=13",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "tenacity>=9",
        "threadpoolctl>=3.5",
        "urllib3>=2.6",
    ],
    extras_require={
        "llm": LLM,
        "scann": SCANN,
        "gcp": GCP,
        "vllm": VLLM,
        "openvino": OPENVINO,  # beside llm, whose tokenizers it reads
        "gemini": GEMINI,  # beside llm, whose encoder gives the vectors
        "argilla": ARGILLA,  # for --push and --pull; its files need nothing
        "consensus": CONSENSUS,
        "xlsx": XLSX,  # corpora and sheets saved as workbooks
        "all": [*LLM, *SCANN, *GCP, *CONSENSUS, *XLSX],
    },
    entry_points={"console_scripts": ["scout=pipelines.cli:main"]},
)
