//! What a reader must refuse, each with one fault and the name that `docs/index-format.md` gives it; and what looks
//! odd and must be read.

use crate::blocks::{
    Blocks, FILES, FRAGMENTS, IN_FILES, IN_FRAGMENTS, Paged, entry, file, fragment, fragments, id_of, index, index_of,
    inline, page, rendition, two_files,
};
use crate::cbor::{Cbor, array, map};

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// `None`: it must be read.
    pub(crate) reason: Option<&'static str>,
    pub(crate) blocks: Blocks,
}

/// A file of so many runs of one byte.
pub(crate) fn with_runs(runs: u64) -> Blocks {
    let runs_of_one = (0..runs).map(|_| array![1, 1, 1]).collect::<Vec<_>>();
    index(vec![array![id(1), 1]], 1, array![file("a", runs, runs_of_one.into()), file("b", 0, array![])]).into()
}

type Named = (&'static str, Blocks);

pub(crate) fn accepted() -> Vec<Case> {
    odd_but_right().into_iter().map(|(name, blocks)| Case { name, reason: None, blocks }).collect()
}

pub(crate) fn refused() -> Vec<Case> {
    [
        ("encoding", encodings()),
        ("encoding", types()),
        ("kind", kinds()),
        ("version", versions()),
        ("cipher", vec![("an unknown cipher", inline().with(&[2], 1).into())]),
        ("hash", hashes()),
        ("length", lengths()),
        ("limit", limits()),
        ("level", levels()),
        ("sum", sums()),
        ("order", orders()),
        ("path", paths()),
        ("media-type", media_types()),
        ("twice", repetitions()),
        ("run", runs()),
        ("empty", empty()),
        ("value", values()),
    ]
    .into_iter()
    .flat_map(|(reason, cases)| {
        cases.into_iter().map(move |(name, blocks)| Case { name, reason: Some(reason), blocks })
    })
    .collect()
}

fn odd_but_right() -> Vec<Named> {
    let none = || Cbor::Array(Vec::new());
    let nothing = index_of(array![0, 0, 0, none()], array![0, 0, none()]);
    let unjoined = file("a.m4s", 30, array![array![1, 1, 10], array![2, 1, 20]]);
    let nameless = rendition().with(&[1], "").with(&[2], "").with(&[11], "");
    let bare = rendition().with(&[0], 2).with_entries(&[], |entries| entries.retain(|(key, _)| is_required(key)));
    let sound = rendition().with(&[0], 1);
    let longest = "p".repeat(255);
    let most = u64::MAX;
    vec![
        ("fragments and files in the index block", inline().into()),
        ("pages, deeper and emptier than a writer makes them", Paged::new().blocks()),
        ("a chain of pages down from level 4", chain(4)),
        ("neither fragments nor files nor renditions", nothing.with(&[5], none()).into()),
        ("runs that could be one", inline().with(&[IN_FILES, 2, 0], unjoined).into()),
        ("a fragment twice in a file", index(fragments(1..=1), 10, array![twice("a"), file("b", 0, none())]).into()),
        ("renditions in another order, a sound with a width", inline().with(&[5], array![sound, rendition()]).into()),
        ("a text rendition with empty names", inline().with(&[5, 0], nameless).into()),
        ("a rendition of required keys only", inline().with(&[5, 0], bare).into()),
        ("the longest path", inline().with(&[IN_FILES, 2, 1, 0], longest.as_str()).into()),
        ("names that begin with a dot, spaces, other scripts", with_path("….b/..c/ ü").into()),
        ("the largest numbers", inline().with(&[4], most).with(&[5, 0, 3], most).with(&[5, 0, 5], most).into()),
        ("a fragment of the largest length", largest_fragment().into()),
    ]
}

fn encodings() -> Vec<Named> {
    let good = inline().encode();
    let raw = |hex: &str| Cbor::Raw(data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap());
    let duration = |hex: &str| Blocks::from(inline().with(&[4], raw(hex)));
    let swap = |one: usize, two: usize| move |entries: &mut Vec<(Cbor, Cbor)>| entries.swap(one, two);
    let again = |entries: &mut Vec<(Cbor, Cbor)>| entries.insert(5, entries[4].clone());
    let indefinite = [&[0xbf][..], &good[1..], &[0xff]].concat();
    vec![
        ("nothing at all", Blocks::of(b"")),
        ("cut off", Blocks::of(&good[..good.len() - 1])),
        ("one byte too many", Blocks::of(&[&good[..], &[0]].concat())),
        ("an indefinite map", Blocks::of(&indefinite)),
        ("an indefinite array", inline().with(&[5], raw("9fff")).into()),
        ("an indefinite text", inline().with(&[5, 0, 1], raw("7f6161ff")).into()),
        ("a number that is not in its shortest form", duration("1817")),
        ("a length that is not in its shortest form", inline().with(&[5, 0, 1], raw("780161")).into()),
        ("keys of the index that do not ascend", inline().with_entries(&[], swap(3, 4)).into()),
        ("keys of a rendition that do not ascend", inline().with_entries(&[5, 0], swap(5, 6)).into()),
        ("a key of the index twice", inline().with_entries(&[], again).into()),
        ("a key of a rendition twice", inline().with_entries(&[5, 0], again).into()),
        ("an array of 2^64 - 1 items that are not there", inline().with(&[IN_FRAGMENTS, 3], raw(HUGE_ARRAY)).into()),
        ("text that is not UTF-8", inline().with(&[5, 0, 1], raw("61ff")).into()),
        ("a float", duration("f94500")),
        ("a tag", duration("c11864")),
        ("a number of 65 bits", duration("c249010000000000000000")),
        ("a negative number", duration("20")),
        ("false for 0", inline().with(&[2], raw("f4")).into()),
        ("false and true for the keys 0 and 1", boolean_keys()),
        ("arrays in arrays, 1,000 deep", inline().with(&[5], Cbor::Raw(vec![0x81; 1_000])).into()),
    ]
}

fn types() -> Vec<Named> {
    let drop_last = |entries: &mut Vec<(Cbor, Cbor)>| drop(entries.pop());
    let add = |key: u64| move |entries: &mut Vec<(Cbor, Cbor)>| entries.push((key.into(), 0.into()));
    let short_page = map(["imira-page".into(), 1.into(), 0.into(), 0.into()]);
    vec![
        ("a number for the index block", Cbor::Uint(7).into()),
        ("an index without files", inline().with_entries(&[], drop_last).into()),
        ("an index with a key 8", inline().with_entries(&[], add(8)).into()),
        ("a rendition without a playlist", inline().with_entries(&[5, 0], drop_last).into()),
        ("a rendition with a key 14", inline().with_entries(&[5, 0], add(14)).into()),
        ("a page without entries", over(short_page, 1, 10)),
        ("a source hash of 31 bytes", inline().with(&[3], Cbor::Bytes(vec![0; 31])).into()),
        ("a source hash that is text", inline().with(&[3], "hash").into()),
        ("a duration that is text", inline().with(&[4], "long").into()),
        ("a path that is bytes", inline().with(&[IN_FILES, 2, 0, 0], Cbor::Bytes(b"a.m4s".to_vec())).into()),
        ("fragments of five items", inline().with(&[IN_FRAGMENTS], array![0, 0, 0, array![], 0]).into()),
        ("files of two items", inline().with(&[IN_FILES], array![0, 0]).into()),
        ("a fragment of one item", inline().with(&[IN_FRAGMENTS, 3, 0], array![[7; 32]]).into()),
        ("a run of four items", inline().with(&[IN_FILES, 2, 0, 3, 0], array![1, 2, 30, 0]).into()),
    ]
}

fn kinds() -> Vec<Named> {
    let leaf = Paged::new().leaves[0].clone();
    vec![
        ("another word for the index", inline().with(&[0], "imira-other").into()),
        ("a page where the index should be", leaf.into()),
        ("an index where a page should be", over(inline(), 3, 60)),
    ]
}

fn versions() -> Vec<Named> {
    let leaf = Paged::new().leaves[0].clone();
    let unlike = map(["imira-index".into(), 2.into(), "all".into(), "other".into()]);
    vec![
        ("version 0", inline().with(&[1], 0).into()),
        ("version 2", inline().with(&[1], 2).into()),
        ("version 2, of another shape", unlike.into()),
        ("a page of version 2", over(leaf.with(&[1], 2), 3, 60)),
    ]
}

fn hashes() -> Vec<Named> {
    let paged = Paged::new();
    let (leaf, middle) = (id_of(&paged.leaves[0]), &paged.middle[0]);
    let other = inline().with(&[4], 1).encode();
    vec![
        ("another index under the content key", Blocks::from(inline()).with_false(id_of(&inline()), other)),
        ("another page under an id", paged.blocks().with_false(leaf, paged.leaves[1].encode())),
        ("a cycle: a page under the id of one below it", paged.blocks().with_false(leaf, middle.encode())),
    ]
}

fn lengths() -> Vec<Named> {
    let fragment_length = |length: u64| {
        let fragments = vec![array![[1; 32], length], array![[2; 32], 1]];
        Blocks::from(index(fragments, length + 1, array![]).with(&[IN_FILES], no_files()))
    };
    let paged = Paged::new();
    let page_length = |length: u64| paged.under(paged.root().with(&[IN_FRAGMENTS, 3, 0, 1], length));
    let right = paged.middle[0].encode().len() as u64;
    vec![
        ("a fragment of no bytes", fragment_length(0)),
        ("a fragment of more than 1 MiB", fragment_length(1_048_577)),
        ("a page of no bytes", page_length(0)),
        ("a page of more than 1 MiB", page_length(1_048_577)),
        ("a page that is longer than the entry says", page_length(right - 1)),
        ("a page that is shorter than the entry says", page_length(right + 1)),
    ]
}

fn limits() -> Vec<Named> {
    let paged = Paged::new();
    let text = |key: u64, bytes: usize| {
        Blocks::from(inline().with(&[5, 0, key], "é".repeat(bytes / 2) + &"e".repeat(bytes % 2)))
    };
    vec![
        ("65 renditions", inline().with(&[5], vec![rendition(); 65]).into()),
        ("a name of 65 bytes", text(1, 65)),
        ("codecs of 66 bytes and 33 characters", text(2, 66)),
        ("a language of 36 bytes", text(11, 36)),
        ("16,777,217 fragments", paged.under(paged.root().with(&[IN_FRAGMENTS, 1], 16_777_217))),
        ("1,048,577 files", paged.under(paged.root().with(&[IN_FILES, 1], 1_048_577))),
        ("2^64 - 1 fragments", paged.under(paged.root().with(&[IN_FRAGMENTS, 1], u64::MAX))),
    ]
}

fn levels() -> Vec<Named> {
    let paged = Paged::new();
    let leaf = paged.leaves[0].clone();
    let same = page(FRAGMENTS, 1, vec![entry(&paged.middle[1], 1, 60)]);
    vec![
        ("a chain of pages down from level 5", chain(5)),
        ("fragments of level 5", paged.under(paged.root().with(&[IN_FRAGMENTS, 0], 5))),
        ("files of level 5", paged.under(paged.root().with(&[IN_FILES, 0], 5))),
        ("fragments that say level 3 over pages of level 1", paged.under(paged.root().with(&[IN_FRAGMENTS, 0], 3))),
        ("fragments that say level 1 over pages of level 1", paged.under(paged.root().with(&[IN_FRAGMENTS, 0], 1))),
        (
            "a page that names a page of its own level",
            over_at(2, same, 1, 60).and(&[&paged.middle[1], &paged.leaves[2]]),
        ),
        ("a page of level 4", over(page(FRAGMENTS, 4, vec![entry(&leaf, 3, 60)]), 3, 60)),
    ]
}

fn sums() -> Vec<Named> {
    let paged = Paged::new();
    let changed = |path: &[u64], number: u64| paged.under(paged.root().with(path, number));
    let inside = Paged::new().with_leaves(|leaves| leaves[1] = page(FRAGMENTS, 0, vec![fragment(4)]));
    let longer = Paged::new().with_leaves(|leaves| leaves[2] = page(FRAGMENTS, 0, vec![array![[1; 32], 61]]));
    let both = paged.root().with(&[IN_FRAGMENTS, 1], 7).with(&[IN_FRAGMENTS, 3, 0, 2], 6);
    vec![
        ("one fragment too many is counted", inline().with(&[IN_FRAGMENTS, 1], 7).into()),
        ("one byte too many is counted", inline().with(&[IN_FRAGMENTS, 2], 211).into()),
        ("more bytes than so many fragments can have", inline().with(&[IN_FRAGMENTS, 2], u64::MAX).into()),
        ("one file too few is counted", inline().with(&[IN_FILES, 1], 1).into()),
        ("the pages have more fragments than the list says", changed(&[IN_FRAGMENTS, 1], 5)),
        ("the pages have fewer bytes than the list says", changed(&[IN_FRAGMENTS, 2], 211)),
        ("the pages have more files than the list says", changed(&[IN_FILES, 1], 1)),
        ("a page has fewer fragments than its entry says", paged.under(both)),
        ("a page far down has fewer fragments than its entry says", inside.blocks()),
        ("a page far down has more bytes than its entry says", longer.blocks()),
        ("a page of files has fewer files than its entry says", {
            paged.under(paged.root().with(&[IN_FILES, 1], 3).with(&[IN_FILES, 2, 0, 2], 2))
        }),
        ("a file has another size than its runs", inline().with(&[IN_FILES, 2, 0, 2], 31).into()),
        ("an empty file has a size", inline().with(&[IN_FILES, 2, 0], file("a.m4s", 1, array![])).into()),
    ]
}

fn orders() -> Vec<Named> {
    let Cbor::Array(mut files) = two_files() else { unreachable!("an array") };
    let same = vec![files[0].clone(), files[0].clone()];
    files.swap(0, 1);
    let (paged, mut swapped) = (Paged::new(), Paged::new());
    swapped.files.swap(0, 1);
    let across = swapped.root().with(&[IN_FILES, 2, 0, 3], "b.mp4").with(&[IN_FILES, 2, 1, 3], "a.m4s");
    let nested = page(FILES, 1, vec![entry(&paged.files[1], 1, "b.mp4")]);
    let wrong_above = paged.root().with(&[IN_FILES], array![2, 1, array![entry(&nested, 1, "b.mp3")]]);
    vec![
        ("files that do not ascend", inline().with(&[IN_FILES, 2], files).into()),
        ("a path twice", inline().with(&[IN_FILES, 2], same).into()),
        ("paths that ascend as UTF-16 and not as bytes", utf16_order().into()),
        ("pages of files that do not ascend", swapped.under(across)),
        ("a page that begins with another path", paged.under(paged.root().with(&[IN_FILES, 2, 0, 3], "a.m4r"))),
        ("a page of pages that begins with another path", paged.under(wrong_above).and(&[&nested])),
    ]
}

fn paths() -> Vec<Named> {
    let paged = Paged::new();
    let first = paged.under(paged.root().with(&[IN_FILES, 2, 0, 3], "a//m4s"));
    let mp4 = |entries: &mut Vec<(Cbor, Cbor)>| entries.push((13.into(), "../v.mp4".into()));
    vec![
        ("an empty path", with_path("").into()),
        ("a path of 256 bytes", with_path(&"c".repeat(256)).into()),
        ("a path of 256 bytes and 128 characters", with_path(&"é".repeat(128)).into()),
        ("a leading slash", with_path("/c").into()),
        ("a slash at the end", with_path("c/").into()),
        ("two slashes", with_path("c//d").into()),
        ("a dot", with_path("c/./d").into()),
        ("two dots", with_path("../c").into()),
        ("a backslash", with_path("c\\d").into()),
        ("a question mark", with_path("c?d").into()),
        ("a hash", with_path("c#d").into()),
        ("a zero byte", with_path("c\0d").into()),
        ("a line feed", with_path("c\nd").into()),
        ("a delete", with_path("c\x7f").into()),
        ("a C1 control", with_path("c\u{85}d").into()),
        ("a first path of a page", first),
        ("a playlist", inline().with(&[5, 0, 12], "/v/media.m3u8").into()),
        ("an MP4 of a rendition", inline().with_entries(&[5, 0], mp4).into()),
    ]
}

fn media_types() -> Vec<Named> {
    let with = |text: &str| Blocks::from(inline().with(&[IN_FILES, 2, 1, 1], text));
    vec![
        ("an empty media type", with("")),
        ("a space in a media type", with("video/mp4; a")),
        ("a media type of 128 bytes", with(&"m".repeat(128))),
        ("a media type that is not ASCII", with("vidéo/mp4")),
    ]
}

fn repetitions() -> Vec<Named> {
    let paged = Paged::new();
    let leaf = &paged.leaves[0];
    let both = page(FRAGMENTS, 1, vec![entry(leaf, 3, 60), entry(leaf, 3, 60)]);
    let other = page(FRAGMENTS, 1, vec![entry(leaf, 3, 60)]);
    let across = array![2, 8, 210, array![entry(&paged.middle[0], 5, 150), entry(&other, 3, 60)]];
    let far = Paged::new().with_leaves(|leaves| leaves[1] = page(FRAGMENTS, 0, vec![array![id(1), 40], fragment(5)]));
    vec![
        ("a fragment", index(vec![fragment(1), fragment(1)], 20, array![]).with(&[IN_FILES], no_files()).into()),
        ("a fragment with two lengths", {
            index(vec![fragment(1), array![id(1), 11]], 21, array![]).with(&[IN_FILES], no_files()).into()
        }),
        ("a fragment in two pages", far.blocks()),
        ("a page of files", paged.under(paged.root().with(&[IN_FILES, 2, 1], entry(&paged.files[0], 1, "a.m4s")))),
        ("a page in a page", over_at(2, both, 6, 120).and(&[leaf])),
        ("a page in two pages", paged.under(paged.root().with(&[IN_FRAGMENTS], across)).and(&[&other])),
    ]
}

fn runs() -> Vec<Named> {
    let with = |run: [u64; 3]| {
        let runs = array![array![run[0], run[1], run[2]]];
        Blocks::from(inline().with(&[IN_FILES, 2, 0], file("a.m4s", run[2], runs)))
    };
    vec![
        ("from order 0", with([0, 2, 30])),
        ("of no blocks", with([1, 0, 0])),
        ("beyond the last fragment", with([6, 2, 70])),
        ("from beyond the last fragment", with([7, 1, 70])),
        ("from beyond 32 bits", with([1 << 32, 1, 10])),
        ("of more than 32 bits of blocks", with([1, (1 << 32) + 2, 30])),
        ("with fewer bytes than its fragments", with([1, 2, 29])),
        ("with more bytes than its fragments", with([1, 2, 31])),
        ("with more bytes than so many fragments can have", with([1, 2, u64::MAX])),
    ]
}

fn empty() -> Vec<Named> {
    let paged = Paged::new();
    let root = || paged.root();
    let nothing = page(FRAGMENTS, 0, Vec::new());
    let counts_nothing = array![[5; 32], 20, 0, 0];
    vec![
        (
            "fragments of no pages",
            root().with(&[IN_FRAGMENTS], array![1, 0, 0, array![]]).with(&[IN_FILES], no_files()).into(),
        ),
        ("files of no pages", inline().with(&[IN_FILES], array![1, 0, array![]]).into()),
        ("an entry that counts no fragments", {
            root().with(&[IN_FRAGMENTS], array![1, 0, 0, array![counts_nothing]]).with(&[IN_FILES], no_files()).into()
        }),
        ("a page of nothing", over(nothing, 3, 60)),
    ]
}

fn values() -> Vec<Named> {
    let paged = Paged::new();
    vec![
        ("a rendition of kind 3", inline().with(&[5, 0, 0], 3).into()),
        ("a page of list 2", over(page(2, 0, fragments(1..=3)), 3, 60)),
        ("a page of files among the fragments", over(paged.files[0].clone(), 1, 60)),
    ]
}

const HUGE_ARRAY: &str = "9bffffffffffffffff";

/// An index whose only page of fragments is this one.
fn over(page: Cbor, count: u64, bytes: u64) -> Blocks {
    over_at(1, page, count, bytes)
}

fn over_at(level: u64, page: Cbor, count: u64, bytes: u64) -> Blocks {
    let fragments = array![level, count, bytes, array![entry(&page, count, bytes)]];
    Blocks::from(index_of(fragments, no_files())).and(&[&page])
}

/// One fragment and one file under `level` pages each.
fn chain(level: u64) -> Blocks {
    let one = array![file("a", 10, array![array![1, 1, 10]])];
    let (Cbor::Array(files), mut pages) = (one, Vec::new()) else { unreachable!("an array") };
    let (mut fragments, mut files) = (vec![fragment(1)], files);
    for below in 0..level {
        let (left, right) = (page(FRAGMENTS, below, fragments), page(FILES, below, files));
        (fragments, files) = (vec![entry(&left, 1, 10)], vec![entry(&right, 1, "a")]);
        pages.extend([left, right]);
    }
    let root = index_of(array![level, 1, 10, fragments], array![level, 1, files]);
    Blocks::from(root).and(&pages.iter().collect::<Vec<_>>())
}

fn no_files() -> Cbor {
    array![0, 0, array![]]
}

fn with_path(path: &str) -> Cbor {
    inline().with(&[IN_FILES, 2], array![file(path, 10, array![array![1, 1, 10]])]).with(&[IN_FILES, 1], 1)
}

fn twice(path: &str) -> Cbor {
    file(path, 20, array![array![1, 1, 10], array![1, 1, 10]])
}

fn largest_fragment() -> Cbor {
    let length = 1_048_576;
    index(vec![array![id(1), length]], length, array![]).with(&[IN_FILES], no_files())
}

/// U+10000 is above U+FFFF, and its UTF-16 begins with 0xD800, which is below.
fn utf16_order() -> Cbor {
    let files = ["\u{10000}", "\u{ffee}"].map(|path| file(path, 0, array![]));
    inline().with(&[IN_FILES, 2], files.to_vec())
}

fn boolean_keys() -> Blocks {
    let to_end = |entries: &mut Vec<(Cbor, Cbor)>| {
        for key in [0xf4, 0xf5] {
            let (_, value) = entries.remove(0);
            entries.push((Cbor::Raw(vec![key]), value));
        }
    };
    inline().with_entries(&[], to_end).into()
}

fn is_required(key: &Cbor) -> bool {
    matches!(key, Cbor::Uint(0..=4 | 12))
}

fn id(number: u64) -> [u8; 32] {
    *chunkstore_block::BlockId::of(&number.to_be_bytes()).as_bytes()
}
