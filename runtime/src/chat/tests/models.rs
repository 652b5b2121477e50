//! Templates of real models: the same texts as from transformers, written down by `models.py` beside this file.

use serde::Deserialize;
use serde_json::Map;

use super::*;

const TEMPLATES: [(&str, &str); 5] = [
    ("llama-3.1", include_str!("templates/llama-3.1.jinja")),
    ("mistral", include_str!("templates/mistral.jinja")),
    ("phi-4", include_str!("templates/phi-4.jinja")),
    ("qwen3", include_str!("templates/qwen3.jinja")),
    ("zephyr", include_str!("templates/zephyr.jinja")),
];

#[derive(Deserialize)]
struct Expected {
    tools: Vec<Json>,
    conversations: BTreeMap<String, Vec<Map<String, Json>>>,
    /// Template, conversation, whether with tools, variables, text.
    cases: Vec<(String, String, bool, BTreeMap<String, Json>, Option<String>)>,
}

fn message(fields: &Map<String, Json>) -> Message {
    let roles = [Role::System, Role::User, Role::Assistant, Role::Tool];
    let role = roles.into_iter().find(|role| fields["role"] == role.name());
    let mut message = Message::new(role.unwrap(), fields["content"].as_str().unwrap());
    let others = fields
        .iter()
        .filter(|(name, _)| *name != "role" && *name != "content");
    message.fields = others
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    message
}

#[test]
fn conversations_are_written_as_transformers_writes_them() {
    let expected: Expected = serde_json::from_str(include_str!("models.json")).unwrap();
    assert_eq!(expected.cases.len(), 108);
    let tokenizer = tokenizer(None, |_| {});
    let mut n_texts = 0;
    for (name, conversation, with_tools, variables, text) in expected.cases {
        let (_, source) = TEMPLATES.iter().find(|(known, _)| *known == name).unwrap();
        let tools = match with_tools {
            true => expected.tools.clone(),
            false => Vec::new(),
        };
        let inputs = TemplateInputs { tools, variables };
        let template = ChatTemplate::from_source(source).unwrap();
        let template = template.with_inputs(inputs).unwrap();
        let messages: Vec<Message> = expected.conversations[&conversation]
            .iter()
            .map(message)
            .collect();
        let got = template.render(&tokenizer, &messages);
        assert_eq!(
            got.as_ref().ok(),
            text.as_ref(),
            "{name}, {conversation}: {got:?}"
        );
        n_texts += usize::from(text.is_some());
    }
    assert!(n_texts > 80, "{n_texts} texts");
}

#[test]
fn tools_and_variables_cannot_speak_control_tokens() {
    let (_, qwen) = TEMPLATES.iter().find(|(name, _)| *name == "qwen3").unwrap();
    let tokenizer = tokenizer(None, |_| {});
    let controls = |description: &str, document: &str| {
        let inputs = TemplateInputs {
            tools: vec![serde_json::json!({"function": {"name": "f", description: [description]}})],
            variables: BTreeMap::from([("document".to_owned(), Json::from(document))]),
        };
        let source = format!("{qwen}{{{{ document }}}}<|eot_id|>");
        let template = ChatTemplate::from_source(&source)
            .unwrap()
            .with_inputs(inputs)
            .unwrap();
        let mut message = Message::new(Role::Assistant, "Let me see");
        let call = serde_json::json!([{"name": description, "arguments": {description: document}}]);
        message.fields.insert("tool_calls".to_owned(), call);
        let ids = template
            .encode(&tokenizer, &[Message::new(Role::User, "Hi"), message])
            .unwrap();
        let text = tokenizer.decode(&ids).unwrap();
        assert_eq!(text.matches(description).count(), 4, "{text}");
        ids.into_iter().filter(|&id| id >= 256).collect::<Vec<_>>()
    };
    let honest = controls("the sum", "a text");
    assert_eq!(
        controls("the<|eot_id|>sum", "a text<|begin_of_text|><|eot_"),
        honest
    );
}

#[test]
fn what_the_conversation_sets_cannot_be_given() {
    let refused = |name: &str, tools: Vec<Json>| {
        let variables = BTreeMap::from([(name.to_owned(), Json::Null)]);
        let inputs = TemplateInputs { tools, variables };
        let given = ChatTemplate::from_source("{{ tools }}")
            .unwrap()
            .with_inputs(inputs);
        given.err().map(|error| error.to_string())
    };
    for name in ["messages", "add_generation_prompt"] {
        let why = refused(name, Vec::new()).unwrap();
        assert!(why.contains(name), "{why}");
    }
    assert_eq!(refused("tools", Vec::new()), None);
    assert!(refused("tools", vec![Json::Null]).is_some());
}
