//! What a request on the delivery listener asks for beside its path.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};

use super::range::{Selection, select};
use crate::serve::Connection;

/// Method, headers and connection of a request. It takes the headers rather than copy them: no extractor of them may come later.
pub(super) struct Asked {
    pub(super) method: Method,
    headers: HeaderMap,
    /// None where a router is asked without a listener.
    pub(super) connection: Option<Connection>,
}

impl Asked {
    /// What of a body of `size` bytes with this strong `etag` is to be sent.
    pub(super) fn select(&self, etag: &str, size: u64) -> Selection {
        select(&self.method, &self.headers, etag, size)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let connection = parts.extensions.get::<Connection>().cloned();
        Ok(Self { method: parts.method.clone(), headers: std::mem::take(&mut parts.headers), connection })
    }
}
