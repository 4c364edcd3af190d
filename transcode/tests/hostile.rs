//! Files that are made to turn FFmpeg against the machine it runs on. Each is refused or comes out as the film it is; no other file
//! is read and nothing is called.
//!
//! The proof: the access time of a secret file (set to long ago, which a read changes also on a `relatime` mount), a listener on
//! 127.0.0.1 that nobody may call, and, where strace runs, what the programs opened and connected to. For the tricks that work on
//! FFmpeg as it comes, the test first shows that it would notice.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{File, FileTimes};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use common::{Done, FAST, PICTURE, Refused, attempt, make};
use tempfile::TempDir;
use transcode::{ErrorKind, Limits, ProbeError, Tools};

/// Nothing here takes longer, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with an upload, a secret beside it, and watchers.
struct Trap {
    dir: TempDir,
    secret: PathBuf,
    listener: TcpListener,
    datagrams: UdpSocket,
    port: u16,
}

impl Trap {
    /// The secret is a film, so that a program that is led to it reads on.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secret =
            make(&dir, "secret.ts", "-f lavfi -i testsrc=s=64x36:r=25:d=1 -c:v libx264 -preset ultrafast PATH");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let datagrams = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        datagrams.set_nonblocking(true).unwrap();
        let trap = Self { dir, secret, listener, datagrams, port };
        trap.write_wrappers();
        trap.arm();
        trap
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/secret.ts", self.port)
    }

    /// Programs that note what they open and connect to, where strace may run.
    fn write_wrappers(&self) {
        for tool in ["ffmpeg", "ffprobe"] {
            let log = self.dir.path().join("strace");
            let trace = format!("strace -f -qq -A -o '{}' -e trace=open,openat,socket,connect,sendto", log.display());
            let script = format!(
                "#!/bin/sh\nif {trace} true 2>/dev/null; then exec {trace} {tool} \"$@\"; fi\nexec {tool} \"$@\"\n"
            );
            let path = self.write(&format!("bin/{tool}"), script);
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn tool(&self, name: &str) -> PathBuf {
        self.dir.path().join("bin").join(name)
    }

    fn limits(&self) -> Limits {
        let tools = Tools { ffmpeg: self.tool("ffmpeg"), ffprobe: self.tool("ffprobe") };
        // The kernel's confinement is left out: the programs are told so that they do not even try.
        Limits { tools, confined: false, ..Limits::default() }
    }

    fn arm(&self) {
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        File::open(&self.secret).unwrap().set_times(FileTimes::new().set_accessed(old)).unwrap();
        std::fs::write(self.dir.path().join("strace"), "").unwrap();
    }

    /// What was touched since the trap was armed.
    fn touched(&self) -> Vec<String> {
        let mut touched = Vec::new();
        let accessed = std::fs::metadata(&self.secret).unwrap().accessed().unwrap();
        if accessed != SystemTime::UNIX_EPOCH + Duration::from_secs(1) {
            touched.push("the secret was read".to_owned());
        }
        if self.listener.accept().is_ok() || self.datagrams.recv(&mut [0; 64]).is_ok() {
            touched.push("the port was called".to_owned());
        }
        let log = std::fs::read_to_string(self.dir.path().join("strace")).unwrap();
        let inet = |line: &&str| line.contains("AF_INET") || (line.contains("open") && line.contains("/secret."));
        touched.extend(log.lines().filter(inet).map(str::to_owned));
        touched
    }

    /// Shows that the trick works on FFmpeg as it comes, and that this would be noticed.
    fn assert_works_unguarded(&self, args: &str, input: &Path) {
        let mut command = Command::new(self.tool("ffmpeg"));
        command.args(["-nostdin", "-v", "error", "-rw_timeout", "300000"]);
        command.args(args.split(' ').filter(|word| !word.is_empty())).arg("-i").arg(input);
        // The listener never answers; a caller gives up after `rw_timeout`. FFmpeg's own end is awaited, so that it touches nothing later.
        command.args(["-t", "1", "-f", "null", "-"]).output().unwrap();
        let touched = self.touched();
        assert!(!touched.is_empty(), "the trick does not work on FFmpeg as it comes: {args} {}", input.display());
        while self.listener.accept().is_ok() {}
        self.arm();
    }

    /// Whether taken or refused, nothing else was touched, and an uploader learns nothing of the node.
    async fn spring(&self, input: &Path) -> Result<Done, Refused> {
        let ended = tokio::time::timeout(PATIENCE, attempt(input, &self.limits())).await;
        let ended = ended.unwrap_or_else(|_| panic!("{} took too long", input.display()));
        assert_eq!(self.touched(), [""; 0], "{}: {:?}", input.display(), ended.as_ref().err());
        ended
    }

    async fn assert_refused(&self, input: &Path) {
        let refused = self.spring(input).await.err().unwrap_or_else(|| panic!("{} was taken", input.display()));
        assert_ne!(refused.kind(), ErrorKind::Internal, "{}: {refused:?}", input.display());
        let sentence = refused.sentence();
        let folder = self.dir.path().display().to_string();
        assert!(!sentence.contains(&folder), "the uploader is told where the node keeps files: {sentence}");
    }
}

fn hls(entry: &str) -> String {
    format!("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-MEDIA-SEQUENCE:0\n{entry}\n#EXT-X-ENDLIST\n")
}

#[tokio::test]
async fn playlists_under_any_name_read_no_file_and_call_nobody() {
    let trap = Trap::new();
    let (secret, url) = (trap.secret.display().to_string(), trap.url());
    let entries = [
        format!("#EXTINF:5,\n{secret}"),
        "#EXTINF:5,\nsecret.ts".to_owned(),
        format!("#EXTINF:5,\nfile://{secret}"),
        format!("#EXTINF:5,\n{url}"),
        format!("#EXTINF:5,\nconcat:{url}|file:{secret}"),
        format!("#EXTINF:5,\nsubfile,,start,0,end,0,,:{secret}"),
        format!("#EXT-X-MAP:URI=\"{secret}\"\n#EXTINF:5,\n{url}"),
        format!("#EXT-X-KEY:METHOD=AES-128,URI=\"{secret}\"\n#EXTINF:5,\n{secret}"),
        format!("#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}"),
    ];
    let open = "-allowed_extensions ALL -protocol_whitelist file,http,tcp,crypto,concat,subfile";
    trap.assert_works_unguarded(open, &trap.write("first.m3u8", hls(&entries[0])));
    trap.assert_works_unguarded(open, &trap.write("fourth.m3u8", hls(&entries[3])));
    for (i, entry) in entries.iter().enumerate() {
        let extension = ["mp4", "avi", "m3u8", "mkv", "ts"][i % 5];
        trap.assert_refused(&trap.write(&format!("list{i}.{extension}"), hls(entry))).await;
    }
    trap.assert_refused(&trap.write("without-a-name", hls(&entries[0]))).await;
}

#[tokio::test]
async fn lists_of_other_kinds_read_no_file_and_call_nobody() {
    let trap = Trap::new();
    let (secret, url) = (trap.secret.display().to_string(), trap.url());
    let concat = format!("ffconcat version 1.0\nfile '{secret}'\n");
    trap.assert_works_unguarded("-safe 0", &trap.write("concat.mp4", &concat));
    // The same file under the name that a list of pictures of words looks for.
    std::fs::hard_link(&trap.secret, trap.dir.path().join("words.sub")).unwrap();
    let lists = [
        ("concat.mp4", concat),
        ("concat.mkv", format!("ffconcat version 1.0\nfile '{url}'\n")),
        (
            "sdp.mp4",
            format!(
                "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
                trap.port
            ),
        ),
        (
            "dash.mp4",
            format!(
                "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" profiles=\"urn:mpeg:dash:profile:isoff-on-demand:2011\" \
                 type=\"static\" mediaPresentationDuration=\"PT5S\"><Period><AdaptationSet mimeType=\"video/mp2t\"><Representation id=\"1\" \
                 bandwidth=\"1\"><BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>"
            ),
        ),
        (
            "words.idx",
            "# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:01:000, filepos: 000000000\n".to_owned(),
        ),
        ("asx.asf", format!("<ASX version=\"3.0\"><Entry><Ref href=\"{url}\"/></Entry></ASX>")),
        ("reference.asf", format!("[Reference]\nRef1={url}\n")),
        ("rtsp.mov", format!("RTSPtextrtsp://127.0.0.1:{}/secret\n", trap.port)),
        ("pls.mp4", format!("[playlist]\nFile1={secret}\n")),
        (
            "quicktime.mov",
            format!(
                "<?xml version=\"1.0\"?><?quicktime type=\"application/x-quicktime-media-link\"?><embed src=\"{url}\"/>"
            ),
        ),
        ("smil.mp4", format!("<smil><body><video src=\"{url}\"/></body></smil>")),
    ];
    for (name, list) in lists {
        trap.assert_refused(&trap.write(name, list)).await;
    }
}

/// The index of an AVI can say that a stream is text, and its text be a playlist that FFmpeg opened as a film of its own (2016).
#[tokio::test]
async fn a_playlist_inside_an_avi_stays_closed() {
    let trap = Trap::new();
    let args = format!("{PICTURE} -f lavfi -i sine=440:d=5 -t 2 -c:v mpeg4 -c:a pcm_s16le PATH");
    let mut avi = std::fs::read(make(&trap.dir, "plain.avi", &args)).unwrap();
    for (entry, name) in [(trap.secret.display().to_string(), "file.avi"), (trap.url(), "url.avi")] {
        let list = hls(&format!("#EXTINF:5,\n{entry}"));
        let mut text = b"GAB2\0\x02\0\0\0\0\0\x04\0".to_vec();
        text.extend((list.len() as u32).to_le_bytes());
        text.extend(list.as_bytes());
        replace_all(&mut avi, b"auds", b"txts");
        // The index at the end names the chunks as well.
        for at in places(&avi, b"01wb").into_iter().chain(places(&avi, b"01tx")) {
            avi[at + 2..at + 4].copy_from_slice(b"tx");
            let size = u32::from_le_bytes(avi[at + 4..at + 8].try_into().unwrap()) as usize;
            if let Some(chunk) = avi.get_mut(at + 8..at + 8 + size).filter(|chunk| chunk.len() >= text.len()) {
                chunk.fill(b'\n');
                chunk[..text.len()].copy_from_slice(&text);
            }
        }
        if let Err(refused) = trap.spring(&trap.write(name, &avi)).await {
            assert_ne!(refused.kind(), ErrorKind::Internal, "{refused:?}");
        }
    }
}

fn places(bytes: &[u8], sign: &[u8]) -> Vec<usize> {
    (0..bytes.len().saturating_sub(sign.len())).filter(|at| bytes[*at..].starts_with(sign)).collect()
}

fn replace_all(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    for at in places(bytes, old) {
        bytes[at..at + new.len()].copy_from_slice(new);
    }
}

/// The name is never taken for a pattern, a protocol or an option.
#[tokio::test]
async fn names_mean_nothing() {
    let trap = Trap::new();
    let film = std::fs::read(make(&trap.dir, "film.mp4", &format!("{PICTURE} {FAST} -t 1 PATH"))).unwrap();
    // What a pattern would find in place of the film.
    let pictures = "-f lavfi -i testsrc=s=64x36 -frames:v 3 PATH";
    make(&trap.dir, "picture%d.png", pictures);
    std::fs::rename(trap.dir.path().join("picture1.png"), trap.dir.path().join("secret.png")).unwrap();
    std::os::unix::fs::symlink(trap.dir.path().join("secret.png"), trap.dir.path().join("picture1.png")).unwrap();
    let names = [
        "picture%d.png",
        "%d.mp4",
        "*.png",
        "-i.mp4",
        "-version",
        "file:film.mp4",
        "http:film.mp4",
        "concat:a|b.mp4",
        "crypto:film.mp4",
        "data:,film.mp4",
        "pipe:0",
        "fd:3",
        "subfile,,start,0,end,0,,:film.mp4",
        "two\nlines.mp4",
        "quote'\" \\.mp4",
        "$(touch secret).mp4",
    ];
    for name in names {
        let done = trap.spring(&trap.write(&format!("names/{name}"), &film)).await;
        // FFmpeg looks at nothing but the name where a pattern could stand for numbered pictures.
        if let (Err(Refused::Probe(ProbeError::NotAVideo(_))), true) = (&done, name.ends_with(".png")) {
            continue;
        }
        let done = done.unwrap_or_else(|refused| panic!("{name}: {refused:?}"));
        assert_eq!((done.plan.rungs[0].width, done.plan.rungs[0].height), (320, 180), "{name}");
    }
}

/// Paths that are addresses to FFmpeg name no file, and are not opened in another way.
#[tokio::test]
async fn addresses_are_no_paths() {
    let trap = Trap::new();
    let (secret, url) = (trap.secret.display().to_string(), trap.url());
    trap.assert_works_unguarded("", Path::new(&url));
    trap.assert_works_unguarded("", Path::new(&format!("concat:{secret}|{secret}")));
    let addresses = [
        url.clone(),
        format!("file:{secret}"),
        format!("concat:{secret}|{secret}"),
        format!("subfile,,start,0,end,0,,:{secret}"),
        format!("crypto:{secret}"),
        format!("cache:{secret}"),
        format!("async:{secret}"),
        format!("hls+{url}"),
        format!("tcp://127.0.0.1:{}", trap.port),
        format!("udp://127.0.0.1:{}", trap.port),
        format!("unix:{secret}"),
        "data:video/mp4;base64,AAAA".to_owned(),
        "pipe:0".to_owned(),
        "-".to_owned(),
        "-i".to_owned(),
    ];
    for address in addresses {
        let refused = trap.spring(Path::new(&address)).await.err().unwrap();
        assert!(matches!(refused, Refused::Probe(ProbeError::Internal { .. })), "{address}: {refused:?}");
    }
}

/// A box with the boxes that contain it grown by as much; `path` leads to it.
fn replace_box(bytes: &[u8], path: &[&[u8; 4]], with: &[u8]) -> Vec<u8> {
    let (kind, rest) = path.split_first().unwrap();
    let mut out = Vec::new();
    let mut at = 0;
    while at + 8 <= bytes.len() {
        let size = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let whole = &bytes[at..at + size];
        if &whole[4..8] == kind.as_slice() {
            let body = if rest.is_empty() { with.to_vec() } else { replace_box(&whole[8..], rest, with) };
            out.extend((body.len() as u32 + 8).to_be_bytes());
            out.extend(kind.as_slice());
            out.extend(body);
        } else {
            out.extend(whole);
        }
        at += size;
    }
    out
}

/// A data reference (ISO 14496-12 §8.7.2, QuickTime alias records) that says that the samples are in another file.
fn data_reference(kind: &[u8; 4], record: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0, 0, 0, 0, 1];
    body.extend((record.len() as u32 + 12).to_be_bytes());
    body.extend(kind);
    body.extend([0; 4]);
    body.extend(record);
    body
}

/// The old Macintosh record, with an absolute path (tag 2).
fn alias(path: &str) -> Vec<u8> {
    let mut record = vec![0; 150];
    let (levels_from, levels_to) = (130, 132);
    (record[levels_from + 1], record[levels_to + 1]) = (1, 1);
    record.extend([0, 2]);
    record.extend((path.len() as u16).to_be_bytes());
    record.extend(path.as_bytes());
    if path.len() % 2 == 1 {
        record.push(0);
    }
    record.extend([0xff, 0xff, 0, 0]);
    record
}

#[tokio::test]
async fn samples_in_other_files_are_not_fetched() {
    let trap = Trap::new();
    let film = std::fs::read(make(&trap.dir, "film.mov", &format!("{PICTURE} {FAST} -t 2 PATH"))).unwrap();
    let secret = trap.secret.display().to_string();
    let path: [&[u8; 4]; 6] = [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"];
    let with_alias = replace_box(&film, &path, &data_reference(b"alis", &alias(&secret)));
    let input = trap.write("alias.mov", &with_alias);
    trap.assert_works_unguarded("-enable_drefs 1", &input);
    let records = [
        (b"alis", alias(&secret)),
        (b"alis", alias("secret.ts")),
        (b"alis", alias(&trap.url())),
        (b"url ", format!("{secret}\0").into_bytes()),
        (b"url ", format!("file://{secret}\0").into_bytes()),
        (b"url ", format!("{}\0", trap.url()).into_bytes()),
        (b"urn ", format!("{secret}\0{secret}\0").into_bytes()),
        (b"rsrc", alias(&secret)),
    ];
    for (i, (kind, record)) in records.iter().enumerate() {
        let film = replace_box(&film, &path, &data_reference(kind, record));
        if let Err(refused) = trap.spring(&trap.write(&format!("reference{i}.mov"), film)).await {
            assert_ne!(refused.kind(), ErrorKind::Internal, "{i}: {refused:?}");
        }
    }
}

/// A bit string as H.264 writes its headers (ITU-T H.264 §9.1).
#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn fixed(&mut self, value: u32, bits: u32) {
        self.0.extend((0..bits).rev().map(|bit| value >> bit & 1 == 1));
    }

    fn golomb(&mut self, value: u32) {
        let bits = u32::BITS - (value + 1).leading_zeros();
        self.fixed(0, bits - 1);
        self.fixed(value + 1, bits);
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0.push(true);
        self.0
            .chunks(8)
            .map(|byte| (0..8).fold(0, |sum, bit| sum << 1 | u8::from(byte.get(bit) == Some(&true))))
            .collect()
    }
}

/// A sequence parameter set of the baseline profile for a picture of so many macroblocks.
fn parameter_set(columns: u32, rows: u32) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.fixed(0x67, 8);
    [66, 0xc0, 62].into_iter().for_each(|byte| bits.fixed(byte, 8));
    // Its number, 16 frame numbers, order of decoding, one reference.
    [0, 0, 2, 1].into_iter().for_each(|value| bits.golomb(value));
    bits.fixed(0, 1);
    bits.golomb(columns - 1);
    bits.golomb(rows - 1);
    // Frames only, no finer motion, not cropped, nothing about display.
    bits.fixed(0b1100, 4);
    bits.bytes()
}

fn with_parameter_set(annex_b: &[u8], set: &[u8]) -> Vec<u8> {
    let starts = places(annex_b, b"\0\0\x01");
    let mut out = Vec::new();
    for (i, start) in starts.iter().enumerate() {
        let unit = &annex_b[start + 3..starts.get(i + 1).copied().unwrap_or(annex_b.len())];
        out.extend(b"\0\0\0\x01");
        out.extend(if unit[0] & 31 == 7 { set } else { unit });
    }
    out
}

#[tokio::test]
async fn pictures_of_900_and_256_megapixels_are_not_decoded() {
    let trap = Trap::new();
    let raw = make(
        &trap.dir,
        "raw.h264",
        "-f lavfi -i testsrc=s=320x180:r=25:d=1 -c:v libx264 -profile:v baseline -pix_fmt yuv420p PATH",
    );
    let raw = std::fs::read(raw).unwrap();
    // FFmpeg knows no picture of the first size. The second is one that it would decode, and above our limit.
    for (side, name) in [(30_000, "unknown.ts"), (16_000, "huge.ts"), (16_000, "huge.mp4")] {
        let huge = trap.write("huge.h264", with_parameter_set(&raw, &parameter_set(side / 16, side / 16)));
        let args = format!("-v error -y -fflags +genpts -i {} -c copy -bsf:v setts=ts=N*48000 PATH", huge.display());
        let path = trap.dir.path().join(name);
        let made = common::tool("ffmpeg", &args, &path);
        assert!(made.status.success(), "{name}: {}", String::from_utf8_lossy(&made.stderr));
        let refused = trap.spring(&path).await.err().unwrap();
        let too_large = matches!(refused, Refused::Probe(ProbeError::TooLarge { .. }));
        assert!(too_large || side == 30_000 && refused.kind() == ErrorKind::VideoDamaged, "{name}: {refused:?}");
    }
}

/// The check sum of PNG's chunks (ISO 15948 annex D).
fn crc(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xedb8_8320 * (crc & 1))))
}

/// The container says 320 x 180, and the pictures in it say 30,000 x 30,000.
#[tokio::test]
async fn a_container_that_plays_its_pictures_down_is_not_believed() {
    let trap = Trap::new();
    for name in ["png.mov", "png.avi", "png.mkv"] {
        let args = "-f lavfi -i testsrc=s=320x180:r=25:d=1 -c:v png PATH";
        let mut film = std::fs::read(make(&trap.dir, &format!("plain-{name}"), args)).unwrap();
        for at in places(&film, b"IHDR") {
            film[at + 4..at + 8].copy_from_slice(&30_000u32.to_be_bytes());
            film[at + 8..at + 12].copy_from_slice(&30_000u32.to_be_bytes());
            let sum = crc(&film[at..at + 17]);
            film[at + 17..at + 21].copy_from_slice(&sum.to_be_bytes());
        }
        trap.assert_refused(&trap.write(name, film)).await;
    }
}

/// Some bytes a picture, and each as large as the limit allows nothing of.
#[tokio::test]
async fn pictures_that_are_larger_than_their_bytes_let_expect_are_refused_before_they_are_decoded() {
    let trap = Trap::new();
    let limits = Limits { max_pixels: 640 * 360, ..trap.limits() };
    for (name, codec) in [("bomb.avi", "zmbv"), ("bomb.mov", "qtrle"), ("bomb.mkv", "png")] {
        let film = make(&trap.dir, name, &format!("-f lavfi -i color=s=4000x3000:r=25:d=0.2 -c:v {codec} PATH"));
        let started = Instant::now();
        let refused = attempt(&film, &limits).await.err().unwrap();
        assert!(matches!(refused, Refused::Probe(ProbeError::TooLarge { .. })), "{name}: {refused:?}");
        assert!(started.elapsed() < PATIENCE / 4);
    }
}

/// QuickTime can hold its table of contents packed. This one says that it takes 2 GB.
#[tokio::test]
async fn a_packed_table_of_contents_that_is_larger_than_the_memory_is_refused() {
    let trap = Trap::new();
    let limits = Limits { max_memory_bytes: 1 << 30, ..trap.limits() };
    // An empty zlib stream (RFC 1950).
    let packed = [&0x7fff_ff00u32.to_be_bytes()[..], &[0x78, 0x9c, 0x03, 0, 0, 0, 0, 1]].concat();
    let mut film = Vec::new();
    let boxed = |kind: &[u8; 4], body: &[u8]| [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat();
    let contents = [boxed(b"dcom", b"zlib"), boxed(b"cmvd", &packed)].concat();
    film.extend(boxed(b"ftyp", b"qt  \0\0\0\0qt  "));
    film.extend(boxed(b"moov", &boxed(b"cmov", &contents)));
    let refused = attempt(&trap.write("packed.mov", film), &limits).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::VideoDamaged, "{refused:?}");
}

/// A minute of film that says that it lasts a second, taken where 10 s are the limit.
async fn attempt_lie() -> Result<Done, Refused> {
    let trap = Trap::new();
    let source = "-f lavfi -i testsrc=s=64x36:r=25:d=60 -c:v libx264 -preset ultrafast PATH";
    let mut film = std::fs::read(make(&trap.dir, "honest.mkv", source)).unwrap();
    // Duration (RFC 9559 §5.1.2.10), a double of milliseconds, and the stream's own tag.
    let at = places(&film, b"\x44\x89\x88")[0] + 3;
    film[at..at + 8].copy_from_slice(&1000f64.to_be_bytes());
    replace_all(&mut film, b"00:01:00.", b"00:00:01.");
    let limits = Limits { max_duration: Duration::from_secs(10), ..trap.limits() };
    attempt(&trap.write("lie.mkv", film), &limits).await
}

#[tokio::test]
async fn a_film_that_says_it_is_short_ends_at_the_limit() {
    match attempt_lie().await {
        Ok(done) => assert!(done.layout.duration_ms <= 11_100, "{} ms", done.layout.duration_ms),
        Err(refused) => assert_ne!(refused.kind(), ErrorKind::Internal, "{refused:?}"),
    }
}

/// Nothing is published short.
#[tokio::test]
async fn a_film_that_says_it_is_short_is_refused_rather_than_cut() {
    assert_eq!(attempt_lie().await.err().map(|refused| refused.kind()), Some(ErrorKind::VideoUnsupported));
}

/// Somebody writes on while the film is read.
#[tokio::test]
async fn a_file_that_never_ends_is_ended_at_the_limit() {
    let trap = Trap::new();
    let film =
        make(&trap.dir, "endless.ts", "-f lavfi -i testsrc=s=64x36:r=25:d=3 -c:v libx264 -preset ultrafast PATH");
    let part = std::fs::read(&film).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (film, done) = (film.clone(), done.clone());
        move || {
            // Faster than it is decoded, and not so fast that it fills the disk.
            while !done.load(Ordering::Relaxed) {
                std::io::Write::write_all(&mut File::options().append(true).open(&film).unwrap(), &part).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let limits = Limits { max_duration: Duration::from_secs(30), ..trap.limits() };
    let ended = tokio::time::timeout(PATIENCE, attempt(&film, &limits)).await;
    done.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    match ended.unwrap() {
        Ok(done) => assert!(done.layout.duration_ms <= 31_100, "{} ms", done.layout.duration_ms),
        Err(refused) => assert_ne!(refused.kind(), ErrorKind::Internal, "{refused:?}"),
    }
}
