//! One platform's receipts on disk: segments of framed texts, only ever appended to (`docs/receipts.md`, The log).

use crate::files::replace_private;
use anyhow::{Context, Result, bail, ensure};
use control_api::{NO_RECEIPT, Receipt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// After so many bytes a new segment begins: a platform that acknowledges frees space in such steps.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Of unacknowledged receipts, at most.
const MAX_BYTES: u64 = 1 << 30;
/// The most bytes of texts in one answer.
const ANSWER_BYTES: usize = 1 << 20;
const CHECKSUM_BYTES: usize = 8;

/// The log of one platform.
pub(super) struct ReceiptLog {
    folder: PathBuf,
    mark: Mark,
    segments: VecDeque<Segment>,
    next: u64,
    last_hash: [u8; 32],
}

/// The file `log`.
#[derive(Clone, Serialize, Deserialize)]
struct Mark {
    log: String,
    acknowledged: u64,
}

/// A file with the receipts from number `first` on.
struct Segment {
    first: u64,
    bytes: u64,
}

impl ReceiptLog {
    /// Opens or makes the log in `folder`, and cuts what was never whole. `new_id` is the name of a log that has to be made.
    pub(super) fn open(folder: &Path, new_id: impl FnOnce() -> Result<String>) -> Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(|| failed(folder))?;
        let path = folder.join("log");
        let mark = match path.exists() {
            true => serde_json::from_slice(&fs::read(&path)?).with_context(|| failed(&path))?,
            false => {
                let mark = Mark { log: new_id()?, acknowledged: 0 };
                replace_private(&path, &serde_json::to_vec(&mark)?)?;
                sync_folder(folder)?;
                mark
            }
        };
        let mut log =
            Self { folder: folder.to_owned(), mark, segments: VecDeque::new(), next: 1, last_hash: NO_RECEIPT };
        let firsts = log.firsts()?;
        for (place, first) in firsts.iter().enumerate() {
            log.open_segment(*first, place + 1 == firsts.len())?;
        }
        Ok(log)
    }

    /// The numbers that segments begin with, by the names of the files.
    fn firsts(&self) -> Result<Vec<u64>> {
        let mut firsts = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            if let Some(first) = name.to_str().and_then(|name| name.strip_suffix(".log")) {
                firsts.push(first.parse().with_context(|| failed(&self.folder.join(&name)))?);
            }
        }
        firsts.sort_unstable();
        Ok(firsts)
    }

    fn open_segment(&mut self, first: u64, is_last: bool) -> Result<()> {
        let path = self.path(first);
        ensure!(self.segments.is_empty() || first == self.next, "{} does not begin with {}", path.display(), self.next);
        let bytes = fs::read(&path).with_context(|| failed(&path))?;
        let (mut rest, mut next, mut hash) = (bytes.as_slice(), first, self.last_hash);
        while let Some((text, after)) = frame(rest) {
            (rest, next, hash) = (after, next + 1, Receipt::hash(text));
        }
        let whole = (bytes.len() - rest.len()) as u64;
        if !rest.is_empty() {
            ensure!(is_last, "{} is damaged after {whole} bytes", path.display());
            tracing::warn!(file = %path.display(), bytes = rest.len(), "cut off what was never whole");
            OpenOptions::new().write(true).open(&path)?.set_len(whole)?;
        }
        if whole == 0 {
            fs::remove_file(&path)?;
            return Ok(());
        }
        self.segments.push_back(Segment { first, bytes: whole });
        (self.next, self.last_hash) = (next, hash);
        Ok(())
    }

    /// The name of the log.
    pub(super) fn id(&self) -> &str {
        &self.mark.log
    }

    /// Where the next receipt stands: its number, and the hash of the one before.
    pub(super) fn position(&self) -> (u64, [u8; 32]) {
        (self.next, self.last_hash)
    }

    /// Whether there is room for more.
    pub(super) fn has_room(&self) -> bool {
        self.segments.iter().map(|segment| segment.bytes).sum::<u64>() < MAX_BYTES
    }

    /// Appends receipts that follow one another from [`ReceiptLog::position`] on; they are on disk when this returns. After an error
    /// the log must be opened again.
    pub(super) fn append(&mut self, texts: &[String]) -> Result<()> {
        let Some(last) = texts.last() else { return Ok(()) };
        let is_new = self.segments.back().is_none_or(|segment| segment.bytes >= SEGMENT_BYTES);
        let first = if is_new { self.next } else { self.segments.back().map_or(self.next, |segment| segment.first) };
        let path = self.path(first);
        let mut framed = Vec::new();
        for text in texts {
            framed.extend_from_slice(&(text.len() as u32).to_be_bytes());
            framed.extend_from_slice(&checksum(text.as_bytes()));
            framed.extend_from_slice(text.as_bytes());
        }
        let mut file = OpenOptions::new().append(true).create_new(is_new).mode(0o600).open(&path)?;
        file.write_all(&framed).and_then(|()| file.sync_data()).with_context(|| failed(&path))?;
        if is_new {
            sync_folder(&self.folder)?;
            self.segments.push_back(Segment { first, bytes: 0 });
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes += framed.len() as u64;
        }
        self.next += texts.len() as u64;
        self.last_hash = Receipt::hash(last);
        Ok(())
    }

    /// Up to `limit` receipts after the number `after`, and whether there are more.
    pub(super) fn read(&self, after: u64, limit: usize) -> Result<(Vec<String>, bool)> {
        let (mut texts, mut bytes) = (Vec::new(), 0);
        let ends = self.segments.iter().skip(1).map(|next| next.first).chain([self.next]);
        for (segment, end) in self.segments.iter().zip(ends) {
            if end <= after.saturating_add(1) {
                continue;
            }
            let path = self.path(segment.first);
            let mut content = fs::read(&path).with_context(|| failed(&path))?;
            content.truncate(segment.bytes as usize);
            let (mut rest, mut number) = (content.as_slice(), segment.first);
            while let Some((text, next)) = frame(rest) {
                if number > after {
                    if texts.len() == limit || bytes + text.len() > ANSWER_BYTES {
                        return Ok((texts, true));
                    }
                    bytes += text.len();
                    texts.push(text.to_owned());
                }
                (rest, number) = (next, number + 1);
            }
            ensure!(rest.is_empty(), "{} is damaged", path.display());
        }
        Ok((texts, false))
    }

    /// Notes that the platform has everything up to `through`, and deletes the segments that are no longer needed. The last stays: it says
    /// with which number the log goes on.
    pub(super) fn acknowledge(&mut self, through: u64) -> Result<()> {
        if through >= self.next {
            bail!("receipt {through} is not there; the last is {}", self.next - 1);
        }
        if through > self.mark.acknowledged {
            let mark = Mark { acknowledged: through, ..self.mark.clone() };
            replace_private(&self.folder.join("log"), &serde_json::to_vec(&mark)?)?;
            self.mark = mark;
        }
        while self.segments.get(1).is_some_and(|next| next.first <= self.mark.acknowledged + 1) {
            if let Some(segment) = self.segments.front() {
                let path = self.path(segment.first);
                fs::remove_file(&path).with_context(|| failed(&path))?;
            }
            self.segments.pop_front();
        }
        Ok(())
    }

    fn path(&self, first: u64) -> PathBuf {
        self.folder.join(format!("{first:020}.log"))
    }
}

/// The first text and what follows it; `None` where no whole one begins.
fn frame(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_at_checked(CHECKSUM_BYTES)?;
    let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let text = std::str::from_utf8(text).ok().filter(|text| checksum(text.as_bytes()) == sum && !text.is_empty())?;
    Some((text, rest))
}

fn checksum(text: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&Sha256::digest(text)[..CHECKSUM_BYTES]);
    sum
}

/// A file's name is on disk only when its folder is.
fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| failed(folder))
}

fn failed(path: &Path) -> String {
    format!("cannot use {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> ReceiptLog {
        ReceiptLog::open(folder, || Ok("0".repeat(32))).unwrap()
    }

    fn texts(numbers: std::ops::RangeInclusive<u64>, bytes: usize) -> Vec<String> {
        let padded = |number: String| "0".repeat(bytes - number.len()) + &number;
        numbers.map(|number| padded(number.to_string())).collect()
    }

    #[test]
    fn what_is_appended_is_read_and_survives() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path());
        assert_eq!(log.position(), (1, NO_RECEIPT));
        log.append(&texts(1..=3, 5)).unwrap();
        log.append(&texts(4..=4, 5)).unwrap();
        for log in [log, open(folder.path())] {
            assert_eq!(log.position(), (5, Receipt::hash("00004")));
            assert_eq!(log.read(0, 10).unwrap(), (texts(1..=4, 5), false));
            assert_eq!(log.read(1, 2).unwrap(), (texts(2..=3, 5), true));
            assert_eq!(log.read(4, 10).unwrap(), (vec![], false));
            assert_eq!(log.read(u64::MAX, 10).unwrap(), (vec![], false));
        }
    }

    #[test]
    fn a_torn_tail_is_cut_wherever_it_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).append(&texts(1..=2, 9)).unwrap();
        let path = folder.path().join(format!("{:020}.log", 1));
        let whole = fs::read(&path).unwrap();
        let second = whole.len() / 2;
        for torn in 0..whole.len() {
            fs::write(&path, &whole[..torn]).unwrap();
            let mut log = open(folder.path());
            let kept = u64::from(torn >= second);
            assert_eq!(log.position().0, kept + 1, "torn after {torn}");
            log.append(&texts(kept + 1..=kept + 1, 9)).unwrap();
            assert_eq!(open(folder.path()).read(0, 9).unwrap().0, texts(1..=kept + 1, 9));
        }
        let mut garbled = whole.clone();
        *garbled.last_mut().unwrap() ^= 1;
        fs::write(&path, &garbled).unwrap();
        assert_eq!(open(folder.path()).position().0, 2);
    }

    #[test]
    fn acknowledged_segments_go_and_the_last_stays() {
        const LONG: usize = 1 << 20;
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path());
        for number in 1..=10 {
            log.append(&texts(number..=number, LONG)).unwrap();
        }
        let files = || fs::read_dir(folder.path()).unwrap().count() - 1;
        assert_eq!(files(), 3, "four of a mebibyte each fill one");
        log.acknowledge(3).unwrap();
        assert_eq!(files(), 3);
        log.acknowledge(4).unwrap();
        assert_eq!(files(), 2);
        log.acknowledge(1).unwrap();
        assert!(log.acknowledge(11).is_err());
        log.acknowledge(10).unwrap();
        assert_eq!(files(), 1);
        let mut log = open(folder.path());
        assert_eq!((log.position().0, log.mark.acknowledged), (11, 10));
        log.append(&texts(11..=11, LONG)).unwrap();
        assert_eq!(log.read(10, 9).unwrap().0, texts(11..=11, LONG));
    }

    #[test]
    fn damage_before_the_tail_is_no_torn_tail() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path());
        for number in 1..=5 {
            log.append(&texts(number..=number, 1 << 20)).unwrap();
        }
        let path = folder.path().join(format!("{:020}.log", 1));
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(ReceiptLog::open(folder.path(), || bail!("not asked for")).is_err());
    }
}
