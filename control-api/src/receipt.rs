//! Receipts (`docs/receipts.md`): a node's signed word of what it sent under a token.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use chunkstore_block::{ContentKey, NetworkId, PlatformFingerprint, PublicationId};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::jws::{self, Jws, JwsError};
use crate::meter::Stretch;
use crate::types::NodeId;

/// The most bytes of a receipt.
pub const MAX_RECEIPT_BYTES: usize = 4_096;

/// `prev` of the first receipt of a log.
pub const NO_RECEIPT: [u8; 32] = [0; 32];

/// Whether a text can name a log: 32 lowercase hex digits.
pub fn is_log_name(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) const RECEIPT_TYPE: &str = "imira-receipt";
pub(crate) const ALGORITHM: &str = "EdDSA";

/// How a `PeerId` of an Ed25519 key begins: the identity multihash of 36 bytes, which are the key as libp2p's protobuf.
pub(crate) const ED25519_PEER: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Why a receipt is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// No compact JWS of this kind, or its claims are not those.
    #[error("it is no receipt: {0}")]
    Form(String),
    /// It names another node than the one that gave it.
    #[error("it names another node")]
    OtherNode,
    /// The node's id is not one of an Ed25519 key.
    #[error("the node's id holds no Ed25519 key, so nothing of it can be checked")]
    NoKey,
    /// The signature.
    #[error("its signature is not the node's")]
    BadSignature,
    /// The claims could not be written.
    #[error("the receipt could not be written as JSON; this is a defect of the node")]
    Encoding,
}

/// Where a receipt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position<'a> {
    /// The log, 32 hex digits.
    pub log: &'a str,
    /// The number in it, from 1.
    pub sequence: u64,
    /// SHA-256 of the text before it, or [`NO_RECEIPT`].
    pub previous: [u8; 32],
}

/// The claims of a receipt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The node.
    #[serde(rename = "iss")]
    pub node: NodeId,
    /// Its network.
    #[serde(rename = "net")]
    pub network: NetworkId,
    /// The platform that asked for the token.
    #[serde(rename = "plat")]
    pub platform: PlatformFingerprint,
    /// The log, 32 hex digits.
    pub log: String,
    /// The number in the log.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// SHA-256 of the text of the receipt before, in hex.
    #[serde(rename = "prev")]
    pub previous: String,
    /// `playback` or `preview`.
    #[serde(rename = "act")]
    pub action: String,
    /// SHA-256 of the token, in hex.
    #[serde(rename = "tok")]
    pub token: String,
    /// What was served.
    pub content: ContentKey,
    /// Of which publication, if it is known.
    #[serde(rename = "pub", default, skip_serializing_if = "Option::is_none")]
    pub publication: Option<PublicationId>,
    /// When the token was issued.
    #[serde(rename = "iat", default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<u64>,
    /// When the first of the bytes went out, seconds since 1970.
    pub from: u64,
    /// When the last did.
    pub to: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    /// How long they play.
    #[serde(rename = "ms")]
    pub played_ms: u64,
    /// Whether the beginning of the film is among them, for the first time under this token.
    pub start: bool,
    /// Thumbprint of the viewer's key, in hex.
    #[serde(rename = "jkt", default, skip_serializing_if = "Option::is_none")]
    pub viewer: Option<String>,
    /// Room for the viewer's own word.
    #[serde(rename = "vsig", default, skip_serializing_if = "Option::is_none")]
    pub viewer_signature: Option<String>,
}

impl Receipt {
    /// What `node` says of a stretch, in its place in the log.
    pub fn new(node: NodeId, network: NetworkId, stretch: &Stretch, position: Position<'_>) -> Self {
        Self {
            node,
            network,
            platform: stretch.platform,
            log: position.log.to_owned(),
            sequence: position.sequence,
            previous: HEXLOWER.encode(&position.previous),
            action: if stretch.preview { "preview" } else { "playback" }.to_owned(),
            token: HEXLOWER.encode(&stretch.token),
            content: stretch.content,
            publication: stretch.publication,
            issued: stretch.issued,
            from: stretch.begun,
            to: stretch.ended,
            bytes: stretch.bytes,
            played_ms: stretch.played_ms.round() as u64,
            start: stretch.start,
            viewer: stretch.viewer.map(|thumbprint| HEXLOWER.encode(&thumbprint)),
            viewer_signature: None,
        }
    }

    /// The receipt as text. `sign` is the node's key: Ed25519 over the bytes that it is given.
    pub fn signed<E>(&self, sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>) -> Result<Result<String, E>, ReceiptError> {
        let claims = serde_json::to_vec(self).map_err(|_| ReceiptError::Encoding)?;
        let input = jws::signing_input_with(ALGORITHM, RECEIPT_TYPE, self.node.as_str(), &claims);
        Ok(sign(input.as_bytes()).map(|signature| jws::compact(&input, &signature)))
    }

    /// Reads a receipt that `node` gave, and checks that the node signed it.
    pub fn verify(text: &str, node: &NodeId) -> Result<Self, ReceiptError> {
        let form = |error: JwsError| ReceiptError::Form(error.to_string());
        let parsed = Jws::parse_with(ALGORITHM, text, RECEIPT_TYPE, MAX_RECEIPT_BYTES).map_err(form)?;
        let receipt: Self = parsed.claims().map_err(form)?;
        if receipt.node != *node || parsed.key_id.as_deref() != Some(node.as_str()) {
            return Err(ReceiptError::OtherNode);
        }
        let key = UnparsedPublicKey::new(&ED25519, public_key(node).ok_or(ReceiptError::NoKey)?);
        key.verify(parsed.signed, &parsed.signature).map_err(|_| ReceiptError::BadSignature)?;
        Ok(receipt)
    }

    /// SHA-256 of a receipt's text, for `prev` of the next.
    pub fn hash(text: &str) -> [u8; 32] {
        Sha256::digest(text.as_bytes()).into()
    }
}

/// The Ed25519 key in a `PeerId`.
fn public_key(node: &NodeId) -> Option<[u8; 32]> {
    let bytes = bs58::decode(node.as_str()).into_vec().ok()?;
    bytes.strip_prefix(&ED25519_PEER)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    fn node(key: &Ed25519KeyPair) -> NodeId {
        bs58::encode([&ED25519_PEER, key.public_key().as_ref()].concat()).into_string().parse().unwrap()
    }

    fn receipt(key: &Ed25519KeyPair) -> Receipt {
        let stretch = Stretch {
            platform: PlatformFingerprint::from_bytes([1; 32]),
            token: [2; 32],
            content: ContentKey::from_bytes([3; 32]),
            publication: Some(PublicationId::from_bytes([4; 16])),
            preview: false,
            viewer: Some([5; 32]),
            issued: Some(100),
            begun: 101,
            ended: 109,
            bytes: 1_000,
            played_ms: 1_999.6,
            start: true,
        };
        let position = Position { log: "0123456789abcdef0123456789abcdef", sequence: 7, previous: [6; 32] };
        Receipt::new(node(key), NetworkId::from_bytes([9; 16]), &stretch, position)
    }

    fn signed(receipt: &Receipt, key: &Ed25519KeyPair) -> String {
        receipt.signed(|bytes| Ok::<_, ()>(key.sign(bytes).as_ref().to_vec())).unwrap().unwrap()
    }

    #[test]
    fn a_receipt_is_the_nodes_word_and_nobody_elses() {
        let (key, other) = (Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
        let receipt = receipt(&key);
        let text = signed(&receipt, &key);
        assert!(text.len() < 1_200, "{}", text.len());
        assert_eq!(Receipt::verify(&text, &node(&key)), Ok(receipt.clone()));
        assert_eq!(receipt.played_ms, 2_000);
        assert_eq!(Receipt::verify(&text, &node(&other)), Err(ReceiptError::OtherNode));
        assert_eq!(Receipt::verify(&signed(&receipt, &other), &node(&key)), Err(ReceiptError::BadSignature));
        let more = Receipt { bytes: 1_001, ..receipt };
        let (claims, _) = signed(&more, &key).rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let forged = format!("{claims}.{}", text.rsplit_once('.').unwrap().1);
        assert_eq!(Receipt::verify(&forged, &node(&key)), Err(ReceiptError::BadSignature));
        assert!(matches!(Receipt::verify("a.b.c", &node(&key)), Err(ReceiptError::Form(_))));
        let nameless: NodeId = "12D3KooWNode".parse().unwrap();
        let unsigned = Receipt { node: nameless.clone(), ..more };
        assert_eq!(Receipt::verify(&signed(&unsigned, &key), &nameless), Err(ReceiptError::NoKey));
    }
}
