#!/usr/bin/env python3
"""Makes tests/data/text: small tokenisers trained on the text below, and what the reference packages do with them.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3
    python tools/make_tokenizer_goldens.py tests/data/text
"""
import json
import pathlib
import sys
import tempfile

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = """
Gantry takes a neural network from the question of what hardware there is to the work that is done on it.
A plan says which layers live on which device, how large a micro-batch is, and what is kept for the backward pass.
The planner doesn't guess: it measures, it predicts, and it explains why a plan is better than its neighbours.
In 2024 we'd 16 GPUs with 24 GB each; in 2025 there were 8 with 80 GB, and they'll be 12,500 hours older by 2026.
Training, quantising and serving share one description of the model, and one description of the machine.
def forward(self, x):\n    if x is None:\n        return 0.5 * self.weight[0:10]\n\treturn x ** 2 + 3.14159
for (int i = 0; i < count; ++i) { total += values[i] * scale; }  // the plain reference
Der Planer rechnet schneller als die Übung es verlangt; die Größe der Schichten hängt von der Maschine ab.
Le modèle est chargé, puis découpé; l'élève a été réveillé à cinq heures, et le garçon mange une crêpe.
模型被加载到内存中。计划者选择最快的方案。东京的天气很好。カタカナとひらがな。
Быстрая коричневая лиса прыгает через ленивую собаку, и модель учится читать.
नमस्ते दुनिया, यह एक परीक्षण है। مرحبا بالعالم، هذا اختبار.
The weather was fine 😀 and the crane 🏗️ lifted the load, 👩‍💻 wrote code.
""".strip().split("\n") * 3

TEXTS = [
    "", " ", "  ", "\n", " \n ", "\t", "a", " a", "  a  b ", "Hello world", "Hello, world!", "the plan", " the planner doesn't",
    "We'LL SEE, I'd say it's they're", "12345 678 9", "in 2024 we'd 12,500", "3.14159e-10", "\n\n\nthe\r\nplan\r\r\n",
    "    if x is None:\n        return 0.5 * x[0:10]\n", "\tfor(int i=0;i<10;++i){}//x", "naïve café résumé",
    "nai\u0308ve cafe\u0301", "Größe Übung ÄÖÜ ß", "Le garçon mange une crêpe; l'élève", "模型被加载。", "东京の天気カタカナ",
    "Привет, модель!", "नमस्ते दुनिया", "مرحبا بالعالم", "😀😀 🏗️ 👩‍💻!", "a😀b 中c", "x\u00a0y\u2003z\u200bq\u3000w\u0085v",
    "ﬁne ﬂour ２０２４ ＡＢＣ ①½", "İstanbul ΣΟΦΟΣ", "---___***", "!!!???...", "[CLS] a [SEP]", "<s>the</s> <unk>",
    "<|begin|>the plan<|end|>", "the <|end|> plan", "a<|end|><|end|>b", "<tool>x</tool> <tool >", "xmaskx mask maskmask  mask  .",
    "▁the▁plan", "##ing playing", "unseen ✗ ☃ 𝔘𝔫𝔦 ꙮ", "a" * 102, " ".join(["the"] * 12), "don\u2019t \u201cquote\u201d \u2013 dash",
    "e\u0301\u0302\u0303 combining", "tab\there  two   three    four", "trailing space ", "\u180e mongolian", "1\u0661\u06f2\u0967 ⅷ",
    "CamelCaseWordsHTTPServer2Go", "a\u0000b", "http://example.org/a?b=c&d=%20#f", "x=y+z; $5 < 6 > 4 ^ | ~ `q`",
]

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+@|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*@|")
GPT4O = CASED.replace("@", CONTRACTIONS) + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = CASED.replace("@", "") + r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DEEPSEEK3 = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
             r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
             r""" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""]


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def bytes_last(*steps):
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train(tokenizer, kind, vocab_size, **options):
    tokenizer.train_from_iterator(CORPUS, kind(vocab_size=vocab_size, show_progress=False, **options))
    return tokenizer


def byte_bpe(pre_tokenizer, normalizer=None, vocab_size=420, special=("<|begin|>", "<|end|>")):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    return train(tokenizer, trainers.BpeTrainer, vocab_size, special_tokens=list(special),
                 initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def gpt2():
    tokenizer = byte_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("mask", lstrip=True, rstrip=True, single_word=True)])
    tokenizer.post_processor = processors.ByteLevel()
    return tokenizer


def llama3():
    tokenizer = byte_bpe(bytes_last(split(LLAMA3)))
    data = json.loads(tokenizer.to_str())
    data["model"]["ignore_merges"] = True
    # A word that merges cannot reach, which ignore_merges must still find.
    data["model"]["vocab"]["ĠplannerĠdoesn"] = len(data["model"]["vocab"])
    data["model"]["vocab"]["ĠCamel"] = len(data["model"]["vocab"])
    data["model"]["vocab"]["Hello"] = len(data["model"]["vocab"])
    data["model"]["merges"] = [pair for pair in data["model"]["merges"]]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B", special_tokens=[("<|begin|>", 0)])])
    return tokenizer


def qwen2():
    tokenizer = byte_bpe(bytes_last(split(QWEN2)), normalizers.NFC())
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("</tool>", normalized=False)])
    return tokenizer


def roberta():
    tokenizer = byte_bpe(pre_tokenizers.ByteLevel(add_prefix_space=True), special=("<s>", "<pad>", "</s>", "<unk>"))
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def llama2():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    train(tokenizer, trainers.BpeTrainer, 560, limit_alphabet=70,
          special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)])
    data = json.loads(tokenizer.to_str())
    data["pre_tokenizer"] = None
    data["added_tokens"] = [t for t in data["added_tokens"] if t["id"] < 3]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def clip():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)])
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    return train(tokenizer, trainers.BpeTrainer, 420, special_tokens=["<unk>"], end_of_word_suffix="</w>")


def unigram(**options):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=options["scheme"])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=options["scheme"])
    train(tokenizer, trainers.UnigramTrainer, 300, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return tokenizer


def bert():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    train(tokenizer, trainers.WordPieceTrainer, 400, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


def word_level():
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("merged_with_previous")])
    train(tokenizer, trainers.WordLevelTrainer, 200, special_tokens=["<unk>"])
    tokenizer.add_tokens([AddedToken("Mask", normalized=True)])
    return tokenizer


def without_special(tokenizer):
    """For plain text. A unigram model still matches the spelling of special tokens; here it must not."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.encode_special_tokens = True
    data = json.loads(tokenizer.to_str())
    if data["model"]["type"] == "Unigram":
        for token in data["added_tokens"]:
            data["model"]["vocab"][token["id"]][0] = chr(0xE000 + token["id"])
        data.update(added_tokens=[], post_processor=None)
        return Tokenizer.from_str(json.dumps(data))
    return tokenizer


def golden_of(tokenizer):
    rows = []
    plain = without_special(tokenizer)
    for text in TEXTS:
        row = {"ids": tokenizer.encode(text, add_special_tokens=False).ids}
        row["special"] = tokenizer.encode(text).ids
        row["plain"] = plain.encode(text, add_special_tokens=False).ids
        row["decoded"] = tokenizer.decode(row["special"], skip_special_tokens=False)
        row["skipped"] = tokenizer.decode(row["special"], skip_special_tokens=True)
        if row["special"] == row["ids"]:
            del row["special"]
        if row["plain"] == row["ids"]:
            del row["plain"]
        if row["skipped"] == row["decoded"]:
            del row["skipped"]
        rows.append(row)
    return rows


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def write_tokenizers(out):
    made = {"gpt2": gpt2(), "llama3": llama3(), "qwen2": qwen2(), "roberta": roberta(), "llama2": llama2(), "clip": clip(),
            "unigram": unigram(scheme="always"), "unigram-first": unigram(scheme="first"), "bert": bert(), "word-level": word_level()}
    for name, tokenizer in made.items():
        write_json(out / name / "tokenizer.json", json.loads(tokenizer.to_str()))
        write_json(out / name / "golden.json", golden_of(tokenizer))
    vocab = made["bert"].get_vocab()
    (out / "bert-vocab").mkdir(exist_ok=True)
    (out / "bert-vocab" / "vocab.txt").write_text("".join(t + "\n" for t in sorted(vocab, key=vocab.get)), encoding="utf-8")


RULES = [("２", "2"), ("０", "0"), ("４", "4"), ("Ａ", "A"), ("Ｂ", "B"), ("Ｃ", "C"), ("ﬁ", "fi"), ("ﬂ", "fl"), ("e\u0301", "é"),
         ("i\u0308", "ï"), ("\u00a0", " "), ("\u3000", " "), ("\t", " "), ("\n", " "), ("\r", " "), ("①", "1"), ("\u200b", "")]


def write_sentencepiece(out):
    variants = {
        "sp-bpe": dict(model_type="bpe", vocab_size=500, byte_fallback=True, normalization_rule_name="identity",
                       remove_extra_whitespaces=False, character_coverage=0.98),
        "sp-bpe-unk": dict(model_type="bpe", vocab_size=300, character_coverage=0.98, split_digits=True,
                           user_defined_symbols=["<tool>"], add_dummy_prefix=False),
        "sp-unigram": dict(model_type="unigram", vocab_size=330, character_coverage=0.98),
        "sp-unigram-bytes": dict(model_type="unigram", vocab_size=480, byte_fallback=True, character_coverage=0.98,
                                 bos_id=-1, pad_id=0, eos_id=1, unk_id=2),
    }
    with tempfile.TemporaryDirectory() as folder:
        corpus, rules = pathlib.Path(folder, "corpus.txt"), pathlib.Path(folder, "rules.tsv")
        corpus.write_text("\n".join(CORPUS), encoding="utf-8")
        hexed = lambda text: " ".join(f"{ord(c):X}" for c in text)
        rules.write_text("".join(f"{hexed(a)}\t{hexed(b)}\n" for a, b in RULES), encoding="utf-8")
        for name, options in variants.items():
            if "normalization_rule_name" not in options:
                options["normalization_rule_tsv"] = str(rules)
            (out / name).mkdir(parents=True, exist_ok=True)
            sentencepiece.SentencePieceTrainer.train(input=str(corpus), model_prefix=str(out / name / "tokenizer"),
                                                     hard_vocab_limit=False, minloglevel=2, **options)
            (out / name / "tokenizer.vocab").unlink()
            processor = sentencepiece.SentencePieceProcessor(model_file=str(out / name / "tokenizer.model"))
            texts = [t for t in TEXTS if "\0" not in t]
            rows = [{"text": t, "ids": processor.encode(t)} for t in texts]
            write_json(out / name / "golden.json", rows)


def pieces(step):
    """What a step makes of each text; null where it leaves the text whole."""
    cut = [[piece for piece, _ in step.pre_tokenize_str(text)] for text in TEXTS]
    return [None if result == [text] else result for result, text in zip(cut, TEXTS)]


def write_components(out):
    ws, sp = pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split
    steps = [
        pre_tokenizers.ByteLevel(add_prefix_space=True), pre_tokenizers.Whitespace(), ws, pre_tokenizers.BertPreTokenizer(),
        pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Metaspace(), pre_tokenizers.Metaspace(prepend_scheme="first"),
        pre_tokenizers.Metaspace(prepend_scheme="never", split=False), pre_tokenizers.CharDelimiterSplit("-"),
        *[pre_tokenizers.Punctuation(b) for b in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous")],
        *[sp(Regex(r"\s+|e"), b, i) for b in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous")
          for i in (False, True)],
        sp(" ", "merged_with_previous"), sp(Regex(r"\w+(?=\b)|[\hx]"), "isolated"), sp(Regex(r"[\w\s]+"), "removed"),
        sp(Regex(r"(?=\p{Lu})"), "isolated"), sp(Regex(r"^.|.$"), "isolated"),
        pre_tokenizers.Sequence([ws, pre_tokenizers.Metaspace(prepend_scheme="first")]),
    ]
    rows = []
    for step in steps:
        config = json.loads(step.__getstate__())
        rows.append({"kind": "pre_tokenizer", "config": config, "out": pieces(step)})
    families = {"llama-bpe": [split(LLAMA3)], "qwen2": [split(QWEN2)], "gpt-4o": [split(GPT4O)], "tekken": [split(TEKKEN)],
                "deepseek-v3": [split(p) for p in DEEPSEEK3]}
    for name, parts in families.items():
        step = bytes_last(*parts)
        rows.append({"kind": "family", "config": name, "out": pieces(step)})
    step = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    rows.append({"kind": "family", "config": "smollm", "out": pieces(step)})
    for step in [normalizers.NFC(), normalizers.NFD(), normalizers.NFKC(), normalizers.NFKD(), normalizers.Lowercase(),
                 normalizers.StripAccents(), normalizers.Strip(), normalizers.Nmt(), normalizers.Prepend("▁"),
                 normalizers.Replace("the", "THE"), normalizers.Replace(Regex(r"\s{2,}|\p{Lu}"), "_"), normalizers.BertNormalizer(),
                 normalizers.BertNormalizer(lowercase=False, strip_accents=True, clean_text=False, handle_chinese_chars=False),
                 normalizers.ByteLevel(), normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()])]:
        config = json.loads(step.__getstate__())
        rows.append({"kind": "normalizer", "config": config, "out": [None if step.normalize_str(t) == t else step.normalize_str(t) for t in TEXTS]})
    write_json(out / "components.json", rows)


def main():
    out = pathlib.Path(sys.argv[1])
    write_json(out / "texts.json", TEXTS)
    write_tokenizers(out)
    write_sentencepiece(out)
    write_components(out)


if __name__ == "__main__":
    main()
