//! How far a token reaches: in time, in bytes after its end, and within its content.

use std::time::Duration;

use crate::support::{SEGMENT_SECONDS, Served, serve};
use chunkstore_block::ContentKey;
use control_api::{ErrorKind, Lapse, Scope, TemporaryUrl, TokenRequest};
use futures::StreamExt;
use reqwest::header::{HeaderMap, RANGE};

const SEGMENTS: u32 = 6;

fn small(name: &str, segment: u32) -> Vec<u8> {
    format!("{name} {segment} ").repeat(100).into_bytes()
}

async fn film() -> (Served, ContentKey) {
    let served = serve().await;
    let key = served.backend.add_film(SEGMENTS, small).key();
    (served, key)
}

/// The refusal of a path, or nothing when it opens.
async fn refused(served: &Served, url: &TemporaryUrl, path: &str) -> Option<ErrorKind> {
    ranged(served, url, path, None).await
}

async fn ranged(served: &Served, url: &TemporaryUrl, path: &str, range: Option<&str>) -> Option<ErrorKind> {
    let headers: HeaderMap = range.map(|range| (RANGE, range.parse().unwrap())).into_iter().collect();
    match served.client.delivery().get(url, path, false, headers).await {
        Ok(answer) => {
            answer.bytes(1 << 20).await.unwrap();
            None
        }
        Err(error) => Some(error.problem().unwrap().kind),
    }
}

/// The path of the block of a segment.
fn block_of(served: &Served, key: ContentKey, path: &str) -> String {
    let contents = served.backend.0.contents.lock().unwrap();
    let index = contents[&key].index();
    let order = index.file(path).unwrap().runs[0].first_order;
    format!("blocks/{}", index.fragments.by_order(order).unwrap().id)
}

#[tokio::test]
async fn a_token_for_renditions_opens_no_other() {
    let (served, key) = film().await;
    let scope = Scope { renditions: vec!["480p".to_owned(), "audio".to_owned()], lapse: None };
    let url = served.confined(key, scope).await;
    for open in ["index", "fragments", "files/master.m3u8", "files/480p/playlist.m3u8", "files/audio/seg00003.m4s"] {
        assert_eq!(refused(&served, &url, open).await, None, "{open}");
    }
    let wrong = Some(ErrorKind::WrongRendition);
    for closed in ["files/720p/playlist.m3u8", "files/720p/init.mp4", "files/720p/seg00000.m4s", "files/720p.mp4"] {
        assert_eq!(refused(&served, &url, closed).await, wrong, "{closed}");
    }
    assert_eq!(ranged(&served, &url, "files/720p.mp4", Some("bytes=0-0")).await, wrong);
    assert_eq!(refused(&served, &url, &block_of(&served, key, "720p/seg00001.m4s")).await, wrong);
    assert_eq!(refused(&served, &url, &block_of(&served, key, "480p/seg00001.m4s")).await, None);
    let listed = served.client.delivery().fragments(&url).await.unwrap().fragments;
    let whole = served.client.delivery().fragments(&served.temporary_url(key).await).await.unwrap().fragments;
    // All but 720p's playlist, header and segments, and the MP4's header.
    assert_eq!(listed.len(), whole.len() - 3 - SEGMENTS as usize);
    assert!(listed.iter().all(|fragment| whole.contains(fragment)), "the orders stay");
}

#[tokio::test]
async fn a_token_for_a_time_lapse_opens_its_segments_only() {
    let (served, key) = film().await;
    // Segments are played from 0, 4, 8, 12, 16 and 20 s.
    let scope = Scope { renditions: vec![], lapse: Some(Lapse { from_ms: 7_999, to_ms: 12_001 }) };
    let url = served.confined(key, scope).await;
    for open in ["index", "files/720p/playlist.m3u8", "files/audio/init.mp4"] {
        assert_eq!(refused(&served, &url, open).await, None, "{open}");
    }
    let outside = Some(ErrorKind::OutsideLapse);
    for (segment, expected) in [outside, None, None, None, outside, outside].into_iter().enumerate() {
        for rendition in ["720p", "audio"] {
            let path = format!("{rendition}/seg{segment:05}.m4s");
            assert_eq!(refused(&served, &url, &format!("files/{path}")).await, expected, "{path}");
            assert_eq!(refused(&served, &url, &block_of(&served, key, &path)).await, expected, "block of {path}");
        }
    }
    // Of the MP4 the same bytes: a header of 22, then segments of 700.
    assert_eq!(refused(&served, &url, "files/720p.mp4").await, outside);
    assert_eq!(ranged(&served, &url, "files/720p.mp4", Some("bytes=0-21")).await, None);
    assert_eq!(ranged(&served, &url, "files/720p.mp4", Some("bytes=722-2821")).await, None);
    assert_eq!(ranged(&served, &url, "files/720p.mp4", Some("bytes=721-2821")).await, outside);
    assert_eq!(ranged(&served, &url, "files/720p.mp4", Some("bytes=722-2822")).await, outside);
}

#[tokio::test]
async fn where_no_playlist_says_when_nothing_is_open() {
    let (served, key) = film().await;
    for name in ["720p", "480p", "audio"] {
        let block = block_of(&served, key, &format!("{name}/playlist.m3u8"));
        let id = block.strip_prefix("blocks/").unwrap().parse().unwrap();
        let length = served.backend.0.blocks.lock().unwrap()[&id].len();
        served.backend.0.blocks.lock().unwrap().insert(id, vec![b'#'; length].into());
    }
    let scope = Scope { renditions: vec![], lapse: Some(Lapse { from_ms: 0, to_ms: 1 << 40 }) };
    let url = served.confined(key, scope).await;
    assert_eq!(refused(&served, &url, "files/720p/seg00000.m4s").await, Some(ErrorKind::OutsideLapse));
    assert_eq!(refused(&served, &url, "files/master.m3u8").await, None);
}

#[tokio::test]
async fn a_revocation_ends_the_contents_tokens_and_those_of_no_other() {
    let (served, key) = film().await;
    let other = served.backend.add_content("a.mp4", &[b"01"]).key();
    let (url, others) = (served.temporary_url(key).await, served.temporary_url(other).await);
    let revoke = served.claims(TokenRequest::Revoke { content: key });
    let jws = served.platform.sign_request(&revoke).unwrap();
    let answer = served.client.revoke(&jws).await.unwrap();
    assert_eq!((answer.content, answer.revoked), (key, 1));
    assert_eq!(refused(&served, &url, "index").await, Some(ErrorKind::TokenRevoked));
    assert_eq!(refused(&served, &others, "index").await, None);
    assert_eq!(refused(&served, &served.temporary_url(key).await, "index").await, None, "a new token is good");
    let again = served.client.revoke(&jws).await.unwrap_err();
    assert_eq!(again.problem().unwrap().kind, ErrorKind::RequestReplayed);
    // Each kind has its own address.
    let playback = served.platform.sign_request(&served.playback(key)).unwrap();
    assert_eq!(served.client.revoke(&playback).await.unwrap_err().problem().unwrap().kind, ErrorKind::MalformedRequest);
    assert_eq!(served.refusal(&revoke).await, ErrorKind::MalformedRequest);
}

/// A large file under way, whose reader has stopped so that everything on the way is full; and what went out so far.
async fn under_way(
    served: &Served,
) -> (impl futures::Stream<Item = Result<bytes::Bytes, control_api::ClientError>>, ContentKey, u64) {
    let blocks: Vec<Vec<u8>> = (0..64_u8).map(|n| vec![n; 1 << 20]).collect();
    let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
    let key = served.backend.add_content("film.mp4", &blocks).key();
    let url = served.temporary_url(key).await;
    let answer = served.client.delivery().get(&url, "files/film.mp4", false, HeaderMap::new()).await.unwrap();
    assert_eq!(answer.headers["content-length"], (64 << 20).to_string());
    let (mut sent, mut quiet) = (0, 0);
    while quiet < 10 {
        let more: u64 = served.state.meter().take().iter().map(|stretch| stretch.bytes).sum();
        quiet = if more == 0 { quiet + 1 } else { 0 };
        sent += more;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(sent < 50 << 20, "the sockets take everything");
    (answer.into_stream(), key, sent)
}

/// Reads to the end: how many bytes, and whether it is a good one.
async fn read(body: impl futures::Stream<Item = Result<bytes::Bytes, control_api::ClientError>>) -> (u64, bool) {
    let mut body = std::pin::pin!(body);
    let mut read = 0;
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => read += chunk.len() as u64,
            Err(_) => return (read, false),
        }
    }
    (read, true)
}

#[tokio::test]
async fn a_film_asked_for_as_a_whole_is_broken_off_one_lapse_after_the_tokens_end() {
    let served = serve().await;
    let (body, _, sent) = under_way(&served).await;
    served.clock.advance(30);
    // The index of this content has no bandwidths, so the lapse has the least that there is: 4 MiB.
    let (received, whole) = read(body).await;
    assert!(!whole && received <= sent + (4 << 20), "{received} of {sent} before the end");
}

#[tokio::test]
async fn a_film_is_sent_to_its_end_while_the_token_lives() {
    let served = serve().await;
    let (body, ..) = under_way(&served).await;
    served.clock.advance(29);
    assert_eq!(read(body).await, (64 << 20, true));
}

#[tokio::test]
async fn a_revocation_breaks_off_what_is_under_way() {
    let served = serve().await;
    let (body, key, sent) = under_way(&served).await;
    let revoke = served.claims(TokenRequest::Revoke { content: key });
    served.client.revoke(&served.platform.sign_request(&revoke).unwrap()).await.unwrap();
    let (received, whole) = read(body).await;
    assert!(!whole && received <= sent, "{received} of {sent}");
}

#[tokio::test]
async fn what_goes_out_is_counted_by_token_content_and_time() {
    let served = serve().await;
    let key = served
        .backend
        .add_film(SEGMENTS, |name, segment| format!("{name}{segment:05}").repeat(1_000)[..1_000].into())
        .key();
    let url = served.temporary_url(key).await;
    for path in ["files/720p/seg00001.m4s", "files/audio/seg00000.m4s"] {
        assert_eq!(refused(&served, &url, path).await, None);
    }
    let stretch = served.state.meter().take().pop().unwrap();
    assert_eq!((stretch.content, stretch.bytes, stretch.start, stretch.preview), (key, 2_000, false, false));
    assert_eq!(stretch.played_ms.round(), 4_000.0, "sound beside pictures is no further time");
    assert_eq!(stretch.platform, served.platform.fingerprint());
    served.clock.advance(5);
    let mut starts = Vec::new();
    for _ in 0..2 {
        assert_eq!(refused(&served, &url, "files/720p/seg00000.m4s").await, None);
        let again = served.state.meter().take().pop().unwrap();
        assert_eq!((again.token, again.bytes, again.begun), (stretch.token, 1_000, stretch.begun + 5));
        starts.push(again.start);
    }
    assert_eq!(starts, [true, false], "a token begins the film once");
}

/// Two hours of film in segments of four seconds, a token for each stretch of less than 30 s, and every token tried again after its end.
#[tokio::test]
async fn two_hours_are_played_without_a_gap_and_no_expired_token_opens() {
    const SECONDS: u64 = 7_200;
    let served = serve().await;
    let segments = SECONDS / SEGMENT_SECONDS;
    let key = served.backend.add_film(segments as u32, small).key();
    let mut tokens: Vec<(u64, TemporaryUrl)> = Vec::new();
    let (mut played, mut refusals) = (0, 0);
    for segment in 0..segments {
        let now = segment * SEGMENT_SECONDS;
        // As the player does: when fewer than 6 s are left.
        if tokens.last().is_none_or(|(issued, _)| now - issued > 24) {
            tokens.push((now, served.temporary_url(key).await));
        }
        let (_, url) = tokens.last().unwrap();
        let path = format!("files/720p/seg{segment:05}.m4s");
        let answer = served.client.delivery().get(url, &path, false, HeaderMap::new()).await.unwrap();
        assert_eq!(answer.bytes(1 << 20).await.unwrap(), small("720p", segment as u32));
        played += SEGMENT_SECONDS;
        // At this moment, those that have ended within the last two steps; all of them at the end.
        for (_, old) in tokens.iter().filter(|(issued, _)| (30..38).contains(&(now - issued))) {
            assert_eq!(refused(&served, old, &path).await, Some(ErrorKind::TokenExpired));
            refusals += 1;
        }
        served.clock.advance(SEGMENT_SECONDS);
    }
    served.clock.advance(30);
    assert_eq!((played, tokens.len()), (SECONDS, 258));
    assert!(refusals >= tokens.len() - 2, "{refusals}");
    for (_, old) in &tokens {
        let refusal = refused(&served, old, "index").await;
        assert!(matches!(refusal, Some(ErrorKind::TokenExpired | ErrorKind::TokenUnknown)), "{refusal:?}");
    }
}
