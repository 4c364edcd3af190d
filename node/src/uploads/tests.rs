//! What time does to uploads.

use super::*;
use control_api::tokens::UPLOAD_LIFETIME;
use control_api::tus::{Append, Creation, FileId};
use control_api::{Authority, UploadGrant};
use futures::stream;
use tempfile::TempDir;

const SIZE: u64 = 100;

struct Scene {
    uploads: Uploads,
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (staging, records) = (folder.path().join("staging"), folder.path().join("uploads"));
        std::fs::create_dir(&staging).unwrap();
        std::fs::create_dir(&records).unwrap();
        Self { uploads: Uploads::new(staging, records, 0, CancellationToken::new()), folder }
    }

    async fn upload(&self, number: u8) -> Arc<Upload> {
        let reference = Reference {
            platform: PlatformFingerprint::from_bytes([1; 32]),
            publication: PublicationId::from_bytes([number; 16]),
        };
        let authority = Authority { reference, bytes: 1 << 20, expires: u64::MAX };
        let grant = UploadGrant { reference, size: SIZE };
        self.uploads.register(VerifiedUpload { grant, authority_jws: "a.b.c".into(), authority }).unwrap();
        self.uploads.keep_token(reference.publication, [number; 32], (0, UPLOAD_LIFETIME.as_secs())).await.unwrap();
        self.uploads.get(reference.publication).unwrap()
    }

    async fn append(&self, upload: &Arc<Upload>, offset: u64, body: &'static [u8]) -> Result<u64, ErrorKind> {
        let append = Append { file: FileId::Whole, offset, announced: None, checksum: None };
        let body = stream::iter([Ok(Bytes::from_static(body))]);
        let step = self.uploads.append(upload, append, |_, _| Ok(()), body).await;
        step.map(|step| step.answer).map_err(|problem| problem.kind)
    }

    fn count(&self, folder: &str) -> usize {
        std::fs::read_dir(self.folder.path().join(folder)).unwrap().count()
    }
}

#[tokio::test]
async fn what_was_not_finished_in_time_goes_with_its_bytes_and_its_room() {
    let scene = Scene::new();
    let (late, waiting) = (scene.upload(1).await, scene.upload(2).await);
    assert_eq!(scene.append(&late, 0, b"some").await, Ok(4));
    assert_eq!((scene.uploads.staged().bytes, scene.uploads.staged().still_coming), (SIZE, SIZE - 4));
    assert_eq!((scene.count("staging"), scene.count("uploads")), (1, 2));
    let expiry = late.ends();
    scene.uploads.sweep_once(expiry - Duration::from_secs(1)).await;
    assert_eq!(scene.append(&late, 4, b"more").await, Ok(8));

    scene.uploads.sweep_once(expiry).await;
    let error = late.status.borrow().error.clone().map(|problem| (problem.kind, problem.status));
    assert_eq!((late.phase(), error), (Phase::Rejected, Some((ErrorKind::UploadExpired, 410))));
    assert_eq!(scene.append(&late, 8, b"more").await, Err(ErrorKind::UploadExpired));
    assert_eq!((scene.uploads.staged().bytes, scene.count("staging")), (0, 0));
    assert_eq!(waiting.phase(), Phase::Waiting);
    assert_eq!(scene.count("uploads"), 2, "how it ended can still be asked");
}

#[tokio::test]
async fn a_request_that_was_begun_in_time_may_run_on() {
    let scene = Scene::new();
    let upload = scene.upload(1).await;
    let (mut sender, body) = futures::channel::mpsc::channel::<Result<Bytes, Problem>>(1);
    let append = Append { file: FileId::Whole, offset: 0, announced: None, checksum: None };
    let writing = scene.uploads.append(&upload, append, |_, _| Ok(()), body);
    let sweeping = async {
        while !upload.slots().get(&0).is_some_and(|slot| slot.is_taken()) {
            tokio::task::yield_now().await;
        }
        scene.uploads.sweep_once(upload.ends() + Duration::from_secs(1)).await;
        assert_eq!(upload.phase(), Phase::Receiving);
        sender.try_send(Ok(Bytes::from_static(b"late"))).unwrap();
        drop(sender);
    };
    let (written, ()) = tokio::join!(writing, sweeping);
    assert_eq!(written.unwrap_or_else(|problem| panic!("{problem}")).answer, 4);
    scene.uploads.sweep_once(upload.ends() + Duration::from_secs(2)).await;
    assert_eq!(upload.phase(), Phase::Rejected);
}

#[tokio::test]
async fn the_slow_parts_of_one_upload_leave_writers_to_others() {
    let scene = Scene::new();
    let (slow, other) = (scene.upload(1).await, scene.upload(2).await);
    for _ in 0..=MAX_WRITERS_OF_ONE {
        let part = Creation::Part { length: 1 };
        scene.uploads.create(&slow, part, String::new(), |_, _| Ok(())).await.unwrap_or_else(|error| panic!("{error}"));
    }
    let trickle = |part| {
        let append = Append { file: FileId::Part(part), offset: 0, announced: None, checksum: None };
        scene.uploads.append(&slow, append, |_, _| Ok(()), stream::pending().boxed())
    };
    let parts: Vec<u32> = slow.slots().keys().copied().collect();
    let (last, first) = parts.split_last().unwrap();
    let mut trickling: futures::stream::FuturesUnordered<_> = first.iter().map(|part| trickle(*part)).collect();
    assert!(futures::poll!(trickling.next()).is_pending(), "each waits for its bytes");
    let refused = trickle(*last).await.err().map(|problem| problem.kind);
    assert_eq!(refused, Some(ErrorKind::Busy));
    assert_eq!(scene.append(&other, 0, b"some").await, Ok(4));
}

#[tokio::test]
async fn what_does_not_fit_beside_others_is_refused_before_it_begins() {
    let scene = Scene::new();
    let (first, second) = (scene.upload(1).await, scene.upload(2).await);
    let room = |size, others: Staged| match size + others.bytes <= SIZE + 50 {
        true => Ok(()),
        false => Err(Problem::new(ErrorKind::NoRoom, "full")),
    };
    let whole = || Creation::Whole { length: SIZE };
    scene.uploads.create(&first, whole(), String::new(), room).await.unwrap_or_else(|problem| panic!("{problem}"));
    let refused = scene.uploads.create(&second, whole(), String::new(), room).await.err();
    assert_eq!((refused.unwrap().kind, second.phase()), (ErrorKind::NoRoom, Phase::Waiting));
    scene.uploads.terminate(&first, FileId::Whole).await.unwrap();
    // Parts lie there twice for a moment, one at a time.
    let part = |length| Creation::Part { length };
    let refused = scene.uploads.create(&second, part(60), String::new(), room).await.err();
    assert_eq!(refused.unwrap().kind, ErrorKind::NoRoom);
    scene.uploads.create(&second, part(50), String::new(), room).await.unwrap_or_else(|problem| panic!("{problem}"));
}

#[tokio::test]
async fn the_last_byte_is_acknowledged_only_with_the_note_that_processing_begins() {
    let scene = Scene::new();
    let upload = scene.upload(1).await;
    assert_eq!(scene.append(&upload, 0, &[7; 90]).await, Ok(90));
    let records = scene.folder.path().join("uploads");
    let aside = scene.folder.path().join("aside");
    std::fs::rename(&records, &aside).unwrap();
    assert_eq!(scene.append(&upload, 90, &[7; 10]).await, Err(ErrorKind::Internal));
    std::fs::rename(&aside, &records).unwrap();
    let state = scene.uploads.file(&upload, FileId::Whole).await.unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(state.offset, Some(SIZE - 1));
    let append = Append { file: FileId::Whole, offset: SIZE - 1, announced: Some(1), checksum: None };
    let body = stream::iter([Ok(Bytes::from_static(b"x"))]);
    let step = scene.uploads.append(&upload, append, |_, _| Ok(()), body).await;
    let step = step.unwrap_or_else(|problem| panic!("{problem}"));
    assert!(step.answer == SIZE && step.received.is_some());
    assert!(matches!(upload.record().await.stage, Stage::Received { tries: 0, .. }), "waiting is no try");
    // The client did not hear it, and creates the upload once more.
    let again = scene.uploads.create(&upload, Creation::Whole { length: SIZE }, String::new(), |_, _| Ok(())).await;
    let again = again.unwrap_or_else(|problem| panic!("{problem}"));
    assert!(again.answer == FileId::Whole && again.received.is_none());
}

#[tokio::test]
async fn a_file_is_whole_although_its_body_breaks_behind_the_last_byte() {
    let scene = Scene::new();
    let upload = scene.upload(1).await;
    let append = Append { file: FileId::Whole, offset: 0, announced: None, checksum: None };
    let body = stream::iter([Ok(Bytes::from(vec![7; 100])), Err(Problem::internal(&"the connection is gone"))]);
    let step = scene.uploads.append(&upload, append, |_, _| Ok(()), body).await;
    let step = step.unwrap_or_else(|problem| panic!("{problem}"));
    assert!(step.answer == SIZE && step.received.is_some(), "nobody would begin to process it");
    assert!(matches!(upload.record().await.stage, Stage::Received { .. }));
}

#[tokio::test]
async fn the_file_goes_once_the_record_says_how_it_ended() {
    let scene = Scene::new();
    let ready = (chunkstore_block::ContentKey::from_bytes([9; 32]), 1, 1);
    for (number, disk_fails) in [(1, false), (2, true)] {
        let upload = scene.upload(number).await;
        assert_eq!(scene.append(&upload, 0, &[7; 100]).await, Ok(SIZE));
        let records = scene.folder.path().join("uploads");
        let aside = scene.folder.path().join("aside");
        if disk_fails {
            std::fs::rename(&records, &aside).unwrap();
        }
        upload.finish(ready, Staging::of(scene.uploads.folder(&upload))).await;
        assert_eq!(upload.phase(), Phase::Ready);
        // What a node would find after its end: the file with a record that it is to be processed, or neither.
        assert_eq!(scene.count("staging"), usize::from(disk_fails));
    }
}

#[tokio::test]
async fn an_upload_that_goes_on_is_no_other_that_takes_its_room() {
    let scene = Scene::new();
    let (upload, other) = (scene.upload(1).await, scene.upload(2).await);
    for upload in [&upload, &other] {
        assert_eq!(scene.append(upload, 0, b"some").await, Ok(4));
    }
    assert_eq!(scene.uploads.staged().bytes, 2 * SIZE);
    assert_eq!(scene.uploads.staged_beside(PublicationId::from_bytes([1; 16])).bytes, SIZE);
}

#[tokio::test]
async fn the_uploads_of_a_platform_that_is_served_no_more_end() {
    let scene = Scene::new();
    let upload = scene.upload(1).await;
    assert_eq!(scene.append(&upload, 0, b"some").await, Ok(4));
    scene.uploads.end_of(&[PlatformFingerprint::from_bytes([3; 32])].into()).await;
    assert_eq!(upload.phase(), Phase::Receiving);
    scene.uploads.end_of(&[PlatformFingerprint::from_bytes([1; 32])].into()).await;
    assert_eq!((upload.phase(), scene.count("staging")), (Phase::Rejected, 0));
    assert_eq!(scene.append(&upload, 4, b"more").await, Err(ErrorKind::UploadTerminated));
}

#[tokio::test]
async fn bytes_whose_checksum_nobody_checked_never_begin_to_count() {
    let scene = Scene::new();
    let upload = scene.upload(1).await;
    assert_eq!(scene.append(&upload, 0, b"some").await, Ok(4));
    // As a node leaves it that ends while bytes with a checksum come.
    upload.change(|record| record.set_checked(0, Some(4))).await.unwrap();
    let file = scene.uploads.folder(&upload).join("source");
    std::fs::write(&file, "someunchecked").unwrap();
    assert_eq!(scene.append(&upload, 13, b"x").await, Err(ErrorKind::WrongOffset));
    assert_eq!(upload.record().await.files[&0].checked, Some(4));
    assert_eq!(scene.append(&upload, 4, b"thing").await, Ok(9));
    assert_eq!(
        (std::fs::read(&file).unwrap().as_slice(), upload.record().await.files[&0].checked),
        (&b"something"[..], None)
    );
}

#[tokio::test]
async fn a_part_whose_url_nobody_heard_makes_way() {
    let scene = Scene::new();
    let upload = scene.upload(1).await;
    let create = |length| scene.uploads.create(&upload, Creation::Part { length }, String::new(), |_, _| Ok(()));
    let kind = |problem: Problem| problem.kind;
    assert_eq!(create(u64::MAX).await.map(|step| step.answer).map_err(kind), Err(ErrorKind::UploadTooLarge));
    for (length, number) in [(40, 1), (60, 2), (60, 3)] {
        assert_eq!(create(length).await.map(|step| step.answer).map_err(kind), Ok(FileId::Part(number)));
    }
    // The oldest that is empty goes first, and then it fits.
    assert_eq!(upload.slots().keys().copied().collect::<Vec<_>>(), [3]);
    assert_eq!(upload.for_joining.load(Ordering::Relaxed), 60);
    // Where that would not help, none goes.
    let append = Append { file: FileId::Part(3), offset: 0, announced: None, checksum: None };
    let body = stream::iter([Ok(Bytes::from_static(b"x"))]);
    scene.uploads.append(&upload, append, |_, _| Ok(()), body).await.unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(create(40).await.map(|step| step.answer).map_err(kind), Ok(FileId::Part(4)));
    assert_eq!(create(50).await.map(|step| step.answer).map_err(kind), Err(ErrorKind::UploadTooLarge));
    assert_eq!(upload.slots().keys().copied().collect::<Vec<_>>(), [3, 4]);
}
