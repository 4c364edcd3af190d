//! The node's own membership while it runs: certificate and revocations in the data folder are heeded as they change.

use crate::files::DataDir;
use anyhow::{Context, Result};
use dht::{Membership, MembershipError, PeerId};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;

/// How often the files are looked at; with the 4 s between two looks at a connection it is within the 10 s of docs/protocol.md §8.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// From then on the operator is told that the certificate ends.
const WARN_BEFORE_S: u64 = 30 * DAY_S;
const DAY_S: u64 = 86_400;
/// How often they are told while the node runs.
const WARN_EVERY: Duration = Duration::from_secs(DAY_S);

/// Refuses to start a node that everybody else would refuse.
pub(crate) fn check_own(membership: &Membership, own: PeerId) -> Result<()> {
    match standing(membership, own) {
        Standing::Open | Standing::Until { soon: false, .. } => {}
        Standing::Until { days, soon: true } => warn_of_end(days),
        Standing::Refused(error) => {
            return Err(error).context(remedy(own));
        }
    }
    Ok(())
}

/// How this node stands in its network.
pub(crate) enum Standing {
    /// The network asks nobody for a certificate.
    Open,
    /// It is a member for so many days; whether that is soon over.
    Until { days: u64, soon: bool },
    /// Others refuse it.
    Refused(MembershipError),
}

pub(crate) fn standing(membership: &Membership, own: PeerId) -> Standing {
    let now = membership.now();
    match membership.own_end(own, now) {
        Ok(None) => Standing::Open,
        Ok(Some(end)) => {
            let left = end.saturating_sub(now);
            Standing::Until { days: left / DAY_S, soon: left < WARN_BEFORE_S }
        }
        Err(error) => Standing::Refused(error),
    }
}

/// What to do about a node that is not a member.
pub(crate) fn remedy(own: PeerId) -> String {
    format!(
        "this network lets members in only, and this node is none: have the network's authority make a certificate \
         (imira-node network issue --peer {own} ...), then imira-node init --data DIR --certificate FILE"
    )
}

fn warn_of_end(days: u64) {
    tracing::warn!(
        days,
        "this node's certificate ends soon, and it is shut out then: have the authority issue a new one, and put it in with \
         `imira-node init --data DIR --certificate FILE`; the node need not be stopped for that"
    );
}

/// Heeds the files `certificate` and `revocations` whenever they change, and keeps what other nodes have said is revoked, until
/// `stop`.
pub(crate) async fn watch(data: DataDir, membership: Arc<Membership>, own: PeerId, stop: CancellationToken) {
    if membership.authorities().is_empty() {
        return;
    }
    let mut watcher = Watcher { data, membership, own, certificate: None, revocations: None, kept: 0 };
    let mut warned = Instant::now();
    while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
        let looked = tokio::task::spawn_blocking(move || {
            watcher.look();
            watcher
        });
        match looked.await {
            Ok(back) => watcher = back,
            Err(_) => return,
        }
        if warned.elapsed() > WARN_EVERY {
            warned = Instant::now();
            watcher.warn_again();
        }
    }
}

struct Watcher {
    data: DataDir,
    membership: Arc<Membership>,
    own: PeerId,
    certificate: Changed,
    revocations: Changed,
    /// The number of what is on disk.
    kept: u64,
}

impl Watcher {
    fn look(&mut self) {
        let now = changed(&self.data.certificate_path());
        if now != self.certificate {
            self.certificate = now;
            report("certificate", self.take_certificate());
        }
        let now = changed(&self.data.revocations_path());
        if now != self.revocations {
            self.revocations = now;
            report("revocations", self.take_revocations());
        }
        if self.membership.revocations_number() > self.kept {
            report("revocations", self.keep_revocations().map(|()| false));
        }
    }

    /// Whether it is another one.
    fn take_certificate(&self) -> Result<bool> {
        let certificate = self.data.certificate()?.context("it is gone; the node goes on with what it had")?;
        // A worse one does not take the place of a good one.
        self.membership.admit(self.own, certificate.as_bytes(), self.membership.now())?;
        let new = self.membership.certificate().as_ref() != Some(&certificate);
        self.membership.set_certificate(certificate);
        Ok(new)
    }

    /// Whether it says anything new.
    fn take_revocations(&mut self) -> Result<bool> {
        // Unless it turns out to be all that is known, the file is written again.
        self.kept = 0;
        let lists = self.data.revocations()?.unwrap_or_default();
        let new = self.membership.offer_revocations(&lists)?;
        if lists == self.membership.revocations_bytes() {
            self.kept = self.membership.revocations_number();
        }
        Ok(new)
    }

    fn keep_revocations(&mut self) -> Result<()> {
        let (lists, number) = (self.membership.revocations_bytes(), self.membership.revocations_number());
        self.data.keep_revocations(&lists)?;
        self.kept = number;
        // What was just written is no change of somebody else's.
        self.revocations = changed(&self.data.revocations_path());
        Ok(())
    }

    fn warn_again(&self) {
        match standing(&self.membership, self.own) {
            Standing::Until { days, soon: true } => warn_of_end(days),
            Standing::Refused(error) => tracing::error!(%error, "other nodes refuse this one"),
            Standing::Open | Standing::Until { .. } => {}
        }
    }
}

fn report(what: &str, outcome: Result<bool>) {
    match outcome {
        Ok(true) => tracing::info!(what, "a file of the data folder has changed and is heeded"),
        Ok(false) => {}
        Err(error) => tracing::warn!(what, error = format!("{error:#}"), "a file of the data folder is of no use"),
    }
}

/// What tells one version of a file from another: when it was changed, its length, and its inode, which a replacement has anew.
type Changed = Option<(SystemTime, u64, u64)>;

fn changed(path: &Path) -> Changed {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests;
