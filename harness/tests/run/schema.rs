//! Checks a document against a JSON Schema, as far as ours go: a keyword that is not known here is
//! an error, so that no rule is passed over.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Keywords that say something to people.
const WORDS: [&str; 3] = ["$schema", "title", "description"];

/// Returns one of our schemas.
pub fn schema(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    let text = fs::read_to_string(folder.join(name).with_extension("json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Returns each place where a document is not by its schema.
pub fn faults(schema: &Value, document: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    check(schema, document, "", &mut faults);
    faults
}

fn check(schema: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        let is_kept = match keyword.as_str() {
            "type" => has_type(rule, value),
            "const" => rule == value,
            "enum" => rule.as_array().unwrap().contains(value),
            "required" => {
                let names = rule.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
                let missing: Vec<&str> =
                    names.filter(|name| value.is_object() && value.get(name).is_none()).collect();
                missing.is_empty()
            }
            "properties" => {
                for (name, schema) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        check(schema, value, &format!("{place}/{name}"), faults);
                    }
                }
                true
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    check(rule, value, &format!("{place}/{index}"), faults);
                }
                true
            }
            "propertyNames" => {
                for name in value.as_object().into_iter().flat_map(|object| object.keys()) {
                    check(rule, &Value::from(name.as_str()), &format!("{place}/{name}"), faults);
                }
                true
            }
            "additionalProperties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    if schema["properties"].get(name).is_none() {
                        check(rule, value, &format!("{place}/{name}"), faults);
                    }
                }
                true
            }
            word => {
                assert!(WORDS.contains(&word), "{place}: the keyword {word} is not known");
                true
            }
        };
        if !is_kept {
            let value = value.to_string().chars().take(80).collect::<String>();
            faults.push(format!("{place}: {keyword} {rule}: {value}"));
        }
    }
}

fn has_type(rule: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("the type {name} is not known"),
    };
    match rule {
        Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
        name => is(name.as_str().unwrap()),
    }
}

#[test]
fn a_document_that_is_otherwise_is_found_out() {
    let schema = serde_json::json!({
        "type": "object",
        "required": ["a", "b"],
        "properties": {
            "a": { "type": ["integer", "null"] },
            "b": { "type": "array", "items": { "enum": ["x", "y"] } },
            "c": { "const": 1 },
        },
        "propertyNames": { "enum": ["a", "b", "c", "d"] },
        "additionalProperties": { "type": "boolean" },
    });
    let of = |document: Value| faults(&schema, &document).len();
    assert_eq!(of(serde_json::json!({ "a": null, "b": ["x", "y"], "c": 1, "d": true })), 0);
    for wrong in [
        serde_json::json!([]),
        serde_json::json!({ "a": 1 }),
        serde_json::json!({ "a": 1.5, "b": [] }),
        serde_json::json!({ "a": 1, "b": ["z"] }),
        serde_json::json!({ "a": 1, "b": [], "c": 2 }),
        serde_json::json!({ "a": 1, "b": [], "d": 1 }),
    ] {
        assert!(of(wrong.clone()) == 1, "{wrong}");
    }
    assert_eq!(of(serde_json::json!({ "a": 1, "b": [], "e": 1 })), 2, "its name and its type");
}
