//! The HLS playlists (RFC 8216), written by us: FFmpeg's lack average bandwidths, frame rates and channels.

use std::fmt::Write as _;

use crate::layout::{Rendition, RenditionKind};
use crate::output::{Track, segment_name};

/// `EXT-X-MAP` in a playlist with segments needs version 6; 7 is what fMP4 players know (RFC 8216 §7).
const VERSION: u32 = 7;
/// Group that every video rendition takes its sound from.
const AUDIO_GROUP: &str = "audio";
/// Group of the subtitles, the same for every video rendition.
const TEXT_GROUP: &str = "subs";

/// The media playlist of one rendition. URIs are relative, so that a temporary URL's token carries over.
pub(crate) fn media(track: &Track) -> String {
    let seconds: Vec<f64> = track.segments.iter().map(|s| track.segment_seconds(s)).collect();
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:{VERSION}\n#EXT-X-TARGETDURATION:{}\n#EXT-X-MEDIA-SEQUENCE:1\n#EXT-X-PLAYLIST-TYPE:VOD\n\
         #EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"init.mp4\"\n",
        target(&seconds)
    );
    for (seconds, number) in seconds.iter().zip(1u32..) {
        let _ = write!(text, "#EXTINF:{seconds:.6},\n{}\n", segment_name(number));
    }
    text.push_str("#EXT-X-ENDLIST\n");
    text
}

/// The media playlist of one file that lasts as long as the film. Subtitles may have another target duration than the segments of
/// picture and sound (§6.2.1). Their times count from 0, as ours do, so that no `X-TIMESTAMP-MAP` is needed (§3.5).
pub(crate) fn whole(file: &str, seconds: f64) -> String {
    format!(
        "#EXTM3U\n#EXT-X-VERSION:{VERSION}\n#EXT-X-TARGETDURATION:{}\n#EXT-X-MEDIA-SEQUENCE:1\n#EXT-X-PLAYLIST-TYPE:VOD\n\
         #EXTINF:{seconds:.6},\n{file}\n#EXT-X-ENDLIST\n",
        target(&[seconds])
    )
}

/// No segment, rounded to whole seconds, may be longer (§4.3.3.1).
fn target(seconds: &[f64]) -> u64 {
    seconds.iter().fold(0.0f64, |most, s| most.max(s.round())).max(1.0) as u64
}

/// The master playlist. The first variant is where players start, so it is one that most lines carry; then best first.
pub(crate) fn master(renditions: &[Rendition]) -> String {
    let of = |kind: RenditionKind| -> Vec<&Rendition> { renditions.iter().filter(|r| r.kind == kind).collect() };
    let (video, audio, text) = (of(RenditionKind::Video), of(RenditionKind::Audio), of(RenditionKind::Text));
    let mut list = format!("#EXTM3U\n#EXT-X-VERSION:{VERSION}\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    audio.iter().enumerate().for_each(|(i, rendition)| list.push_str(&audio_line(rendition, i == 0)));
    text.iter().for_each(|rendition| list.push_str(&text_line(rendition)));
    let first = start(&video);
    let rest = video.iter().enumerate().filter(|(i, _)| *i != first).map(|(_, r)| *r);
    for rendition in video.get(first).copied().into_iter().chain(rest) {
        list.push_str(&variant(rendition, &audio, &text));
    }
    list
}

/// Apple's authoring specification asks for a first variant of about 2 Mbit/s.
const START_BPS: u64 = 2_000_000;

fn start(video: &[&Rendition]) -> usize {
    video.iter().position(|r| r.average_bps <= START_BPS).unwrap_or(video.len().saturating_sub(1))
}

fn audio_line(audio: &Rendition, is_default: bool) -> String {
    format!(
        "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{AUDIO_GROUP}\",{}DEFAULT={},AUTOSELECT=YES,CHANNELS=\"{}\",URI=\"{}\"\n",
        name_and_language(audio),
        if is_default { "YES" } else { "NO" },
        audio.channels.unwrap_or(2),
        audio.playlist
    )
}

fn text_line(text: &Rendition) -> String {
    format!(
        "#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID=\"{TEXT_GROUP}\",{}DEFAULT=NO,AUTOSELECT=YES,{}URI=\"{}\"\n",
        name_and_language(text),
        if text.forced { "FORCED=YES," } else { "" },
        text.playlist
    )
}

fn name_and_language(rendition: &Rendition) -> String {
    let name = rendition.label.as_ref().unwrap_or(&rendition.name);
    let language = rendition.language.as_ref().map(|l| format!("LANGUAGE=\"{l}\",")).unwrap_or_default();
    format!("NAME=\"{name}\",{language}")
}

/// Bandwidths are those of the picture with the costliest sound (§4.3.4.2).
fn variant(video: &Rendition, audio: &[&Rendition], text: &[&Rendition]) -> String {
    let with_audio = |of: fn(&Rendition) -> u64| of(video) + audio.iter().map(|r| of(r)).max().unwrap_or(0);
    let codecs: Vec<&str> = [Some(&video), audio.first()].into_iter().flatten().map(|r| r.codecs.as_str()).collect();
    let mut line = format!(
        "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"{}\"",
        with_audio(|r| r.peak_bps),
        with_audio(|r| r.average_bps),
        codecs.join(",")
    );
    if let Some((width, height)) = video.size {
        let _ = write!(line, ",RESOLUTION={width}x{height}");
    }
    if let Some(fps) = video.fps {
        let _ = write!(line, ",FRAME-RATE={:.3}", fps.value());
    }
    if !audio.is_empty() {
        let _ = write!(line, ",AUDIO=\"{AUDIO_GROUP}\"");
    }
    if !text.is_empty() {
        let _ = write!(line, ",SUBTITLES=\"{TEXT_GROUP}\"");
    }
    format!("{line}\n{}\n", video.playlist)
}
