//! What viewers are sent, beside nginx: blocks and segments from the cache, the store and another node, and what many viewers cost.

mod first;
mod memory;
mod nginx;
mod wrk;

use anyhow::{Result, ensure};
use bytes::Bytes;
use chunkstore_block::{BlockId, ContentKey};
use e2e::{Member, Node, NodeOptions, Process, Stage, Viewer};

use crate::measure::median;
use crate::report::{Goal, Row};
use crate::{Context, Step, Suite};
use nginx::{Nginx, Sendfile};
use wrk::Answers;

pub(crate) const SUITE: Suite = Suite {
    name: "delivery",
    steps: &[
        Step { what: "1 MiB block from the cache, c = 16", run: |context| cached(context, MIB, 16) },
        Step { what: "1 MiB block from the cache, c = 64", run: |context| cached(context, MIB, 64) },
        Step { what: "200 KB segment, c = 64", run: |context| cached(context, 200_000, 64) },
        Step { what: "1 MiB block over TLS", run: secure },
        Step { what: "1 MiB block from the store, not cached", run: stored },
        Step { what: "1 MiB block from another node, cold", run: remote },
        Step { what: "first byte of a cold remote segment", run: first::byte },
        Step { what: "memory after 10,000 idle and 1,000 active viewers", run: memory::of_viewers },
    ],
};

pub(crate) const MIB: usize = 1 << 20;
/// The processor of the servers, ours and nginx alike, and that of the clients: each side has one to itself.
pub(crate) const SERVERS: usize = 0;
pub(crate) const CLIENTS: usize = 1;
const ROUNDS: usize = 5;
/// Blocks that are asked for in turn where none may be in memory.
const COLD_BLOCKS: usize = 128;

/// A node with a content, and a viewer.
pub(crate) struct Origin {
    pub(crate) stage: Stage,
    pub(crate) node: Node,
    pub(crate) member: Member,
    pub(crate) viewer: Viewer,
    pub(crate) content: ContentKey,
}

impl Origin {
    /// Files `0`, `1`, and so on, each of one block.
    pub(crate) async fn start(bodies: &[Bytes], options: NodeOptions) -> Self {
        let mut options = options;
        options.settings.push(("delivery_connections_per_address", "0".to_owned()));
        Self::with_files(&files(bodies, 1), options).await
    }

    /// Any files, with the limits of an address that the options have.
    pub(crate) async fn with_files(files: &[(String, Vec<Bytes>)], options: NodeOptions) -> Self {
        let options = NodeOptions { processor: Some(SERVERS), ..options };
        let platform = Member::platform_key();
        let pem = platform.public_key().to_pem().unwrap_or_default();
        let (stage, mut nodes) = Stage::with_nodes_and(vec![options], &pem).await;
        let (node, member) = (nodes.remove(0), Member::new(&stage, platform, 1));
        let content = member.publish(&[node.address], 1, files).await;
        Self { stage, node, member, viewer: Viewer::new(), content }
    }

    /// Addresses of these paths, good for 30 s from now.
    pub(crate) async fn urls(&self, paths: &[String]) -> Result<Vec<String>> {
        let url = self.viewer.temporary_url(&self.member, &self.node, self.content).await;
        paths.iter().map(|path| Ok(url.at(path)?)).collect()
    }
}

/// Files `0`, `1`, and so on, of so many blocks each.
pub(crate) fn files(bodies: &[Bytes], blocks: usize) -> Vec<(String, Vec<Bytes>)> {
    bodies.chunks(blocks).enumerate().map(|(number, blocks)| (number.to_string(), blocks.to_vec())).collect()
}

pub(crate) fn file_paths(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("files/{number}")).collect()
}

fn block_paths(bodies: &[Bytes]) -> Vec<String> {
    bodies.iter().map(|body| format!("blocks/{}", BlockId::of(body))).collect()
}

/// Our answers and nginx's, round by round.
struct Compared {
    ours: Vec<Answers>,
    nginx: Vec<Answers>,
}

impl Compared {
    fn rounds(
        context: &Context,
        mut ours: impl FnMut() -> Result<Answers>,
        mut nginx: impl FnMut() -> Result<Answers>,
    ) -> Result<Self> {
        let mut compared = Self { ours: Vec::new(), nginx: Vec::new() };
        for round in 0..=ROUNDS {
            context.progress.at(if round == 0 { "warming up".into() } else { format!("round {round} of {ROUNDS}") });
            let (our_answers, nginx_answers) = if round % 2 == 0 {
                let answers = ours()?;
                (answers, nginx()?)
            } else {
                let answers = nginx()?;
                (ours()?, answers)
            };
            if round > 0 {
                compared.ours.push(our_answers);
                compared.nginx.push(nginx_answers);
            }
        }
        Ok(compared)
    }

    /// A row of medians, with the lowest and the highest ratio of a round.
    fn row(
        &self,
        what: String,
        unit: &'static str,
        reference_is: &'static str,
        goal: Goal,
        figure: impl Fn(&Answers) -> f64,
    ) -> Row {
        let of = |answers: &[Answers]| median(answers.iter().map(&figure));
        let ratios = self.ours.iter().zip(&self.nginx).map(|(ours, nginx)| figure(ours) / figure(nginx));
        let spread =
            ratios.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), ratio| (low.min(ratio), high.max(ratio)));
        Row::figure(&what, (of(&self.ours), unit), (of(&self.nginx), reference_is), goal).with_spread(spread)
    }

    fn rows(&self, what: &str, reference_is: &'static str, speed: Goal, others: bool) -> Vec<Row> {
        let (p99, cpu) = if others { (Goal::AtMost(2.0), Goal::AtMost(1.5)) } else { (Goal::None, Goal::None) };
        vec![
            self.row(what.to_owned(), "MB/s", reference_is, speed, |answers| answers.bytes_per_s / 1e6),
            self.row(format!("{what}: p99"), "ms", reference_is, p99, |answers| answers.p99_ms),
            self.row(format!("{what}: CPU"), "CPU-s/GiB", reference_is, cpu, |answers| answers.cpu_s_per_gib),
        ]
    }
}

/// The faster of nginx's two ways to send this file over so many connections.
fn faster(stage: &Stage, root: &std::path::Path, body: &Bytes, connections: usize) -> Result<(Nginx, &'static str)> {
    let mut found = Vec::new();
    for (sendfile, name) in
        [(Sendfile::Off, "nginx secure_link, sendfile off"), (Sendfile::On, "nginx secure_link, sendfile on")]
    {
        let server = Nginx::gated(stage, root, sendfile)?;
        let url = server.link("0")?;
        let mut speeds = Vec::new();
        for _ in 0..3 {
            let answers = wrk::ask(root, std::slice::from_ref(&url), body.len(), connections, &[server.process()])?;
            speeds.push(answers.bytes_per_s);
        }
        found.push((median(speeds.into_iter()), server, name));
    }
    let best = found.into_iter().max_by(|one, other| one.0.total_cmp(&other.0));
    best.map(|(_, server, name)| (server, name)).ok_or_else(|| anyhow::anyhow!("nothing was measured"))
}

fn cached(context: &Context, length: usize, connections: usize) -> Result<Vec<Row>> {
    let runtime = runtime()?;
    let body = e2e::random_block(length);
    let origin = runtime.block_on(Origin::start(std::slice::from_ref(&body), NodeOptions::default()));
    let root = nginx::write_files(&origin.stage, "files", std::slice::from_ref(&body))?;
    context.progress.at("which nginx is the faster".to_owned());
    let (server, reference_is) = faster(&origin.stage, &root, &body, connections)?;
    let link = [server.link("0")?];
    let paths = if length == MIB { block_paths(&[body]) } else { file_paths(1) };
    let compared = Compared::rounds(
        context,
        || wrk::ask(&root, &runtime.block_on(origin.urls(&paths))?, length, connections, &[&origin.node.process]),
        || wrk::ask(&root, &link, length, connections, &[server.process()]),
    )?;
    if length == MIB {
        let what = format!("1 MiB block, cached, c = {connections}");
        return Ok(compared.rows(&what, reference_is, Goal::AtLeast(0.8), true));
    }
    let what = format!("200 KB segment, cached, c = {connections}");
    let requests = |answers: &Answers| answers.requests_per_s;
    Ok(vec![
        compared.row(what.clone(), "requests/s", reference_is, Goal::AtLeast(0.8), requests),
        compared.row(format!("{what}: p99"), "ms", reference_is, Goal::None, |answers| answers.p99_ms),
        compared.row(format!("{what}: CPU"), "CPU-s/GiB", reference_is, Goal::None, |answers| answers.cpu_s_per_gib),
    ])
}

/// For information: what TLS costs.
fn secure(context: &Context) -> Result<Vec<Row>> {
    let runtime = runtime()?;
    let body = e2e::random_block(MIB);
    let (certificate, key) = e2e::certificate(&context.folder);
    let options = NodeOptions { tls: Some((certificate, key)), ..NodeOptions::default() };
    let secure = runtime.block_on(Origin::start(std::slice::from_ref(&body), options));
    let plain = runtime.block_on(Origin::start(std::slice::from_ref(&body), NodeOptions::default()));
    let paths = block_paths(&[body]);
    let ask = |origin: &Origin| {
        wrk::ask(&context.folder, &runtime.block_on(origin.urls(&paths))?, MIB, 16, &[&origin.node.process])
    };
    let compared = Compared::rounds(context, || ask(&secure), || ask(&plain))?;
    Ok(compared.rows("1 MiB block, cached, over TLS, c = 16", "the same node without TLS", Goal::None, false))
}

fn stored(context: &Context) -> Result<Vec<Row>> {
    let runtime = runtime()?;
    let bodies: Vec<_> = (0..COLD_BLOCKS).map(|_| e2e::random_block(MIB)).collect();
    let options = NodeOptions { settings: vec![("cache_bytes", "0".to_owned())], ..NodeOptions::default() };
    let origin = runtime.block_on(Origin::start(&bodies, options));
    let root = nginx::write_files(&origin.stage, "files", &bodies)?;
    let (server, reference_is) = faster(&origin.stage, &root, &bodies[0], 16)?;
    let links: Vec<_> = (0..COLD_BLOCKS).map(|number| server.link(&number.to_string())).collect::<Result<_>>()?;
    let paths = block_paths(&bodies);
    let compared = Compared::rounds(
        context,
        || wrk::ask(&root, &runtime.block_on(origin.urls(&paths))?, MIB, 16, &[&origin.node.process]),
        || wrk::ask(&root, &links, MIB, 16, &[server.process()]),
    )?;
    let what = "1 MiB block, from the store, c = 16";
    Ok(compared.rows(what, reference_is, Goal::AtLeast(0.5), false))
}

/// Two nodes with R = 1: the blocks belong on the first, and a viewer asks the second, which keeps nothing.
pub(crate) struct Remote {
    pub(crate) stage: Stage,
    pub(crate) nodes: Vec<Node>,
    pub(crate) member: Member,
    pub(crate) viewer: Viewer,
    pub(crate) content: ContentKey,
}

impl Remote {
    /// Files of `blocks` blocks of 1 MiB each.
    pub(crate) async fn start(count: usize, blocks: usize) -> Result<(Self, Vec<Bytes>)> {
        let count = count * blocks;
        let platform = Member::platform_key();
        let pem = platform.public_key().to_pem()?;
        let settings = ["cache_bytes", "replication", "delivery_connections_per_address"];
        let settings: Vec<_> = settings.into_iter().zip(["0", "1", "0"].map(str::to_owned)).collect();
        let options = || NodeOptions { settings: settings.clone(), processor: Some(SERVERS), ..NodeOptions::default() };
        let (stage, nodes) = Stage::with_nodes_and(vec![options(), options()], &pem).await;
        let addresses = [nodes[0].address, nodes[1].address];
        let is_first = |body: &Bytes| e2e::ranked(&BlockId::of(body), &addresses)[0].id == nodes[0].address.id;
        let bodies: Vec<_> = std::iter::repeat_with(|| e2e::random_block(MIB)).filter(is_first).take(count).collect();
        let member = Member::new(&stage, platform, 1);
        let content = member.publish(&addresses, 1, &files(&bodies, blocks)).await;
        let stored = nodes[0].stored().await.len();
        ensure!(stored >= count, "{stored} of {count} blocks are on the first node");
        Ok((Self { stage, nodes, member, viewer: Viewer::new(), content }, bodies))
    }

    /// At the node that has nothing.
    pub(crate) async fn urls(&self, paths: &[String]) -> Result<Vec<String>> {
        let url = self.viewer.temporary_url(&self.member, &self.nodes[1], self.content).await;
        paths.iter().map(|path| Ok(url.at(path)?)).collect()
    }
}

fn remote(context: &Context) -> Result<Vec<Row>> {
    let runtime = runtime()?;
    let (remote, bodies) = runtime.block_on(Remote::start(COLD_BLOCKS, 1))?;
    let root = nginx::write_files(&remote.stage, "files", &bodies)?;
    let origin = Nginx::gated(&remote.stage, &root, Sendfile::Off)?;
    let proxy = Nginx::proxy(&remote.stage, &origin)?;
    let links: Vec<_> = (0..COLD_BLOCKS).map(|number| origin.link(&number.to_string())).collect::<Result<_>>()?;
    let links: Vec<_> = links.iter().map(|link| proxy.instead_of(&origin, link)).collect();
    let paths = block_paths(&bodies);
    let processes: Vec<&Process> = remote.nodes.iter().map(|node| &node.process).collect();
    let compared = Compared::rounds(
        context,
        || wrk::ask(&root, &runtime.block_on(remote.urls(&paths))?, MIB, 16, &processes),
        || wrk::ask(&root, &links, MIB, 16, &[origin.process(), proxy.process()]),
    )?;
    let what = "1 MiB block, from another node, c = 16";
    Ok(compared.rows(what, "nginx proxy_pass to nginx, same processor", Goal::AtLeast(0.7), false))
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Runtime::new()?)
}
