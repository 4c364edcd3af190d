//! Tokens: how fast they are issued, how long a platform waits for one, and what they take in memory.

use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use chunkstore_block::{ContentKey, NetworkId};
use control_api::signing::{RequestVerifier, VerifiedAction};
use control_api::tokens::{encrypt_to_jwk, encrypt_to_key};
use control_api::{
    Jwk, NodeId, PinnedKeys, PlatformKey, PlatformKeySize, PlaybackGrant, RequestClaims, Token, TokenRequest,
    TokenTable, UserKey,
};
use e2e::Stage;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use crate::measure::{Stopwatch, median, proc_value, repeat};
use crate::report::{Goal, Row};
use crate::{Context, Step, Suite};

pub(crate) const SUITE: Suite = Suite {
    name: "tokens",
    steps: &[
        Step { what: "token issue on one core", run: issue },
        Step { what: "token requests at 500/s to a running node", run: wait },
        Step { what: "100,000 live tokens in memory", run: memory },
    ],
};

const ISSUED: usize = 2_000;
const LIVE: usize = 100_000;
/// Token requests a second, and for how long.
const RATE: usize = 500;
const SECONDS: usize = 8;
/// OpenSSL measures each of its two operations that long.
const OPENSSL_SECONDS: &str = "2";

/// A platform, a viewer and a node that the requests name.
struct Scene {
    platform: PlatformKey,
    viewer: Jwk,
    node: NodeId,
    network: NetworkId,
}

impl Scene {
    fn new(node: NodeId, network: NetworkId) -> Result<Self> {
        let platform = PlatformKey::generate(PlatformKeySize::Rsa2048)?;
        Ok(Self { platform, viewer: UserKey::generate()?.jwk()?, node, network })
    }

    fn in_memory() -> Result<Self> {
        Self::new("12D3KooWBench".parse()?, NetworkId::from_bytes([1; 16]))
    }

    fn requests(&self, count: usize) -> Result<Vec<String>> {
        let claims = RequestClaims {
            node: self.node.clone(),
            network: self.network,
            viewer_key: self.viewer.clone(),
            request: TokenRequest::playback(ContentKey::from_bytes([3; 32])),
            issued: now(),
            lifetime: 30,
        };
        (0..count).map(|_| Ok(self.platform.sign_request(&claims)?)).collect()
    }
}

/// What a node does for a token, but for HTTP: verify, make, encrypt.
fn issue(context: &Context) -> Result<Vec<Row>> {
    let scene = Scene::in_memory()?;
    let measured = repeat(context.progress, || {
        let pinned = PinnedKeys::new([scene.platform.public_key().clone()]);
        let verifier = RequestVerifier::new(pinned, scene.node.clone(), scene.network, 0, 0);
        let (requests, table, at) = (scene.requests(ISSUED)?, TokenTable::default(), now());
        let watch = Stopwatch::start();
        for request in &requests {
            let verified = verifier.verify(request, at)?;
            let VerifiedAction::Playback(asked, key) = verified.action else { anyhow::bail!("not a playback") };
            let grant = PlaybackGrant::new(verified.platform, asked, &key, at);
            black_box(encrypt_to_key(&table.issue_playback(grant, Instant::now())?, &key)?);
        }
        let ours = ISSUED as f64 / watch.seconds();
        Ok((ours, Openssl::measure()?.together()))
    })?;
    let token = Token::generate()?;
    let watch = Stopwatch::start();
    for _ in 0..ISSUED {
        black_box(encrypt_to_jwk(&token, &scene.viewer)?);
    }
    let encrypted = ISSUED as f64 / watch.seconds();
    let (ours, reference) = (median(measured.iter().map(|m| m.0)), median(measured.iter().map(|m| m.1)));
    let ratios = || measured.iter().map(|(ours, reference)| ours / reference);
    let spread = (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max));
    Ok(vec![
        Row::figure("token issue, one core", (ours, "1/s"), (2_000.0, "goal"), Goal::AtLeast(1.0)),
        Row::figure(
            "token issue, one core",
            (ours, "1/s"),
            (reference, "openssl, RSA 2,048: one verification and one encryption"),
            Goal::None,
        )
        .with_spread(spread),
        Row::figure(
            "encryption to a viewer's key",
            (encrypted, "1/s"),
            (2_600.0, "the crate rsa, earlier"),
            Goal::None,
        ),
    ])
}

/// Operations a second of RSA 2,048 on one core.
struct Openssl {
    verify: f64,
    encrypt: f64,
}

impl Openssl {
    fn measure() -> Result<Self> {
        let run = Command::new("openssl").args(["speed", "-mr", "-seconds", OPENSSL_SECONDS, "rsa2048"]).output();
        let run = run.context("openssl does not start; scripts/setup.sh installs it")?;
        ensure!(run.status.success(), "openssl speed failed: {}", String::from_utf8_lossy(&run.stderr));
        Self::read(&String::from_utf8_lossy(&run.stdout))
    }

    /// Of the machine-readable output the line `+F2:<n>:<bits>:<signatures a second>:<verifications>:<encryptions>:<decryptions>`;
    /// OpenSSL before 3.3 has the first two only, and an encryption costs what a verification does: both raise to the public exponent.
    fn read(output: &str) -> Result<Self> {
        let line =
            output.lines().find(|line| line.starts_with("+F2:")).context("openssl speed says nothing of rsa2048")?;
        let rates: Vec<f64> = line.split(':').skip(3).filter_map(|field| field.parse().ok()).collect();
        let verify = *rates.get(1).with_context(|| format!("openssl speed says {line}"))?;
        Ok(Self { verify, encrypt: rates.get(2).copied().unwrap_or(verify) })
    }

    fn together(&self) -> f64 {
        1.0 / (1.0 / self.verify + 1.0 / self.encrypt)
    }
}

/// A running node is asked evenly, whether it keeps up or not; each request counts from when it was due.
fn wait(context: &Context) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = repeat(context.progress, || runtime.block_on(p95_ms()))?;
    let p95 = median(measured.into_iter());
    Ok(vec![Row::figure("a token at 500/s, p95", (p95, "ms"), (20.0, "goal"), Goal::AtMost(1.0))])
}

async fn p95_ms() -> Result<f64> {
    let platform = PlatformKey::generate(PlatformKeySize::Rsa2048)?;
    let (stage, nodes) = Stage::with_nodes(1, &platform.public_key().to_pem()?).await;
    let node = nodes.first().context("no node")?;
    let scene = Scene {
        platform,
        viewer: UserKey::generate()?.jwk()?,
        node: node.address.id.to_base58().parse()?,
        network: stage.network_id(),
    };
    // Not in the second of the start: such are refused.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let requests = tokio::task::spawn_blocking(move || scene.requests(RATE * SECONDS)).await??;
    let begun = Instant::now();
    let mut running = FuturesUnordered::new();
    for (number, request) in requests.into_iter().enumerate() {
        let due = begun + Duration::from_secs_f64(number as f64 / RATE as f64);
        let client = node.client.clone();
        running.push(tokio::spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            client.request_playback(&request).await.map(|_| due.elapsed())
        }));
    }
    let mut waited = Vec::new();
    while let Some(answer) = running.next().await {
        waited.push(answer??.as_secs_f64() * 1_000.0);
    }
    waited.sort_by(f64::total_cmp);
    waited.get(waited.len() * 95 / 100).copied().context("no answer")
}

fn memory(_: &Context) -> Result<Vec<Row>> {
    let grant = PlaybackGrant {
        platform: PlatformKey::generate(PlatformKeySize::Rsa2048)?.fingerprint(),
        content: ContentKey::from_bytes([3; 32]),
        scope: None,
        publication: None,
        viewer: [4; 32],
        issued: now(),
    };
    let table = TokenTable::default();
    let before = resident_bytes()?;
    for _ in 0..LIVE {
        table.issue_playback(grant.clone(), Instant::now())?;
    }
    let each = (resident_bytes()? - before) / LIVE as f64;
    ensure!(table.len() == LIVE, "{} tokens are held", table.len());
    Ok(vec![Row::figure("a live token", (each, "bytes"), (512.0, "docs/api.md"), Goal::AtMost(1.0))])
}

fn resident_bytes() -> Result<f64> {
    Ok(proc_value("status", "VmRSS")? as f64 * 1_024.0)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_openssl_says_is_read() {
        let old = Openssl::read("+DT:rsa2048:2\n+F2:2:2048:4379.5:74581.8\n").unwrap();
        assert_eq!((old.verify, old.encrypt), (74_581.8, 74_581.8));
        let new = Openssl::read("+F2:2:2048:4379.5:50000.0:40000.0:4300.1").unwrap();
        assert_eq!((new.verify, new.encrypt, new.together().round()), (50_000.0, 40_000.0, 22_222.0));
        assert!(Openssl::read("nothing").is_err());
    }
}
