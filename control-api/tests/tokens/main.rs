//! Tokens and receipts over real sockets, and what docs/security.md says of them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

mod document;
mod limits;
mod receipts;
mod rotation;
#[path = "../support/mod.rs"]
mod support;
