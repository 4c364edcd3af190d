//! The reference: the same blocks over plain TCP, 32 bytes of request for each. Two threads, nothing encrypted, no hash.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, ensure};

use super::{BODIES, MIB};
use crate::measure::{Run, Stopwatch};

/// A connection whose other end answers until this one is closed.
pub(super) struct Pair(Mutex<(TcpStream, Vec<u8>)>);

impl Pair {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_nodelay(true)?;
        let (answering, _) = listener.accept()?;
        thread::spawn(move || answer(answering));
        Ok(Self(Mutex::new((stream, vec![0; MIB]))))
    }

    /// One after another, into the same memory.
    pub(super) fn fetch(&self, fetches: usize) -> Result<Run> {
        let (stream, body) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = Stopwatch::start();
        for at in 0..fetches {
            let id = BODIES[at % BODIES.len()].0;
            stream.write_all(id.as_bytes())?;
            stream.read_exact(body)?;
        }
        let run = watch.stop((fetches * MIB) as u64);
        ensure!(body[..] == BODIES[(fetches - 1) % BODIES.len()].1[..], "another block came");
        Ok(run)
    }
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut id = [0; 32];
    loop {
        stream.read_exact(&mut id)?;
        for (_, body) in BODIES.iter().filter(|(known, _)| *known.as_bytes() == id) {
            stream.write_all(body)?;
        }
    }
}
