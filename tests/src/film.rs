//! Films of random bytes, and a viewer of them, without a platform's process.

use crate::member::Member;
use crate::stage::Node;
use bytes::Bytes;
use chunkstore_block::{BlockId, ContentKey, IndexBuilder, Limits, encode};
use control_api::{RequestClaims, TemporaryUrl, TokenRequest, UserKey};
use dht::PeerAddress;
use std::time::{SystemTime, UNIX_EPOCH};

/// Somebody with a key, for whom a platform asks for tokens.
pub struct Viewer(UserKey);

impl Member {
    /// Puts files, each of these blocks, as a content on the R closest of `nodes`.
    pub async fn publish(&self, nodes: &[PeerAddress], publication: u8, files: &[(String, Vec<Bytes>)]) -> ContentKey {
        let mut builder = IndexBuilder::new();
        for (path, blocks) in files {
            let push = |block: &Bytes| builder.push_fragment(BlockId::of(block), block.len() as u32).unwrap();
            let orders: Vec<_> = blocks.iter().map(push).collect();
            builder.add_file(path, "video/mp4", orders).unwrap();
        }
        let encoded = encode(&builder.finish([0; 32], 1, vec![]).unwrap(), &Limits::default()).unwrap();
        let key = ContentKey::from(BlockId::of(&encoded.root.bytes));
        let index = encoded.pages.into_iter().chain([encoded.root]).map(|page| Bytes::from(page.bytes));
        let bodies: Vec<_> = files.iter().flat_map(|(_, blocks)| blocks.iter().cloned()).chain(index).collect();
        let count = bodies.len();
        assert_eq!(self.put_bodies(nodes, publication, bodies, 8).await.len(), count, "not all blocks were taken");
        key
    }
}

impl Viewer {
    /// One with a new key.
    pub fn new() -> Self {
        Self(UserKey::generate().unwrap())
    }

    /// The request of `member`'s platform for a token of a node, signed.
    pub fn request(&self, member: &Member, node: &Node, content: ContentKey) -> String {
        let claims = RequestClaims {
            node: node.address.id.to_base58().parse().unwrap(),
            network: member.network,
            viewer_key: self.0.jwk().unwrap(),
            request: TokenRequest::playback(content),
            issued: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
            lifetime: 30,
        };
        member.platform.sign_request(&claims).unwrap()
    }

    /// A temporary URL of a node that pins `member`'s platform.
    pub async fn temporary_url(&self, member: &Member, node: &Node, content: ContentKey) -> TemporaryUrl {
        let answer = node.client.request_playback(&self.request(member, node, content)).await.unwrap();
        TemporaryUrl::new(&answer.temporary_url, &self.0.decrypt(&answer.encrypted_token).unwrap()).unwrap()
    }
}

impl Default for Viewer {
    fn default() -> Self {
        Self::new()
    }
}
