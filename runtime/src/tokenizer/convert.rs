//! From the tokenizer files of a Hugging Face folder to the keys of a GGUF file.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::Value;

use super::error::{TokenizerError, shorten};
use super::folder::FolderConfig;
use super::json::{Spelling, TokenizerJson};
use super::pre::PreTokenizer;
use super::proto;
use super::spm::SPACE;
use super::vocab::{GgufVocab, TokenType};

impl GgufVocab {
    /// Reads `tokenizer.json`, else `tokenizer.model`, and the small files beside it.
    ///
    /// # Errors
    /// When there is no tokenizer, it contradicts itself, or GGUF has no way to say what it does.
    pub fn from_folder(folder: &Path) -> Result<Self, TokenizerError> {
        let json = folder.join("tokenizer.json");
        if json.exists() {
            return Self::from_tokenizer_json(&json);
        }
        let model = folder.join("tokenizer.model");
        if model.exists() {
            return Self::from_sentencepiece(&model);
        }
        Err(TokenizerError::NoTokenizer {
            path: folder.to_owned(),
        })
    }

    /// Reads a `tokenizer.json` and the small files beside it. `architecture` is left to the caller.
    ///
    /// Where GGUF keys have no words for what the file does, the whole of it becomes one of them:
    /// [`Self::note`] says so.
    ///
    /// # Errors
    /// When the file cannot be read, contradicts itself, or is of a kind that this runtime does not know.
    pub fn from_tokenizer_json(path: &Path) -> Result<Self, TokenizerError> {
        let text = super::utf8_file(path)?;
        let mut json = TokenizerJson::parse(text.as_bytes(), path)?;
        let config = FolderConfig::read(path.parent().unwrap_or(Path::new(".")))?;
        let in_keys = match json.spelling {
            Spelling::ByteLevel => byte_level(&json),
            Spelling::SentencePiece { space_prefix } => sentencepiece(&json, space_prefix),
        };
        let mut vocab = match in_keys {
            Ok(vocab) => vocab,
            Err(_) => {
                // Built to be dropped: what the runtime cannot use must not be written.
                json.encoder()?;
                Self {
                    model: Self::HUGGING_FACE.to_owned(),
                    tokens: names(&json),
                    token_types: json.tokens.iter().map(|&(_, kind)| kind as i32).collect(),
                    huggingface_json: Some(text),
                    ..Self::default()
                }
            }
        };
        vocab.unk = vocab.unk.or_else(|| vocab.find(json.unk.as_deref()?));
        vocab.name_specials(config, json.bos.as_deref());
        Ok(vocab)
    }

    /// Reads the `tokenizer.model` of the SentencePiece library, of the BPE kind, and the small files beside it.
    ///
    /// # Errors
    /// When the file is damaged or not of the BPE kind.
    pub fn from_sentencepiece(path: &Path) -> Result<Self, TokenizerError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut vocab = proto::read(path)?;
        for (id, text, special) in proto::added_tokens(folder)? {
            let at = id as usize;
            if at > vocab.tokens.len() + 4096 {
                return Err(TokenizerError::SparseIds {
                    path: folder.to_owned(),
                    id,
                    n_tokens: vocab.tokens.len(),
                });
            }
            while vocab.tokens.len() <= at {
                vocab.tokens.push(String::new());
                vocab.scores.push(0.0);
                vocab.token_types.push(TokenType::Unused as i32);
            }
            // The library's own special tokens are listed again among the added ones.
            if vocab.tokens[at].is_empty() {
                vocab.tokens[at] = text;
                let kind = if special {
                    TokenType::Control
                } else {
                    TokenType::UserDefined
                };
                vocab.token_types[at] = kind as i32;
            }
        }
        let mut config = FolderConfig::read(folder)?;
        // The models that come as tokenizer.model alone are of the Llama 2 family.
        config.add_bos = config.add_bos.or(Some(true));
        vocab.name_specials(config, None);
        Ok(vocab)
    }

    fn find(&self, text: &str) -> Option<u32> {
        let at = self.tokens.iter().position(|token| token == text)?;
        u32::try_from(at).ok()
    }

    fn name_specials(&mut self, config: FolderConfig, leading: Option<&str>) {
        let id = |text: &Option<String>| self.find(text.as_deref()?);
        let known = |id: &u32| (*id as usize) < self.tokens.len();
        let (bos, eos) = (id(&config.bos), id(&config.eos));
        let (unk, pad) = (id(&config.unk), id(&config.pad));
        let leading_id = leading.and_then(|text| self.find(text));
        let eos_ids: Vec<u32> = config.eos_ids.iter().copied().filter(known).collect();
        self.bos = bos
            .or(config.bos_id.filter(known))
            .or(leading_id)
            .or(self.bos);
        self.eos = eos.or(eos_ids.first().copied()).or(self.eos);
        self.unk = self.unk.or(unk);
        self.pad = pad.or(self.pad);
        self.eot = eos_ids.into_iter().find(|&id| Some(id) != self.eos);
        let says = config.add_bos.unwrap_or(leading.is_some());
        self.add_bos = Some(says && self.bos.is_some());
        self.add_eos = Some(false);
        self.chat_template = config.chat_template;
    }
}

fn byte_level(json: &TokenizerJson) -> Result<GgufVocab, TokenizerError> {
    if let Some(stage) = json.normalizer.as_ref().filter(|stage| !stage.is_null()) {
        return Err(unsupported(
            "normalizer of a byte-level vocabulary",
            stage,
            "none",
        ));
    }
    let pre = byte_level_cuts(json.pre_tokenizer.as_ref())?;
    Ok(GgufVocab {
        model: "gpt2".to_owned(),
        pre: Some(pre.name.to_owned()),
        tokens: names(json),
        token_types: json.tokens.iter().map(|&(_, kind)| kind as i32).collect(),
        merges: json
            .merges
            .iter()
            .map(|(l, r)| format!("{l} {r}"))
            .collect(),
        ..GgufVocab::default()
    })
}

/// Token texts; holes get a name that no text can spell by accident, since GGUF readers want every token named.
fn names(json: &TokenizerJson) -> Vec<String> {
    let name = |(id, (text, _)): (usize, &(String, TokenType))| match text.is_empty() {
        true => format!("[UNUSED{id}]"),
        false => text.clone(),
    };
    json.tokens.iter().enumerate().map(name).collect()
}

fn unsupported(what: &'static str, stage: &Value, known: &'static str) -> TokenizerError {
    TokenizerError::Unsupported {
        what,
        got: stage.to_string(),
        known,
    }
}

/// The pre-tokeniser with these stages, if GGUF has a name for it.
fn byte_level_cuts(stage: Option<&Value>) -> Result<&'static PreTokenizer, TokenizerError> {
    const KNOWN: &str = "the cuts of llama-bpe, default, gpt-2 and qwen2";
    let absent = Value::Null;
    let stage = stage.unwrap_or(&absent);
    let list = stage.get("pretokenizers").and_then(Value::as_array);
    let stages = list.map_or(std::slice::from_ref(stage), Vec::as_slice);
    let refuse = || unsupported("pre_tokenizer", stage, KNOWN);
    let mut regexes = Vec::new();
    let mut to_alphabet = false;
    for step in stages {
        let flag = |key: &str, default: bool| step[key].as_bool().unwrap_or(default);
        match step["type"].as_str() {
            Some("Split") if step["behavior"] == "Isolated" && !flag("invert", false) => {
                regexes.push(step["pattern"]["Regex"].as_str().ok_or_else(refuse)?);
            }
            Some("ByteLevel") if !flag("add_prefix_space", true) && !to_alphabet => {
                to_alphabet = true;
                if flag("use_regex", true) {
                    let gpt2 = PreTokenizer::named("gpt-2").expect("`gpt-2` is in PRE_TOKENIZERS");
                    regexes.extend(gpt2.regexes);
                }
            }
            _ => return Err(refuse()),
        }
    }
    let known = PreTokenizer::with_regexes(&regexes).filter(|_| to_alphabet);
    known.ok_or_else(refuse)
}

fn sentencepiece(json: &TokenizerJson, space_prefix: bool) -> Result<GgufVocab, TokenizerError> {
    if !json.byte_fallback && json.unk.is_none() {
        return Err(TokenizerError::Unsupported {
            what: "tokenizer.json model",
            got: "BPE with neither byte_fallback nor unk_token".to_owned(),
            known: "BPE with byte_fallback",
        });
    }
    check_space_normalizer(json, space_prefix)?;
    Ok(GgufVocab {
        model: "llama".to_owned(),
        tokens: names(json),
        scores: scores(json)?,
        token_types: json.tokens.iter().map(|&(_, kind)| kind as i32).collect(),
        add_space_prefix: Some(space_prefix),
        ..GgufVocab::default()
    })
}

/// GGUF's `llama` model does one thing to the text: spaces become `▁`, with one in front or not.
fn check_space_normalizer(json: &TokenizerJson, space_prefix: bool) -> Result<(), TokenizerError> {
    let space = String::from(SPACE);
    let steps = |stage: &Option<Value>, key: &str| match stage {
        None | Some(Value::Null) => Vec::new(),
        Some(stage) => match stage.get(key).and_then(Value::as_array) {
            Some(list) => list.clone(),
            None => vec![stage.clone()],
        },
    };
    let (mut prepends, mut replaces) = (false, false);
    let stages = steps(&json.normalizer, "normalizers")
        .into_iter()
        .chain(steps(&json.pre_tokenizer, "pretokenizers"));
    for stage in stages {
        match stage["type"].as_str() {
            Some("Prepend") if stage["prepend"] == *space => prepends = true,
            Some("Replace") if stage["pattern"]["String"] == " " && stage["content"] == *space => {
                replaces = true;
            }
            // The piece-wise form of both, as newer files have it.
            Some("Metaspace") if stage["split"] != true => {
                replaces = true;
                prepends = stage["prepend_scheme"] != "never";
            }
            // Cuts at spaces, of which none are left after `Replace`.
            Some("Split") if stage["pattern"]["String"] == " " => {}
            _ => {
                return Err(unsupported(
                    "normalizer or pre_tokenizer",
                    &stage,
                    "Prepend ▁, Replace space by ▁, Metaspace",
                ));
            }
        }
    }
    if !replaces || prepends != space_prefix {
        return Err(TokenizerError::Unsupported {
            what: "tokenizer.json",
            got: "spaces that are not written ▁, or put in front but not taken away".to_owned(),
            known: "Prepend ▁ and Replace space by ▁, undone by the decoder",
        });
    }
    Ok(())
}

/// Scores that order merges by score as the file orders them by rank.
///
/// A score belongs to a token, a rank to a pair. So the file must list every pair that makes a token (GGUF readers
/// merge them all), and all pairs of one token together: otherwise no scores say the same.
fn scores(json: &TokenizerJson) -> Result<Vec<f32>, TokenizerError> {
    /// Below every rank; for tokens that no merge produces.
    const LAST: f32 = -1e10;
    let ids: HashMap<&str, usize> = json
        .tokens
        .iter()
        .enumerate()
        .filter(|(_, (_, kind))| *kind == TokenType::Normal)
        .map(|(id, (text, _))| (text.as_str(), id))
        .collect();
    let mut scores = vec![LAST; json.tokens.len()];
    let mut previous = None;
    let mut rank = 0u32;
    for (index, (left, right)) in json.merges.iter().enumerate() {
        let joined = format!("{left}{right}");
        let refuse = |why: &str| TokenizerError::Merge {
            list: json.list("model.merges"),
            index,
            merge: shorten(&format!("{left} {right}")),
            why: format!("{joined:?} {why}"),
        };
        let &id = ids
            .get(joined.as_str())
            .ok_or_else(|| refuse("is not an ordinary token"))?;
        if previous == Some(id) {
            continue;
        }
        if scores[id] != LAST {
            return Err(refuse(
                "has merges of several priorities, which scores cannot say",
            ));
        }
        scores[id] = -(rank as f32);
        previous = Some(id);
        rank += 1;
    }
    // A single character takes part in merges even where it is no token itself.
    let symbol = |text: &str| ids.contains_key(text) || text.chars().nth(1).is_none();
    let listed: HashSet<(&str, &str)> = json
        .merges
        .iter()
        .map(|(l, r)| (l.as_str(), r.as_str()))
        .collect();
    // In the file's order, so that the same file always gets the same answer.
    let ordinary = |token: &&(String, TokenType)| token.1 == TokenType::Normal;
    for (text, _) in json.tokens.iter().filter(ordinary) {
        for (at, _) in text.char_indices().skip(1) {
            let pair = text.split_at(at);
            if symbol(pair.0) && symbol(pair.1) && !listed.contains(&pair) {
                return Err(TokenizerError::Unsupported {
                    what: "tokenizer.json merges without the pair",
                    got: format!("{} {}", pair.0, pair.1),
                    known: "SentencePiece vocabularies, which merge every pair whose joined text is a token",
                });
            }
        }
    }
    Ok(scores)
}
