//! One task for each node of config.toml: it brings the node every deletion order of its network, in order, until it has
//! them all, and each new one at once. What a node has is in the database, so a restart of either side begins where it ended.

use std::time::Duration;

use control_api::ClientError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::nodes::{NodeList, Slot};
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

/// Orders that are read from the database at a time.
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
    pub(crate) fn start(store: &Store, nodes: &NodeList, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let (new_order, _) = watch::channel(());
        for slot in nodes.slots() {
            let courier = Courier { slot, store: store.clone(), nodes: nodes.clone() };
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
    slot: Slot,
    store: Store,
    nodes: NodeList,
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
        while let Some(node) = self.slot.node() {
            let (network, peer) = (self.slot.network(), node.peer_id().as_str());
            let orders = self.store.undelivered(network, peer, ORDERS_AT_ONCE).await?;
            if orders.is_empty() {
                return Ok(());
            }
            for order in orders {
                let sent = send(&node, &order).await;
                if matches!(sent, Err(CourierError::Client(ClientError::Transport(_)))) {
                    self.nodes.mark_down(&node);
                }
                sent?;
                self.store.note_delivered(network, peer, order.sequence).await?;
                tracing::info!(node = peer, sequence = order.sequence, "node has the deletion order");
            }
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

async fn send(node: &crate::nodes::Node, order: &Order) -> Result<(), CourierError> {
    let answer = tokio::time::timeout(ORDER_TIMEOUT, node.client().delete(&order.signed)).await;
    let answer = answer.map_err(|_| CourierError::Slow)??;
    match answer.sequence == order.sequence {
        true => Ok(()),
        false => Err(CourierError::OtherOrder),
    }
}
