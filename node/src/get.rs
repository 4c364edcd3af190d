//! `imira-node get`: fetches a block, or a file of a content, and checks every block on the way: from a running node by tokens, or from
//! the store of one that is stopped.

use crate::operator::open_store;
use crate::out;
use crate::show::Bar;
use crate::tokens::{Asker, PlatformArgs};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use chunkstore::Store;
use chunkstore_block::{BlockId, ContentKey, Index, Loader, MAX_BLOCK_BYTES};
use clap::{Args, Subcommand};
use control_api::{DeliveryClient, TemporaryUrl};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A token lives for 30 s; a new one is asked for well before.
const RENEW_AFTER: Duration = Duration::from_secs(20);

#[derive(Args)]
pub(crate) struct GetArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// One block of a node's own store, which must be stopped.
    Block {
        /// Its id, 64 hex digits.
        #[arg(value_name = "BLOCK_ID")]
        id: BlockId,
        #[command(flatten)]
        folder: crate::files::Folder,
        #[command(flatten)]
        out: Out,
    },
    /// A file of a content, or the list of its files.
    Content {
        /// Its key, 64 hex digits.
        #[arg(value_name = "CONTENT_KEY")]
        key: ContentKey,
        /// Which file, for example 720p.mp4; without it, the files are listed.
        #[arg(value_name = "PATH")]
        path: Option<String>,
        /// The private key of a platform: tokens are asked for with it, of the node at --control.
        #[arg(long, value_name = "PEM")]
        platform_key: Option<PathBuf>,
        /// The node's control listener, with --platform-key.
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7301")]
        control: String,
        #[command(flatten)]
        folder: crate::files::Folder,
        #[command(flatten)]
        out: Out,
    },
}

#[derive(Args)]
struct Out {
    /// Where to write it, instead of standard output; must not exist.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) async fn run(args: GetArgs) -> Result<()> {
    match args.what {
        What::Block { id, folder, out } => {
            let block = read(&open_store(&folder)?, id)?;
            let mut writer = Writer::open(out.out.as_deref())?;
            writer.write(&block)?;
            writer.finish()
        }
        What::Content { key, path, platform_key, control, folder, out } => {
            let mut source =
                match platform_key {
                    Some(platform_key) => Source::node(&PlatformArgs { platform_key, control }, key).await?,
                    None => Source::Store(Box::new(open_store(&folder).context(
                        "give --platform-key, and it is read from a node that runs; without it, from the store of a stopped one (--data)",
                    )?)),
                };
            let index = source.index(key).await?;
            match path {
                None => list(&index)?,
                Some(path) => fetch(&mut source, &index, &path, out.out.as_deref()).await?,
            }
            Ok(())
        }
    }
}

fn list(index: &Index) -> Result<()> {
    for file in &index.files {
        out::line(format_args!("{}\t{}\t{}", file.path, file.size(), file.media_type))?;
    }
    Ok(())
}

async fn fetch(source: &mut Source, index: &Index, path: &str, out: Option<&Path>) -> Result<()> {
    let file =
        index.file(path).with_context(|| format!("the content has no file {path}; without PATH they are listed"))?;
    let mut writer = Writer::open(out)?;
    let (bar, mut done) = (Bar::new("fetching"), 0);
    for part in index.file_parts(file, 0..file.size()) {
        let block = source.block("blocks", part.id).await?;
        let (from, to) = (part.skip as usize, part.skip as usize + part.take as usize);
        ensure!(
            block.len() == part.block_length as usize && to <= block.len(),
            "block {} is not as the index says",
            part.id
        );
        writer.write(&block[from..to])?;
        done += u64::from(part.take);
        bar.at(done, file.size());
    }
    drop(bar);
    writer.finish()
}

/// Where blocks come from.
enum Source {
    Store(Box<Store>),
    Node(Box<ByToken>),
}

struct ByToken {
    asker: Asker,
    delivery: DeliveryClient,
    content: ContentKey,
    url: TemporaryUrl,
    since: Instant,
}

impl Source {
    async fn node(platform: &PlatformArgs, content: ContentKey) -> Result<Self> {
        let (asker, since) = (Asker::new(platform).await?, Instant::now());
        let url = asker.playback(content).await?;
        Ok(Self::Node(Box::new(ByToken { asker, delivery: DeliveryClient::new()?, content, url, since })))
    }

    async fn index(&mut self, key: ContentKey) -> Result<Index> {
        let root = match self {
            Self::Store(store) => read(store, key.block_id())?,
            Self::Node(node) => node.get("index").await?,
        };
        check(key.block_id(), &root)?;
        let mut loader = Loader::new(key, &root)?;
        while let Some(page) = loader.wanted() {
            let bytes = self.block("pages", page.id).await?;
            loader.supply(page.id, &bytes)?;
        }
        Ok(loader.finish()?.index)
    }

    /// A block, checked.
    async fn block(&mut self, kind: &str, id: BlockId) -> Result<Bytes> {
        let block = match self {
            Self::Store(store) => read(store, id)?,
            Self::Node(node) => node.get(&format!("{kind}/{id}")).await?,
        };
        check(id, &block)?;
        Ok(block)
    }
}

impl ByToken {
    async fn get(&mut self, path: &str) -> Result<Bytes> {
        if self.since.elapsed() >= RENEW_AFTER {
            let since = Instant::now();
            self.url = self.asker.playback(self.content).await?;
            self.since = since;
        }
        let answer = self.delivery.get(&self.url, path, false, Default::default()).await?;
        Ok(answer.bytes(MAX_BLOCK_BYTES).await?)
    }
}

fn read(store: &Store, id: BlockId) -> Result<Bytes> {
    store.read(&id)?.with_context(|| format!("block {id} is not in this store; other nodes may have it"))
}

fn check(id: BlockId, bytes: &[u8]) -> Result<()> {
    let actual = BlockId::of(bytes);
    if actual != id {
        bail!("the bytes have the id {actual}, not {id}: the node lies or is damaged");
    }
    Ok(())
}

/// Standard output, or a new file that goes again unless it becomes whole.
struct Writer<'a> {
    to: BufWriter<Box<dyn Write>>,
    path: Option<&'a Path>,
}

impl<'a> Writer<'a> {
    fn open(path: Option<&'a Path>) -> Result<Self> {
        let to: Box<dyn Write> = match path {
            Some(path) => Box::new(
                File::create_new(path)
                    .with_context(|| format!("cannot make {}; it must not exist yet", path.display()))?,
            ),
            None => Box::new(io::stdout()),
        };
        Ok(Self { to: BufWriter::new(to), path })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).context("cannot write what was fetched")
    }

    fn finish(mut self) -> Result<()> {
        self.to.flush().context("cannot write what was fetched")?;
        self.path = None;
        Ok(())
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            eprintln!("imira-node: {} is not whole and cannot be removed: {error}", path.display());
        }
    }
}
