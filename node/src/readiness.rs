//! What keeps a node from a part of its work (`GET /readyz`, docs/api.md §3).

use crate::backend::Node;
use control_api::types::NotReady;

impl Node {
    /// Every reason there is now; viewers may be served all the same.
    pub(crate) async fn not_ready(&self) -> Vec<NotReady> {
        let mut reasons = Vec::new();
        if !self.blocks.durable.store().takes_changes() {
            let detail = "The store takes no changes: its disk fails. What it has is still served; see the log, and restart the node \
                          on a disk that works.";
            reasons.push(NotReady::new("store-refuses", detail));
        }
        if self.about.platforms.is_empty() {
            let detail = "No platform key is pinned. Put a platform's platform.pub.pem into the folder platforms/, and reload the node.";
            reasons.push(NotReady::new("no-platform", detail));
        }
        match self.room_for_uploads(self.uploads.staged()) {
            Ok(0) => {
                let detail = "There is no room for an upload: the quota, less what is kept for repair, or the disk is full. \
                              Viewers are served.";
                reasons.push(NotReady::new("no-room", detail));
            }
            Ok(_) => {}
            Err(problem) => reasons.push(NotReady::new("store-refuses", problem.detail)),
        }
        match self.blocks.peers.discovery().peers().await {
            Ok(peers) if peers.len() + 1 < self.about.replication => {
                let detail = format!(
                    "{} other nodes are known, and each block is kept on {}: no upload is taken. Is bootstrap right, and can others \
                     be reached? `imira-node doctor` says more.",
                    peers.len(),
                    self.about.replication
                );
                reasons.push(NotReady::new("too-few-nodes", detail));
            }
            Ok(_) => {}
            Err(_) => {
                reasons.push(NotReady::new("discovery-ended", "The search for other nodes has ended; see the log."))
            }
        }
        reasons
    }
}
