"""The byte-level BPE of the demo model, built exactly as the runtime rebuilds it from GGUF metadata.

The pre-tokeniser is the `llama-bpe` expression; whole pre-tokens in the vocabulary are taken as
they are (`ignore_merges`); the five special tokens come first.
"""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import corpus

VOCAB = 2048
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def build(vocab, merges):
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in corpus.SPECIAL])
    return tok


def train(documents):
    tok = build({}, [])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=corpus.SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), min_frequency=2)
    split = [piece for text in documents for piece in without_special(text)]
    tok.train_from_iterator(split, trainer)
    # The text may have too few pieces worth a token; the rest of the table is named, never produced.
    rest = range(VOCAB - tok.get_vocab_size())
    tok.add_special_tokens([AddedToken(f"<|reserved{i}|>", special=True, normalized=False) for i in rest])
    return tok


def is_special(token):
    return token.startswith("<|") and token.endswith("|>")


def without_special(text):
    for mark in corpus.SPECIAL:
        text = text.replace(mark, "\0")
    return [piece for piece in text.split("\0") if piece]


def load(path):
    return Tokenizer.from_file(str(path))
