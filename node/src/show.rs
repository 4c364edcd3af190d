//! A node's state and the progress of long work, for people.

use control_api::types::{NodeStatus, RefusedStatus, ReplicasStatus};
use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// What `imira-node status` prints; `now` in seconds since 1970.
pub(crate) fn status(status: &NodeStatus, now: u64) -> String {
    let (storage, cache) = (&status.storage, &status.cache);
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<9} {value}");
    };
    line("node", format!("{}, version {}, up for {}", status.peer_id, status.version, ago(status.started, now)));
    line("network", format!("{}, {} peers, {} copies of a block", status.network_id, status.peers, status.replication));
    line("refused", refused(&status.refused));
    line("load", format!("{:.2}, {} uploads under way", status.load, status.uploads));
    line(
        "storage",
        format!(
            "{} of {} used, {} more for uploads; {} of it kept for repair",
            bytes(storage.used_bytes),
            bytes(storage.quota_bytes),
            bytes(storage.free_for_uploads()),
            bytes(storage.repair_reserve_bytes)
        ),
    );
    line("garbage", format!("{} of deleted blocks to be given back", bytes(storage.dead_bytes)));
    line("blocks", format!("{}, {}", HumanCount(storage.blocks), damage(storage.damaged_blocks)));
    line("copies", copies(&status.replicas));
    line("members", members(&status.replicas));
    line(
        "scrub",
        match storage.scrubbed {
            Some(at) => format!("every block was last read {} ago", ago(at, now)),
            None => "no round has been finished yet".to_owned(),
        },
    );
    line(
        "cache",
        format!(
            "{} of {}, {} hits, {} misses ({} joined another's), {} evictions",
            bytes(cache.used_bytes),
            bytes(cache.capacity_bytes),
            HumanCount(cache.hits),
            HumanCount(cache.misses),
            HumanCount(cache.joined),
            HumanCount(cache.evictions)
        ),
    );
    line("delivery", format!("{}, files of at most {}", status.delivery_url, bytes(status.max_upload_bytes)));
    text
}

fn copies(replicas: &ReplicasStatus) -> String {
    let wanted = match replicas.wanted_blocks {
        0 => "all that are to be here are".to_owned(),
        blocks => format!("{} still to be fetched ({})", HumanCount(blocks), bytes(replicas.wanted_bytes)),
    };
    let (pulled, surplus) = (HumanCount(replicas.pulled_blocks), HumanCount(replicas.surplus_blocks));
    format!("{wanted}; {pulled} were since the start ({}); {surplus} more than needed", bytes(replicas.pulled_bytes))
}

fn members(replicas: &ReplicasStatus) -> String {
    let mut text = format!("{} up, {} of them share blocks with this node", replicas.members_up, replicas.neighbours);
    if replicas.members_silent > 0 {
        text += &format!("; {} DO NOT ANSWER", replicas.members_silent);
    }
    if replicas.members_distrusted > 0 {
        text += &format!("; {} PROVED WRONG, see the node's log", replicas.members_distrusted);
    }
    text
}

/// How many connections of other nodes, and why.
fn refused(refused: &RefusedStatus) -> String {
    let mut reasons = BTreeMap::<&str, u64>::new();
    for (reason, count) in refused.udp.iter().chain(&refused.tcp) {
        *reasons.entry(reason).or_default() += count;
    }
    let named: Vec<_> = reasons.iter().filter(|(_, count)| **count > 0).collect();
    let total: u64 = named.iter().map(|(_, count)| **count).sum();
    if total == 0 {
        return "no connections of other nodes".to_owned();
    }
    let named: Vec<_> = named.iter().map(|(reason, count)| format!("{count} {}", reason.replace('_', " "))).collect();
    format!("{total} connections of other nodes: {}", named.join(", "))
}

fn damage(blocks: u64) -> String {
    match blocks {
        0 => "none known to be damaged".to_owned(),
        _ => format!("{} DAMAGED, no good copy of them has come yet; see the node's log", HumanCount(blocks)),
    }
}

pub(crate) fn bytes(count: u64) -> String {
    HumanBytes(count).to_string()
}

fn ago(then: u64, now: u64) -> String {
    HumanDuration(Duration::from_secs(now.saturating_sub(then))).to_string()
}

/// A bar of bytes with speed and remaining time, on standard error; nothing where that is no terminal.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    pub(crate) fn new(what: &'static str) -> Self {
        let bar = ProgressBar::new(0).with_message(what);
        let style = ProgressStyle::with_template(
            "{msg} {bar:30} {percent:>3} %  {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left",
        );
        // The template is a constant; were it wrong, the plain bar would do.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub(crate) fn at(&self, done_bytes: u64, total_bytes: u64) {
        self.0.set_length(total_bytes);
        self.0.set_position(done_bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The phases of an upload one after another, each with its percentage and remaining time, on standard error.
pub(crate) struct PhaseBar(ProgressBar);

impl PhaseBar {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new(1_000);
        let style = ProgressStyle::with_template("{prefix:12} {bar:30} {percent:>3} %  {msg}");
        // The template is a constant; were it wrong, the plain bar would do.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub(crate) fn at(&self, phase: String, percent: f64, remaining_seconds: Option<f64>) {
        self.0.set_prefix(phase);
        // 0 to 100.
        self.0.set_position((percent * 10.0) as u64);
        self.0.set_message(remaining_seconds.map_or(String::new(), |seconds| {
            format!("{} left", HumanDuration(Duration::try_from_secs_f64(seconds).unwrap_or_default()))
        }));
    }
}

impl Drop for PhaseBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_api::types::{CacheStatus, StorageStatus};

    fn example(storage: StorageStatus) -> NodeStatus {
        NodeStatus {
            peer_id: "12D3KooWNode".parse().unwrap(),
            network_id: chunkstore_block::NetworkId::from_bytes([1; 16]),
            version: "0.1.0".to_owned(),
            started: 1_000,
            replication: 2,
            peers: 5,
            load: 0.25,
            uploads: 1,
            storage,
            lookups: control_api::LookupsStatus::default(),
            refused: RefusedStatus {
                udp: [("wrong_key".to_owned(), 3), ("too_slow".to_owned(), 0)].into(),
                tcp: [("wrong_key".to_owned(), 1), ("revoked_certificate".to_owned(), 2)].into(),
            },
            replicas: ReplicasStatus {
                wanted_blocks: 12,
                wanted_bytes: 12 << 20,
                surplus_blocks: 3,
                members_up: 4,
                members_silent: 1,
                neighbours: 2,
                ..ReplicasStatus::default()
            },
            cache: CacheStatus {
                used_bytes: 5 << 20,
                capacity_bytes: 256 << 20,
                hits: 12_345,
                ..CacheStatus::default()
            },
            delivery_url: "http://node.example:7201".to_owned(),
            max_upload_bytes: 50 << 30,
            traffic: control_api::TrafficStatus::default(),
            uploads_by_phase: BTreeMap::new(),
        }
    }

    #[test]
    fn a_node_s_state_is_shown_in_human_units() {
        let storage = StorageStatus {
            used_bytes: 40 << 30,
            quota_bytes: 100 << 30,
            blocks: 81_000,
            repair_reserve_bytes: 5 << 30,
            upload_free_bytes: Some(55 << 30),
            damaged_blocks: 2,
            dead_bytes: 3 << 20,
            scrubbed: Some(1_000 + 3_600),
        };
        let text = status(&example(storage), 1_000 + 3 * 86_400);
        assert_eq!(
            text,
            "node      12D3KooWNode, version 0.1.0, up for 3 days\n\
             network   01010101010101010101010101010101, 5 peers, 2 copies of a block\n\
             refused   6 connections of other nodes: 2 revoked certificate, 4 wrong key\n\
             load      0.25, 1 uploads under way\n\
             storage   40.00 GiB of 100.00 GiB used, 55.00 GiB more for uploads; 5.00 GiB of it kept for repair\n\
             garbage   3.00 MiB of deleted blocks to be given back\n\
             blocks    81,000, 2 DAMAGED, no good copy of them has come yet; see the node's log\n\
             copies    12 still to be fetched (12.00 MiB); 0 were since the start (0 B); 3 more than needed\n\
             members   4 up, 2 of them share blocks with this node; 1 DO NOT ANSWER\n\
             scrub     every block was last read 3 days ago\n\
             cache     5.00 MiB of 256.00 MiB, 12,345 hits, 0 misses (0 joined another's), 0 evictions\n\
             delivery  http://node.example:7201, files of at most 50.00 GiB\n"
        );
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        let text = status(&example(StorageStatus::default()), 1_000);
        assert!(text.contains("no round has been finished yet") && text.contains("none known to be damaged"), "{text}");
    }
}
