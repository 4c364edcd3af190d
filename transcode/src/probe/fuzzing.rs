//! ffprobe's answer, of a fuzzer.

use super::{Answer, check_duration, check_size, describe};
use crate::limits::Limits;
use crate::{Ladder, plan};

/// What is not refused can be planned for.
pub fn answer(json: &[u8], stderr: &str) {
    let Ok(answer) = serde_json::from_slice::<Answer>(json) else { return };
    let Ok(source) = describe(&answer, stderr) else { return };
    let limits = Limits::default();
    if check_size(&source.video, &limits).is_ok() && check_duration(source.duration, &limits).is_ok() {
        plan(&source, &Ladder::default());
    }
}
