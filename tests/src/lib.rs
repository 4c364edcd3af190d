//! End-to-end tests with real daemons, FFmpeg and a browser.
