//! Which renditions each kind of source gets.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use transcode::{AudioStream, Hdr, Ladder, Rational, Source, SubtitleStream, VideoStream, plan};

fn source(width: u32, height: u32) -> Source {
    Source {
        container: "mov".to_owned(),
        duration: Duration::from_secs(60),
        video: VideoStream {
            index: 0,
            codec: "h264".to_owned(),
            width,
            height,
            rotation: 0,
            fps: Rational::new(25, 1),
            still: false,
            pix_fmt: "yuv420p".to_owned(),
            hdr: None,
            sar: Rational::new(1, 1).unwrap(),
            interlaced: false,
            duration: None,
        },
        audio: Vec::new(),
        subtitles: Vec::new(),
    }
}

fn rungs(source: &Source) -> String {
    let plan = plan(source, &Ladder::default());
    plan.rungs
        .iter()
        .map(|r| format!("{} {}x{} {}k {}", r.name, r.width, r.height, r.max_bps / 1000, r.profile))
        .collect::<Vec<_>>()
        .join(", ")
}

#[test]
fn sizes() {
    let cases = [
        (
            3840,
            2160,
            "1080p 1920x1080 5500k high, 720p 1280x720 3000k high, 480p 854x480 1400k main, 240p 426x240 400k main",
        ),
        (
            1920,
            1080,
            "1080p 1920x1080 5500k high, 720p 1280x720 3000k high, 480p 854x480 1400k main, 240p 426x240 400k main",
        ),
        (1280, 720, "720p 1280x720 3000k high, 480p 854x480 1400k main, 240p 426x240 400k main"),
        (
            1080,
            1920,
            "1080p 1080x1920 5500k high, 720p 720x1280 3000k high, 480p 480x854 1400k main, 240p 240x426 400k main",
        ),
        (
            1936,
            1088,
            "1080p 1922x1080 5500k high, 720p 1282x720 3000k high, 480p 854x480 1400k main, 240p 428x240 400k main",
        ),
        (
            1938,
            1090,
            "1080p 1920x1080 5500k high, 720p 1280x720 3000k high, 480p 854x480 1400k main, 240p 426x240 400k main",
        ),
        (
            1920,
            1200,
            "1080p 1728x1080 5500k high, 720p 1152x720 3000k high, 480p 768x480 1400k main, 240p 384x240 400k main",
        ),
        (
            1920,
            800,
            "800p 1920x800 3555k high, 480p 1152x480 1400k main, 360p 864x360 800k main, 240p 576x240 400k main",
        ),
        (
            1280,
            730,
            "730p 1280x730 3069k high, 480p 842x480 1400k main, 360p 632x360 800k main, 240p 420x240 400k main",
        ),
        (854, 500, "500p 854x500 1533k high, 360p 614x360 800k main, 240p 410x240 400k main"),
        (480, 352, "352p 480x352 773k main, 240p 328x240 400k main"),
        (320, 240, "240p 320x240 400k main, 120p 160x120 100k main"),
        (346, 260, "260p 346x260 466k main, 130p 174x130 117k main"),
        (317, 243, "242p 316x242 406k main, 120p 156x120 100k main"),
        (16, 16, "16p 16x16 100k main, 8p 8x8 100k main"),
    ];
    for (width, height, expected) in cases {
        assert_eq!(rungs(&source(width, height)), expected, "{width}x{height}");
    }
}

#[test]
fn a_turned_anamorphic_picture_is_planned_as_it_is_shown() {
    let mut dvd = source(720, 576);
    dvd.video.sar = Rational::new(64, 45).unwrap();
    assert!(rungs(&dvd).starts_with("576p 1024x576 "), "{}", rungs(&dvd));
    dvd.video.rotation = 270;
    assert!(rungs(&dvd).starts_with("576p 576x1024 "), "{}", rungs(&dvd));
}

#[test]
fn there_are_never_fewer_than_two_rungs_nor_larger_ones_than_the_source() {
    for short in 16..2200 {
        let plan = plan(&source(short * 16 / 9, short), &Ladder::default());
        assert!(plan.rungs.len() >= 2);
        for rung in &plan.rungs {
            assert!(
                rung.height <= short && rung.width <= short * 16 / 9 + 2 && rung.width % 2 + rung.height % 2 == 0,
                "{rung:?}"
            );
        }
        assert!(plan.rungs.windows(2).all(|w| w[0].height > w[1].height && w[0].max_bps >= w[1].max_bps));
    }
}

#[test]
fn a_cover_gets_two_small_rungs_and_a_dynamic_range_is_kept_in_mind() {
    let mut cover = source(3000, 3000);
    cover.video.still = true;
    assert_eq!(rungs(&cover), "720p 720x720 3000k high, 240p 240x240 400k main");
    let planned = plan(&cover, &Ladder::default());
    assert_eq!((planned.fps, planned.storyboard), (Rational::new(2, 1).unwrap(), None));
    assert_eq!((planned.poster.width, planned.poster.height), (1280, 1280));
    let mut hdr = source(3840, 2160);
    hdr.video.hdr = Some(Hdr::Pq);
    let planned = plan(&hdr, &Ladder::default());
    assert_eq!((planned.hdr, planned.rungs[0].height), (Some(Hdr::Pq), 1080));
}

#[test]
fn pictures_for_seeking_follow_shape_and_length() {
    let mut film = source(1080, 1920);
    film.duration = Duration::from_secs(5_400);
    let planned = plan(&film, &Ladder::default());
    assert_eq!((planned.poster.at.as_secs(), planned.poster.width, planned.poster.height), (540, 720, 1280));
    let board = planned.storyboard.unwrap();
    assert_eq!((board.every.as_millis(), board.width, board.height), (13_500, 160, 284));
}

fn audio(index: u32, channels: u32, language: Option<&str>) -> AudioStream {
    AudioStream {
        index,
        codec: "ac3".to_owned(),
        channels,
        sample_rate: 44_100,
        language: language.map(str::to_owned),
        commentary: false,
    }
}

#[test]
fn sound_is_planned_only_where_there_is_some() {
    let mut film = source(320, 240);
    assert_eq!(plan(&film, &Ladder::default()).audio, []);
    film.audio = vec![audio(2, 6, Some("de"))];
    let plan = plan(&film, &Ladder::default());
    let audio = &plan.audio[0];
    assert_eq!(
        (audio.index, audio.channels, audio.sample_rate, audio.bps, audio.language.as_deref()),
        (2, 2, 48_000, 128_000, Some("de"))
    );
    assert_eq!((audio.name.as_str(), audio.folder.as_str()), ("audio-de", "audio"));
}

#[test]
fn every_language_has_a_name_and_a_folder_of_its_own() {
    let mut film = source(320, 240);
    film.audio = vec![
        audio(1, 2, Some("en")),
        audio(2, 1, Some("de")),
        AudioStream { commentary: true, ..audio(3, 2, Some("en")) },
        audio(4, 2, None),
        audio(5, 2, Some("en-2")),
        audio(6, 2, None),
    ];
    let planned = plan(&film, &Ladder::default()).audio;
    let names: Vec<_> = planned.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["audio-en", "audio-de", "audio-en-2", "audio", "audio-en-2-2", "audio-2"]);
    assert!(planned.iter().all(|a| a.folder == a.name));
    let labels: Vec<_> = planned.iter().map(|a| a.label.as_str()).collect();
    assert_eq!(labels, ["English", "Deutsch", "English (commentary)", "Audio", "English (2)", "Audio 2"]);
    assert_eq!((planned[1].channels, planned[1].bps), (1, 64_000));
}

#[test]
fn subtitles_are_told_apart() {
    let mut film = source(320, 240);
    let text = |index: u32, language: Option<&str>| SubtitleStream {
        index,
        codec: "subrip".to_owned(),
        language: language.map(str::to_owned),
        forced: false,
        hearing_impaired: false,
    };
    film.subtitles = vec![
        text(2, Some("en")),
        SubtitleStream { forced: true, ..text(3, Some("en")) },
        SubtitleStream { hearing_impaired: true, ..text(4, Some("en")) },
        text(5, None),
    ];
    let planned = plan(&film, &Ladder::default()).subtitles;
    let names: Vec<_> = planned.iter().map(|s| (s.name.as_str(), s.label.as_str())).collect();
    assert_eq!(
        names,
        [("sub-en", "English"), ("sub-en-2", "English (forced)"), ("sub-en-3", "English (SDH)"), ("sub", "Subtitles")]
    );
    assert!(planned[1].forced && !planned[0].forced);
}
