//! A member that has no block and reads.

use crate::eventually;
use crate::stage::Stage;
use dht::{BlockClient, Discovery, DiscoveryConfig, Keypair, PeerAddress, Peers};
use std::sync::Arc;
use std::time::Duration;

/// A member that knows all nodes.
pub struct Reader {
    /// Fetches blocks as a node does.
    pub peers: Peers,
}

impl Reader {
    /// Joins by `bootstrap` and waits until it knows `nodes`.
    pub async fn join(stage: &Stage, nodes: &[PeerAddress], bootstrap: &[String], replication: usize) -> Self {
        let (keypair, network) = (Keypair::generate_ed25519(), Arc::new(stage.network()));
        let config = DiscoveryConfig {
            keypair: keypair.clone(),
            network: Arc::clone(&network),
            listen: stage.free_address(),
            bootstrap: bootstrap.iter().map(|text| text.parse().unwrap()).collect(),
            allow_private_addresses: None,
        };
        let (discovery, _) = Discovery::start(config).await.unwrap();
        let peers = Peers::new(discovery, BlockClient::new(keypair, network).unwrap(), replication);
        eventually("the reader knowing all nodes", Duration::from_secs(30), || async {
            let known = peers.discovery().peers().await.unwrap();
            nodes.iter().all(|node| known.iter().any(|(id, _)| *id == node.id)).then_some(())
        })
        .await;
        Self { peers }
    }
}
