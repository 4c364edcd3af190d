//! From a received file to blocks on their holders: probe, transcode, cut, place.

use crate::blocks::Durable;
use crate::deletions::deleted;
use crate::uploads::{Received, Upload, disk_failed, estimate};
use bytes::Bytes;
use chunkstore::StoreError;
use chunkstore_block::{
    Block, BlockId, ContentKey, IndexBuilder, IndexError, Limits as IndexLimits, MAX_BLOCK_BYTES, Reference, Rendition,
    RenditionKind, encode,
};
use control_api::{ErrorKind, Phase, Problem};
use dht::{Local, Peers, PeersError, Refusal};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use transcode::{Layout, Part, Progress};

/// Blocks on their way to their holders at a time: enough to cover a disk's sync and a round trip, and 8 MiB of memory.
const PLACING: usize = 8;

/// Read of an upload's file at a time for its SHA-256.
const HASH_BUFFER: usize = 1 << 20;

/// Parts of an upload wait for so long for room to be joined, and it is looked so often whether there is some.
const ROOM_AWAITED: Duration = Duration::from_secs(3_600);
const ROOM_SOUGHT_EVERY: Duration = Duration::from_secs(10);

/// What processing an upload needs.
pub(crate) struct Ingest {
    pub(crate) durable: Durable,
    pub(crate) peers: Peers,
    /// Whether this node keeps a copy of what it puts on others (protocol §10.1).
    pub(crate) keep_until_proved: bool,
    pub(crate) limits: transcode::Limits,
    pub(crate) ladder: transcode::Ladder,
    /// One permit for each FFmpeg process that may run.
    pub(crate) transcodes: Arc<Semaphore>,
    pub(crate) stop: CancellationToken,
}

impl Ingest {
    /// Processes an upload to its end; the upload's status tells how it went. The received file is gone afterwards, unless the node
    /// stops: then it is processed after the next start.
    pub(crate) async fn run(&self, upload: &Upload, received: Received) {
        let publication = upload.verified().grant.reference.publication;
        let unfinished = RejectUnlessDone(upload);
        let outcome = self.process(upload, &received).await;
        if outcome.is_err() && self.stop.is_cancelled() && upload.why_ended().is_none() {
            std::mem::forget(unfinished);
            tracing::info!(%publication, "upload will be processed after the next start");
            return;
        }
        // What follows says it better.
        std::mem::forget(unfinished);
        match outcome {
            Ok(done) => {
                tracing::info!(%publication, content = %done.key, blocks = done.blocks, "upload is ready");
                upload.finish((done.key, done.duration_ms, done.blocks), received.staging).await;
            }
            Err(problem) => {
                tracing::warn!(%publication, error = problem.kind.name(), detail = problem.detail, "upload is rejected");
                upload.reject_with(problem, received.staging).await;
            }
        }
    }

    async fn process(&self, upload: &Upload, received: &Received) -> Result<Done, Problem> {
        self.join_parts(upload, received).await?;
        let turn = tokio::select! {
            turn = self.transcodes.acquire() => turn,
            problem = self.broken_off(upload) => return Err(problem),
        };
        let _turn = turn.map_err(|_| stopping())?;
        upload.count_tries(|tries| tries + 1).await;
        let outcome = self.transform(upload, received).await;
        if outcome.is_err() && self.stop.is_cancelled() {
            // That is no fault of the file's.
            upload.count_tries(|tries| tries.saturating_sub(1)).await;
        }
        outcome
    }

    /// From a whole file to its blocks on their holders.
    async fn transform(&self, upload: &Upload, received: &Received) -> Result<Done, Problem> {
        upload.enter(Phase::Probing);
        let input = received.staging.source();
        let source_sha256 = SourceHash::begin(received.source_sha256, &input);
        let source = tokio::select! {
            source = transcode::probe(&input, &self.limits) => source,
            problem = self.broken_off(upload) => return Err(problem),
        };
        let source = source.map_err(|error| transcode_problem(error.kind(), &error.to_string()))?;
        let plan = transcode::plan(&source, &self.ladder);

        upload.enter(Phase::Transcoding);
        let work = received.staging.fresh_work().await.map_err(|error| Problem::internal(&error))?;
        let (progress, seen) = watch::channel(Progress::default());
        let cancelled = async { drop(self.broken_off(upload).await) };
        let transcoding = transcode::run(&plan, &self.limits, &input, &work, progress, cancelled);
        let output = follow(transcoding, seen, upload)
            .await
            .map_err(|error| transcode_problem(error.kind(), &error.to_string()))?;
        let layout = transcode::layout(&plan, &output).map_err(|error| Problem::internal(&error))?;

        upload.enter(Phase::Storing);
        let source_sha256 = tokio::select! {
            hash = source_sha256.end() => hash?,
            problem = self.broken_off(upload) => return Err(problem),
        };
        self.store(upload, layout, source_sha256).await
    }

    /// Makes one file of an upload that came in parts.
    async fn join_parts(&self, upload: &Upload, received: &Received) -> Result<(), Problem> {
        if received.parts.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        while let Err(error) = self.join_once(upload, received).await? {
            // Room was set aside, but others write to this disk, too. The parts were acknowledged: they do not go because of a shortage that passes.
            if error.kind() != io::ErrorKind::StorageFull || begun.elapsed() >= ROOM_AWAITED {
                return Err(disk_failed(&error));
            }
            tracing::warn!("the disk is full: parts of an upload wait to be joined until there is room");
            tokio::select! {
                () = tokio::time::sleep(ROOM_SOUGHT_EVERY) => {}
                problem = self.broken_off(upload) => return Err(problem),
            }
        }
        upload.joined().await;
        Ok(())
    }

    async fn join_once(&self, upload: &Upload, received: &Received) -> Result<io::Result<()>, Problem> {
        let stop = CancellationToken::new();
        let (joining, stopped) = (received.joining(), stop.clone());
        let mut joining = tokio::task::spawn_blocking(move || joining.run(&stopped));
        let broken_off = tokio::select! {
            joined = &mut joining => return joined.map_err(|error| Problem::internal(&error)),
            problem = self.broken_off(upload) => problem,
        };
        // It ends soon; the folder is not to go away before.
        stop.cancel();
        drop(joining.await);
        Err(broken_off)
    }

    /// Ends when the node stops or the upload is to end, and says which.
    async fn broken_off(&self, upload: &Upload) -> Problem {
        tokio::select! {
            () = self.stop.cancelled() => stopping(),
            why = upload.ended() => why,
        }
    }

    /// Keeps the platform's word for the publication, for the nodes that will copy its blocks from here.
    async fn admit(&self, upload: &Upload) -> Result<(), Problem> {
        let (reference, word) = {
            let verified = upload.verified();
            (verified.authority.reference, verified.authority_jws.clone())
        };
        match self.durable.with(move |store| store.admit(&reference, word.as_bytes())).await {
            Ok(()) => Ok(()),
            Err(StoreError::Deleted { .. }) => Err(deleted()),
            Err(error) => Err(Problem::internal(&error)),
        }
    }

    /// Cuts the layout's parts into blocks and puts each on its holders; the index last, so that whoever finds it finds all.
    async fn store(&self, upload: &Upload, layout: Layout, source_sha256: [u8; 32]) -> Result<Done, Problem> {
        let total: u64 = layout.parts.iter().map(Part::size).sum();
        let mut progress = StoreProgress { upload, begun: Instant::now(), total, done: 0 };
        self.admit(upload).await?;
        let mut placer = Placer::new(self, upload);
        let mut builder = IndexBuilder::new();
        let mut orders_of_parts = Vec::with_capacity(layout.parts.len());
        for part in layout.parts {
            let length = part.size();
            let mut orders = Vec::new();
            for block in read_blocks(part).await? {
                let block = Block::of(block);
                // A block is at most 1 MiB long.
                let length = block.bytes().len() as u32;
                orders.push(builder.push_fragment(block.id(), length).map_err(index_problem)?);
                placer.place(block).await?;
            }
            orders_of_parts.push(orders);
            progress.advance(length);
        }
        for file in layout.files {
            let orders = file.parts.iter().flat_map(|part| orders_of_parts[*part].iter().copied());
            builder.add_file(&file.path, file.media_type, orders).map_err(index_problem)?;
        }
        let blocks = builder.fragments().len() as u64;
        let renditions = layout.renditions.into_iter().map(rendition).collect();
        let index = builder.finish(source_sha256, layout.duration_ms, renditions).map_err(index_problem)?;
        let encoded = encode(&index, &IndexLimits::default()).map_err(index_problem)?;
        upload.enter(Phase::Replicating);
        let mut progress =
            Replicating { upload, begun: Instant::now(), of: placer.under_way.len() + encoded.pages.len() + 1 };
        for page in encoded.pages {
            placer.place(Block::of(page.bytes.into())).await?;
        }
        placer.drain(|left| progress.left(left + 1)).await?;
        let key = ContentKey::from(encoded.root.id);
        placer.place(Block::of(encoded.root.bytes.into())).await?;
        placer.drain(|left| progress.left(left)).await?;
        placer.tell_what_is_not_kept();
        Ok(Done { key, duration_ms: layout.duration_ms, blocks })
    }
}

/// A defect of ours that ends the task must not leave the upload working for ever.
struct RejectUnlessDone<'a>(&'a Upload);

impl Drop for RejectUnlessDone<'_> {
    fn drop(&mut self) {
        self.0.reject_now(Problem::new(
            ErrorKind::Internal,
            "The node failed while it processed the file. Upload it again.",
        ));
    }
}

/// What an upload became.
struct Done {
    key: ContentKey,
    duration_ms: u64,
    blocks: u64,
}

/// Puts blocks on their holders, a few at a time, each once.
struct Placer<'a> {
    ingest: &'a Ingest,
    upload: &'a Upload,
    reference: Reference,
    authority: String,
    seen: BTreeSet<BlockId>,
    under_way: FuturesUnordered<futures::future::BoxFuture<'a, Result<Kept, PeersError>>>,
    /// Blocks that were to be kept here and are not, and why the first of them is not.
    not_kept: Option<(u64, Refusal)>,
}

/// What became of this node's copy of a block that is on its holders.
type Kept = Result<(), Refusal>;

impl<'a> Placer<'a> {
    fn new(ingest: &'a Ingest, upload: &'a Upload) -> Self {
        let verified = upload.verified();
        Self {
            ingest,
            upload,
            reference: verified.authority.reference,
            authority: verified.authority_jws.clone(),
            seen: BTreeSet::new(),
            under_way: FuturesUnordered::new(),
            not_kept: None,
        }
    }

    async fn place(&mut self, block: Block) -> Result<(), Problem> {
        if !self.seen.insert(block.id()) {
            return Ok(());
        }
        while self.under_way.len() >= PLACING {
            self.next().await?;
        }
        let (ingest, reference, authority) = (self.ingest, self.reference, self.authority.clone());
        self.under_way.push(Box::pin(async move {
            let own = OwnCopy { durable: &ingest.durable, put: OnceCell::new() };
            let keep =
                async { if ingest.keep_until_proved { own.store(block.clone(), &[reference]).await } else { Ok(()) } };
            let (placed, kept) = tokio::join!(ingest.peers.place(&own, block.clone(), reference, &authority), keep);
            placed.map(|()| kept)
        }));
        Ok(())
    }

    /// Waits until everything that was placed is durable on its holders, and here as far as it is kept here.
    async fn drain(&mut self, mut left: impl FnMut(usize)) -> Result<(), Problem> {
        while !self.under_way.is_empty() {
            self.next().await?;
            left(self.under_way.len());
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<(), Problem> {
        tokio::select! {
            problem = self.ingest.broken_off(self.upload) => Err(problem),
            placed = self.under_way.next() => match placed {
                Some(Err(error)) => Err(Problem::new(ErrorKind::NotReplicated, format!("{error}. Upload it again later."))),
                Some(Ok(kept)) => {
                    if let Err(refusal) = kept {
                        self.not_kept.get_or_insert((0, refusal)).0 += 1;
                    }
                    Ok(())
                }
                None => Ok(()),
            },
        }
    }

    /// That costs safety, and is no reason to refuse the upload: the blocks are on as many nodes as they are to be on.
    fn tell_what_is_not_kept(&self) {
        if let Some((blocks, first)) = &self.not_kept {
            let publication = &self.reference.publication;
            tracing::warn!(%publication, blocks, reason = first.text, "blocks are not kept here until others have proved theirs");
        }
    }
}

/// This node's own copy of a block, as one of its holders or kept until they have proved theirs: it is put once.
struct OwnCopy<'a> {
    durable: &'a Durable,
    put: OnceCell<Kept>,
}

impl Local for OwnCopy<'_> {
    async fn store(&self, block: Block, references: &[Reference]) -> Result<(), Refusal> {
        self.put.get_or_init(|| Local::store(self.durable, block, references)).await.clone()
    }
}

struct StoreProgress<'a> {
    upload: &'a Upload,
    begun: Instant,
    total: u64,
    done: u64,
}

impl StoreProgress<'_> {
    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        let (percent, remaining) = estimate(self.done, self.total, self.begun.elapsed());
        self.upload.report(percent, remaining);
    }
}

/// How many of the last blocks are durable on their holders, the index block among them.
struct Replicating<'a> {
    upload: &'a Upload,
    begun: Instant,
    of: usize,
}

impl Replicating<'_> {
    fn left(&mut self, left: usize) {
        // Pages that were there already are not placed again, so less may be under way than was thought.
        self.of = self.of.max(left);
        let (percent, remaining) = estimate((self.of - left) as u64, self.of as u64, self.begun.elapsed());
        self.upload.report(percent, remaining);
    }
}

/// The SHA-256 of an upload's file, made while FFmpeg reads it too, where it is not known. Dropped, it ends soon.
struct SourceHash {
    known: Option<[u8; 32]>,
    hashing: Option<JoinHandle<io::Result<[u8; 32]>>>,
    _stop: DropGuard,
}

impl SourceHash {
    fn begin(known: Option<[u8; 32]>, file: &Path) -> Self {
        let stop = CancellationToken::new();
        let (file, stopped) = (file.to_owned(), stop.clone());
        let hashing = known.is_none().then(|| tokio::task::spawn_blocking(move || hash_file(&file, &stopped)));
        Self { known, hashing, _stop: stop.drop_guard() }
    }

    async fn end(self) -> Result<[u8; 32], Problem> {
        match (self.known, self.hashing) {
            (Some(hash), _) => Ok(hash),
            (None, Some(hashing)) => {
                let hashed = hashing.await.map_err(|error| Problem::internal(&error))?;
                hashed.map_err(|error| Problem::internal(&error))
            }
            (None, None) => Err(Problem::internal(&"nobody hashes the file")),
        }
    }
}

fn hash_file(path: &Path, stop: &CancellationToken) -> io::Result<[u8; 32]> {
    let (mut file, mut hash, mut piece) = (File::open(path)?, Sha256::new(), vec![0; HASH_BUFFER]);
    while !stop.is_cancelled() {
        match file.read(&mut piece)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&piece[..read]),
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

/// Runs a transcode and passes its progress on to the upload's status.
async fn follow<T>(transcoding: impl Future<Output = T>, mut seen: watch::Receiver<Progress>, upload: &Upload) -> T {
    tokio::pin!(transcoding);
    loop {
        tokio::select! {
            done = &mut transcoding => return done,
            Ok(()) = seen.changed() => {
                let progress = *seen.borrow_and_update();
                upload.report(progress.percent, progress.remaining.map(|remaining| remaining.as_secs_f64()));
            }
        }
    }
}

/// A part's bytes, cut at 1 MiB.
async fn read_blocks(part: Part) -> Result<Vec<Bytes>, Problem> {
    let read = tokio::task::spawn_blocking(move || read_part(part)).await;
    let bytes = read.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))?;
    let bytes = Bytes::from(bytes);
    Ok((0..bytes.len())
        .step_by(MAX_BLOCK_BYTES)
        .map(|start| bytes.slice(start..bytes.len().min(start + MAX_BLOCK_BYTES)))
        .collect())
}

fn read_part(part: Part) -> io::Result<Vec<u8>> {
    match part {
        Part::Bytes(bytes) => Ok(bytes),
        Part::Range { path, offset, len } => {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::with_capacity(usize::try_from(len).map_err(io::Error::other)?);
            if file.take(len).read_to_end(&mut bytes)? as u64 == len {
                Ok(bytes)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        }
    }
}

fn rendition(rendition: transcode::Rendition) -> Rendition {
    Rendition {
        kind: match rendition.kind {
            transcode::RenditionKind::Video => RenditionKind::Video,
            transcode::RenditionKind::Audio => RenditionKind::Audio,
            transcode::RenditionKind::Text => RenditionKind::Text,
        },
        name: rendition.name,
        codecs: rendition.codecs,
        peak_bandwidth_bps: rendition.peak_bps,
        average_bandwidth_bps: rendition.average_bps,
        width_px: rendition.size.map(|(width, _)| width.into()),
        height_px: rendition.size.map(|(_, height)| height.into()),
        frame_rate_numerator: rendition.fps.map(|fps| fps.num.into()),
        frame_rate_denominator: rendition.fps.map(|fps| fps.den.into()),
        channels: rendition.channels.map(u64::from),
        sample_rate_hz: rendition.sample_rate.map(u64::from),
        language: rendition.language,
        playlist: rendition.playlist,
        mp4: rendition.mp4,
    }
}

fn transcode_problem(kind: transcode::ErrorKind, detail: &str) -> Problem {
    let kind = match kind {
        transcode::ErrorKind::NotAVideo => ErrorKind::NotAVideo,
        transcode::ErrorKind::VideoDamaged => ErrorKind::VideoDamaged,
        transcode::ErrorKind::VideoUnsupported => ErrorKind::VideoUnsupported,
        transcode::ErrorKind::Internal => return Problem::internal(&detail),
    };
    Problem::new(kind, detail)
}

fn index_problem(error: IndexError) -> Problem {
    Problem::internal(&error)
}

fn stopping() -> Problem {
    Problem::new(ErrorKind::Internal, "The node is shutting down. Upload it again.")
}

#[cfg(test)]
mod tests;
