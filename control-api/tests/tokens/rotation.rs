//! The pinned keys change while the node runs.

use crate::support::{Served, serve};
use chunkstore_block::PublicationId;
use control_api::{ErrorKind, PinnedKeys, PlatformKey, PlatformKeySize, TemporaryUrl};

/// The refusal of the content's index, or nothing when it opens.
async fn refused(served: &Served, url: &TemporaryUrl) -> Option<ErrorKind> {
    served.client.delivery().index(url).await.err().map(|error| error.problem().unwrap().kind)
}

fn pins(keys: &[&PlatformKey]) -> PinnedKeys {
    PinnedKeys::new(keys.iter().map(|key| key.public_key().clone()))
}

#[tokio::test]
async fn a_second_key_is_taken_up_and_the_first_goes_with_its_tokens() {
    let served = serve().await;
    let key = served.backend.add_content("a.mp4", &[b"01"]).key();
    let next = PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap();
    let by_next = next.sign_request(&served.playback(key)).unwrap();
    assert_eq!(served.ask(&by_next).await.unwrap_err(), ErrorKind::PlatformNotPinned);

    served.state.replace_keys(&pins(&[&served.platform, &next]));
    let old = served.temporary_url(key).await;
    let new = served.ask(&by_next).await.unwrap();
    assert_eq!([refused(&served, &old).await, refused(&served, &new).await], [None, None]);

    served.state.replace_keys(&pins(&[&next]));
    assert_eq!(refused(&served, &old).await, Some(ErrorKind::TokenRevoked));
    assert_eq!(refused(&served, &new).await, None, "the platform that stays keeps its tokens");
    assert_eq!(served.refusal(&served.playback(key)).await, ErrorKind::PlatformNotPinned);
}

#[tokio::test]
async fn nonces_and_checked_authorities_are_remembered_and_lend_an_unpinned_key_nothing() {
    let served = serve().await;
    let key = served.backend.add_content("a.mp4", &[b"01"]).key();
    let used = served.platform.sign_request(&served.playback(key)).unwrap();
    served.ask(&used).await.unwrap();
    let upload = served.upload(PublicationId::from_bytes([4; 16]), 10);
    served.client.request_upload(&served.platform.sign_request(&upload).unwrap()).await.unwrap();

    let other = PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap();
    served.state.replace_keys(&pins(&[&other]));
    // The same authority as before, whose signature the node has checked already, under the other platform's signature.
    assert_eq!(served.refusal_of(&other, &upload).await, ErrorKind::BadAuthority);

    served.state.replace_keys(&pins(&[&served.platform]));
    assert_eq!(served.ask(&used).await.unwrap_err(), ErrorKind::RequestReplayed);
}
