//! What the machine gives: time, files, programs, disk.

use super::Finding;
use crate::config::Config;
use crate::show::bytes;
use control_api::types::NodeStatus;
use control_api::{Clock, SystemClock};
use rustix::process::{Resource, getrlimit};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// The beginning of 2026, when there were no nodes yet, and of 2100.
const POSSIBLE_TIMES: std::ops::Range<u64> = 1_767_225_600..4_102_444_800;
/// Connections of other nodes on both planes, a good many of viewers', and the store's own files.
const FILES_WANTED: u64 = 4_096;
/// A program that has not said its version by then hangs.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);

/// A clock that was never set gives itself away; one that is off by minutes is noticed by other nodes only.
pub(super) fn clock() -> Finding {
    const WHAT: &str = "clock";
    let now = SystemClock.unix_seconds();
    if POSSIBLE_TIMES.contains(&now) {
        return Finding::well(WHAT, "it shows a possible time");
    }
    Finding::failure(
        WHAT,
        format!("it shows {now} seconds since 1970, which cannot be: tokens and certificates will be refused"),
        "Set the clock, and keep it right by NTP: timedatectl set-ntp true",
    )
}

pub(super) fn open_files() -> Finding {
    const WHAT: &str = "open files";
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < FILES_WANTED => Finding::warning(
            WHAT,
            format!("a process may have {limit} files and connections open here; many viewers need more"),
            format!(
                "Set LimitNOFILE={FILES_WANTED} or more in the node's systemd unit, or `ulimit -n {FILES_WANTED}` before it."
            ),
        ),
        Some(limit) => Finding::well(WHAT, format!("a process may have {limit} open")),
        None => Finding::well(WHAT, "a process may have any number open"),
    }
}

/// FFmpeg, and whether the kernel can confine it, if that is wanted.
pub(super) async fn ffmpeg(tools: &transcode::Tools, confined: bool) -> Finding {
    const WHAT: &str = "ffmpeg";
    if confined && let Err(error) = transcode::check_confinement() {
        return Finding::failure(WHAT, error.to_string(), crate::daemon::UNCONFINED);
    }
    for program in [&tools.ffmpeg, &tools.ffprobe] {
        if let Err(reason) = starts(program.as_ref()).await {
            return Finding::failure(
                WHAT,
                format!(
                    "{} does not run, so no upload can be processed: {reason}",
                    AsRef::<Path>::as_ref(program).display()
                ),
                "Install FFmpeg 5.1 or later, for example: apt install ffmpeg",
            );
        }
    }
    match confined {
        true => Finding::well(WHAT, "ffmpeg and ffprobe run, kept from other files and the network"),
        false => Finding::well(WHAT, "ffmpeg and ffprobe run, and nothing confines them (confine_ffmpeg = false)"),
    }
}

async fn starts(program: &OsStr) -> Result<(), String> {
    let mut command = tokio::process::Command::new(program);
    command.arg("-version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(VERSION_DEADLINE, command.status()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(status.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it says nothing".to_owned()),
    }
}

pub(super) fn disk(root: &Path, config: &Config, status: Option<&NodeStatus>, store: &Path) -> Finding {
    const WHAT: &str = "disk";
    let free = match rustix::fs::statvfs(root) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) => {
            return Finding::unknown(
                WHAT,
                format!("its free space is not known: {error}"),
                "Is the folder's disk mounted?",
            );
        }
    };
    let used = status.map_or_else(|| bytes_in(store, 0), |status| status.storage.used_bytes);
    room(used, free, config)
}

/// Whether the quota fits what is stored, with room for an upload, and the disk.
pub(super) fn room(used: u64, free: u64, config: &Config) -> Finding {
    const WHAT: &str = "disk";
    let (quota, reserve) = (config.quota_bytes, config.store().repair_reserve_bytes);
    if quota == 0 {
        return Finding::warning(WHAT, "quota_bytes is 0: this node stores nothing", "Raise it, unless that is meant.");
    }
    let wanted = quota.saturating_sub(used);
    if wanted <= reserve {
        return Finding::failure(
            WHAT,
            format!(
                "{} used of a quota of {}, of which {} are for repair: there is no room for an upload",
                bytes(used),
                bytes(quota),
                bytes(reserve)
            ),
            "Raise quota_bytes in config.toml and reload the node, or have videos deleted that it keeps.",
        );
    }
    if free == 0 {
        return Finding::failure(WHAT, "the disk is full", "Make room on it; this node can store nothing.");
    }
    if free >= wanted {
        return Finding::well(
            WHAT,
            format!("{} of {} used, and {} free for the rest", bytes(used), bytes(quota), bytes(free)),
        );
    }
    Finding::warning(
        WHAT,
        format!("quota_bytes allows {} more, and the disk has {} free", bytes(wanted), bytes(free)),
        format!("Make room, or lower quota_bytes in config.toml to {} or less.", used.saturating_add(free)),
    )
}

/// Bytes of the files in a folder; the store has one level of folders.
fn bytes_in(folder: &Path, depth: usize) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() && depth < 2 => bytes_in(&entry.path(), depth + 1),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) | Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}
