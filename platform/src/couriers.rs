//! One task for each node of config.toml: it brings the node every deletion order of its network, in order, until it has
//! them all, and each new one at once. What a node has is in the database, so a restart of either side begins where it ended.
//!
//! Except that a node may come back as it was before: restored from a backup, it has the blocks again and not the orders
//! that came since. So a node that was started anew is asked which orders it has, once for each start, and gets what is
//! missing. It also lacks, rightly, what it forgot after its `tombstone_days`; the platform cannot tell, and sends that
//! again as well: it does nothing there, costs a write for each order, and is remembered for as many days again.

use std::collections::HashSet;
use std::time::Duration;

use chunkstore_block::PlatformFingerprint;
use control_api::ClientError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::nodes::{Node, NodeList, Slot};
use crate::store::{Order, Store, StoreError};

/// Between two looks whether a node lacks something. It is asked as often whether it is up, so one that comes back has its
/// orders after twice this time.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// After the first failure; each one more doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The pause never gets longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A node writes an order to disk before it answers.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);

/// Orders that are read from the database, or asked of a node, at a time.
const ORDERS_AT_ONCE: u32 = 100;

/// The delivering tasks.
pub(crate) struct Couriers {
    new_order: watch::Sender<()>,
}

/// Why a node does not have an order yet.
#[derive(Debug, thiserror::Error)]
enum CourierError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("it takes too long")]
    Slow,
    #[error("it answered about another order")]
    OtherOrder,
}

impl Couriers {
    /// Starts a task for each node, in `tasks` until `stop`.
    pub(crate) fn start(
        platform: PlatformFingerprint,
        store: &Store,
        nodes: &NodeList,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (new_order, _) = watch::channel(());
        for slot in nodes.slots() {
            let courier = Courier { platform, slot, store: store.clone(), nodes: nodes.clone() };
            let (stop, news) = (stop.clone(), new_order.subscribe());
            tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = courier.run(news) => {}
                }
            });
        }
        Self { new_order }
    }

    /// There is a new order: it goes out now.
    pub(crate) fn announce(&self) {
        self.new_order.send_replace(());
    }
}

struct Courier {
    platform: PlatformFingerprint,
    slot: Slot,
    store: Store,
    nodes: NodeList,
}

/// How far a node was asked which orders it has.
#[derive(Default)]
struct Inquiry {
    /// Of which start of the node.
    started: Option<u64>,
    /// Up to this order.
    after: u64,
}

impl Courier {
    async fn run(&self, mut news: watch::Receiver<()>) {
        let (mut after_failure, mut complaint) = (FIRST_PAUSE, String::new());
        loop {
            news.mark_unchanged();
            let pause = match self.deliver().await {
                Ok(()) => {
                    (after_failure, complaint) = (FIRST_PAUSE, String::new());
                    LOOK_EVERY
                }
                Err(error) => {
                    self.complain(&error, &mut complaint);
                    let pause = after_failure;
                    after_failure = (pause * 2).min(LONGEST_PAUSE);
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Ends only with the platform.
                Ok(()) = news.changed() => {}
            }
        }
    }

    /// Brings the node what it lacks, if it is up.
    async fn deliver(&self) -> Result<(), CourierError> {
        let mut inquiry = Inquiry::default();
        while let Some(node) = self.slot.node() {
            let step = self.step(&node, &mut inquiry).await;
            if matches!(step, Err(CourierError::Client(ClientError::Transport(_)))) {
                self.nodes.mark_down(&node);
            }
            if step? {
                break;
            }
        }
        Ok(())
    }

    /// New orders first: somebody has just asked for them. `true` when nothing is left to do.
    async fn step(&self, node: &Node, inquiry: &mut Inquiry) -> Result<bool, CourierError> {
        Ok(!self.send_new(node).await? && self.inquire(node, inquiry).await?)
    }

    /// Sends the next orders that the node never had, if there are any.
    async fn send_new(&self, node: &Node) -> Result<bool, CourierError> {
        let (network, peer) = (self.slot.network(), node.peer_id().as_str());
        let orders = self.store.undelivered(network, peer, ORDERS_AT_ONCE).await?;
        for order in &orders {
            send(node, order).await?;
            self.store.note_delivered(network, peer, order.sequence).await?;
            tracing::info!(node = peer, sequence = order.sequence, "node has the deletion order");
        }
        Ok(!orders.is_empty())
    }

    /// Asks a node that was started anew for the next of the orders that it had. `true` when it has them all.
    async fn inquire(&self, node: &Node, inquiry: &mut Inquiry) -> Result<bool, CourierError> {
        let (network, peer, started) = (self.slot.network(), node.peer_id().as_str(), node.status().started);
        if inquiry.started != Some(started) {
            if self.store.confirmed_start(network, peer).await? == Some(started) {
                return Ok(true);
            }
            *inquiry = Inquiry { started: Some(started), after: 0 };
        }
        let orders = self.store.delivered(network, peer, inquiry.after, ORDERS_AT_ONCE).await?;
        let Some(last) = orders.last() else {
            self.store.note_confirmed(network, peer, started).await?;
            return Ok(true);
        };
        self.send_missing(node, inquiry.after, &orders).await?;
        inquiry.after = last.sequence;
        Ok(false)
    }

    /// Sends those of `orders`, which are the next after `after`, that the node does not show.
    async fn send_missing(&self, node: &Node, after: u64, orders: &[Order]) -> Result<(), CourierError> {
        // One page is enough: a node has no orders of this platform between these, or else gets some in vain.
        let there = node.client().deletions(self.platform, after, ORDERS_AT_ONCE).await?;
        let there: HashSet<String> = there.deletions.into_iter().map(|entry| entry.order).collect();
        let missing: Vec<&Order> = orders.iter().filter(|order| !there.contains(&order.signed)).collect();
        for order in &missing {
            send(node, order).await?;
        }
        if !missing.is_empty() {
            let (node, orders) = (node.peer_id().as_str(), missing.len());
            tracing::info!(node, orders, "node was started anew and lacked deletion orders: it has them again");
        }
        Ok(())
    }

    /// Once for each reason: a node that refuses does so every minute.
    fn complain(&self, error: &CourierError, last: &mut String) {
        let complaint = error.to_string();
        if *last != complaint {
            let control = self.slot.control_url();
            tracing::warn!(%control, "a deletion order is not delivered yet, and is tried again: {complaint}");
            *last = complaint;
        }
    }
}

async fn send(node: &Node, order: &Order) -> Result<(), CourierError> {
    let answer = tokio::time::timeout(ORDER_TIMEOUT, node.client().delete(&order.signed)).await;
    let answer = answer.map_err(|_| CourierError::Slow)??;
    match answer.sequence == order.sequence {
        true => Ok(()),
        false => Err(CourierError::OtherOrder),
    }
}
