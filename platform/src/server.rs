//! Puts the platform together and runs it until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use control_api::{ClientError, DeliveryClient};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::App;
use crate::broker::Broker;
use crate::config::{Config, ConfigError};
use crate::couriers::Couriers;
use crate::http;
use crate::ingest::Ingest;
use crate::nodes::NodeList;
use crate::receipts;
use crate::setup::{self, DataFolder, SetupError};
use crate::store::{Store, StoreError};
use crate::watchers::{Pace, Watchers};

/// What is still running this long after the signal is cut off: proxied transfers may run for minutes.
const GRACE: Duration = Duration::from_secs(3);

/// Why the platform does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data folder.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A node's address.
    #[error(transparent)]
    Node(#[from] ClientError),
    /// The listener.
    #[error(
        "cannot listen on {address}: {cause}; is another program there? `listen` in config.toml chooses the address"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The listener failed later.
    #[error("the HTTP listener failed: {0}")]
    Serve(std::io::Error),
}

/// A platform that listens and does not answer yet.
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    address: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    /// Reads the folder, opens the database, asks every node once, takes up the uploads under way, and listens.
    pub async fn start(folder: &DataFolder, web: PathBuf, pace: Pace) -> Result<Self, ServerError> {
        let config = Config::load(&folder.config())?;
        let key = folder.load_key()?;
        let store = Store::open(&folder.database()).await?;
        let guest = setup::ensure_guest(&store).await?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let nodes = NodeList::new(&config)?;
        let delivery = DeliveryClient::new()?;
        let platform = key.fingerprint();
        let broker = Arc::new(Broker::new(key, nodes.clone(), store.clone()));
        let ingest = Ingest::new(delivery.clone(), nodes.clone(), Arc::clone(&broker));
        let watchers = Watchers::new(store.clone(), ingest, Arc::clone(&broker), pace, tasks.clone(), stop.clone());
        let (listener, address) = listen(config.listen).await?;
        http::pages::check(&web);
        nodes.poll_once().await;
        nodes.keep_polling(&tasks, &stop);
        let resumed = watchers.resume().await?;
        let couriers = Couriers::start(platform, &store, &nodes, &tasks, &stop);
        receipts::start(platform, (&store, &nodes, &broker), &tasks, &stop);
        tracing::info!(%address, resumed, "platform listens");
        let app = Arc::new(App { config, store, nodes, broker, delivery, watchers, couriers, web, guest });
        Ok(Self { app, listener, address, tasks, stop })
    }

    /// Where it listens; of use when the configured port is 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `signal`, then lets what is running finish for [`GRACE`] at most.
    pub async fn run_until(self, signal: impl Future<Output = ()> + Send + 'static) -> Result<(), ServerError> {
        let stop = self.stop.clone();
        let router = http::router(Arc::clone(&self.app));
        let serving = axum::serve(self.listener, router).with_graceful_shutdown({
            let stop = stop.clone();
            async move {
                signal.await;
                stop.cancel();
            }
        });
        let out_of_patience = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let served = tokio::select! {
            served = serving.into_future() => served.map_err(ServerError::Serve),
            () = out_of_patience => Ok(()),
        };
        stop.cancel();
        self.tasks.close();
        // The tasks stop at their next await; what they did not write is asked for again at the next start.
        let _ = tokio::time::timeout(Duration::from_millis(500), self.tasks.wait()).await;
        let _ = tokio::time::timeout(Duration::from_millis(400), self.app.store.close()).await;
        served
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let refused = |cause| ServerError::Listen { address, cause };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}
