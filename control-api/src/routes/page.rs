//! The operator's page: read-only, one document, in the browser (`docs/api.md` §3).

use std::sync::LazyLock;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use data_encoding::BASE64;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("../page/operator.html");

/// Only the page's own style and script, by their hashes, and questions to this listener.
static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let hash = |tag| Some(format!("'sha256-{}'", BASE64.encode(&Sha256::digest(between(tag)?))));
    let (style, script) = (hash("style")?, hash("script")?);
    let policy = format!(
        "default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).ok()
});

fn between(tag: &str) -> Option<&'static str> {
    PAGE.split_once(&format!("<{tag}>"))?.1.split_once(&format!("</{tag}>")).map(|(inner, _)| inner)
}

pub(super) async fn operator() -> Response {
    const SAME_ORIGIN: HeaderValue = HeaderValue::from_static("same-origin");
    let mut response = Html(PAGE).into_response();
    let headers = response.headers_mut();
    if let Some(policy) = &*POLICY {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), SAME_ORIGIN);
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), SAME_ORIGIN);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_the_hashes_of_style_and_script() {
        let policy = POLICY.as_ref().unwrap().to_str().unwrap();
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
        assert!(between("script").unwrap().contains("\"use strict\""));
        // Nothing is fetched from elsewhere, and nothing is made of text that somebody else chose.
        assert!(!PAGE.contains("http://") && !PAGE.contains("https://") && !PAGE.contains("innerHTML"));
    }
}
