//! Probe, plan and run FFmpeg; lay renditions out as files.
