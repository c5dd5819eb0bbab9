//! The description of the API: what the table says, nothing else, and what is really answered.

mod conform;

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::Value;
use utoipa::openapi::OpenApi;

use super::openapi::{DOCUMENT, operation_id, refusals};
use super::operation::Answered;
use super::parameters::{names_in, parameter};
use super::{Access, ENDPOINTS, Endpoint};
use crate::auth::Role;
use crate::testing::world::World;
use crate::testing::{Answer, Browser};
use conform::violations;

fn document() -> Value {
    serde_json::to_value(&*DOCUMENT).unwrap()
}

/// What the document says of an endpoint.
fn described<'a>(document: &'a Value, endpoint: &Endpoint) -> &'a Value {
    &document["paths"][endpoint.path][endpoint.method.to_ascii_lowercase()]
}

/// Every reference in it.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(target)) = object.get("$ref") {
                found.insert(target.clone());
            }
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// Reading leaves out a default of null.
fn without_null_defaults(mut value: Value) -> Value {
    match &mut value {
        Value::Object(object) => {
            object.retain(|name, value| name != "default" || !value.is_null());
            object
                .values_mut()
                .for_each(|value| *value = without_null_defaults(value.take()));
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|value| *value = without_null_defaults(value.take())),
        _ => {}
    }
    value
}

#[test]
fn the_document_is_openapi_with_every_endpoint_of_the_api_and_nothing_else() {
    let document = document();
    let read: OpenApi = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(
        serde_json::to_value(&read).unwrap(),
        without_null_defaults(document.clone()),
        "it is read as it was written"
    );
    assert_eq!(document["openapi"], "3.1.0");

    let mut in_table = BTreeSet::new();
    for endpoint in ENDPOINTS.iter() {
        assert_eq!(
            endpoint.operation.is_some(),
            endpoint.is_api(),
            "{} {}: an address of the API is documented, and a page is not",
            endpoint.method,
            endpoint.path
        );
        if endpoint.is_api() {
            in_table.insert((endpoint.path.to_owned(), endpoint.method.to_ascii_lowercase()));
        }
    }
    let mut in_document = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            in_document.insert((path.clone(), method.clone()));
        }
    }
    assert_eq!(in_document, in_table);
}

#[test]
fn every_operation_is_described_whole() {
    let document = document();
    let mut ids = BTreeSet::new();
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.is_api()) {
        let (what, said) = (endpoint.path, described(&document, endpoint));
        assert!(ids.insert(operation_id(endpoint)), "{what}: its id is another's");
        assert_eq!(said["operationId"], operation_id(endpoint), "{what}");
        for text in ["summary", "description"] {
            assert!(
                said[text].as_str().is_some_and(|text| text.len() > 10),
                "{what} has no {text}"
            );
        }
        let parameters = said["parameters"].as_array().cloned().unwrap_or_default();
        let in_path: Vec<&str> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(in_path, names_in(endpoint.path).collect::<Vec<_>>(), "{what}");
        for parameter in &parameters {
            let named = format!("{what} {}", parameter["name"]);
            assert!(parameter["description"].is_string(), "{named} has no description");
            assert!(parameter["schema"].is_object(), "{named} has no schema");
            assert_eq!(parameter["required"] == true, parameter["in"] == "path", "{named}");
        }
        let content = &said["responses"]["200"]["content"];
        let answer = match endpoint.operation.as_ref().unwrap().answer {
            Answered::Json(_) => &content["application/json"]["schema"]["$ref"],
            Answered::File(content_type) => &content[content_type]["schema"]["type"],
        };
        assert!(answer.is_string(), "{what} does not say what it answers");
        for (status, codes) in refusals(endpoint) {
            let refused = &said["responses"][status.to_string()];
            for code in codes {
                assert!(
                    refused["description"].as_str().is_some_and(|text| text.contains(code)),
                    "{what}: {status} {code}"
                );
            }
        }
        assert_eq!(
            said["x-roles"].as_array().map(Vec::len),
            Some(endpoint.access.roles().map_or(0, <[Role]>::len)),
            "{what}"
        );
    }
}

/// Every description and summary in it.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for name in ["description", "summary"] {
                found.extend(object.get(name).and_then(Value::as_str).map(str::to_owned));
            }
            object.values().for_each(|value| texts(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| texts(value, found)),
        _ => {}
    }
}

#[test]
fn no_description_names_things_of_the_program() {
    let mut said = Vec::new();
    texts(&document(), &mut said);
    assert!(said.len() > 100, "{}", said.len());
    for text in said {
        assert!(
            !text.contains("[`") && !text.contains("::"),
            "readers of the API do not know our types: {text:?}"
        );
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let document = document();
    let mut used = BTreeSet::new();
    references(&document, &mut used);
    let there: BTreeSet<String> = document["components"]["schemas"]
        .as_object()
        .unwrap()
        .keys()
        .map(|name| format!("#/components/schemas/{name}"))
        .collect();
    assert_eq!(used, there);
}

#[test]
fn every_parameter_of_a_path_has_its_line() {
    for endpoint in ENDPOINTS.iter() {
        for name in names_in(endpoint.path) {
            assert!(
                parameter(name).is_some(),
                "say in endpoints/parameters.rs what {{{name}}} of {} is, and whether it is one customer's",
                endpoint.path
            );
        }
    }
}

/// An endpoint's address, with things of ada.
fn address(endpoint: &Endpoint, world: &World) -> String {
    let mut address = endpoint.path.to_owned();
    for (name, id) in [
        ("{service}", world.transfer.to_string()),
        ("{subscription}", "sub_1".to_owned()),
        ("{invoice}", world.invoice_of_ada.to_string()),
        ("{line}", world.usage_line.to_string()),
        ("{customer}", world.ada.to_string()),
    ] {
        address = address.replace(name, &id);
    }
    address
}

/// What an answer says that its description does not, and the other way round.
fn misfits(document: &Value, endpoint: &Endpoint, answer: &Answer) -> Vec<String> {
    let media = answer.header("content-type");
    let schema = &described(document, endpoint)["responses"][answer.status.as_str()]["content"][media]["schema"];
    if schema.is_null() {
        return vec![format!("{} as {media:?} is not described", answer.status)];
    }
    let value = match media.ends_with("json") {
        true => answer.json(),
        // A file.
        false => Value::from(answer.body.as_str()),
    };
    violations(document, schema, &value)
}

/// Somebody of each role.
async fn visitors(world: &World) -> Vec<(Role, Browser)> {
    let mut visitors = Vec::new();
    for role in Role::ALL {
        let name = if role == Role::Customer { "ada" } else { role.name() };
        if role != Role::Customer {
            world.portal.user(name, role, None).await;
        }
        visitors.push((role, world.portal.signed_in(name).await));
    }
    visitors
}

#[tokio::test]
async fn what_is_answered_is_what_is_described() {
    let world = World::new().await;
    let document = document();
    let mut visitors = visitors(&world).await;
    let mut anonymous = world.portal.browser();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.is_api()) {
        let address = address(endpoint, &world);
        for (role, browser) in &mut visitors {
            let may = endpoint.access.roles().is_none_or(|roles| roles.contains(role));
            let answer = browser.get(&address).await;
            let expected = if may { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(answer.status, expected, "{role} {address}: {}", answer.body);
            // Of another standard.
            if may && endpoint.path.ends_with("/openapi.json") {
                assert_eq!(answer.json(), document);
            } else {
                let found = misfits(&document, endpoint, &answer);
                wrong.extend(found.into_iter().map(|found| format!("{role} {address}: {found}")));
            }
            checked += 1;
            if !may {
                let detail = answer.json()["detail"].to_string();
                assert!(!detail.contains("page"), "{role} {address}: {detail}");
                continue;
            }
            let nonsense = browser.get(&format!("{address}?nonsense=1")).await;
            assert_eq!(nonsense.status, StatusCode::BAD_REQUEST, "{address}");
            wrong.extend(misfits(&document, endpoint, &nonsense));
            if endpoint.path.contains('{') {
                // Of nobody, and no text at all: not there, in the same form as whatever else is not.
                for nobodys in [address.replace("_1", "_999999"), no_text(endpoint)] {
                    let answer = browser.get(&nobodys).await;
                    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{nobodys}: {}", answer.body);
                    wrong.extend(misfits(&document, endpoint, &answer));
                    assert_eq!(answer.json()["code"], "not_found");
                }
            }
        }
        if endpoint.access != Access::Public {
            let answer = anonymous.get(&address).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{address}");
            assert_eq!(answer.json()["detail"], "Send an API token or sign in.", "{address}");
            wrong.extend(misfits(&document, endpoint, &answer));
        }
    }
    assert!(checked > 100, "{checked}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// An address whose first parameter is no text.
fn no_text(endpoint: &Endpoint) -> String {
    let name = names_in(endpoint.path).next().unwrap();
    let mut path = endpoint.path.replace(&format!("{{{name}}}"), "%FF");
    for name in names_in(endpoint.path) {
        path = path.replace(&format!("{{{name}}}"), "x_1");
    }
    path
}
