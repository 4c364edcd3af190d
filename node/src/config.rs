//! The node's configuration: `config.toml` in its data folder.

use anyhow::{Context, Result, ensure};
use chunkstore::StoreConfig;
use control_api::{AllowedOrigins, check_delivery_url};
use dht::Multiaddr;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Defaults that the command line shows too.
pub(crate) struct Defaults;

impl Defaults {
    pub(crate) const LISTEN: &str = "127.0.0.1:7101";
    pub(crate) const DELIVERY: &str = "127.0.0.1:7201";
    pub(crate) const CONTROL: &str = "127.0.0.1:7301";
    pub(crate) const REPLICATION: usize = 2;
    pub(crate) const QUOTA_BYTES: u64 = 100 << 30;
    /// A guess.
    const REPAIR_RESERVE_PERCENT: u32 = 5;
    /// A twentieth of what a hard disk reads: 4 TB in less than six days.
    const SCRUB_BYTES_PER_S: u64 = 8 << 20;
    /// The least, too: docs/protocol.md §7 promises it. Longer than a node is likely to be away and come back with what was deleted.
    const TOMBSTONE_DAYS: u32 = 90;
    /// docs/protocol.md §9 and §10; guesses until the simulator has said more.
    const GRACE_SECONDS: u64 = 600;
    const PING_SECONDS: u64 = 5;
    const SYNC_SECONDS: u64 = 60;
    const MINIMUM_AGE_SECONDS: u64 = 600;
    const DROP_DELAY_SECONDS: u64 = 120;
    /// Guesses. A browser opens six over HTTP/1.1 and one over HTTP/2; many viewers may share an address behind a provider's NAT.
    const DELIVERY_CONNECTIONS: u32 = 16_384;
    const DELIVERY_CONNECTIONS_PER_ADDRESS: u32 = 1_024;
    /// Kademlia warns whenever it knows nobody, which is how every first node of a network begins.
    const LOG_LEVEL: &str = "info,libp2p_swarm=warn,libp2p_kad=error";
}

/// What an operator can set. Each field is explained in the file that `init` writes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) delivery: SocketAddr,
    pub(crate) control: SocketAddr,
    pub(crate) control_names: Vec<String>,
    pub(crate) delivery_url: Option<String>,
    pub(crate) delivery_tls_certificate: Option<PathBuf>,
    pub(crate) delivery_tls_key: Option<PathBuf>,
    pub(crate) delivery_connections: u32,
    pub(crate) delivery_connections_per_address: u32,
    pub(crate) bootstrap: Vec<String>,
    pub(crate) allow_private_addresses: Option<bool>,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) replication: usize,
    pub(crate) quota_bytes: u64,
    pub(crate) repair_reserve_percent: u32,
    pub(crate) scrub_bytes_per_s: u64,
    pub(crate) tombstone_days: u32,
    pub(crate) grace_seconds: u64,
    pub(crate) ping_seconds: u64,
    pub(crate) sync_seconds: u64,
    pub(crate) minimum_age_seconds: u64,
    pub(crate) drop_delay_seconds: u64,
    pub(crate) keep_until_proved: bool,
    pub(crate) repair_bytes_per_s: u64,
    pub(crate) cache_bytes: u64,
    pub(crate) max_upload_bytes: u64,
    pub(crate) upload_bytes_per_s: u64,
    pub(crate) transcodes: usize,
    pub(crate) max_video_seconds: u64,
    pub(crate) confine_ffmpeg: bool,
    pub(crate) log_format: LogFormat,
    pub(crate) log_level: String,
}

/// The shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Human,
    Json,
}

impl Default for Config {
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            listen: local(7101),
            delivery: local(7201),
            control: local(7301),
            control_names: Vec::new(),
            delivery_url: None,
            delivery_tls_certificate: None,
            delivery_tls_key: None,
            delivery_connections: Defaults::DELIVERY_CONNECTIONS,
            delivery_connections_per_address: Defaults::DELIVERY_CONNECTIONS_PER_ADDRESS,
            bootstrap: Vec::new(),
            allow_private_addresses: None,
            cors_origins: Vec::new(),
            replication: Defaults::REPLICATION,
            quota_bytes: Defaults::QUOTA_BYTES,
            repair_reserve_percent: Defaults::REPAIR_RESERVE_PERCENT,
            scrub_bytes_per_s: Defaults::SCRUB_BYTES_PER_S,
            tombstone_days: Defaults::TOMBSTONE_DAYS,
            grace_seconds: Defaults::GRACE_SECONDS,
            ping_seconds: Defaults::PING_SECONDS,
            sync_seconds: Defaults::SYNC_SECONDS,
            minimum_age_seconds: Defaults::MINIMUM_AGE_SECONDS,
            drop_delay_seconds: Defaults::DROP_DELAY_SECONDS,
            keep_until_proved: true,
            repair_bytes_per_s: 0,
            cache_bytes: 256 << 20,
            max_upload_bytes: 50 << 30,
            upload_bytes_per_s: 0,
            transcodes: 1,
            max_video_seconds: 12 * 3_600,
            confine_ffmpeg: true,
            log_format: LogFormat::Human,
            log_level: Defaults::LOG_LEVEL.to_owned(),
        }
    }
}

impl Config {
    /// How the store is opened.
    pub(crate) fn store(&self) -> StoreConfig {
        let percent = u64::from(self.repair_reserve_percent);
        // Without overflow, and below the quota since `check` bounds the percentage.
        let repair_reserve_bytes = (u128::from(self.quota_bytes) * u128::from(percent) / 100) as u64;
        StoreConfig { repair_reserve_bytes, ..StoreConfig::new(self.quota_bytes) }
    }

    /// How the replication core decides. `seed` is random.
    pub(crate) fn replicator(&self, seed: u64) -> dht::core::Config {
        dht::core::Config {
            grace: Duration::from_secs(self.grace_seconds),
            ping_interval: Duration::from_secs(self.ping_seconds),
            sync_interval: Duration::from_secs(self.sync_seconds),
            minimum_age: Duration::from_secs(self.minimum_age_seconds),
            drop_delay: Duration::from_secs(self.drop_delay_seconds),
            repair_bytes_per_s: Some(self.repair_bytes_per_s).filter(|rate| *rate > 0),
            seed,
            ..dht::core::Config::new(self.replication)
        }
    }

    /// How viewers reach the delivery listener: as the operator says, or by its address.
    pub(crate) fn delivery_url(&self) -> String {
        let scheme = if self.delivery_tls().is_some() { "https" } else { "http" };
        self.delivery_url.clone().unwrap_or_else(|| format!("{scheme}://{}", self.delivery))
    }

    /// The files of the delivery listener's certificate and its key, if it has one.
    pub(crate) fn delivery_tls(&self) -> Option<(&Path, &Path)> {
        self.delivery_tls_certificate.as_deref().zip(self.delivery_tls_key.as_deref())
    }

    /// The bootstrap addresses.
    pub(crate) fn bootstrap(&self) -> Result<Vec<Multiaddr>> {
        self.bootstrap
            .iter()
            .map(|text| {
                let address = text.parse().with_context(|| format!("bootstrap address {text:?} is no multiaddress"))?;
                dht::bootstrap_peer(&address)?;
                Ok(address)
            })
            .collect()
    }

    /// Refuses what cannot work, before anything is written or started.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!((1..=10).contains(&self.replication), "replication is {}; it must be 1 to 10", self.replication);
        ensure!(
            self.repair_reserve_percent <= 90,
            "repair_reserve_percent is {}; it must be 0 to 90, or no room is left for uploads",
            self.repair_reserve_percent
        );
        ensure!(
            self.tombstone_days >= Defaults::TOMBSTONE_DAYS,
            "tombstone_days is {}; every node of a network keeps them for {} days at least (docs/protocol.md, section 7)",
            self.tombstone_days,
            Defaults::TOMBSTONE_DAYS
        );
        let least = self.ping_seconds.min(self.sync_seconds);
        ensure!(least >= 1, "ping_seconds and sync_seconds must be 1 or more; 0 would ask without end");
        ensure!(
            self.grace_seconds >= 2 * self.ping_seconds,
            "grace_seconds is {}; two pings, each after {} s, must fit into it",
            self.grace_seconds,
            self.ping_seconds
        );
        ensure!(self.transcodes >= 1, "transcodes is 0; no upload would ever be processed");
        ensure!(
            (1..=24 * 3_600).contains(&self.max_video_seconds),
            "max_video_seconds is {}; a film has 1 to 86400, or its index could not list it",
            self.max_video_seconds
        );
        ensure!(self.max_upload_bytes >= 1, "max_upload_bytes is 0; no upload would ever be taken");
        ensure!(self.listen.port() != 0, "listen has port 0; it needs one of its own, since other nodes keep it");
        self.check_addresses()?;
        self.check_delivery()?;
        AllowedOrigins::parse(&self.cors_origins).context("cors_origins")?;
        self.log_filter()?;
        self.bootstrap().map(|_| ())
    }

    fn check_addresses(&self) -> Result<()> {
        let (listen, delivery, control) =
            (("listen", self.listen), ("delivery", self.delivery), ("control", self.control));
        for ((one, first), (other, second)) in [(listen, delivery), (listen, control), (delivery, control)] {
            let is_everywhere = first.ip().is_unspecified() || second.ip().is_unspecified();
            let clash =
                first.port() == second.port() && first.port() != 0 && (first.ip() == second.ip() || is_everywhere);
            ensure!(!clash, "{one} is {first} and {other} is {second}; each needs a port of its own");
        }
        Ok(())
    }

    fn check_delivery(&self) -> Result<()> {
        let url = self.delivery_url();
        ensure!(
            !url.contains("0.0.0.0") && !url.contains("[::]"),
            "delivery_url is {url}, which no viewer can open; give the address that they reach (--delivery-url)"
        );
        check_delivery_url(&url)?;
        ensure!(
            self.delivery_tls_certificate.is_some() == self.delivery_tls_key.is_some(),
            "delivery_tls_certificate and delivery_tls_key go together; give both (PEM files) or neither"
        );
        ensure!(
            self.delivery_tls().is_none() || url.starts_with("https://"),
            "delivery_url is {url}, and with delivery_tls_certificate viewers are served over https; write https:// and the host that the \
             certificate is for"
        );
        ensure!(self.delivery_connections >= 1, "delivery_connections is 0; nobody would ever be served");
        Ok(())
    }

    /// What is logged.
    pub(crate) fn log_filter(&self) -> Result<EnvFilter> {
        let not = || format!("log_level is {:?}; write error, warn, info, debug or trace", self.log_level);
        // A word alone that is no level would be a part of the program, with all that it logs.
        let is_level = |part: &str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
        ensure!(self.log_level.split(',').all(|part| is_level(part.trim())), not());
        EnvFilter::builder().parse(&self.log_level).with_context(not)
    }

    /// The commented file that `init` writes.
    pub(crate) fn to_commented_toml(&self) -> String {
        let Self {
            listen,
            delivery,
            control,
            control_names,
            delivery_url,
            delivery_tls_certificate,
            delivery_tls_key,
            delivery_connections,
            delivery_connections_per_address,
            bootstrap,
            allow_private_addresses,
            cors_origins,
            replication,
            quota_bytes,
            repair_reserve_percent,
            scrub_bytes_per_s,
            tombstone_days,
            grace_seconds,
            ping_seconds,
            sync_seconds,
            minimum_age_seconds,
            drop_delay_seconds,
            keep_until_proved,
            repair_bytes_per_s,
            cache_bytes,
            max_upload_bytes,
            upload_bytes_per_s,
            transcodes,
            max_video_seconds,
            confine_ffmpeg,
            log_format,
            log_level,
        } = self;
        let log_format = match log_format {
            LogFormat::Human => "human",
            LogFormat::Json => "json",
        };
        let allow_private_addresses = match allow_private_addresses {
            Some(allow) => format!("allow_private_addresses = {allow}"),
            None => "# allow_private_addresses = true".to_owned(),
        };
        let delivery_url = match delivery_url {
            Some(url) => format!("delivery_url = {url:?}"),
            None => format!("# delivery_url = {:?}", self.delivery_url()),
        };
        let file = |name: &str, path: &Option<PathBuf>, example: &str| match path {
            Some(path) => format!("{name} = {path:?}"),
            None => format!("# {name} = {example:?}"),
        };
        let folder = "/etc/letsencrypt/live/node.example/";
        let delivery_tls_certificate =
            file("delivery_tls_certificate", delivery_tls_certificate, &format!("{folder}fullchain.pem"));
        let delivery_tls_key = file("delivery_tls_key", delivery_tls_key, &format!("{folder}privkey.pem"));
        // A list of strings in TOML is written as in Rust's Debug: both escape quotes and backslashes alike.
        format!(
            r#"# Configuration of an imira-node. A change counts after a restart, and much of it after `systemctl reload imira-node` (or kill -HUP): the log
# says which. Each setting can also be given as a flag of `imira-node run` (--quota-bytes 1000) and as a variable of the environment
# (IMIRA_NODE_QUOTA_BYTES=1000); a flag counts before a variable, and that before this file. `imira-node run --print-config` shows what counts.

# Address for other nodes: discovery over UDP and blocks over TCP, on the same port. Must be reachable by all members.
listen = "{listen}"

# Address for uploaders and viewers (HTTP), and the URL under which they reach it; left out, http:// (with a certificate https://) and that address.
delivery = "{delivery}"
{delivery_url}

# The certificate (PEM, the chain after it) and its private key, with which the delivery address speaks TLS, HTTP/2 and HTTP/1.1; then
# delivery_url begins with https://. Without them it speaks plain HTTP: put a TLS proxy in front where viewers are on the internet.
# Relative paths are below this folder. The key must not be readable by everybody.
{delivery_tls_certificate}
{delivery_tls_key}

# The most connections to the delivery address, and the most of one address (or one IPv6 network of 64 bits; 0: any number). When all are
# taken, the one that has been idle for longest makes room. Costs a file descriptor and some 20 KB each, more with TLS. Set the second one
# to 0 where a proxy stands in front, since all viewers have its address then.
delivery_connections = {delivery_connections}
delivery_connections_per_address = {delivery_connections_per_address}

# Address for the platform and the operator (HTTP). Keep it private: it lists what the node stores.
control = "{control}"

# Names by which the control address is asked for besides its IP address and localhost. Where it listens on this machine alone, or where names are given,
# it answers to no others: a web page that you visit must not reach it under a name of its own (DNS rebinding).
control_names = {control_names:?}

# Members to dial first, as `imira-node init` prints them. One that is up is enough.
bootstrap = {bootstrap:?}

# Whether peers may be at addresses of private networks and of this machine itself. Left out, they may where this node listens on such
# addresses only. On a public network `true` lets members make this node dial what is on its own network.
{allow_private_addresses}

# Origins of the platforms' pages whose players may read from the delivery address (CORS).
cors_origins = {cors_origins:?}

# R: on how many nodes each block is kept. Must be the same on every node of a network. Costs R times the disk.
replication = {replication}

# The most bytes that the store keeps on this disk: blocks with their padding, the index, and what was deleted and has not been given
# back yet. Uploads that are being processed come on top for as long as that takes, and so do some 300 MB of files that are
# being rewritten. 0 stores nothing.
quota_bytes = {quota_bytes}

# How much of the quota, in percent, uploads leave free. It is for copies of blocks that this node or another one has lost: without it
# a full node could not replace a damaged block. Costs room for uploads. 0 to 90.
repair_reserve_percent = {repair_reserve_percent}

# Every block is read again from time to time, so that damage of the disk is found while another node still has a good copy. One
# round is begun each week, at most; at 8388608 (8 MiB/s) 1 TB takes a day and a half. Costs the disk that much reading and one
# processor some 2 % of its time. 0 turns it off: `imira-node verify` is then the only check of what nobody asks for.
scrub_bytes_per_s = {scrub_bytes_per_s}

# For how many days this node remembers what was deleted. A node that was away for longer, and comes back with such a video, can bring
# it back. Costs about 4 KiB of disk for each deleted video. At least 90.
tombstone_days = {tombstone_days}

# A node that does not answer is given up after so many seconds, and its blocks get new copies. Shorter: a restart costs the network a
# transfer of all that the node has. Longer: blocks have one copy less for longer.
grace_seconds = {grace_seconds}

# How often this node asks its neighbours whether they are there, and compares with them what both should have. Equal stores cost some
# 0.4 KB a comparison. A lost copy is noticed after at most sync_seconds.
ping_seconds = {ping_seconds}
sync_seconds = {sync_seconds}

# A copy that is one too many here is deleted when it has been so for drop_delay_seconds, and its holders have proved theirs; of those a
# node counts only that has been known for minimum_age_seconds. Longer: more disk for longer. Shorter: somebody who makes many node
# keys gets copies deleted sooner.
minimum_age_seconds = {minimum_age_seconds}
drop_delay_seconds = {drop_delay_seconds}

# Whether this node keeps a copy of each block that was uploaded here until its holders have proved theirs. Without it, a block is lost
# whose holders all say that they keep it and do not. Costs the disk each uploaded block once more, for drop_delay_seconds at least
# and as a rule for no more than minimum_age_seconds besides, and its holders one reading of it each. If there is no room for that, the
# upload goes on without it.
keep_until_proved = {keep_until_proved}

# How fast this node fetches copies that others have lost, in bytes per second. 0: as fast as it can, which viewers notice on a slow line.
repair_bytes_per_s = {repair_bytes_per_s}

# Memory for blocks that viewers asked for, whether they are on this disk or came from other nodes.
cache_bytes = {cache_bytes}

# The largest file that an uploader may send. It lies on this disk until it is processed, and counts against the quota as soon as its
# first byte comes; one that was not finished is kept for the day that its token lives.
max_upload_bytes = {max_upload_bytes}

# How fast uploads come in, all together, in bytes per second. 0: as fast as they can, which viewers notice on a slow line.
upload_bytes_per_s = {upload_bytes_per_s}

# Uploads that are transcoded at a time. Each uses all processors; more than one makes each slower.
transcodes = {transcodes}

# The longest film that is taken, in seconds. One may take as long as 60 times its length to process, on a machine that is that slow.
max_video_seconds = {max_video_seconds}

# Whether the kernel keeps FFmpeg from all files but the upload and its work folder, and from the network (Landlock and seccomp, Linux 5.13). What is
# uploaded is a stranger's, and a hole in one of FFmpeg's decoders is one in this node without it. The node does not start where the kernel cannot.
confine_ffmpeg = {confine_ffmpeg}

# The shape of log lines, which go to standard error: "human", or "json" for programs that read them.
log_format = "{log_format}"

# How much is logged: error, warn, info, debug or trace, and after commas the same for a part alone, as part=level. Costs disk: debug writes a
# line for each request.
log_level = {log_level:?}
"#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOTSTRAP: &str = "/ip4/127.0.0.1/udp/1/quic-v1/p2p/12D3KooWSnfLkEoyWmoJAvSTBFqCZ3nEWTXCLU7Pq5VMdYCHRXJo";

    fn parse(text: &str) -> Result<Config> {
        crate::settings::Effective::of(text, &[], &crate::settings::Flags::default()).map(|effective| effective.config)
    }

    #[test]
    fn the_written_file_reads_back() {
        let config = Config {
            bootstrap: vec![BOOTSTRAP.into()],
            cors_origins: vec!["http://a".into(), "http://b".into()],
            delivery_url: Some("https://a".into()),
            delivery_tls_certificate: Some("chain \"1\".pem".into()),
            delivery_tls_key: Some("/k.pem".into()),
            ..Config::default()
        };
        let again = parse(&config.to_commented_toml()).unwrap();
        assert_eq!(format!("{config:?}"), format!("{again:?}"));
    }

    #[test]
    fn the_delivery_url_follows_the_address_unless_it_is_given() {
        let url = |text: &str| parse(text).unwrap().delivery_url();
        assert_eq!(url(""), "http://127.0.0.1:7201");
        assert_eq!(url("delivery = '192.0.2.1:80'"), "http://192.0.2.1:80");
        assert_eq!(url("delivery_tls_certificate = 'c'\ndelivery_tls_key = 'k'"), "https://127.0.0.1:7201");
        assert_eq!(url("delivery = '0.0.0.0:80'\ndelivery_url = 'http://node.example'"), "http://node.example");
        assert!(!Config::default().to_commented_toml().contains("\ndelivery_url"), "the file would hold it fast");
    }

    #[test]
    fn a_part_of_the_quota_is_for_repair() {
        let reserve = |quota_bytes, repair_reserve_percent| {
            let config = Config { quota_bytes, repair_reserve_percent, ..Config::default() };
            config.store().repair_reserve_bytes
        };
        assert_eq!((reserve(1_000, 5), reserve(1_000, 0)), (50, 0));
        assert_eq!(reserve(u64::MAX, 90), u64::MAX / 10 * 9 + 4);
        // A configuration of an earlier version has none of this.
        let old = parse("quota_bytes = 1000").unwrap();
        assert_eq!((old.repair_reserve_percent, old.scrub_bytes_per_s, old.tombstone_days), (5, 8 << 20, 90));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (text, word) in [
            ("replication = 0", "replication"),
            ("transcodes = 0", "transcodes"),
            ("repair_reserve_percent = 91", "repair_reserve_percent"),
            ("tombstone_days = 89", "tombstone_days"),
            ("quota = 1", "not understood"),
            ("bootstrap = [\"nowhere\"]", "bootstrap"),
            ("bootstrap = [\"/ip4/127.0.0.1/udp/1/quic-v1\"]", "p2p"),
            ("listen = \"127.0.0.1:0\"", "port 0"),
            ("delivery_url = \"http://0.0.0.0:7201\"", "--delivery-url"),
            ("delivery = \"0.0.0.0:7201\"", "--delivery-url"),
            ("delivery_url = \"node.example\"", "write http://"),
            ("cors_origins = [\"video.example\"]", "cors_origins"),
            ("delivery = \"127.0.0.1:7301\"", "a port of its own"),
            ("delivery = \"127.0.0.1:7101\"", "a port of its own"),
            ("control = \"0.0.0.0:7101\"", "a port of its own"),
            ("delivery_tls_key = \"k\"", "go together"),
            ("delivery_tls_certificate = \"c\"", "go together"),
            (
                "delivery_url = \"http://a\"\ndelivery_tls_certificate = \"c\"\ndelivery_tls_key = \"k\"",
                "write https://",
            ),
            ("delivery_connections = 0", "nobody would ever be served"),
            ("log_level = \"loud\"", "log_level"),
            ("log_format = \"xml\"", "human"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
