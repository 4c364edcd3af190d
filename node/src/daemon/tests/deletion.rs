//! A deletion order at one node: what it ends, and what it keeps out.

use super::*;
use crate::uploads::{Staged, Staging};
use control_api::types::{DeletionResponse, DeletionsResponse};
use control_api::{DeletionClaims, DeletionOutcome, Phase, Problem};
use dht::PutRequest;
use serde::de::DeserializeOwned;

const SIZE: u64 = 1_000;

impl Alone {
    /// Shows the node an order to delete publication `number`.
    async fn delete(&self, number: u8, sequence: u64) -> DeletionOutcome {
        let claims = DeletionClaims {
            network: self.parts.network_id,
            publication: self.reference(number).publication,
            sequence,
            issued: self.parts.clock.unix_seconds(),
        };
        let order = self.platform.sign_deletion(&claims).unwrap();
        let request = Request::post("/v1/deletions").header("content-type", "application/jose");
        let answer: DeletionResponse = self.control(request.body(order.into()).unwrap()).await;
        assert_eq!((answer.publication, answer.sequence), (self.reference(number), sequence));
        answer.outcome
    }

    async fn control<T: DeserializeOwned>(&self, request: Request) -> T {
        let response = ask(control_router(Arc::clone(&self.state)), request).await;
        serde_json::from_slice(&axum::body::to_bytes(response.into_body(), 100_000).await.unwrap()).unwrap()
    }
}

fn has_room(_: u64, _: Staged) -> Result<(), Problem> {
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_is_refused_to_uploaders_and_to_other_nodes() {
    let alone = Alone::start().await;
    assert_eq!(alone.delete(1, 5).await, DeletionOutcome::Applied);
    assert_eq!(alone.delete(1, 5).await, DeletionOutcome::Known);
    let refused = Backend(Arc::clone(&alone.node)).register_upload(alone.upload(1, SIZE)).await.unwrap_err();
    assert_eq!((refused.kind, refused.status), (ErrorKind::Deleted, 410));
    let body = block(1, 1_000);
    let put = |number| PutRequest {
        id: BlockId::of(&body),
        references: vec![alone.reference(number)],
        authority: alone.authority(number),
        body: body.clone(),
    };
    let peer = alone.parts.node_id.as_str().parse().unwrap();
    assert_eq!(alone.parts.holder.put(peer, put(1)).await.unwrap_err().status, Status::Refused);
    // The same bytes for another publication are another matter.
    alone.parts.holder.put(peer, put(2)).await.unwrap();

    let listed = Request::get(format!("/v1/deletions?platform={}", alone.platform.fingerprint()));
    let listed: DeletionsResponse = alone.control(listed.body(Body::empty()).unwrap()).await;
    let [entry] = listed.deletions.as_slice() else { panic!("{listed:?}") };
    assert_eq!((entry.publication, entry.sequence), (alone.reference(1).publication, 5));
    let verifier = control_api::DeletionVerifier::new(alone.parts.keys.clone(), alone.parts.network_id);
    assert_eq!(verifier.verify(&entry.order).unwrap().publication, alone.reference(1), "word for word");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_waits_or_is_ready_ends_with_its_publication() {
    let alone = Alone::start().await;
    let uploads = &alone.node.uploads;
    for number in [1, 2, 3] {
        uploads.register(alone.upload(number, SIZE)).unwrap();
    }
    let get = |number| uploads.get(alone.reference(number).publication).unwrap();
    let files = tempfile::tempdir().unwrap();
    get(2).finish((ContentKey::from_bytes([9; 32]), 1, 1), Staging::of(files.path().to_owned())).await;
    for number in [1, 2] {
        alone.delete(number, number.into()).await;
        let status = get(number).status.borrow().clone();
        assert_eq!((status.phase, status.content_key), (Phase::Rejected, None));
        assert_eq!(status.error.unwrap().kind, ErrorKind::Deleted);
        let late = uploads.receive(&get(number), has_room, futures::stream::empty()).await;
        assert_eq!(late.err().map(|problem| problem.kind), Some(ErrorKind::Deleted));
    }
    assert_eq!(get(3).status.borrow().phase, Phase::Waiting, "another publication's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_coming_is_cut_off_and_leaves_nothing() {
    let alone = Alone::start().await;
    let uploads = &alone.node.uploads;
    uploads.register(alone.upload(1, SIZE)).unwrap();
    let upload = uploads.get(alone.reference(1).publication).unwrap();
    let endless = Box::pin(futures::stream::pending::<Result<Bytes, Problem>>());
    let delete = async {
        while upload.status.borrow().phase != Phase::Receiving {
            tokio::task::yield_now().await;
        }
        alone.delete(1, 1).await
    };
    let (received, _) = tokio::join!(uploads.receive(&upload, has_room, endless), delete);
    assert_eq!(received.err().map(|problem| problem.kind), Some(ErrorKind::Deleted));
    assert_eq!(upload.status.borrow().phase, Phase::Rejected);
    assert_eq!(std::fs::read_dir(&alone.node.about.data).unwrap().count(), 0);
    assert_eq!(uploads.working(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_platforms_upload_of_the_same_id_goes_on() {
    let alone = Alone::start().await;
    let mut other = alone.upload(1, SIZE);
    other.authority.reference.platform = chunkstore_block::PlatformFingerprint::from_bytes([1; 32]);
    other.grant.reference = other.authority.reference;
    alone.node.uploads.register(other).unwrap();
    assert_eq!(alone.delete(1, 1).await, DeletionOutcome::Applied);
    let upload = alone.node.uploads.get(alone.reference(1).publication).unwrap();
    assert_eq!(upload.status.borrow().phase, Phase::Waiting);
}
