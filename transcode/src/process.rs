//! Starting FFmpeg's programs so that they can do little harm, and reading what they say without trusting its size.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::limits::Limits;

/// Niceness of the programs: the node's network comes first. Half of the range.
const NICENESS: &str = "10";
/// Longest line that is kept of a program's messages; the rest of the line is dropped.
const MAX_LINE_BYTES: usize = 2048;

/// A command behind `setpriv`, `nice` and `prlimit`, which replace themselves by `program`, so that killing the child kills it. It is killed, too, when the
/// thread that started it ends, and so when the node does, however it ends. `wall` is for how long it may run; on each processor it may work as long.
pub(crate) fn command(program: &Path, limits: &Limits, wall: Duration) -> Command {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--no-new-privs", "--", "nice", "-n", NICENESS, "prlimit", "--core=0"]);
    command.arg(format!("--as={}", limits.max_memory_bytes)).arg(format!("--fsize={}", limits.max_file_bytes));
    command.arg(format!("--cpu={}", wall.as_secs().max(1) * processors)).arg("--").arg(program);
    // FFREPORT and the like must not change what we read, so nothing is inherited but the way to the programs.
    command.env_clear().env("LC_ALL", "C");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Cuts a stream of bytes into lines of bounded length.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Takes the next bytes and hands over each line that they complete. `\r` ends a line too.
    pub(crate) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for byte in bytes {
            if matches!(byte, b'\n' | b'\r') {
                self.finish(&mut line);
            } else if self.pending.len() < MAX_LINE_BYTES {
                self.pending.push(*byte);
            }
        }
    }

    /// Hands over what is left when the stream has ended.
    pub(crate) fn finish(&mut self, mut line: impl FnMut(&str)) {
        if !self.pending.is_empty() {
            line(&String::from_utf8_lossy(&self.pending));
            self.pending.clear();
        }
    }
}

/// The last lines of a program's messages.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    lines: std::collections::VecDeque<String>,
}

impl Tail {
    /// Enough to see the cause; FFmpeg says it last.
    const MAX_LINES: usize = 20;

    pub(crate) fn push(&mut self, line: &str) {
        if self.lines.len() == Self::MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }

    pub(crate) fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_bounded() {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        lines.push(b"one\ntw", |l| seen.push(l.to_owned()));
        lines.push(b"o\r\n", |l| seen.push(l.to_owned()));
        lines.push(&[b'x'; 10_000], |l| seen.push(l.to_owned()));
        lines.finish(|l| seen.push(l.to_owned()));
        assert_eq!(seen[..2], ["one", "two"]);
        assert_eq!(seen[2].len(), MAX_LINE_BYTES);
    }

    #[test]
    fn the_tail_keeps_the_end() {
        let mut tail = Tail::default();
        (0..100).for_each(|i| tail.push(&i.to_string()));
        assert!(tail.text().starts_with("80\n") && tail.text().ends_with("\n99"));
    }
}
