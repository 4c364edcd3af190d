//! A node's status as metrics.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::types::NodeStatus;

/// The status at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) status: NodeStatus,
    pub(super) is_ready: bool,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (status, into) = (&self.status, &mut encoder);
        let (storage, replicas, cache) = (&status.storage, &status.replicas, &status.cache);
        let version = [("version", status.version.as_str())];
        labelled(into, "build_info", "Version of the daemon", ConstGauge::new, &[(&version, 1)])?;
        gauge(into, "ready", "1 if GET /readyz says so", u64::from(self.is_ready))?;
        gauge(into, "start_time_seconds", "When the node started, seconds since 1970", status.started)?;
        gauge(into, "load", "Work, without unit: uploads + transfers / 16 + load average / processors", status.load)?;
        gauge(into, "peers", "Peers in the routing table", status.peers)?;
        gauge(into, "transfers", "Responses with blocks that are running", status.traffic.transfers)?;
        phases(into, &status.uploads_by_phase)?;

        gauge(into, "storage_used_bytes", "All that the store keeps on disk", storage.used_bytes)?;
        gauge(into, "storage_quota_bytes", "What the operator grants", storage.quota_bytes)?;
        gauge(into, "storage_upload_free_bytes", "What uploads may still take", storage.free_for_uploads())?;
        gauge(into, "storage_dead_bytes", "Deleted and not given back yet", storage.dead_bytes)?;
        gauge(into, "blocks", "Blocks in the store", storage.blocks)?;
        gauge(into, "damaged_blocks", "Blocks damaged on disk without a good copy yet", storage.damaged_blocks)?;
        if let Some(scrubbed) = storage.scrubbed {
            gauge(into, "scrubbed_time_seconds", "When every block had been read, seconds since 1970", scrubbed)?;
        }

        gauge(into, "wanted_blocks", "Blocks that are to be here and lie elsewhere", replicas.wanted_blocks)?;
        gauge(into, "wanted_bytes", "Their bytes", replicas.wanted_bytes)?;
        gauge(into, "surplus_blocks", "Copies that are one too many", replicas.surplus_blocks)?;
        let members = [
            (&[("state", "up")], replicas.members_up),
            (&[("state", "silent")], replicas.members_silent),
            (&[("state", "distrusted")], replicas.members_distrusted),
        ];
        let members = members.each_ref().map(|(label, count)| (label.as_slice(), *count));
        labelled(into, "members", "Other nodes, by whether they answer", ConstGauge::new, &members)?;
        counter(into, "pulled_blocks", "Copies fetched because they were lacking here", replicas.pulled_blocks)?;
        counter(into, "pulled_bytes", "Their bytes", replicas.pulled_bytes)?;
        counter(into, "dropped_blocks", "Surplus copies dropped", replicas.dropped_blocks)?;
        counter(into, "audits", "Proofs of possession asked for", replicas.audits)?;
        counter(into, "failed_audits", "Of them, those that failed", replicas.failed_audits)?;
        counter(into, "syncs", "Comparisons with other nodes", replicas.syncs)?;
        counter(into, "lookups", "Searches in the network that ended", status.lookups.ended)?;
        counter(into, "lookup_requests", "Requests that they took", status.lookups.requests)?;
        refused(into, status)?;

        gauge(into, "cache_used_bytes", "Memory that the cache uses", cache.used_bytes)?;
        gauge(into, "cache_capacity_bytes", "Memory that it may use", cache.capacity_bytes)?;
        counter(into, "cache_hits", "Viewers' reads answered from memory", cache.hits)?;
        counter(into, "cache_misses", "Those read from disk or another node", cache.misses)?;
        counter(into, "cache_joined", "Misses that waited for somebody else's fetch", cache.joined)?;
        counter(into, "cache_evictions", "Blocks that made room for others", cache.evictions)
    }
}

fn phases(into: &mut DescriptorEncoder<'_>, phases: &BTreeMap<String, u64>) -> Result<(), fmt::Error> {
    let labels: Vec<_> = phases.iter().map(|(phase, count)| ([("phase", phase.as_str())], *count)).collect();
    let samples: Vec<_> = labels.iter().map(|(label, count)| (label.as_slice(), *count)).collect();
    labelled(into, "uploads", "Uploads that the node knows, by phase", ConstGauge::new, &samples)
}

fn refused(into: &mut DescriptorEncoder<'_>, status: &NodeStatus) -> Result<(), fmt::Error> {
    let planes = [("udp", &status.refused.udp), ("tcp", &status.refused.tcp)];
    let labels: Vec<_> = planes
        .iter()
        .flat_map(|(plane, reasons)| reasons.iter().map(move |(reason, count)| (*plane, reason, *count)))
        .map(|(plane, reason, count)| ([("plane", plane), ("reason", reason.as_str())], count))
        .collect();
    let samples: Vec<_> = labels.iter().map(|(label, count)| (label.as_slice(), *count)).collect();
    let help = "Connections of other nodes that were refused, by reason";
    labelled(into, "refused_connections", help, ConstCounter::new, &samples)
}

/// One sample for each set of labels.
fn labelled<M: EncodeMetric>(
    into: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: fn(u64) -> M,
    samples: &[(&[(&str, &str)], u64)],
) -> Result<(), fmt::Error> {
    let mut family = into.encode_descriptor(name, help, None, metric(0).metric_type())?;
    for (labels, value) in samples {
        metric(*value).encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

/// One gauge without labels.
pub(super) fn gauge(
    into: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeGaugeValue,
) -> Result<(), fmt::Error> {
    ConstGauge::new(value).encode(into.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn counter(into: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), fmt::Error> {
    ConstCounter::new(value).encode(into.encode_descriptor(name, help, None, MetricType::Counter)?)
}
