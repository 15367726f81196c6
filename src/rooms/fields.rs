//! `event_fields` of filters: which fields of events a client wants.
//!
//! The paths are merged into a tree once, so that picking costs one pass over an event however many
//! there are.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter>

use std::collections::HashMap;

use serde_json::{Map, Value, value::RawValue};

use crate::error::ApiError;

/// How many paths a filter may have. How long they are is bounded by the size of a filter.
const PATHS_MAX: usize = 500;
/// The most steps of a path: events are not deeper.
const STEPS_MAX: usize = 64;

/// The fields that a client wants; by default all.
#[derive(Clone, Debug, Default)]
pub struct Fields(Option<Node>);

/// What is wanted of a value.
#[derive(Clone, Debug, Default)]
struct Node {
    /// All of it.
    whole: bool,
    fields: HashMap<String, Node>,
}

impl Fields {
    /// Compiles a list of paths. An empty one asks for everything, as none does.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` when there are too many, or one is too deep.
    pub fn compile(paths: Option<&[String]>) -> Result<Self, ApiError> {
        let paths = paths.unwrap_or_default();
        if paths.is_empty() {
            return Ok(Self::default());
        }
        if paths.len() > PATHS_MAX {
            return Err(ApiError::invalid_param(format!(
                "`event_fields` has at most {PATHS_MAX} entries"
            )));
        }
        let mut root = Node::default();
        for path in paths {
            let steps = steps(path);
            if steps.len() > STEPS_MAX {
                return Err(ApiError::invalid_param("An entry of `event_fields` is too deep"));
            }
            let mut node = &mut root;
            for step in steps {
                node = node.fields.entry(step).or_default();
            }
            node.whole = true;
        }
        Ok(Self(Some(root)))
    }

    /// The event with the wanted fields alone.
    pub fn pick(&self, event: Box<RawValue>) -> Result<Box<RawValue>, ApiError> {
        let Some(root) = &self.0 else { return Ok(event) };
        let fields: Map<String, Value> =
            serde_json::from_str(event.get()).map_err(ApiError::internal)?;
        serde_json::value::to_raw_value(&root.pick(fields)).map_err(ApiError::internal)
    }
}

impl Node {
    fn pick(&self, fields: Map<String, Value>) -> Map<String, Value> {
        let mut picked = Map::new();
        for (name, value) in fields {
            match (self.fields.get(&name), value) {
                (Some(node), value) if node.whole => drop(picked.insert(name, value)),
                (Some(node), Value::Object(fields)) => {
                    let part = node.pick(fields);
                    if !part.is_empty() {
                        picked.insert(name, Value::Object(part));
                    }
                }
                (Some(_) | None, _) => {}
            }
        }
        picked
    }
}

/// The names in a path. `\.` and `\\` stand for a dot and a backslash in a name; any other backslash
/// is one.
///
/// <https://spec.matrix.org/v1.19/appendices/#dot-separated-property-paths>
fn steps(path: &str) -> Vec<String> {
    let mut steps = vec![String::new()];
    let mut characters = path.chars().peekable();
    while let Some(character) = characters.next() {
        let step = steps.last_mut().expect("there is always a last step");
        match character {
            '\\' => {
                let escaped = characters.next_if(|next| matches!(next, '.' | '\\'));
                step.push(escaped.unwrap_or('\\'));
            }
            '.' => steps.push(String::new()),
            character => step.push(character),
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(paths: &[&str]) -> Result<Fields, ApiError> {
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        Fields::compile(Some(&paths))
    }

    #[test]
    fn paths_are_split_at_plain_dots() {
        for (path, expected) in [
            ("content.body", vec!["content", "body"]),
            (r"content.m\.relates_to.rel_type", vec!["content", "m.relates_to", "rel_type"]),
            (r"content.m\\foo", vec!["content", r"m\foo"]),
            (r"a\xb", vec![r"a\xb"]),
            (r"a\", vec![r"a\"]),
            (r"a\\.b", vec![r"a\", "b"]),
            ("", vec![""]),
            ("a..b", vec!["a", "", "b"]),
        ] {
            assert_eq!(steps(path), expected, "{path}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_left() {
        let event = json!({
            "type": "m.room.message",
            "content": { "body": "hi", "msgtype": "m.text", "m.x": { "a": 1, "b": 2 } },
            "sender": "@a:hs1",
        });
        for (paths, expected) in [
            (vec!["content.body"], json!({ "content": { "body": "hi" } })),
            (vec!["type", "content.nothing", "x"], json!({ "type": "m.room.message" })),
            (vec![r"content.m\.x.a"], json!({ "content": { "m.x": { "a": 1 } } })),
            (vec!["content.body.more"], json!({})),
            (vec!["content", "content.body"], json!({ "content": event["content"].clone() })),
            (vec![], event.clone()),
        ] {
            let raw = serde_json::value::to_raw_value(&event).unwrap();
            let picked = fields(&paths).unwrap().pick(raw).unwrap();
            let picked: Value = serde_json::from_str(picked.get()).unwrap();
            assert_eq!(picked, expected, "{paths:?}");
        }
    }

    #[test]
    fn t89_lists_and_paths_have_an_end() {
        let many = vec!["a"; PATHS_MAX + 1];
        let deep = vec!["a"; STEPS_MAX + 1].join(".");
        for paths in [&many[..], &[&deep]] {
            assert_eq!(fields(paths).unwrap_err().errcode, "M_INVALID_PARAM");
        }
    }
}
