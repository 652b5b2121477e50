"""Small tokenizers whose texts are easily cut wrongly, with the ids and logits that transformers gives for them.

    pip install -r requirements.txt && python text.py

writes `text/model/` (one random model) and `text/NAME/`: `tokenizer.json` and `tokenizer_config.json`, as a user
would have them, and `expected.json`: prompts and conversations with the ids that the tokenizer and
`apply_chat_template` give, the texts that lose characters, and the float32 logits of the first prompt.
`runtime/tests/parity_text.rs` reads them without Python.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer

import generate

HERE = Path(__file__).parent / "text"
TEMPLATES = Path(__file__).parents[2] / "runtime/src/chat/tests/templates"
VOCAB = 400
CORPUS = [
    "The hen has a hat. The hat has a hole. He and she hear the hen in the house.",
    "Once upon a time there was a little village by the sea, and all the people there were friends.",
    "hello world, how are you today? I am fine, thank you; and you? 1234567890 + 42 = many",
]
PROMPTS = ["hello there", "", "The hen\n\nhas a  hat.", "naïve café 日本 🙂", "a hat, {eos} then {bos}the end", "{bos}hello", "{bos}{bos} hello", "A little sea.{eos} Many cats"]
CHATS = [
    [{"role": "user", "content": "hello"}],
    [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "The hen has a hat."},
        {"role": "assistant", "content": "So it has."},
        {"role": "user", "content": "Why?"},
    ],
]


def byte_level(bos, eos, more=(), lacking=None):
    """GPT-2's bytes, as llama 3 has them; `lacking`: a byte that the vocabulary has no token for."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    if lacking:
        state = json.loads(made.to_str())
        vocab = [t for t in sorted(state["model"]["vocab"], key=state["model"]["vocab"].get) if lacking not in t]
        state["model"]["vocab"] = {t: i for i, t in enumerate(vocab)}
        state["model"]["merges"] = [m for m in state["model"]["merges"] if lacking not in "".join(m)]
        made = Tokenizer.from_str(json.dumps(state))
    return finished(made, bos, eos, more)


def metaspace(bos, eos, normalised):
    """SentencePiece's spaces with bytes to fall back on, as llama 2 (a normaliser) and mistral (a pre-tokenizer) have them."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if normalised:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=370, special_tokens=["<unk>", bos, eos, *bytes_], show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    # Bytes are ordinary tokens in real files: only texts fall back on them.
    state = json.loads(made.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in ("<unk>", bos, eos)]
    return finished(Tokenizer.from_str(json.dumps(state)), bos, eos, [])


def finished(made, bos, eos, more):
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (bos, eos, *more)])
    made.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, made.token_to_id(bos))])
    return made


LLAMA_3 = ("<|begin_of_text|>", "<|end_of_text|>")
TURNS = ["<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|user|>", "<|assistant|>", "<|system|>"]
TOKENIZERS = {
    # Issue number and what is easily cut wrongly; the tokenizer, its control tokens, its template, texts that lose characters.
    "4-missing-byte": (lambda: byte_level(*LLAMA_3, lacking="h"), LLAMA_3, None, {"hhh ahb": "h", "a hat": "h"}),
    "5-llama-3-phi-4": (lambda: byte_level(*LLAMA_3, TURNS), LLAMA_3, "phi-4.jinja", {}),
    "5-llama-3-zephyr": (lambda: byte_level(*LLAMA_3, TURNS), LLAMA_3, "zephyr.jinja", {}),
    "5-llama-2": (lambda: metaspace("<s>", "</s>", True), ("<s>", "</s>"), None, {}),
    "5-mistral": (lambda: metaspace("<s>", "</s>", False), ("<s>", "</s>"), None, {}),
}


def model():
    folder = HERE / "model"
    folder.mkdir(parents=True)
    generate.VOCAB = VOCAB
    (folder / "config.json").write_text(json.dumps(generate.config("llama", tie_word_embeddings=True), indent=1) + "\n")
    tensors = {k: v.contiguous() for k, v in generate.weights("llama", 9, generate.ternary, head=False).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    model()
    for name, (make, (bos, eos), template, losing) in TOKENIZERS.items():
        folder = HERE / name
        folder.mkdir()
        make().save(str(folder / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos}
        if template:
            settings["chat_template"] = (TEMPLATES / template).read_text()
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        prompts = [p.format(bos=bos, eos=eos) for p in PROMPTS]
        if losing:
            prompts = [p for p in prompts if "h" not in p]
        for text, lost in losing.items():
            ids = tokenizer(text)["input_ids"]
            assert lost not in tokenizer.decode(ids, skip_special_tokens=True), f"{name}: {text!r} loses nothing"
        prompts = [{"text": p, "ids": tokenizer(p)["input_ids"]} for p in prompts]
        chats = [] if not template else [
            {"messages": c, "ids": tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False)} for c in CHATS
        ]
        assert all(i < VOCAB for p in prompts + chats for i in p["ids"])
        of = next(p["ids"] for p in prompts if len(p["ids"]) > 3)
        single, double = (logits(of, dtype) for dtype in (torch.float32, torch.float64))
        expected = {
            "prompts": prompts,
            "losing": losing,
            "chats": chats,
            "tokens": of,
            "vocab": VOCAB,
            "float32_minus_float64": (single.double() - double).abs().max().item(),
            "logits": single.float().contiguous().numpy().astype("<f4").tobytes().hex(),
        }
        (folder / "expected.json").write_text(json.dumps(expected) + "\n")
        print(name, [len(p["ids"]) for p in prompts + chats])


def logits(ids, dtype):
    made = AutoModelForCausalLM.from_pretrained(HERE / "model", dtype=dtype, attn_implementation="eager")
    with torch.no_grad():
        return made.eval()(torch.tensor([ids])).logits[0]


if __name__ == "__main__":
    main()
