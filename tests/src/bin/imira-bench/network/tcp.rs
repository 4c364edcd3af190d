//! The references: one TCP stream on loopback, and a file that is appended to and synced.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use anyhow::{Result, anyhow, ensure};

use super::nodes::Cost;
use crate::measure::Stopwatch;

/// As the block plane writes.
const CHUNK_BYTES: usize = 1 << 20;

/// Sends `bytes` from one thread to another and reads them.
pub(super) fn stream(bytes: u64) -> Result<Cost> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sender = thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let chunk = vec![7; CHUNK_BYTES];
        (0..bytes / CHUNK_BYTES as u64).try_for_each(|_| stream.write_all(&chunk))
    });
    let mut stream = TcpStream::connect(address)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let watch = Stopwatch::start();
    let mut read = 0;
    loop {
        match stream.read(&mut chunk)? {
            0 => break,
            some => read += some as u64,
        }
    }
    let cost = Cost { seconds: watch.seconds(), cpu_seconds: watch.cpu_seconds() };
    sender.join().map_err(|_| anyhow!("the sender has panicked"))??;
    ensure!(read == bytes, "{read} of {bytes} bytes came");
    Ok(cost)
}

/// Appends blocks to a new file, each synced before the next.
pub(super) fn append_and_sync(folder: &Path, blocks: usize, bytes: usize) -> Result<Cost> {
    let path = folder.join("plain");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let body = vec![7; bytes];
    let watch = Stopwatch::start();
    for _ in 0..blocks {
        file.write_all(&body)?;
        file.sync_data()?;
    }
    let cost = Cost { seconds: watch.seconds(), cpu_seconds: watch.cpu_seconds() };
    std::fs::remove_file(path)?;
    Ok(cost)
}
