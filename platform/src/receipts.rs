//! One task for each node of config.toml: it fetches the node's receipts (`docs/receipts.md`), checks and counts them, and tells the node that
//! it may forget them. How far a log is counted is in the database, in one change with the sums, so whatever is killed in between, nothing
//! is counted twice and nothing is left out.

use std::sync::Arc;
use std::time::Duration;

use chunkstore_block::{NetworkId, PlatformFingerprint};
use control_api::{Acknowledgement, ClientError, NO_RECEIPT, NodeId, Receipt, ReceiptError, SigningError, is_log_name};
use data_encoding::HEXLOWER;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::Broker;
use crate::nodes::{Node, NodeList, Slot};
use crate::store::{LogMark, Served, Store, StoreError};

/// Between two questions to a node that has nothing more. It writes receipts every 10 s.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Receipts that are fetched at a time.
const AT_ONCE: u32 = 500;

/// Why a node's receipts are not counted.
#[derive(Debug, thiserror::Error)]
enum CollectError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error("receipt {0} is refused: {1}")]
    Receipt(u64, ReceiptError),
    #[error("receipt {0} is refused: it does not follow the one before it, or is for another platform, network or log")]
    OutOfPlace(u64),
    #[error("it names its log in another form than 32 hex digits")]
    BadLog,
}

/// Starts a task for each node, in `tasks` until `stop`.
pub(crate) fn start(
    platform: PlatformFingerprint,
    (store, nodes, broker): (&Store, &NodeList, &Arc<Broker>),
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    for slot in nodes.slots() {
        let collector = Collector { platform, slot, store: store.clone(), broker: Arc::clone(broker) };
        let stop = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = collector.run() => {}
            }
        });
    }
}

struct Collector {
    platform: PlatformFingerprint,
    slot: Slot,
    store: Store,
    broker: Arc<Broker>,
}

/// What the node was last told: until it says otherwise by a new start, it need not be told again.
#[derive(Default, PartialEq)]
struct Told {
    log: String,
    through: u64,
}

impl Collector {
    async fn run(&self) {
        let (mut told, mut complaint) = (Told::default(), String::new());
        loop {
            match self.collect(&mut told).await {
                Ok(()) => complaint.clear(),
                // Once for each reason: a node of before, or one that lies, does so every time.
                Err(error) if error.to_string() != complaint => {
                    complaint = error.to_string();
                    tracing::warn!(control = %self.slot.control_url(), "receipts are not counted: {complaint}");
                }
                Err(_) => {}
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Fetches until the node has no more, if it is up.
    async fn collect(&self, told: &mut Told) -> Result<(), CollectError> {
        while let Some(node) = self.slot.node() {
            if !self.step(&node, told).await? {
                break;
            }
        }
        Ok(())
    }

    /// One batch: fetch, check, count, acknowledge. True when there is more.
    async fn step(&self, node: &Node, told: &mut Told) -> Result<bool, CollectError> {
        // Which log the node has now says the answer; the one of before is a good guess.
        let known = (!told.log.is_empty()).then_some(told.log.as_str());
        let peer = node.peer_id().as_str();
        let mut mark = match known {
            Some(log) => self.store.receipt_mark(peer, log).await?,
            None => None,
        };
        let after = mark.as_ref().map_or(0, |mark| mark.through);
        let mut answer = node.client().receipts(self.platform, known, after, AT_ONCE).await?;
        let Some(log) = answer.log.take() else { return Ok(false) };
        if !is_log_name(&log) {
            return Err(CollectError::BadLog);
        }
        if known != Some(log.as_str()) {
            mark = self.store.receipt_mark(peer, &log).await?;
            *told = Told { log: log.clone(), through: 0 };
            if mark.is_some() {
                // Counted up to there by an earlier run of this program.
                return Ok(true);
            }
        }
        if let Some(checked) = self.check(node, &log, mark.as_ref(), &answer.receipts)? {
            self.store.count_receipts(peer, &log, mark.as_ref(), &checked.served, &checked.mark).await?;
            mark = Some(checked.mark);
        }
        let through = mark.map_or(0, |mark| mark.through);
        if through > told.through {
            let acknowledgement = Acknowledgement { log, through };
            node.client().acknowledge_receipts(&self.broker.acknowledge(node, acknowledgement)?).await?;
            told.through = through;
        }
        Ok(answer.more)
    }

    /// Checks that receipts are the node's, for this platform, and follow one another; `None` if there are none.
    fn check(
        &self,
        node: &Node,
        log: &str,
        before: Option<&LogMark>,
        receipts: &[String],
    ) -> Result<Option<Checked>, CollectError> {
        let expected =
            Expected { platform: self.platform, network: node.status().network_id, node: node.peer_id(), log };
        check(&expected, before, receipts)
    }
}

/// Receipts that passed.
#[derive(Debug)]
struct Checked {
    served: Vec<Served>,
    mark: LogMark,
}

/// Whose receipts are wanted.
struct Expected<'a> {
    platform: PlatformFingerprint,
    network: NetworkId,
    node: &'a NodeId,
    log: &'a str,
}

fn check(
    expected: &Expected<'_>,
    before: Option<&LogMark>,
    receipts: &[String],
) -> Result<Option<Checked>, CollectError> {
    let (mut number, mut hash) = before.map_or((0, NO_RECEIPT), |mark| (mark.through, mark.last_hash));
    let mut served = Vec::with_capacity(receipts.len());
    for text in receipts {
        number += 1;
        let receipt = Receipt::verify(text, expected.node).map_err(|error| CollectError::Receipt(number, error))?;
        let fits = receipt.sequence == number
            && receipt.previous == HEXLOWER.encode(&hash)
            && receipt.log == expected.log
            && receipt.platform == expected.platform
            && receipt.network == expected.network;
        if !fits {
            return Err(CollectError::OutOfPlace(number));
        }
        hash = Receipt::hash(text);
        let playback = receipt.action == "playback";
        served.push(Served {
            publication: receipt.publication.map(|publication| publication.to_string()),
            content_key: receipt.content.to_string(),
            bytes: receipt.bytes,
            played_ms: if playback { receipt.played_ms } else { 0 },
            views: u64::from(playback && receipt.start),
        });
    }
    Ok((!served.is_empty()).then_some(Checked { served, mark: LogMark { through: number, last_hash: hash } }))
}
