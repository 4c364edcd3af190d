//! The nodes that tests ask: each says what is different about it, and the rest is here.

// Each test file uses a part of it.
#![allow(dead_code)]

use bytes::Bytes;
use chunkstore_block::{BlockId, Reference};
use dht::{BlockHandler, PeerId, PutRequest, Reached, Refusal, Status};
use std::net::SocketAddr;
use std::ops::Deref;

/// A node that has nothing and takes nothing, unless it says otherwise.
pub(crate) trait Holder: Send + Sync + 'static {
    fn get(&self, _id: BlockId) -> impl Future<Output = Result<Bytes, Refusal>> + Send {
        async { Err(Refusal::new(Status::NotFound, "no such block")) }
    }

    fn put(&self, _request: PutRequest) -> impl Future<Output = Result<(), Refusal>> + Send {
        async { Err(Refusal::new(Status::Full, "a test's node keeps nothing")) }
    }

    /// Whether it says that it has a block.
    fn has(&self, _id: &BlockId) -> bool {
        false
    }

    fn reach(&self, _from: PeerId, _at: SocketAddr) -> impl Future<Output = Result<Reached, Refusal>> + Send {
        async { Err(Refusal::new(Status::Unsupported, "not in this test")) }
    }
}

/// Has and takes nothing.
pub(crate) struct Empty;

impl Holder for Empty {}

/// What the block plane asks.
pub(crate) struct Asked<H>(pub(crate) H);

impl<H> Deref for Asked<H> {
    type Target = H;
    fn deref(&self) -> &H {
        &self.0
    }
}

impl<H: Holder> BlockHandler for Asked<H> {
    async fn get(&self, id: BlockId) -> Result<Bytes, Refusal> {
        self.0.get(id).await
    }

    async fn put(&self, _from: PeerId, request: PutRequest) -> Result<(), Refusal> {
        self.0.put(request).await
    }

    async fn add_references(
        &self,
        _from: PeerId,
        ids: Vec<BlockId>,
        _references: Vec<Reference>,
        _authority: String,
    ) -> Result<Vec<bool>, Refusal> {
        BlockHandler::has(self, ids).await
    }

    async fn has(&self, ids: Vec<BlockId>) -> Result<Vec<bool>, Refusal> {
        Ok(ids.iter().map(|id| self.0.has(id)).collect())
    }

    async fn reach(&self, from: PeerId, at: SocketAddr) -> Result<Reached, Refusal> {
        self.0.reach(from, at).await
    }
}
