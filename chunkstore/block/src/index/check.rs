//! The rules of `docs/index-format.md` that hold for an index as such, however it is encoded.

use super::{File, Fragments, Index, IndexError, Rendition, Run};
use crate::MAX_BLOCK_BYTES;

/// The most fragments of a content (`docs/index-format.md`, "Limits", like all of these).
pub const MAX_FRAGMENTS: u64 = 16_777_216;
/// The most files of a content.
pub const MAX_FILES: u64 = 1_048_576;
/// The most runs of one file.
pub const MAX_RUNS: u64 = 32_768;
/// The most renditions of a content.
pub const MAX_RENDITIONS: u64 = 64;
/// The longest name or codecs string of a rendition, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// The longest language tag, in bytes (RFC 5646 §4.4.1).
pub const MAX_LANGUAGE_BYTES: usize = 35;
/// The longest path, in bytes of UTF-8.
pub const MAX_PATH_BYTES: usize = 255;
/// The longest media type, in bytes.
pub const MAX_MEDIA_TYPE_BYTES: usize = 127;

/// Checks everything about a whole index that does not depend on its encoding.
pub(super) fn check_index(index: &Index) -> Result<(), IndexError> {
    limit("index.renditions", index.renditions.len() as u64, MAX_RENDITIONS)?;
    index.renditions.iter().try_for_each(check_rendition)?;
    check_fragments(&index.fragments)?;
    limit("files.count", index.files.len() as u64, MAX_FILES)?;
    index.files.iter().try_for_each(check_file)?;
    check_sorted(&index.files)?;
    index.files.iter().try_for_each(|file| check_runs(file, &index.fragments))
}

/// Refuses `found` when it is more than `most`.
pub(super) fn limit(field: &'static str, found: u64, most: u64) -> Result<(), IndexError> {
    if found > most { Err(IndexError::Limit { field, found, limit: most }) } else { Ok(()) }
}

pub(super) fn check_rendition(rendition: &Rendition) -> Result<(), IndexError> {
    text_limit("rendition.name", &rendition.name, MAX_NAME_BYTES)?;
    text_limit("rendition.codecs", &rendition.codecs, MAX_NAME_BYTES)?;
    if let Some(language) = &rendition.language {
        text_limit("rendition.language", language, MAX_LANGUAGE_BYTES)?;
    }
    check_path_of("rendition.playlist", &rendition.playlist)?;
    rendition.mp4.iter().try_for_each(|path| check_path_of("rendition.mp4", path))
}

pub(super) fn check_fragment_length(length: u32) -> Result<(), IndexError> {
    at_least_one("fragment.length", length.into())?;
    limit("fragment.length", length.into(), MAX_BLOCK_BYTES as u64)
}

/// Checks what can be known of a file without the fragments.
pub(super) fn check_file(file: &File) -> Result<(), IndexError> {
    check_path(&file.path)?;
    check_media_type(&file.media_type)?;
    limit("file.runs", file.runs.len() as u64, MAX_RUNS)?;
    file.runs.iter().try_for_each(check_run)
}

/// Refuses a path that `docs/index-format.md` does not allow: 1 to 255 bytes, names joined by single `/`, none empty,
/// `.` or `..`, without control characters, `\`, `?` and `#`.
pub fn check_path(path: &str) -> Result<(), IndexError> {
    check_path_of("file.path", path)
}

/// Refuses a media type that is not 1 to 127 ASCII characters from 0x21 to 0x7E.
pub fn check_media_type(media_type: &str) -> Result<(), IndexError> {
    let length_fits = (1..=MAX_MEDIA_TYPE_BYTES).contains(&media_type.len());
    if length_fits && media_type.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        Ok(())
    } else {
        Err(IndexError::MediaType(media_type.to_owned()))
    }
}

pub(super) fn check_path_of(field: &'static str, path: &str) -> Result<(), IndexError> {
    let refuse = |reason| Err(IndexError::Path { field, path: path.to_owned(), reason });
    if path.is_empty() || path.len() > MAX_PATH_BYTES {
        return refuse("a path has 1 to 255 bytes");
    }
    if path.chars().any(|c| c.is_control() || matches!(c, '\\' | '?' | '#')) {
        return refuse("a path has no control characters, \\, ? or #");
    }
    if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return refuse("a path has no empty name, . or .. and no / at either end");
    }
    Ok(())
}

pub(super) fn at_least_one(field: &'static str, number: u64) -> Result<(), IndexError> {
    if number == 0 { Err(IndexError::Zero { field }) } else { Ok(()) }
}

fn text_limit(field: &'static str, text: &str, most: usize) -> Result<(), IndexError> {
    limit(field, text.len() as u64, most as u64)
}

/// The bounds keep every sum of runs far from overflow: 2^15 runs of at most 2^24 blocks of at most 2^20 bytes.
fn check_run(run: &Run) -> Result<(), IndexError> {
    at_least_one("run.first_order", run.first_order.into())?;
    at_least_one("run.blocks", run.blocks.into())?;
    limit("run.blocks", run.blocks.into(), MAX_FRAGMENTS)?;
    limit("run.bytes", run.bytes, u64::from(run.blocks) * MAX_BLOCK_BYTES as u64)
}

fn check_fragments(fragments: &Fragments) -> Result<(), IndexError> {
    limit("fragments.count", fragments.len() as u64, MAX_FRAGMENTS)?;
    fragments.iter().try_for_each(|fragment| check_fragment_length(fragment.length))?;
    let mut ids: Vec<_> = fragments.iter().map(|fragment| &fragment.id).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(IndexError::RepeatedFragment(*pair[0])),
        None => Ok(()),
    }
}

fn check_sorted(files: &[File]) -> Result<(), IndexError> {
    match files.windows(2).find(|pair| pair[0].path >= pair[1].path) {
        Some(pair) => Err(IndexError::Unsorted { path: pair[1].path.clone() }),
        None => Ok(()),
    }
}

fn check_runs(file: &File, fragments: &Fragments) -> Result<(), IndexError> {
    file.runs.iter().try_for_each(|run| {
        let Run { first_order, blocks, bytes: claimed } = *run;
        let path = || file.path.clone();
        let Some(actual) = fragments.bytes_of_run(run) else {
            return Err(IndexError::Run { path: path(), first_order, blocks, fragments: fragments.len() });
        };
        if actual == claimed {
            Ok(())
        } else {
            Err(IndexError::RunBytes { path: path(), first_order, claimed, actual })
        }
    })
}
