"""Writes the logits fixtures of tests/transformer_reference.rs with an independent float32 forward pass in numpy.

    python3 -m pip install gguf==0.19.0 numpy tokenizers
    python3 make_logits.py tiny                      # tiny_*.gguf with random weights, and tiny_*.logits
    python3 make_logits.py real DIRECTORY            # smollm2.logits, gemma3-270m.logits from DIRECTORY/NAME.gguf

Weights are dequantized to float32 whole and every matmul is numpy's. A `.logits` file is little-endian:
u32 T, u32 kept, u32 vocab, T u32 tokens, then for each position f32 log Σ exp, f32 log-probability of the next token
(0 at the end), `kept` u32 ids and `kept` f32 logits, the largest first.
"""
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type, GGUFReader, GGUFWriter, quants

F = np.float32
HERE = Path(__file__).parent
TEXT = """The harbour master kept two clocks on his wall, and neither of them was right. The first ran four minutes fast, \
because his father had set it so in the year of the great storm, when being early was the only way to be safe. The second \
had stopped on a Sunday in March, and nobody in the village could remember why it had never been wound again. Visitors who \
came to ask about the ferry would look from one clock to the other and then at their own watches, and he would smile and \
tell them that the boat left when the tide allowed it, which was true, and that the tide had never yet read a timetable.

On the morning of the 14th of October 1987 a young woman arrived with a cardboard suitcase and a letter addressed to a man \
who had died eleven years before. She put the letter on the counter. "I was told that you would know where to send this," \
she said. The harbour master turned it over twice. The stamp was foreign, the ink had faded to the colour of weak tea, and \
on the back someone had drawn a small map: the lighthouse, the chapel, three pine trees and a cross. He had seen that map \
once before, when he was nine, in the drawer of the desk at which he was now sitting. He did not say so. Instead he asked \
her whether she had eaten breakfast, and when she shook her head he reached for the kettle, closed the door against the \
wind, and began to think very carefully about what he should tell her first.
"""


class Model:
    def __init__(self, path):
        reader = GGUFReader(path)
        self.meta = {k: f.contents() for k, f in reader.fields.items()}
        self.arch = self.meta["general.architecture"]
        self.w = {}
        for t in reader.tensors:
            shape = [int(v) for v in t.shape[::-1]]
            self.w[t.name] = quants.dequantize(np.asarray(t.data), t.tensor_type).astype(F).reshape(shape)

    def get(self, key, default=None):
        return self.meta.get(f"{self.arch}.{key}", default)

    def linear(self, name, x):
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def norm(self, x, name):
        eps = F(self.get("attention.layer_norm_rms_epsilon"))
        mean_square = (x.astype(np.float64) ** 2).mean(-1, keepdims=True).astype(F)
        return (x / np.sqrt(mean_square + eps) * self.w[name + ".weight"]).astype(F)

    def rope(self, x, base):
        """x: [T, heads, D]. llama rotates adjacent pairs, the other architectures the two halves."""
        t, _, d = x.shape
        theta = np.arange(t, dtype=F)[:, None] * F(base) ** (-np.arange(0, d, 2, dtype=F) / F(d))
        if "rope_freqs.weight" in self.w:
            theta = theta / self.w["rope_freqs.weight"]
        cos, sin, out = np.cos(theta)[:, None], np.sin(theta)[:, None], np.empty_like(x)
        a, b = (x[..., 0::2], x[..., 1::2]) if self.arch == "llama" else (x[..., :d // 2], x[..., d // 2:])
        ra, rb = a * cos - b * sin, a * sin + b * cos
        if self.arch == "llama":
            out[..., 0::2], out[..., 1::2] = ra, rb
        else:
            out[..., :d // 2], out[..., d // 2:] = ra, rb
        return out

    def attention(self, x, p, layer):
        t = x.shape[0]
        heads, kv_heads = self.get("attention.head_count"), self.get("attention.head_count_kv")
        d = self.get("attention.key_length", self.get("embedding_length") // heads)
        q = self.linear(p + "attn_q", x).reshape(t, heads, d)
        k = self.linear(p + "attn_k", x).reshape(t, kv_heads, d)
        v = self.linear(p + "attn_v", x).reshape(t, kv_heads, d)
        if p + "attn_q_norm.weight" in self.w:
            q, k = self.norm(q, p + "attn_q_norm"), self.norm(k, p + "attn_k_norm")
        base, window = self.get("rope.freq_base", 10000.0), None
        if self.arch == "gemma3" and layer % 6 < 5:
            base, window = 10000.0, self.get("attention.sliding_window")
        q, k = self.rope(q, base), self.rope(k, base)
        k, v = np.repeat(k, heads // kv_heads, 1), np.repeat(v, heads // kv_heads, 1)
        score = np.einsum("qhd,khd->hqk", q, k) / F(np.sqrt(d))
        distance = np.arange(t)[:, None] - np.arange(t)[None]
        hidden = distance < 0
        if window:
            hidden |= distance >= window
        score[:, hidden] = -np.inf
        score = np.exp(score - score.max(-1, keepdims=True))
        score /= score.sum(-1, keepdims=True)
        return self.linear(p + "attn_output", np.einsum("hqk,khd->qhd", score, v).reshape(t, heads * d))

    def ffn(self, x, p):
        gate, up = self.linear(p + "ffn_gate", x), self.linear(p + "ffn_up", x)
        if self.arch == "gemma3":
            act = 0.5 * gate * (1 + np.tanh(0.7978845608028654 * gate * (1 + 0.044715 * gate * gate)))
        else:
            act = gate / (1 + np.exp(-gate))
        return self.linear(p + "ffn_down", (act * up).astype(F))

    def logits(self, tokens):
        x = self.w["token_embd.weight"][tokens]
        gemma = self.arch == "gemma3"
        if gemma:
            x = x * F(np.sqrt(self.get("embedding_length")))
        for layer in range(self.get("block_count")):
            p = f"blk.{layer}."
            y = self.attention(self.norm(x, p + "attn_norm"), p, layer)
            x = x + (self.norm(y, p + "post_attention_norm") if gemma else y)
            y = self.ffn(self.norm(x, p + "ffn_norm"), p)
            x = x + (self.norm(y, p + "post_ffw_norm") if gemma else y)
        x = self.norm(x, "output_norm")
        return self.linear("output" if "output.weight" in self.w else "token_embd", x)


def write_logits(path, tokens, logits, kept):
    logits = logits.astype(F)
    exact = logits.astype(np.float64)
    top = exact.max(-1)
    lse = top + np.log(np.exp(exact - top[:, None]).sum(-1))
    following = np.append(exact[np.arange(len(tokens) - 1), tokens[1:]] - lse[:-1], 0.0)
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :kept]
    with open(path, "wb") as out:
        out.write(np.array([len(tokens), kept, logits.shape[1]], "<u4").tobytes())
        out.write(np.array(tokens, "<u4").tobytes())
        for t in range(len(tokens)):
            out.write(np.array([lse[t], following[t]], "<f4").tobytes())
            out.write(order[t].astype("<u4").tobytes())
            out.write(logits[t, order[t]].astype("<f4").tobytes())
    print(path, "perplexity", np.exp(-following[:-1].mean()), "bytes", path.stat().st_size)


def tokenize(model):
    """Token ids of TEXT: byte-level BPE with single digits (SmolLM2), or SentencePiece's merging by score (gemma)."""
    tokens = model.meta["tokenizer.ggml.tokens"]
    ids = {token: i for i, token in enumerate(tokens)}
    if model.meta["tokenizer.ggml.model"] == "gpt2":
        from tokenizers import Tokenizer, models, pre_tokenizers
        merges = [tuple(m.split(" ")) for m in model.meta["tokenizer.ggml.merges"]]
        tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
        return tokenizer.encode(TEXT).ids
    scores = model.meta["tokenizer.ggml.scores"]
    parts = list(TEXT.replace(" ", "\u2581"))
    while True:
        best = max(((scores[ids[a + b]], -i) for i, (a, b) in enumerate(zip(parts, parts[1:])) if a + b in ids), default=None)
        if best is None:
            return [model.meta["tokenizer.ggml.bos_token_id"]] + [ids[p] for p in parts]
        i = -best[1]
        parts[i:i + 2] = [parts[i] + parts[i + 1]]


def tiny(arch, layers, e, heads, kv_heads, d, ff, vocab, qtype, seed, window=None, freqs=False):
    """A model with random weights whose scale keeps attention and logits away from uniform."""
    rng = np.random.default_rng(seed)
    path = HERE / f"tiny_{arch}.gguf"
    w = GGUFWriter(path, arch)
    w.add_block_count(layers)
    w.add_context_length(128)
    w.add_embedding_length(e)
    w.add_feed_forward_length(ff)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(1e6 if arch != "llama" else 5e5)
    if d * heads != e:
        w.add_key_length(d)
        w.add_value_length(d)
    if window:
        w.add_sliding_window(window)

    def matrix(name, n, k, gain=1.0):
        x = (rng.standard_normal((n, k)) * gain / np.sqrt(k)).astype(F)
        w.add_tensor(name + ".weight", quants.quantize(x, qtype), raw_dtype=qtype)

    def vector(name, n, mean, spread):
        w.add_tensor(name, (mean + spread * rng.standard_normal(n)).astype(F))

    matrix("token_embd", vocab, e, np.sqrt(e) / 4)
    vector("output_norm.weight", e, 1.0, 0.1)
    if arch in ("llama", "qwen2"):
        matrix("output", vocab, e, 2.0)
    if freqs:
        w.add_tensor("rope_freqs.weight", np.linspace(1, 8, d // 2).astype(F))
    for layer in range(layers):
        p = f"blk.{layer}."
        for name, n, k, gain in (("attn_q", heads * d, e, 1.5), ("attn_k", kv_heads * d, e, 1.5), ("attn_v", kv_heads * d, e, 1),
                                 ("attn_output", e, heads * d, 1), ("ffn_gate", ff, e, 1.5), ("ffn_up", ff, e, 1), ("ffn_down", e, ff, 1)):
            matrix(p + name, n, k, gain)
            if arch == "qwen2" and name in ("attn_q", "attn_k", "attn_v"):
                vector(p + name + ".bias", n, 0.0, 0.5)
        norms = ["attn_norm", "ffn_norm"] + (["post_attention_norm", "post_ffw_norm"] if arch == "gemma3" else [])
        for name in norms:
            vector(p + name + ".weight", e, 1.0, 0.1)
        if arch in ("qwen3", "gemma3"):
            vector(p + "attn_q_norm.weight", d, 1.0, 0.2)
            vector(p + "attn_k_norm.weight", d, 1.0, 0.2)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    tokens = [int(t) for t in rng.integers(0, vocab, 90)]
    write_logits(path.with_suffix(".logits"), tokens, Model(path).logits(tokens), min(vocab, 16))


if __name__ == "__main__":
    if sys.argv[1] == "tiny":
        tiny("llama", 2, 64, 4, 2, 16, 96, 80, Type.Q8_0, 1, freqs=True)
        tiny("qwen2", 2, 64, 4, 1, 16, 96, 80, Type.Q5_1, 2)
        tiny("qwen3", 2, 64, 2, 2, 48, 96, 80, Type.Q4_0, 3)
        tiny("gemma3", 7, 32, 2, 1, 32, 64, 80, Type.Q8_0, 4, window=8)
    else:
        for name in sys.argv[3:] or ("smollm2", "gemma3-270m"):
            model = Model(Path(sys.argv[2]) / f"{name}.gguf")
            tokens = tokenize(model)
            write_logits(HERE / f"{name}.logits", tokens, model.logits(tokens), 64)
