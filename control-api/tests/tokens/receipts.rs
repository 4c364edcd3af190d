//! How a platform asks for receipts and says that it has them.

use crate::support::serve;
use chunkstore_block::ContentKey;
use control_api::{Acknowledgement, ClientError, ErrorKind, TokenRequest};

fn kind(error: ClientError) -> ErrorKind {
    error.problem().unwrap().kind
}

#[tokio::test]
async fn receipts_are_asked_for_and_acknowledged_in_form() {
    let served = serve().await;
    let platform = served.platform.fingerprint();
    let none = served.client.receipts(platform, None, 0, 500).await.unwrap();
    assert_eq!((none.log, none.receipts.len(), none.more), (None, 0, false));
    let log = "0".repeat(32);
    for (log, limit) in [(log.as_str(), 0), (log.as_str(), 501), ("x", 1), ("G", 1)] {
        assert_eq!(kind(served.client.receipts(platform, Some(log), 3, limit).await.unwrap_err()), ErrorKind::Invalid);
    }
    for query in ["", "platform=xyz", &format!("platform={platform}&after=-1")] {
        let answer = reqwest::get(format!("{}/v1/receipts?{query}", served.control)).await.unwrap();
        assert_eq!(answer.status().as_u16(), 400, "{query}");
    }

    let said = Acknowledgement { log: "0".repeat(32), through: 7 };
    let claims = served.claims(TokenRequest::Acknowledge(said.clone()));
    let jws = served.platform.sign_request(&claims).unwrap();
    served.client.acknowledge_receipts(&jws).await.unwrap();
    assert_eq!(*served.backend.0.acknowledged.lock().unwrap(), [said]);
    assert_eq!(kind(served.client.acknowledge_receipts(&jws).await.unwrap_err()), ErrorKind::RequestReplayed);
    assert_eq!(served.refusal(&claims).await, ErrorKind::MalformedRequest, "it asks for no token");
    let revoke = served.claims(TokenRequest::Revoke { content: ContentKey::from_bytes([1; 32]) });
    let revoke = served.platform.sign_request(&revoke).unwrap();
    assert_eq!(kind(served.client.acknowledge_receipts(&revoke).await.unwrap_err()), ErrorKind::MalformedRequest);
    assert_eq!(served.backend.0.acknowledged.lock().unwrap().len(), 1);
}
