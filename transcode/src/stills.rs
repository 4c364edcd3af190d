//! Pictures and the clip that stand for a film: a poster, a storyboard for seeking, a preview. Pure.

use std::fmt::Write as _;
use std::time::Duration;

/// Folder of the work folder where FFmpeg leaves them.
pub(crate) const STILLS_DIR: &str = "stills";
/// The poster's name.
pub(crate) const POSTER: &str = "poster.jpg";
/// The preview's name.
pub(crate) const PREVIEW: &str = "preview.mp4";
/// The list of the storyboard's pictures.
pub(crate) const STORYBOARD: &str = "storyboard.vtt";
/// Folder of the storyboard's sheets.
pub(crate) const STORYBOARD_DIR: &str = "storyboard";
/// Pictures in a row of a sheet, and rows.
pub(crate) const SHEET_SIDE: u32 = 5;

/// The picture that stands for the film.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poster {
    /// The first picture at or after this time.
    pub at: Duration,
    /// Width in pixels, even.
    pub width: u32,
    /// Height in pixels, even.
    pub height: u32,
}

/// Small pictures for seeking, on sheets of 5 by 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storyboard {
    /// Time between two pictures, in whole milliseconds.
    pub every: Duration,
    /// Width of one picture in pixels, even.
    pub width: u32,
    /// Height of one picture in pixels, even.
    pub height: u32,
}

/// Larger posters are not seen on a page of many.
const POSTER_WIDTH: u32 = 1280;
/// Height of the tallest poster, of a film in portrait.
const POSTER_HEIGHT: u32 = 1280;

/// A tenth into the film, past most opening titles.
pub(crate) fn poster(shown: (u32, u32), duration: Duration) -> Poster {
    let (width, height) = fit(shown, POSTER_WIDTH, POSTER_HEIGHT);
    Poster { at: duration / 10, width, height }
}

/// Pictures of a film of usual length.
const PICTURES: u32 = 400;
/// Nearer ones look alike.
const MIN_EVERY: Duration = Duration::from_secs(2);
/// With a longer step one could not find a scene.
const MAX_EVERY: Duration = Duration::from_secs(30);
const PICTURE_WIDTH: u32 = 160;
/// Height of a picture of 9 by 16 and a little more; taller ones become narrower.
const PICTURE_HEIGHT: u32 = 320;

pub(crate) fn storyboard(shown: (u32, u32), duration: Duration) -> Storyboard {
    let (width, height) = fit(shown, PICTURE_WIDTH, PICTURE_HEIGHT);
    let every = (duration / PICTURES).clamp(MIN_EVERY, MAX_EVERY);
    Storyboard { every: Duration::from_millis(every.as_millis() as u64), width, height }
}

/// The largest even size of the same shape in a box, not above the size itself.
fn fit((width, height): (u32, u32), most_width: u32, most_height: u32) -> (u32, u32) {
    let shrink = |most: u32, side: u32| f64::from(most) / f64::from(side.max(1));
    let factor = shrink(most_width, width).min(shrink(most_height, height)).min(1.0);
    let side = |side: u32| ((f64::from(side) * factor / 2.0).round() as u32 * 2).max(2);
    (side(width), side(height))
}

impl Storyboard {
    /// Sheets of a film of `seconds`.
    pub(crate) fn sheets(&self, seconds: f64) -> usize {
        (seconds / self.every.as_secs_f64() / f64::from(SHEET_SIDE * SHEET_SIDE)).ceil() as usize
    }

    /// What a player reads: which rectangle of which sheet shows which time of a film of `seconds`, of which `sheets` were made.
    pub(crate) fn list(&self, seconds: f64, sheets: usize) -> String {
        let every = self.every.as_secs_f64();
        let mut text = "WEBVTT\n".to_owned();
        let on_sheets = sheets as u32 * SHEET_SIDE * SHEET_SIDE;
        let starts = (0..on_sheets).map(|i| (i, f64::from(i) * every)).take_while(|(_, start)| *start < seconds);
        for (i, start) in starts {
            let (sheet, place) = (i / (SHEET_SIDE * SHEET_SIDE) + 1, i % (SHEET_SIDE * SHEET_SIDE));
            let (x, y) = (place % SHEET_SIDE * self.width, place / SHEET_SIDE * self.height);
            let (from, to) = (clock(start), clock((start + every).min(seconds)));
            let _ = write!(
                text,
                "\n{from} --> {to}\n{STORYBOARD_DIR}/{}#xywh={x},{y},{},{}\n",
                sheet_name(sheet),
                self.width,
                self.height
            );
        }
        text
    }
}

/// `0001.jpg`
pub(crate) fn sheet_name(number: u32) -> String {
    format!("{number:04}.jpg")
}

/// `01:02:03.456`
fn clock(seconds: f64) -> String {
    let ms = (seconds * 1000.0).round() as u64;
    format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_keep_their_shape_and_stay_in_their_box() {
        assert_eq!(fit((1920, 1080), 160, 320), (160, 90));
        assert_eq!(fit((1080, 1920), 160, 320), (160, 284));
        assert_eq!(fit((16, 300), 160, 320), (16, 300));
        assert_eq!(fit((100, 1900), 160, 320), (16, 320));
        assert_eq!(fit((3840, 2160), 1280, 1280), (1280, 720));
    }

    #[test]
    fn the_step_grows_with_the_film() {
        let every = |seconds| storyboard((16, 9), Duration::from_secs(seconds)).every.as_millis();
        assert_eq!([every(5), every(800), every(5_400), every(40_000)], [2_000, 2_000, 13_500, 30_000]);
    }

    #[test]
    fn every_moment_has_one_rectangle() {
        let board = Storyboard { every: Duration::from_secs(2), width: 160, height: 90 };
        let list = board.list(53.5, 2);
        assert_eq!(list.matches(" --> ").count(), 27);
        assert!(list.starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nstoryboard/0001.jpg#xywh=0,0,160,90\n\n"));
        assert!(list.contains("00:00:48.000 --> 00:00:50.000\nstoryboard/0001.jpg#xywh=640,360,160,90\n"));
        assert!(list.ends_with("\n00:00:52.000 --> 00:00:53.500\nstoryboard/0002.jpg#xywh=160,0,160,90\n"));
        assert_eq!(board.list(53.5, 1).matches(" --> ").count(), 25);
    }
}
