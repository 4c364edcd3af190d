//! Checksums and parts of resumable uploads (docs/api.md §4) at a real node.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use control_api::Phase;
use e2e::{Landing, TusUpload, clip, offset, refusal};
use reqwest::Response;

// "abc": FIPS 180-2, appendices A.1 and B.1.
const ABC_SHA1: &str = "sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=";
const ABC_SHA256: &str = "sha256 ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";

async fn checked(upload: &TusUpload, at: u64, checksum: &str, body: &'static str) -> Response {
    upload.patching(&upload.url, at).header("upload-checksum", checksum).body(body).send().await.unwrap()
}

async fn join(upload: &TusUpload, parts: &[&str]) -> Response {
    upload.create(&[("upload-concat", &format!("final;{}", parts.join(" ")))]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_do_not_fit_their_checksum_are_thrown_away() {
    let landing = Landing::new(&[]).await;
    let upload = landing.upload(2_000_000).await;
    for (at, good, bad) in [(0, ABC_SHA1, "abd"), (3, ABC_SHA256, "xyz")] {
        assert_eq!(refusal(checked(&upload, at, good, bad).await).await, (460, "checksum-mismatch"));
        assert_eq!(upload.offset().await, at);
        assert_eq!(refusal(checked(&upload, at, "md5 kAFQmDzST7DWlj99KOF/cg==", "abc").await).await, (400, "invalid"));
        assert_eq!(offset(&checked(&upload, at, good, "abc").await), at + 3);
    }
    // What never came whole was never checked.
    drop(upload.begin_patch(6, 1_000_000, &format!("upload-checksum: {ABC_SHA1}\r\n"), &[7; 500_000]));
    upload.until("the break", |status| status.received_bytes == 6 && status.remaining_seconds.is_none()).await;
    let goes_on = e2e::eventually("the other one's turn", std::time::Duration::from_secs(30), || async {
        let answer = upload.patch(&upload.url, 6, "free").await;
        (answer.status() == 204).then(|| offset(&answer))
    });
    assert_eq!(goes_on.await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_become_the_film_also_over_a_kill() {
    let mut landing = Landing::new(&[]).await;
    let bytes = tokio::fs::read(clip(&landing.stage.path(""), 5)).await.unwrap();
    let whole = landing.upload(bytes.len() as u64).await;
    assert_eq!(whole.patch(&whole.url, 0, bytes.clone()).await.status(), 204);
    let key = whole.until_ready().await.content_key.unwrap();

    let upload = landing.upload(bytes.len() as u64).await;
    let (first, second) = bytes.split_at(bytes.len() / 3);
    // Made in another order than they are joined in.
    let (of_second, of_first) = (upload.create_part(second.len()).await, upload.create_part(first.len()).await);
    assert_ne!(of_first, of_second);
    assert_eq!(upload.request("HEAD", &upload.url).send().await.unwrap().status(), 404, "it is not joined yet");
    let (half, rest) = second.split_at(second.len() / 2);
    let (one, other) =
        tokio::join!(upload.patch(&of_second, 0, half.to_vec()), upload.patch(&of_first, 0, first.to_vec()));
    assert_eq!((one.status().as_u16(), other.status().as_u16()), (204, 204));
    assert_eq!(refusal(join(&upload, &[&of_first, &of_second]).await).await, (400, "upload-incomplete"));
    landing.kill_and_restart().await;

    let part = upload.request("HEAD", &of_second).send().await.unwrap();
    assert_eq!((offset(&part), part.headers()["upload-concat"].to_str().unwrap()), (half.len() as u64, "partial"));
    assert_eq!(upload.patch(&of_second, half.len() as u64, rest.to_vec()).await.status(), 204);
    assert_eq!(upload.status().await.received_bytes, bytes.len() as u64);
    let joined = join(&upload, &[&of_first, &of_second]).await;
    assert_eq!((joined.status().as_u16(), joined.headers()["location"].to_str().unwrap()), (201, upload.url.as_str()));
    assert_eq!(join(&upload, &[&of_first, &of_second]).await.status(), 201, "as a client asks that missed the answer");
    assert_eq!(refusal(join(&upload, &[&of_second, &of_first]).await).await, (409, "upload-exists"));
    assert_eq!(refusal(upload.patch(&upload.url, 0, "x").await).await, (403, "final-upload"));
    assert_eq!(refusal(upload.patch(&of_first, 0, "x").await).await, (403, "final-upload"));
    assert_eq!(upload.until_ready().await.content_key, Some(key), "the parts are the file");
    let known = upload.request("HEAD", &upload.url).send().await.unwrap();
    assert_eq!(offset(&known), bytes.len() as u64);
    let concat = known.headers()["upload-concat"].to_str().unwrap();
    assert!(concat.starts_with("final;/v1/uploads/") && concat.ends_with("/parts/1"), "{concat}");
    assert!(landing.node.staging().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_no_more_than_the_upload_and_may_be_taken_away() {
    let landing = Landing::new(&[]).await;
    let upload = landing.upload(100).await;
    let (first, second) = (upload.create_part(60).await, upload.create_part(40).await);
    let part = async |length| upload.create(&[("upload-concat", "partial"), ("upload-length", length)]).await;
    // An empty one would make way.
    for url in [&first, &second] {
        assert_eq!(upload.patch(url, 0, "1").await.status(), 204);
    }
    assert_eq!(refusal(part("1").await).await, (413, "upload-too-large"));
    assert_eq!(refusal(part("0").await).await, (400, "upload-empty"));
    assert_eq!(refusal(upload.create(&[("upload-length", "100")]).await).await, (409, "upload-exists"));
    assert_eq!(upload.patch(&first, 1, vec![1; 59]).await.status(), 204);
    assert_eq!(refusal(upload.patch(&second, 1, vec![1; 40]).await).await, (413, "upload-too-large"));
    assert_eq!(upload.status().await.received_bytes, 61);

    assert_eq!(upload.request("DELETE", &first).send().await.unwrap().status(), 204);
    assert_eq!(refusal(upload.patch(&first, 60, "").await).await, (404, "not-found"));
    assert_eq!(upload.status().await.received_bytes, 1);
    let third = upload.create_part(60).await;
    assert_ne!(third, first, "an address that is gone stays so");
    for url in [&second, &third] {
        assert_eq!(upload.request("DELETE", url).send().await.unwrap().status(), 204);
    }
    assert_eq!(upload.status().await.phase, Phase::Waiting, "nothing of it is left");
    assert_eq!(upload.patch(&upload.url, 0, "in one piece").await.status(), 204);
    for url in ["/parts/0", "/parts/x", "/parts/7"] {
        let nowhere = upload.patch(&format!("{}{url}", upload.url), 0, "x").await;
        assert_eq!(refusal(nowhere).await, (404, "not-found"), "{url}");
    }
}
