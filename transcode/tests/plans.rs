//! Which renditions each kind of source gets.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use transcode::{AudioStream, Ladder, Rational, Source, VideoStream, plan};

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
            pix_fmt: "yuv420p".to_owned(),
            sar: Rational::new(1, 1).unwrap(),
            interlaced: false,
            duration: None,
        },
        audio: None,
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
fn sound_is_planned_only_where_there_is_some() {
    let mut film = source(320, 240);
    assert_eq!(plan(&film, &Ladder::default()).audio, None);
    film.audio = Some(AudioStream {
        index: 2,
        codec: "ac3".to_owned(),
        channels: 6,
        sample_rate: 44_100,
        language: Some("de".to_owned()),
    });
    let audio = plan(&film, &Ladder::default()).audio.unwrap();
    assert_eq!(
        (audio.index, audio.channels, audio.sample_rate, audio.bps, audio.language.as_deref()),
        (2, 2, 48_000, 128_000, Some("de"))
    );
}
