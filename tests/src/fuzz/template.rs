//! Chat templates: right ones with pieces of Jinja moved, repeated and nested.

use super::draw::Draw;
use super::readable;
use super::text::text;
use bitnet_runtime::chat::{ChatTemplate, Message, Role};
use bitnet_runtime::tokenizer::Tokenizer;
use bitnet_runtime::vocab::GgufVocab;

/// Statements and outputs, each whole.
const PIECES: &[&str] = &[
    "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}",
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ m.content ~ eos_token }}{% endif %}{% endfor %}",
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    "{{ bos_token }}",
    "{% set ns = namespace(x='a', n=0) %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x | length }}",
    "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
    "{{ raise_exception('no ' ~ messages[0].role) }}",
    "{{ messages | tojson(indent=4) }}",
    "{{ messages[::-1] | length }}{{ messages[-1].content[:3] }}",
    "{% macro f(x) %}{{ x }}{% if x > 0 %}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(30) }}",
    "{{ 'x' * 900000000 }}",
    "{{ '%.1000000000f' | format(1.0) }}",
    "{{ range(1000000) | list | length }}",
    "{{ 'ab' | indent(1000000000) }}",
    "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}{% endfor %}{% endfor %}",
    "{{ [1, 2, 3] | batch(1000000000000) | list }}",
    "{{ messages | map(attribute='content') | join(', ') | upper | replace('A', 'AA') }}",
    "{{ strftime_now('%Y') }}",
    "{% filter upper %}a{% endfilter %}",
    "{{ {'a': [1, {'b': 2}]} | tojson | safe }}",
];

/// Openings and closings of expressions that nest.
const NESTS: &[(&str, &str)] = &[
    ("(", ")"),
    ("[", "]"),
    ("not ", ""),
    ("-", ""),
    ("1+", ""),
    ("", "|length"),
    ("", ".a"),
    ("", "[0]"),
    ("{'a':", "}"),
    ("1 if 1 else ", ""),
];

fn source(draw: &mut Draw) -> String {
    let mut source = String::new();
    for _ in 0..1 + draw.below(4) {
        match draw.below(5) {
            0 => {
                let (open, close) = *draw.pick(NESTS);
                let depth = match draw.one_in(4) {
                    true => draw.below(20_000),
                    false => draw.below(40),
                };
                source += &format!("{{{{ {}1{} }}}}", open.repeat(depth), close.repeat(depth));
            }
            1 => source += &text(draw),
            _ => source += *draw.pick(PIECES),
        }
    }
    for _ in 0..draw.below(3) {
        spoil(draw, &mut source);
    }
    source
}

/// Drops, repeats or replaces a run of characters.
fn spoil(draw: &mut Draw, source: &mut String) {
    let mut chars: Vec<char> = source.chars().collect();
    if chars.is_empty() {
        return;
    }
    let at = draw.below(chars.len());
    let end = (at + 1 + draw.below(12)).min(chars.len());
    let run: Vec<char> = match draw.below(3) {
        0 => Vec::new(),
        1 => [&chars[at..end], &chars[at..end]].concat(),
        _ => draw
            .pick(&[
                "{%",
                "%}",
                "{{",
                "}}",
                "|",
                "~",
                "endfor",
                "'",
                "loop.index",
                "else",
                "elif x",
                "ns",
                "1e9",
                "*",
            ])
            .chars()
            .collect(),
    };
    chars.splice(at..end, run);
    *source = chars.into_iter().collect();
}

/// One execution.
///
/// # Errors
/// What was found.
pub fn run(draw: &mut Draw) -> Result<(), String> {
    let tokens = ["a", "b", "<s>", "</s>", "Ġ"].map(String::from).to_vec();
    let vocab = GgufVocab {
        model: "gpt2".into(),
        pre: Some("llama-bpe".into()),
        tokens,
        bos: Some(2),
        eos: Some(3),
        chat_template: Some(source(draw)),
        ..GgufVocab::default()
    };
    let tokenizer = Tokenizer::from_gguf(&vocab, None).map_err(|e| e.to_string())?;
    let template = match ChatTemplate::of(&tokenizer) {
        Err(e) => return readable(&e),
        Ok(template) => template,
    };
    let messages = [
        Message::new(Role::System, "ab"),
        Message::new(Role::User, text(draw)),
    ];
    match template.render(&tokenizer, &messages) {
        Err(e) => readable(&e),
        Ok(_) => Ok(()),
    }
}
