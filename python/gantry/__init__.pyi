# Types of the package; the docstrings of the module say what things mean. tests/python checks that options and names agree.
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

_Path = str | os.PathLike[str]
_Ids = Sequence[int] | Tensor | Any  # or a numpy array
_DType = Literal["fp32", "bf16", "fp16"] | torch.dtype

__version__: str

class Error(RuntimeError): ...
class InputError(ValueError): ...

class Tokenizer:
    @property
    def vocab_size(self) -> int: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def eos_id(self) -> int | None: ...
    @property
    def pad_id(self) -> int | None: ...
    @property
    def unk_id(self) -> int | None: ...
    @property
    def stop_ids(self) -> list[int]: ...
    @property
    def chat_template(self) -> str: ...
    def __len__(self) -> int: ...
    def encode(self, text: str | bytes, *, add_special: bool = False, parse_special: bool = True) -> list[int]: ...
    def decode(self, ids: _Ids, *, skip_special: bool = False) -> str: ...
    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tokenize: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str | list[int]: ...
    def token_text(self, id: int) -> str: ...
    def token_bytes(self, id: int) -> bytes: ...
    def id_of(self, token: str) -> int | None: ...
    def is_special(self, id: int) -> bool: ...
    def save(self, path: _Path) -> None: ...

class Generation:
    @property
    def text(self) -> str: ...
    @property
    def ids(self) -> list[int]: ...
    @property
    def finish_reason(self) -> Literal["stop", "length", "interrupted"]: ...
    @property
    def prefill_s(self) -> float: ...
    @property
    def decode_s(self) -> float: ...

class Model:
    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def tokenizer(self) -> Tokenizer | None: ...
    @property
    def num_parameters(self) -> int: ...
    @property
    def training(self) -> bool: ...
    def parameters(self) -> dict[str, Tensor]: ...
    def train(self, mode: bool = True) -> Model: ...
    def eval(self) -> Model: ...
    def forward(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        row_starts: Tensor | None = None,
        key_mask: Tensor | None = None,
        token_types: Tensor | None = None,
    ) -> Tensor: ...
    def __call__(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        row_starts: Tensor | None = None,
        key_mask: Tensor | None = None,
        token_types: Tensor | None = None,
    ) -> Tensor: ...
    def hidden(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        row_starts: Tensor | None = None,
        key_mask: Tensor | None = None,
        token_types: Tensor | None = None,
    ) -> Tensor: ...
    def loss(
        self,
        ids: Tensor,
        labels: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        row_starts: Tensor | None = None,
        key_mask: Tensor | None = None,
        token_types: Tensor | None = None,
    ) -> Tensor: ...
    def generate(
        self,
        prompt: str | _Ids,
        on_text: Callable[[str], bool | None] | None = None,
        *,
        max_tokens: int = ...,
        ignore_eos: bool = ...,
        stop: str | Iterable[str] = ...,
        temperature: float = ...,
        top_k: int = ...,
        top_p: float = ...,
        min_p: float = ...,
        repetition_penalty: float = ...,
        seed: int = ...,
    ) -> Generation: ...
    def perplexity(
        self, text: str | _Ids, window: int = 1024, *, max_windows: int = 0, batch: int = 1
    ) -> float: ...
    def save(self, path: _Path) -> None: ...

class StepReport:
    @property
    def loss(self) -> float: ...
    @property
    def gradient_norm(self) -> float: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def tokens(self) -> int: ...
    @property
    def applied(self) -> bool: ...

class Trainer:
    def __init__(
        self,
        model: Model,
        *,
        steps: int = ...,
        accumulation: int = ...,
        seed: int = ...,
        dtype: Literal["fp32", "bf16"] = ...,
        lora_rank: int = ...,
        lora_alpha: float = ...,
        learning_rate: float = ...,
        schedule: Literal["constant", "linear", "cosine"] = ...,
        warmup_steps: int = ...,
        final_ratio: float = ...,
        weight_decay: float = ...,
        beta1: float = ...,
        beta2: float = ...,
        eps: float = ...,
        clip_norm: float = ...,
    ) -> None: ...
    @property
    def model(self) -> Model: ...
    @property
    def steps_taken(self) -> int: ...
    @property
    def options(self) -> dict[str, Any]: ...
    def step(
        self,
        ids: Tensor,
        labels: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        row_starts: Tensor | None = None,
        key_mask: Tensor | None = None,
        token_types: Tensor | None = None,
    ) -> StepReport: ...
    def merge_lora(self) -> None: ...
    def save_adapter(self, path: _Path) -> None: ...
    def save_checkpoint(self, path: _Path, *, keep: int = 2) -> os.PathLike[str]: ...
    def load_checkpoint(self, path: _Path) -> None: ...

class TrainResult:
    @property
    def steps(self) -> int: ...
    @property
    def first_loss(self) -> float: ...
    @property
    def final_loss(self) -> float: ...
    @property
    def validation_before(self) -> float: ...
    @property
    def validation_after(self) -> float: ...
    @property
    def tokens_per_s(self) -> float: ...
    @property
    def peak_memory_bytes(self) -> int: ...
    @property
    def interrupted(self) -> bool: ...
    @property
    def micro_batch(self) -> int: ...
    @property
    def accumulation(self) -> int: ...
    @property
    def micro_batches(self) -> list[dict[str, Any]] | None: ...

def load(path: _Path, dtype: _DType | None = None, *, check_finite: bool = True) -> Model: ...
def from_scratch(
    config: _Path | Mapping[str, Any],
    dtype: _DType | None = "fp32",
    *,
    seed: int = 0,
    tokenizer: Tokenizer | None = None,
) -> Model: ...
def load_tokenizer(path: _Path) -> Tokenizer: ...
def train(
    model: _Path,
    *,
    data: _Path | Iterable[_Path] = ...,
    out: _Path = ...,
    steps: int = ...,
    resume: bool = ...,
    batch: int | Literal["auto"] = ...,
    sequence_length: int = ...,
    accumulation: int = ...,
    global_batch: int | None = ...,
    text_field: str = ...,
    validation_fraction: float = ...,
    mask_documents: bool = ...,
    seed: int = ...,
    dtype: Literal["fp32", "bf16"] = ...,
    from_scratch: bool = ...,
    lora_rank: int = ...,
    lora_alpha: float = ...,
    memory_mode: str = ...,
    memory_budget: str = ...,
    learning_rate: float = ...,
    schedule: Literal["constant", "linear", "cosine"] = ...,
    warmup_steps: int = ...,
    final_ratio: float = ...,
    weight_decay: float = ...,
    beta1: float = ...,
    beta2: float = ...,
    eps: float = ...,
    clip_norm: float = ...,
    eval_every: int = ...,
    eval_batches: int = ...,
    save_every: int = ...,
    keep_checkpoints: int = ...,
) -> TrainResult: ...
def generate_options() -> dict[str, tuple[Any, str]]: ...
def train_options() -> dict[str, tuple[Any, str]]: ...
def trainer_options() -> dict[str, tuple[Any, str]]: ...
