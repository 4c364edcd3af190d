//! What the store needs done in the background.

use std::sync::Arc;
use tokio::sync::Notify;

/// Handle to the background work. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Housekeeper(Arc<Inner>);

#[derive(Default)]
struct Inner {
    deleted: Notify,
}

impl Housekeeper {
    /// Something was deleted: garbage is collected now and not at the next turn. Calls that come before it began are one.
    #[allow(dead_code)]
    pub(crate) fn wake(&self) {
        self.0.deleted.notify_one();
    }
}
