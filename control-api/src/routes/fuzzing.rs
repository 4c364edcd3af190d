//! Headers of a fuzzer.

use axum::http::{HeaderMap, HeaderValue, Method, header};

use chunkstore_block::PublicationId;

use super::range::{Selection, select};
use super::tus;
use crate::tus::{Creation, MAX_METADATA_BYTES, MAX_PARTS};

/// A part lies inside the body and is not empty.
pub fn range(range: Option<&[u8]>, conditions: [Option<&[u8]>; 3], etag: &str, size: u64) {
    let mut headers = HeaderMap::new();
    let names = [header::RANGE, header::IF_RANGE, header::IF_NONE_MATCH, header::IF_MATCH];
    for (name, value) in names.into_iter().zip([range].into_iter().chain(conditions)) {
        if let Some(value) = value.and_then(|bytes| HeaderValue::from_bytes(bytes).ok()) {
            headers.insert(name, value);
        }
    }
    match select(&Method::GET, &headers, etag, size) {
        Selection::Part { start, end } => {
            assert!(start < end && end <= size, "{start}..{end} of {size}");
            assert!(headers.contains_key(header::RANGE), "a part that was not asked for");
        }
        Selection::Unsatisfiable => assert!(headers.contains_key(header::RANGE)),
        Selection::Failed => assert!(headers.contains_key(header::IF_MATCH)),
        Selection::NotModified => assert!(headers.contains_key(header::IF_NONE_MATCH)),
        Selection::Whole => {}
    }
    let part = |method| matches!(select(&method, &headers, etag, size), Selection::Part { .. });
    assert!(!part(Method::HEAD), "only GET has ranges");
}

/// Only `Bearer` and 43 characters are a token; white space around a value is no part of it (RFC 9110 §5.5).
pub fn bearer(value: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.clone())]);
    if let Ok(token) = super::uploads::bearer(&headers) {
        let text = value.to_str().unwrap_or_default().trim().to_ascii_lowercase();
        assert!(text.starts_with("bearer ") && text.ends_with(&token.expose().to_ascii_lowercase()));
        assert_eq!(token.expose().len(), 43);
    }
}

/// What resumable uploads take of a header is within their bounds. `@u` stands for the URL of the upload, which a fuzzer does not find.
pub fn upload_headers(value: &[u8]) {
    let publication = PublicationId::from_bytes([1; 16]);
    let text = String::from_utf8_lossy(value).replace("@u", &format!("/v1/uploads/{publication}"));
    let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) else { return };
    let with = |name| HeaderMap::from_iter([(name, value.clone()), (tus::UPLOAD_LENGTH, HeaderValue::from(1_u64))]);
    if let Ok(number) = tus::number(&with(tus::UPLOAD_OFFSET), &tus::UPLOAD_OFFSET) {
        assert_eq!(text.trim_start_matches('0'), number.to_string().trim_start_matches('0'));
    }
    if let Ok(metadata) = tus::metadata(&with(tus::UPLOAD_METADATA)) {
        assert!(metadata == text && metadata.len() <= MAX_METADATA_BYTES);
    }
    if let Ok(Creation::Final { parts }) = tus::creation(&with(tus::UPLOAD_CONCAT), publication) {
        let distinct: std::collections::BTreeSet<_> = parts.iter().collect();
        assert!((1..=MAX_PARTS).contains(&parts.len()) && distinct.len() == parts.len() && !parts.contains(&0));
    }
    // They end, whatever they find.
    let _ = (tus::checksum(&with(tus::UPLOAD_CHECKSUM)), tus::overriding(&with(tus::METHOD_OVERRIDE)));
}
