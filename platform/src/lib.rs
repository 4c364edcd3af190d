//! The coordinator of an iMira network: catalogue, node list, token broker and web pages (white paper 4.2.1).
//!
//! It never holds a video. It registers contents, asks the least loaded node for an upload token, follows the processing,
//! keeps the ordered fragment list, and sends each viewer to a node with a token of 30 seconds (`docs/api.md` §5).
//!
//! Pure: [`catalogue`] (states and who may see what) and [`choice`] (which node). IO: [`store`] (SQLite), [`nodes`]
//! (polling), [`broker`] (tokens), [`watchers`] (uploads under way), `couriers` (deletion orders on their way), `receipts` (what nodes served), `http`. [`server`] puts them together; [`setup`]
//! makes what they need on disk; [`upload`] and [`deletion`] are the command-line client, which speaks only the public API.

pub mod broker;
pub mod catalogue;
pub mod choice;
pub mod config;
mod couriers;
pub mod deletion;
mod http;
mod ingest;
pub mod nodes;
mod receipts;
pub mod secrets;
pub mod server;
pub mod setup;
pub mod store;
mod time;
pub mod upload;
pub mod watchers;

use std::path::PathBuf;
use std::sync::Arc;

use control_api::DeliveryClient;

/// Everything that a request may need.
pub(crate) struct App {
    pub(crate) config: config::Config,
    pub(crate) store: store::Store,
    pub(crate) nodes: nodes::NodeList,
    pub(crate) broker: Arc<broker::Broker>,
    pub(crate) delivery: DeliveryClient,
    pub(crate) watchers: watchers::Watchers,
    pub(crate) couriers: couriers::Couriers,
    /// Folder of the built pages; may be missing.
    pub(crate) web: PathBuf,
    /// Row id of the user who stands for viewers who are not signed in.
    pub(crate) guest: i64,
}
