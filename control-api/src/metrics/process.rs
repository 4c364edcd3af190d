//! What the process takes of the machine, under the names that every Prometheus client uses.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::snapshot::gauge;

/// Figures of proc(5); what cannot be read is left out.
#[derive(Debug)]
pub(super) struct Process {
    open_fds: Option<u64>,
    max_fds: Option<u64>,
    resident_bytes: Option<u64>,
}

impl Process {
    pub(super) fn now() -> Self {
        let folder = std::fs::read_dir("/proc/self/fd").ok();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            // The one that reads the folder is not counted.
            open_fds: folder.map(|entries| (entries.count() as u64).saturating_sub(1)),
            max_fds: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            resident_bytes: kib.map(|kib| kib * 1024),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let figures = [
            ("process_open_fds", "Open file descriptors", self.open_fds),
            ("process_max_fds", "File descriptors that the process may have open", self.max_fds),
            ("process_resident_memory_bytes", "Memory in use", self.resident_bytes),
        ];
        for (name, help, value) in figures {
            if let Some(value) = value {
                gauge(&mut encoder, name, help, value)?;
            }
        }
        Ok(())
    }
}
