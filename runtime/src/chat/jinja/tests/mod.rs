//! The dialect against what Python's Jinja2 writes, templates of real models, and templates that mean harm.

mod dialect;
mod hostile;

use serde_json::json;

use super::*;

/// What `source` puts out, given nothing but a few values.
fn put_out(source: &str) -> Result<String, JinjaError> {
    let variables = [
        ("n", json!(7)),
        ("word", json!("Hello World")),
        ("words", json!(["b", "a", "C"])),
        (
            "d",
            json!({"one": 1, "two": [1, 2.5, null, true], "k<>&'": "\"é\"\n"}),
        ),
        ("none_given", json!(null)),
        (
            "people",
            json!([{"name": "Ann", "age": 30}, {"name": "bob", "age": 4}, {"name": "Cy"}]),
        ),
    ];
    render(source, &variables, 1 << 20)
}
