//! Work with keys, away from the threads that serve viewers.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::problem::{ErrorKind, Problem};

/// Requests that may wait for their turn: at the least of 2,000 a second the last one waits for an eighth of a second.
const MAX_WAITING: usize = 256;

/// Threads for work of which strangers can ask for any amount. It takes half of the processors at most, each thread as one among those that
/// the system shares the time with, so a flood of bad signatures makes others wait for each other and not for it.
#[derive(Clone, Debug)]
pub(crate) struct Workers {
    threads: Arc<Semaphore>,
    /// Those that work and those that wait.
    places: Arc<Semaphore>,
}

impl Default for Workers {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self::new((processors / 2).max(1), MAX_WAITING)
    }
}

impl Workers {
    fn new(threads: usize, waiting: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { threads: semaphore(threads), places: semaphore(threads + waiting) }
    }

    /// Does the work when it is its turn. Whoever waits and goes away takes no turn.
    ///
    /// Errors: those of the work, and `busy` when too many are waiting.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(Problem::new(ErrorKind::Busy, "Too many requests wait to be checked. Ask again in a second."));
        };
        let turn = Arc::clone(&self.threads).acquire_owned().await.map_err(|error| Problem::internal(&error))?;
        let done = tokio::task::spawn_blocking(move || {
            let _held = (place, turn);
            work()
        });
        done.await.map_err(|error| Problem::internal(&error))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn what_comes_while_the_queue_is_full_is_refused_and_the_rest_is_done() {
        let workers = Workers::new(1, 2);
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (go_on, wait) = mpsc::sync_channel::<()>(1);
        let busy = workers.clone();
        let first = tokio::spawn(async move {
            busy.run(move || {
                begun.send(()).unwrap();
                wait.recv().unwrap();
                Ok(0)
            })
            .await
        });
        has_begun.await.unwrap();
        let mut waiting: Vec<_> = (1..=2).map(|number| Box::pin(workers.run(move || Ok(number)))).collect();
        for one in &mut waiting {
            assert!(futures::poll!(one).is_pending());
        }
        assert_eq!(workers.run(|| Ok(3)).await.unwrap_err().kind, ErrorKind::Busy);
        // One who goes away makes room.
        drop(waiting.pop());
        let last = workers.run(|| Err::<u8, _>(Problem::new(ErrorKind::BadSignature, "no")));
        go_on.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap(), 0);
        assert_eq!(waiting.pop().unwrap().await.unwrap(), 1);
        assert_eq!(last.await.unwrap_err().kind, ErrorKind::BadSignature);
    }
}
