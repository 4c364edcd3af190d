//! The simulator. Drives the production placement and replication code (`dht-core`) with drawn nodes, blocks and faults; the same seed
//! gives the same run on every machine.

mod checks;
mod faults;
mod network;
mod node;
mod oracle;
pub mod placement;
mod queue;
mod random;
pub mod replication;
pub mod report;
pub mod scenario;
pub mod search;
pub mod sessions;
mod world;
