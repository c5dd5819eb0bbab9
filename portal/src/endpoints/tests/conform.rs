//! Whether a JSON value is what a schema of the document says: as much of JSON Schema 2020-12 as the document uses, and a
//! keyword that is not understood is a finding. Objects are closed: a property that no schema names is a finding too, so that
//! nothing is answered that is not described.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

/// Keywords that say nothing about which values are right.
const ANNOTATIONS: [&str; 8] = [
    "description",
    "title",
    "example",
    "examples",
    "default",
    "format",
    "deprecated",
    "x-roles",
];

/// What is wrong with a value, by where; empty where it is what the schema says.
pub(super) fn violations(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut check = Check {
        document,
        found: Vec::new(),
    };
    check.whole(schema, value, "$");
    check.found
}

struct Check<'a> {
    document: &'a Value,
    found: Vec<String>,
}

/// Properties that were named by what applied to an object; `None` where any may be there.
type Named = Option<BTreeSet<String>>;

fn union(a: Named, b: Named) -> Named {
    let (mut a, b) = (a?, b?);
    a.extend(b);
    Some(a)
}

impl Check<'_> {
    fn wrong(&mut self, at: &str, why: impl std::fmt::Display) {
        self.found.push(format!("{at}: {why}"));
    }

    /// A value with all that applies to it, so that properties which nothing names are found.
    fn whole(&mut self, schema: &Value, value: &Value, at: &str) {
        let named = self.apply(schema, value, at);
        if let (Some(object), Some(named)) = (value.as_object(), named) {
            for name in object.keys().filter(|name| !named.contains(*name)) {
                self.wrong(at, format_args!("{name} is answered and not described"));
            }
        }
    }

    fn apply(&mut self, schema: &Value, value: &Value, at: &str) -> Named {
        if *schema == Value::Bool(true) {
            return None;
        }
        let Some(keywords) = schema.as_object() else {
            self.wrong(at, format_args!("{schema} is no schema"));
            return None;
        };
        let describes_objects = keywords.contains_key("properties") || keywords.contains_key("required");
        let is_composed = ["$ref", "allOf", "oneOf", "anyOf"]
            .iter()
            .any(|keyword| keywords.contains_key(*keyword));
        // `{"type": "object"}` alone is any object.
        let mut named: Named =
            (describes_objects || is_composed || keywords.contains_key("additionalProperties")).then(BTreeSet::new);
        for (keyword, said) in keywords {
            match keyword.as_str() {
                "$ref" => {
                    let target = said.as_str().and_then(|text| text.strip_prefix('#'));
                    let document = self.document;
                    match target.and_then(|pointer| document.pointer(pointer)) {
                        Some(target) => named = union(named, self.apply(target, value, at)),
                        None => self.wrong(at, format_args!("{said} leads nowhere")),
                    }
                }
                "allOf" => {
                    for part in said.as_array().into_iter().flatten() {
                        named = union(named, self.apply(part, value, at));
                    }
                }
                "oneOf" | "anyOf" => named = union(named, self.one_of(said, value, at)),
                "type" => self.has_type(said, value, at),
                "enum" => {
                    if !said.as_array().is_some_and(|values| values.contains(value)) {
                        self.wrong(at, format_args!("{value} is none of {said}"));
                    }
                }
                "const" => {
                    if said != value {
                        self.wrong(at, format_args!("{value} is not {said}"));
                    }
                }
                "properties" => named = union(named, self.properties(said, value, at)),
                "required" => {
                    for name in said.as_array().into_iter().flatten().filter_map(Value::as_str) {
                        if value.is_object() && value.get(name).is_none() {
                            self.wrong(at, format_args!("{name} is missing"));
                        }
                    }
                }
                "additionalProperties" => {
                    if *said != Value::Bool(false) {
                        self.additional(said, keywords.get("properties"), value, at);
                        named = None;
                    }
                }
                "propertyNames" => {}
                "items" => {
                    let first = keywords
                        .get("prefixItems")
                        .and_then(Value::as_array)
                        .map_or(0, Vec::len);
                    for (index, item) in value.as_array().into_iter().flatten().enumerate().skip(first) {
                        match said {
                            Value::Bool(false) => self.wrong(at, "has more items than described"),
                            schema => self.whole(schema, item, &format!("{at}[{index}]")),
                        }
                    }
                }
                "prefixItems" => {
                    let parts = said.as_array().into_iter().flatten();
                    let items = value.as_array().into_iter().flatten();
                    for (index, (part, item)) in parts.zip(items).enumerate() {
                        self.whole(part, item, &format!("{at}[{index}]"));
                    }
                }
                "minItems" | "maxItems" => {
                    let (count, limit) = (value.as_array().map(Vec::len), said.as_u64());
                    if let (Some(count), Some(limit)) = (count.map(|count| count as u64), limit) {
                        let fits = if keyword == "minItems" {
                            count >= limit
                        } else {
                            count <= limit
                        };
                        if !fits {
                            self.wrong(at, format_args!("{count} items, {keyword} {limit}"));
                        }
                    }
                }
                "minimum" => {
                    if let (Some(number), Some(least)) = (value.as_f64(), said.as_f64())
                        && number < least
                    {
                        self.wrong(at, format_args!("{value} is less than {said}"));
                    }
                }
                "pattern" => {
                    let pattern = Regex::new(said.as_str().unwrap()).unwrap();
                    if value.as_str().is_some_and(|text| !pattern.is_match(text)) {
                        self.wrong(at, format_args!("{value} does not match {said}"));
                    }
                }
                keyword if ANNOTATIONS.contains(&keyword) => {}
                keyword => self.wrong(
                    at,
                    format_args!("the keyword {keyword} is not understood by this check"),
                ),
            }
        }
        named
    }

    fn one_of(&mut self, choices: &Value, value: &Value, at: &str) -> Named {
        let mut fits = Vec::new();
        let mut why = Vec::new();
        for choice in choices.as_array().into_iter().flatten() {
            let mut check = Check {
                document: self.document,
                found: Vec::new(),
            };
            let named = check.apply(choice, value, at);
            match check.found.is_empty() {
                true => fits.push(named),
                false => why.extend(check.found),
            }
        }
        match fits.len() {
            1 => return fits.pop().flatten(),
            0 => self.wrong(at, format_args!("fits no choice: {why:?}")),
            count => self.wrong(at, format_args!("fits {count} choices")),
        }
        None
    }

    fn has_type(&mut self, said: &Value, value: &Value, at: &str) {
        let is = |name: &str| match name {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            _ => false,
        };
        let fits = match said {
            Value::String(name) => is(name),
            Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
            _ => false,
        };
        if !fits {
            self.wrong(at, format_args!("{value} is no {said}"));
        }
    }

    fn properties(&mut self, said: &Value, value: &Value, at: &str) -> Named {
        let properties = said.as_object()?;
        for (name, schema) in properties {
            if let Some(value) = value.get(name) {
                self.whole(schema, value, &format!("{at}.{name}"));
            }
        }
        Some(properties.keys().cloned().collect())
    }

    /// The schema of properties that are not named.
    fn additional(&mut self, said: &Value, named: Option<&Value>, value: &Value, at: &str) {
        if *said == Value::Bool(true) {
            return;
        }
        for (name, value) in value.as_object().into_iter().flatten() {
            if named.is_none_or(|named| named.get(name).is_none()) {
                self.whole(said, value, &format!("{at}.{name}"));
            }
        }
    }
}

#[test]
fn what_differs_from_a_schema_is_found() {
    use serde_json::json;

    let document = json!({"components": {"schemas": {
        "Id": {"type": "string", "pattern": "^inv_[1-9][0-9]*$"},
        "Base": {"type": "object", "required": ["id"], "properties": {"id": {"$ref": "#/components/schemas/Id"}}},
    }}});
    let schema = json!({"allOf": [
        {"$ref": "#/components/schemas/Base"},
        {"type": "object", "required": ["kind"], "properties": {
            "kind": {"type": "string", "enum": ["a"]},
            "note": {"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/Base"}]},
            "counts": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        }},
    ]});
    let found = |value: Value| violations(&document, &schema, &value);
    assert_eq!(
        found(json!({"id": "inv_7", "kind": "a", "note": null, "counts": [0, 1]})),
        [""; 0]
    );
    assert_eq!(
        found(json!({"id": "inv_7", "kind": "a", "note": {"id": "inv_8"}})),
        [""; 0]
    );
    for (value, why) in [
        (json!({"kind": "a"}), "id is missing"),
        (json!({"id": "inv_x", "kind": "a"}), "does not match"),
        (json!({"id": "inv_7", "kind": "b"}), "is none of"),
        (
            json!({"id": "inv_7", "kind": "a", "more": 1}),
            "more is answered and not described",
        ),
        (json!({"id": "inv_7", "kind": "a", "counts": [-1]}), "is less than"),
        (json!({"id": "inv_7", "kind": "a", "counts": [1.5]}), "is no"),
        (json!({"id": "inv_7", "kind": "a", "note": 7}), "fits no choice"),
        (json!([]), "is no"),
    ] {
        let found = found(value.clone());
        assert!(found.iter().any(|found| found.contains(why)), "{value}: {found:?}");
    }
}
