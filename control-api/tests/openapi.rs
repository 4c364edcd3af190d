//! The OpenAPI document is the one in docs/, and says what the listeners serve.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use control_api::{PROBLEM_MEDIA_TYPE, openapi_document};
use reqwest::{Client, Method, Response};
use serde_json::Value;
use support::{Backend, serve};

const METHODS: [&str; 7] = ["get", "head", "put", "post", "delete", "patch", "options"];

/// An operation of the document: path, method, and what is said of it.
type Operation<'a> = (&'a str, &'a str, &'a Value);

fn document() -> Value {
    serde_json::from_str(&openapi_document::<Backend>().unwrap()).unwrap()
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            METHODS
                .iter()
                .filter_map(move |method| item.get(*method).map(|operation| (path.as_str(), *method, operation)))
        })
        .collect()
}

async fn get_json(url: &str) -> Value {
    reqwest::get(url).await.unwrap().error_for_status().unwrap().json().await.unwrap()
}

#[test]
fn the_document_is_the_one_in_docs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let now = openapi_document::<Backend>().unwrap() + "\n";
    if std::env::var_os("IMIRA_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let then = std::fs::read_to_string(&path).unwrap();
    assert!(
        then == now,
        "docs/openapi.json is not what the listeners serve. If the change is meant: \
         IMIRA_WRITE_OPENAPI=1 cargo test -p control-api --test openapi, and look at the difference."
    );
}

#[test]
fn every_operation_says_what_it_takes_and_answers() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let name = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{name}: the id is another's, too");
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{name}");
        let named: BTreeSet<_> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let in_path: BTreeSet<_> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(named, in_path, "{name}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{name} never succeeds");
        // Readiness has a shape of its own, also when the answer is no.
        let is_refusal = |status: &str| status >= "400" && method != "head" && path != "/readyz";
        for (status, response) in responses.iter().filter(|(status, _)| is_refusal(status)) {
            let types = &response["content"][PROBLEM_MEDIA_TYPE]["schema"]["allOf"][1]["properties"]["type"]["enum"];
            assert!(types.as_array().is_some_and(|types| !types.is_empty()), "{name}: {status} is no problem");
        }
    }
    assert!(ids.len() > 20, "{ids:?}");
}

/// Every reference leads somewhere, and every shape is used.
#[test]
fn the_schemas_are_those_that_are_named() {
    let document = document();
    let text = document.to_string();
    let there: BTreeSet<_> = document["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
    let named: BTreeSet<_> = text
        .split("\"#/components/schemas/")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .chain(["WorkLine".to_owned()]) // of lines in a stream: named in words
        .collect();
    assert_eq!(there, named);
}

/// Each listener serves its own part, and the two parts are the whole.
#[tokio::test]
async fn each_listener_serves_its_own_paths() {
    let served = serve().await;
    let whole = document();
    let mut served_paths = BTreeMap::new();
    for (listener, url) in [("control", &served.control), ("delivery", &served.delivery)] {
        let part = get_json(&format!("{url}/openapi.json")).await;
        for (path, method, operation) in operations(&part) {
            assert_eq!(operation["tags"], serde_json::json!([listener]));
            served_paths.entry((path.to_owned(), method.to_owned())).or_insert_with(Vec::new).push(listener.to_owned());
        }
    }
    let tagged: BTreeMap<_, Vec<String>> = operations(&whole)
        .into_iter()
        .map(|(path, method, operation)| {
            let tags = operation["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned());
            ((path.to_owned(), method.to_owned()), tags.collect())
        })
        .collect();
    assert_eq!(served_paths, tagged);
}

/// What is in the document is served, and what is not is refused with the methods that are.
#[tokio::test]
async fn the_methods_of_a_path_are_those_of_the_document() {
    let served = serve().await;
    for (base, own) in [(&served.control, "control"), (&served.delivery, "delivery")] {
        let part = get_json(&format!("{base}/openapi.json")).await;
        let mut methods = BTreeMap::<&str, BTreeSet<&str>>::new();
        for (path, method, _) in operations(&part) {
            methods.entry(path).or_default().insert(method);
        }
        for (path, there) in methods {
            for method in METHODS {
                // The CORS layer answers OPTIONS; HEAD goes with GET.
                if method == "options" || (method == "head" && there.contains("get")) {
                    continue;
                }
                let response = ask(base, path, method).await;
                let (status, allow) = (response.status(), response.headers().get("allow").cloned());
                let body = response.text().await.unwrap();
                let no_such_path = body.contains("This listener has no such path");
                assert!(!no_such_path, "{own}: {method} {path} is not served");
                assert_eq!(status == 405, !there.contains(method), "{own}: {method} {path}: {status}");
                if status == 405 {
                    assert!(allow.is_some(), "{own}: {method} {path} does not say what is allowed");
                    assert!(body.is_empty() == (method == "head"), "{own}: {method} {path}: {body}");
                }
            }
        }
    }
}

async fn ask(base: &str, path: &str, method: &str) -> Response {
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    // A name in braces does as well as any other: what is refused then is the value, not the path.
    Client::new().request(method, format!("{base}{path}")).send().await.unwrap()
}
