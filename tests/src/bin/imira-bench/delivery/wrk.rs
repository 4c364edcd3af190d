//! wrk, which asks as fast as it is answered, over a number of connections.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::Process;

use super::CLIENTS;

/// Less than a token lives.
pub(super) const SECONDS: u64 = 4;

/// What it found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answers {
    pub(super) requests_per_s: f64,
    pub(super) bytes_per_s: f64,
    pub(super) p99_ms: f64,
    /// Of the servers.
    pub(super) cpu_s_per_gib: f64,
}

/// Asks for `urls` in turn, of which each answers `length` bytes, over `connections` connections.
pub(super) fn ask(
    folder: &Path,
    urls: &[String],
    length: usize,
    connections: usize,
    servers: &[&Process],
) -> Result<Answers> {
    let (first, script) = (urls.first().context("nothing to ask for")?, folder.join("wrk.lua"));
    let paths: Vec<String> = urls.iter().map(|url| format!("{:?}", path(url))).collect();
    std::fs::write(&script, format!("paths = {{{}}}\n{SCRIPT}", paths.join(",")))?;
    let cpu = || servers.iter().map(|server| server.cpu_seconds()).sum::<f64>();
    let before = cpu();
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &CLIENTS.to_string(), "wrk", "--threads", "1", "--latency", "--timeout", "20"]);
    command.args(["--connections", &connections.to_string(), "--duration", &format!("{SECONDS}s")]);
    if urls.len() > 1 {
        command.arg("--script").arg(&script);
    }
    let output = command.arg(first).output().context("wrk cannot be run")?;
    let cpu_seconds = cpu() - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "wrk failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    for bad in ["Non-2xx", "Socket errors"] {
        ensure!(!text.contains(bad), "not all requests were answered well:\n{text}");
    }
    let (requests, seconds) = totals(&text).with_context(|| format!("wrk says:\n{text}"))?;
    let bytes = requests * length as f64;
    Ok(Answers {
        requests_per_s: requests / seconds,
        bytes_per_s: bytes / seconds,
        p99_ms: milliseconds(value(&text, "99%")?)?,
        cpu_s_per_gib: cpu_seconds / (bytes / f64::from(1 << 30)),
    })
}

/// Each connection goes through the same list, from another place.
const SCRIPT: &str = "
local next = 0
request = function()
  next = next % #paths + 1
  return wrk.format('GET', paths[next])
end
";

fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("/", |at| &rest[at..])
}

/// `  1234 requests in 4.00s, 1.20GB read`
fn totals(text: &str) -> Result<(f64, f64)> {
    let line = text.lines().find(|line| line.contains(" requests in ")).context("no totals")?;
    let mut words = line.split_whitespace();
    let requests: f64 = words.next().context("no number")?.parse()?;
    Ok((requests, milliseconds(words.nth(2).context("no time")?.trim_end_matches(','))? / 1e3))
}

fn value<'a>(text: &'a str, name: &str) -> Result<&'a str> {
    let line = text.lines().map(str::trim).find_map(|line| line.strip_prefix(name));
    Ok(line.with_context(|| format!("wrk does not say {name}:\n{text}"))?.trim())
}

/// `12.3us`, `1.5ms`, `2.00s`, `1.10m`
fn milliseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 6e4)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    bail!("{text} is no time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_understood() {
        let text = "Running 4s test\n  Latency Distribution\n     50%  200.00us\n     99%    1.50ms\n  \
                    22410 requests in 4.10s, 21.89GB read\nRequests/sec:   5465.85\n";
        assert_eq!(totals(text).unwrap(), (22_410.0, 4.1));
        assert_eq!(milliseconds(value(text, "99%").unwrap()).unwrap(), 1.5);
        assert_eq!(path("http://h:1/a/b?c"), "/a/b?c");
        assert!(milliseconds("fast").is_err());
    }
}
