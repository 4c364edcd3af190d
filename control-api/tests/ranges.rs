//! What RFC 9110 says of conditions, ranges and HEAD, on real connections, for all that a token opens.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

mod support;

use chunkstore_block::{BlockId, ContentKey};
use control_api::TemporaryUrl;
use reqwest::{Method, Response};
use support::{ORIGIN, Served, serve};

const BLOCKS: [&[u8]; 3] = [b"0123456789", b"abcdefghij", b"xyz"];
const WHOLE: &[u8] = b"0123456789abcdefghijxyz";
const FILE: &str = "files/720p/film.mp4";

struct Viewer {
    served: Served,
    url: TemporaryUrl,
    key: ContentKey,
}

impl Viewer {
    async fn new() -> Self {
        let served = serve().await;
        let key = served.backend.add_content("720p/film.mp4", &BLOCKS).key();
        let url = served.temporary_url(key).await;
        Self { served, url, key }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let request = reqwest::Client::new().request(method, self.url.at(path).unwrap());
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, Vec<u8>) {
        let answer = self.ask(Method::GET, path, headers).await;
        (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
    }

    /// Everything that a token opens: path, tag, bytes.
    fn things(&self) -> Vec<(String, String, Vec<u8>)> {
        let (block, page) = (BlockId::of(BLOCKS[1]), BlockId::of(b"page"));
        let index = self.served.backend.0.blocks.lock().unwrap()[&self.key.block_id()].to_vec();
        vec![
            (FILE.to_owned(), format!("\"{}/720p/film.mp4\"", self.key), WHOLE.to_vec()),
            (format!("blocks/{block}"), format!("\"{block}\""), BLOCKS[1].to_vec()),
            (format!("pages/{page}"), format!("\"{page}\""), b"page".to_vec()),
            ("index".to_owned(), format!("\"{}\"", self.key), index),
        ]
    }
}

fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn each_thing_has_its_tag_and_answers_conditions() {
    let viewer = Viewer::new().await;
    for (path, etag, bytes) in viewer.things() {
        let answer = viewer.ask(Method::GET, &path, &[]).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "etag")), (200, Some(&*etag)), "{path}");
        assert_eq!(answer.bytes().await.unwrap(), bytes, "{path}");

        let weak = format!("\"other\", W/{etag}");
        for tags in [&*etag, &*weak, "*"] {
            let known = viewer.ask(Method::GET, &path, &[("if-none-match", tags), ("range", "bytes=0-1")]).await;
            assert_eq!((known.status().as_u16(), header(&known, "etag")), (304, Some(&*etag)), "{path} {tags}");
            assert!(header(&known, "cache-control").unwrap().starts_with("private, max-age="), "{path}");
            assert_eq!(header(&known, "content-range"), None);
            assert!(known.bytes().await.unwrap().is_empty());
        }
        assert_eq!(viewer.get(&path, &[("if-none-match", "\"other\"")]).await, (200, bytes.clone()), "{path}");

        let range = ("range", "bytes=1-2");
        assert_eq!(viewer.get(&path, &[range, ("if-range", &etag)]).await, (206, bytes[1..3].to_vec()), "{path}");
        for stale in ["\"other\"", &format!("W/{etag}"), "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(viewer.get(&path, &[range, ("if-range", stale)]).await, (200, bytes.clone()), "{path} {stale}");
        }

        assert_eq!(viewer.get(&path, &[("if-match", &etag), range]).await.0, 206, "{path}");
        let other = viewer.ask(Method::GET, &path, &[("if-match", "\"other\"")]).await;
        assert_eq!((other.status().as_u16(), header(&other, "content-type")), (412, Some("application/problem+json")));
        assert!(other.text().await.unwrap().contains("urn:imira:error:precondition-failed"), "{path}");
    }
}

#[tokio::test]
async fn ranges_of_each_thing() {
    let viewer = Viewer::new().await;
    for (path, _, bytes) in viewer.things() {
        let size = bytes.len();
        for (range, start, end) in [
            ("bytes=0-0".to_owned(), 0, 1),
            ("bytes=2-".to_owned(), 2, size),
            ("bytes=-2".to_owned(), size - 2, size),
            (format!("bytes=-{}", size + 5), 0, size),
            (format!("bytes=1-{}", size + 5), 1, size),
        ] {
            let answer = viewer.ask(Method::GET, &path, &[("range", &range)]).await;
            assert_eq!(answer.status(), 206, "{path} {range}");
            let content_range = format!("bytes {start}-{}/{size}", end - 1);
            assert_eq!(header(&answer, "content-range"), Some(&*content_range), "{path}");
            assert_eq!(header(&answer, "content-length"), Some(&*(end - start).to_string()), "{path}");
            assert_eq!(answer.bytes().await.unwrap(), &bytes[start..end], "{path} {range}");
        }
        for outside in [format!("bytes={size}-"), "bytes=-0".to_owned()] {
            let answer = viewer.ask(Method::GET, &path, &[("range", &outside)]).await;
            assert_eq!(answer.status(), 416, "{path} {outside}");
            assert_eq!(header(&answer, "content-range"), Some(&*format!("bytes */{size}")), "{path}");
            assert!(answer.text().await.unwrap().contains("urn:imira:error:range-not-satisfiable"), "{path}");
        }
        assert_eq!(viewer.get(&path, &[("range", "bytes=0-0, 2-2")]).await, (200, bytes.clone()), "{path}");
        assert_eq!(viewer.get(&path, &[("range", "bytes=0-0"), ("range", "bytes=1-1")]).await, (200, bytes), "{path}");
    }
}

/// A range is defined for GET only (RFC 9110 §14.2).
#[tokio::test]
async fn head_is_get_without_its_body() {
    let viewer = Viewer::new().await;
    for (path, etag, bytes) in viewer.things() {
        let answer = viewer.ask(Method::HEAD, &path, &[("range", "bytes=0-0")]).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(header(&answer, "content-length"), Some(&*bytes.len().to_string()), "{path}");
        assert_eq!(
            (header(&answer, "etag"), header(&answer, "accept-ranges")),
            (Some(&*etag), Some("bytes")),
            "{path}"
        );
        assert!(answer.bytes().await.unwrap().is_empty());
        let known = viewer.ask(Method::HEAD, &path, &[("if-none-match", &etag)]).await;
        assert_eq!(known.status(), 304, "{path}");
    }
    let list = viewer.ask(Method::HEAD, "fragments", &[]).await;
    assert!(list.status() == 200 && header(&list, "content-length").unwrap() != "0");
    assert_eq!(viewer.served.transfers.running(), 0);
}

#[tokio::test]
async fn other_methods_are_refused_with_what_is_allowed() {
    let viewer = Viewer::new().await;
    let answer = viewer.ask(Method::POST, FILE, &[]).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "allow")), (405, Some("GET,HEAD")));
}

/// The head and the first block go out while the second has not come.
#[tokio::test]
async fn the_first_bytes_do_not_wait_for_the_later_blocks() {
    let viewer = Viewer::new().await;
    viewer.served.backend.0.stuck.lock().unwrap().insert(BlockId::of(BLOCKS[1]));
    let mut answer = viewer.ask(Method::GET, FILE, &[]).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.chunk().await.unwrap().unwrap(), BLOCKS[0]);
    // A range that does not need it does not wait at all.
    assert_eq!(viewer.get(FILE, &[("range", "bytes=20-")]).await, (206, BLOCKS[2].to_vec()));
}

/// A player that gives up frees what it held, also when the node still waits for a block.
#[tokio::test]
async fn a_viewer_who_leaves_is_forgotten() {
    let viewer = Viewer::new().await;
    viewer.served.backend.0.stuck.lock().unwrap().insert(BlockId::of(BLOCKS[1]));
    let answer = viewer.ask(Method::GET, FILE, &[]).await;
    assert_eq!(viewer.served.transfers.running(), 1);
    drop(answer);
    while viewer.served.transfers.running() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_page_of_another_origin_reads_nothing() {
    let viewer = Viewer::new().await;
    for origin in ["https://evil.example", "http://video.example", "https://video.example.evil.example", "null"] {
        for path in [FILE, "index", "fragments", "elsewhere"] {
            let answer = viewer.ask(Method::GET, path, &[("origin", origin)]).await;
            assert_eq!(header(&answer, "access-control-allow-origin"), None, "{origin} {path}");
        }
        let asked = [("origin", origin), ("access-control-request-method", "GET")];
        let preflight = viewer.ask(Method::OPTIONS, FILE, &asked).await;
        assert_eq!(header(&preflight, "access-control-allow-origin"), None, "{origin}");
    }
    let allowed = viewer.ask(Method::GET, FILE, &[("origin", ORIGIN), ("range", "bytes=0-0")]).await;
    assert_eq!(header(&allowed, "access-control-allow-origin"), Some(ORIGIN));
    assert!(header(&allowed, "vary").unwrap().contains("origin"));
}
