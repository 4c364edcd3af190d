//! Hashes a block while its caller writes it. With one caller, hash and write in turn would take longer than the disk;
//! with many, all processors are busy anyway and each hashes its own.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use chunkstore_block::BlockId;

/// A thread that takes a block when it has nothing else to do.
pub(super) struct Hasher {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct Job {
    block: Bytes,
    reply: SyncSender<BlockId>,
}

/// A hash that is being computed, or is still to be.
pub(super) struct Hashing {
    block: Bytes,
    reply: Option<Receiver<BlockId>>,
}

impl Hasher {
    pub(super) fn start() -> io::Result<Self> {
        // No queue: a block is handed over to a thread that waits, or not at all.
        let (jobs, waiting) = sync_channel::<Job>(0);
        let work = move || {
            for Job { block, reply } in waiting {
                let _ = reply.send(BlockId::of(&block)); // the caller may have panicked
            }
        };
        let thread = thread::Builder::new().name("chunkstore-hash".to_owned()).spawn(work)?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Begins to hash a block, if the thread waits for one.
    pub(super) fn begin(&self, block: &Bytes) -> Hashing {
        let (reply, receive) = sync_channel(1);
        let job = Job { block: block.clone(), reply };
        let is_taken = self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok());
        Hashing { block: block.clone(), reply: is_taken.then_some(receive) }
    }
}

impl Hashing {
    /// The hash: waited for, or computed here and now.
    pub(super) fn finish(self) -> BlockId {
        let hashed = self.reply.and_then(|reply| reply.recv().ok());
        hashed.unwrap_or_else(|| BlockId::of(&self.block))
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.jobs = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the block store's hashing thread has panicked");
        }
    }
}
