//! Answers to a person or a script, on standard output; logs go to standard error.

use std::fmt;
use std::io::{self, Write};

/// Writes the whole text. Where nobody reads any more, as `head` after its last line, the rest is left out: it was not wanted, and how the
/// command ends still says what it found.
///
/// The daemon must not end when a connection breaks, so SIGPIPE stays ignored, and a command that prints gets an error for it.
pub(crate) fn print(text: impl fmt::Display) -> io::Result<()> {
    print_to(io::stdout().lock(), text)
}

/// The same with a line's end.
pub(crate) fn line(text: impl fmt::Display) -> io::Result<()> {
    print(format_args!("{text}\n"))
}

fn print_to(mut out: impl Write, text: impl fmt::Display) -> io::Result<()> {
    match out.write_all(text.to_string().as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_and_a_full_disk_is() {
        assert!(print_to(Failing(io::ErrorKind::BrokenPipe), "a line").is_ok());
        assert!(print_to(Failing(io::ErrorKind::StorageFull), "a line").is_err());
        let mut written = Vec::new();
        print_to(&mut written, "a line").unwrap();
        assert_eq!(written, b"a line");
    }
}
