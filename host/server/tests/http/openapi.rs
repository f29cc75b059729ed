//! The description says what is served, and nothing else.

use std::collections::BTreeSet;

use formwork_server::http::{problem::Code, route_list};
use serde_json::Value;

use crate::support::start;

#[tokio::test]
async fn every_route_is_described_and_every_description_is_a_route() {
    let server = start("").await;
    let document = server.get("/openapi.json").await.body;
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, operations)| {
            operations
                .as_object()
                .unwrap()
                .keys()
                .map(move |method| (path.clone(), method.clone()))
        })
        .collect();
    let routed: BTreeSet<(String, String)> = route_list()
        .into_iter()
        .flat_map(|(path, methods)| {
            methods
                .iter()
                .map(move |method| (path.to_owned(), (*method).to_owned()))
        })
        .collect();
    assert_eq!(described, routed);
    // The list of methods is written beside the handlers: hold it against the router itself.
    for (path, methods) in route_list() {
        let path = path.replace(['{', '}'], "");
        let answer = crate::support::read(server.request(reqwest::Method::TRACE, &path)).await;
        answer.problem(405, "method-not-allowed");
        let allowed = answer.header("allow").to_lowercase();
        let allowed: BTreeSet<&str> = allowed.split(',').filter(|method| *method != "head").collect();
        assert_eq!(allowed, methods.iter().copied().collect(), "{path}");
    }
}

#[tokio::test]
async fn references_lead_somewhere_and_problems_have_their_media_type() {
    let server = start("").await;
    let document = server.get("/openapi.json").await.body;
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let refused = &document["paths"]["/v1/forms/{form}"]["put"]["responses"]["422"]["content"];
    assert!(refused["application/problem+json"].is_object(), "{refused:#}");
    for operation in document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
    {
        assert!(operation["responses"]["default"].is_object(), "{operation:#}");
    }
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_code_has_a_page() {
    let server = start("").await;
    for code in Code::ALL {
        let page = server.get(&format!("/problems/{}", code.as_str())).await.body;
        assert_eq!(page["status"], code.status().as_u16());
        assert!(
            page["meaning"].as_str().is_some_and(|meaning| meaning.ends_with('.')),
            "{page:#}"
        );
    }
}
